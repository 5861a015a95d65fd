//! Metrics and status of each pod by name. Nothing balances between them: each tells of itself.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::asset_forwarder::names::{self, Identity};

pub(super) fn service(identity: &Identity) -> Service {
    Service {
        metadata: identity.child(identity.name.clone()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // A pod that is not ready is just the one whose metrics are wanted.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![ServicePort {
                name: Some(names::PORT_NAME.to_owned()),
                port: i32::from(names::PORT),
                target_port: Some(IntOrString::String(names::PORT_NAME.to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            selector: Some(identity.selector()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
