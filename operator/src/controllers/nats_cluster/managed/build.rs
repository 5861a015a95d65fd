//! What a managed cluster consists of, as it is to be. Pure: the same input gives the same objects.

mod config;
mod disruption_budget;
mod network_policy;
mod pod;
mod secrets;
mod services;
mod stateful_set;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::upgrade;
use super::validate::Plan;

/// All children.
#[derive(Clone, Debug)]
pub(super) struct Resources {
    pub(super) config: ConfigMap,
    pub(super) client_secret: Secret,
    pub(super) server_secret: Secret,
    pub(super) headless: Service,
    pub(super) service: Service,
    pub(super) network_policy: NetworkPolicy,
    pub(super) disruption_budget: PodDisruptionBudget,
    pub(super) servers: StatefulSet,
}

/// Builds all children, with so many servers for now, over the servers that there are.
pub(super) fn build(plan: &Plan, replicas: u32, live: Option<&StatefulSet>) -> Resources {
    Resources {
        config: config::config_map(plan),
        client_secret: secrets::client(plan),
        // Who joins must find the others, and who is there a newcomer.
        server_secret: secrets::server(plan, replicas.max(plan.replicas)),
        headless: services::headless(&plan.identity),
        service: services::clients(&plan.identity),
        network_policy: network_policy::network_policy(plan),
        disruption_budget: disruption_budget::disruption_budget(&plan.identity),
        servers: upgrade::hold(plan, stateful_set::stateful_set(plan, replicas), live),
    }
}

pub(super) use self::secrets::{CLIENT_KEY, KEPT_CLIENT_KEY, ROUTE_KEY, SYSTEM_KEY};
