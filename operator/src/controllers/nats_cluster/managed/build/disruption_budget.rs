//! How many servers may be evicted at once: one, so that a stream of three copies keeps its majority.
//!
//! A single server may be evicted too. It has no majority to lose, and otherwise neither its node could be drained nor the operator take
//! it a new image, for that is an eviction as well.
//!
//! With IfHealthyBudget a server that cannot run stays on its node for ever where it is alone, or where another one cannot run either: the
//! node's drain hangs, and so does the operator's own restart. The price: a drain may take a server that is not ready because it is
//! catching up. It comes back with its volume, and servers that are ready keep their budget.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use crate::controllers::nats_cluster::managed::names::Identity;
use crate::reconcile::child;

pub(super) fn disruption_budget(identity: &Identity) -> PodDisruptionBudget {
    child::disruption_budget(identity.child(identity.servers()), identity.selector())
}
