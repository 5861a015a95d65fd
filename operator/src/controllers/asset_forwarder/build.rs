//! What a forwarder consists of, as it is to be. Pure: the same input gives the same objects.

mod access;
mod beacon;
mod config_map;
mod credentials;
mod deployment;
mod disruption_budget;
mod network_policy;
mod pod;
mod ring_map;
mod service;

use forwarder_core::document::ConfigError;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};

use super::validate::Validated;

/// All children, as they are to be.
#[derive(Clone, Debug)]
pub struct Resources {
    /// The beacon's key; none: no beacon is declared, and one of before stays as it is.
    pub beacon: Option<Secret>,
    /// The projected credentials.
    pub credentials: Secret,
    /// The ring; none: there is no member, and there never was one.
    pub ring: Option<ConfigMap>,
    /// The pods' account.
    pub service_account: ServiceAccount,
    /// What the account may do.
    pub role: Role,
    /// Binds the two.
    pub role_binding: RoleBinding,
    /// Where metrics and status are.
    pub service: Service,
    /// Who may connect to the pods.
    pub network_policy: NetworkPolicy,
    /// How many pods may be evicted at once; none: there is one pod at most, and it may be.
    pub disruption_budget: Option<PodDisruptionBudget>,
    /// Configuration and pods.
    pub workload: Workload,
}

/// Configuration and pods.
#[derive(Clone, Debug)]
pub enum Workload {
    /// Both can be written.
    Configured {
        /// The configuration.
        config: Box<ConfigMap>,
        /// The pods.
        deployment: Box<Deployment>,
    },
    /// The pods stay on a configuration that an operator before us has written.
    Kept {
        /// The pods.
        deployment: Box<Deployment>,
    },
    /// There is no configuration for now: pods that there are go on with theirs, as many as are wanted.
    Scaled(i32),
}

/// A child cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The ring's document has no text.
    #[error("failed to serialize the ring's document")]
    Ring(#[source] ConfigError),
    /// The pods' template cannot be written down.
    #[error("failed to serialize the pod template")]
    Template(#[source] serde_json::Error),
}

/// Builds all children.
///
/// # Errors
/// [`BuildError`]
pub fn build(validated: &Validated) -> Result<Resources, BuildError> {
    let identity = &validated.identity;
    let credentials = credentials::secret(identity, &validated.credentials);
    let beacon = validated.beacon.as_ref();
    Ok(Resources {
        beacon: beacon.map(|beacon| beacon::secret(identity, &beacon.key)),
        ring: ring_map::config_map(identity, validated.ring.as_ref())?,
        service_account: access::service_account(identity),
        role: access::role(identity),
        role_binding: access::role_binding(identity),
        service: service::service(identity),
        network_policy: network_policy::network_policy(identity),
        disruption_budget: (validated.spec.replicas > 1).then(|| disruption_budget::disruption_budget(identity)),
        workload: match &validated.config {
            Ok(config) => Workload::Configured {
                config: Box::new(config_map::config_map(identity, config)),
                deployment: Box::new(deployment::deployment(validated, config)),
            },
            Err(_) => Workload::Scaled(validated.replicas),
        },
        credentials,
    })
}
