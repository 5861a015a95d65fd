//! Who may connect to the servers: clients from anywhere (they have to log in), other servers, and the operator to the port that tells
//! everything without a login.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::controllers::nats_cluster::managed::names::{CLIENT_PORT, MONITOR_PORT, ROUTE_PORT};
use crate::controllers::nats_cluster::managed::validate::Plan;

pub(super) fn network_policy(plan: &Plan) -> NetworkPolicy {
    let servers = LabelSelector {
        match_labels: Some(plan.identity.selector()),
        ..LabelSelector::default()
    };
    let operator = LabelSelector {
        match_labels: Some(
            [(
                "kubernetes.io/metadata.name".to_owned(),
                plan.operator_namespace.clone(),
            )]
            .into(),
        ),
        ..LabelSelector::default()
    };
    NetworkPolicy {
        metadata: plan.identity.child(plan.identity.servers()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(servers.clone()),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(vec![
                rule(CLIENT_PORT, None),
                rule(
                    ROUTE_PORT,
                    Some(NetworkPolicyPeer {
                        pod_selector: Some(servers),
                        ..NetworkPolicyPeer::default()
                    }),
                ),
                rule(
                    MONITOR_PORT,
                    Some(NetworkPolicyPeer {
                        namespace_selector: Some(operator),
                        ..NetworkPolicyPeer::default()
                    }),
                ),
            ]),
            egress: None,
        }),
    }
}

fn rule(port: u16, from: Option<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    NetworkPolicyIngressRule {
        ports: Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(i32::from(port))),
            protocol: Some("TCP".to_owned()),
            end_port: None,
        }]),
        from: from.map(|from| vec![from]),
    }
}
