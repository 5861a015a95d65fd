//! How far a Deployment has come.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::names;
use super::pods::forwarders_image;

/// The path of the number of pods in `managedFields`.
pub const REPLICAS: &[&str] = &["f:spec", "f:replicas"];

/// How far a Deployment has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rollout {
    /// All its pods are as declared, and available.
    Complete,
    /// It is under way.
    Progressing {
        /// Pods as declared.
        updated: i32,
        /// Pods that are available.
        available: i32,
        /// Pods that are to be.
        desired: i32,
        /// It has not moved for so long that Kubernetes has given it up; it goes on when the reason is gone.
        late: bool,
        /// Why Kubernetes can make no pod, in its own words: a quota or an admission refuses them.
        refused: Option<String>,
    },
}

impl Rollout {
    /// Of a Deployment.
    #[must_use]
    pub fn of(deployment: &Deployment) -> Self {
        let desired = desired(deployment);
        let status = deployment.status.clone().unwrap_or_default();
        let observed = status.observed_generation >= deployment.metadata.generation;
        let total = status.replicas.unwrap_or(0);
        let updated = status.updated_replicas.unwrap_or(0);
        let available = status.available_replicas.unwrap_or(0);
        if observed && [total, updated, available] == [desired; 3] {
            return Self::Complete;
        }
        let conditions = status.conditions.unwrap_or_default();
        let late = conditions.iter().any(|condition| {
            condition.type_ == "Progressing" && condition.reason.as_deref() == Some("ProgressDeadlineExceeded")
        });
        Self::Progressing {
            updated: if observed { updated } else { 0 },
            available,
            desired,
            late: late && observed,
            refused: conditions.into_iter().find(is_refusal).filter(|_| observed).map(told),
        }
    }
}

/// Whether it says that the API server refuses pods.
pub(super) fn is_refusal(condition: &DeploymentCondition) -> bool {
    condition.type_ == "ReplicaFailure" && condition.status == "True"
}

fn told(refusal: DeploymentCondition) -> String {
    let message = refusal.message.filter(|message| !message.is_empty());
    message
        .or(refusal.reason)
        .unwrap_or_else(|| "Kubernetes gives no reason".to_owned())
}

/// Pods that are to be.
#[must_use]
pub fn desired(deployment: &Deployment) -> i32 {
    let spec = deployment.spec.as_ref();
    spec.and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether a pod may still be made that begins with a ring below `epoch`: one that its immutable configuration holds.
#[must_use]
pub fn may_begin_below(replica_sets: &[ReplicaSet], epoch: u64) -> bool {
    replica_sets.iter().any(|set| {
        let spec = set.spec.as_ref();
        let wants_pods = spec.and_then(|spec| spec.replicas).unwrap_or(1) > 0;
        let template = spec.and_then(|spec| spec.template.as_ref());
        let metadata = template.and_then(|template| template.metadata.as_ref());
        let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
        let ring = annotations.and_then(|annotations| annotations.get(names::RING_EPOCH));
        wants_pods && ring.is_some_and(|ring| ring.parse::<u64>().is_ok_and(|ring| ring < epoch))
    })
}

/// The image that a Deployment names.
#[must_use]
pub fn image(deployment: &Deployment) -> Option<String> {
    image_in(&deployment.spec.as_ref()?.template).map(str::to_owned)
}

/// The forwarder's image in a pod template.
pub(super) fn image_in(template: &PodTemplateSpec) -> Option<&str> {
    forwarders_image(template.spec.as_ref()?)
}
