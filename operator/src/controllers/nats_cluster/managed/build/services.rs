//! How servers find each other, and how clients find those that are ready.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::nats_cluster::managed::names::{CLIENT_PORT, Identity, MONITOR_PORT, ROUTE_PORT};

pub(super) fn clients(identity: &Identity) -> Service {
    Service {
        metadata: identity.child(identity.servers()),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ports: Some(vec![port("client", CLIENT_PORT)]),
            selector: Some(identity.selector()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

pub(super) fn headless(identity: &Identity) -> Service {
    Service {
        metadata: identity.child(identity.headless()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // A server is ready when it has found the others.
            publish_not_ready_addresses: Some(true),
            ports: Some(vec![
                port("client", CLIENT_PORT),
                port("cluster", ROUTE_PORT),
                port("monitor", MONITOR_PORT),
            ]),
            selector: Some(identity.selector()),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    }
}
