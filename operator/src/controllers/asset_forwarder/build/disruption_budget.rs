//! How many pods may be evicted at once: one, so that the group moves one member's partitions at a time.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::controllers::asset_forwarder::names::Identity;
use crate::reconcile::child;

pub(super) fn disruption_budget(identity: &Identity) -> PodDisruptionBudget {
    child::disruption_budget(identity.child(identity.name.clone()), identity.selector())
}
