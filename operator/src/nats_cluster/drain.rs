//! When a deleted cluster may go.

use std::time::Duration;

use crds::NatsCluster;
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};

use super::SKIP_DRAIN;
use super::dereference::Dereferenced;
use crate::context::Context;

/// A drain takes the forwarders' hand-over timeout (a minute by default) after all pods have taken the ring up. What takes longer
/// than this waits for somebody who does not come.
const BOUND: Duration = Duration::from_secs(600);

/// The forwarders of a namespace that is being deleted go with it; only those of others are waited for.
const BOUND_WITH_NAMESPACE: Duration = Duration::from_secs(20);

/// What is to be done about a cluster's leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// It is not being deleted.
    Stays,
    /// Some forwarder may still publish to it.
    Waits,
    /// It may go.
    Goes(Farewell),
}

/// How a cluster goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// It was in no ring: there is nothing to tell.
    Unused,
    /// All forwarders have left it.
    Drained,
    /// These forwarders (`namespace/name`) may still publish to it.
    Forced { by: Force, forwarders: Vec<String> },
}

/// Why nobody waits any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// A person said so.
    Annotation,
    /// The time is up.
    Bound(Duration),
}

/// `began` is when this controller did: a drain that nobody could see to does not count.
pub(super) fn departure(cluster: &NatsCluster, found: &Dereferenced, began: Timestamp, now: Timestamp) -> Departure {
    let Some(deleted) = &cluster.meta().deletion_timestamp else {
        return Departure::Stays;
    };
    let was_member = cluster
        .status
        .as_ref()
        .is_some_and(|status| !status.member_of.is_empty());
    if found.member_of.is_empty() {
        return Departure::Goes(if was_member {
            Farewell::Drained
        } else {
            Farewell::Unused
        });
    }
    let forced = |by| {
        let forwarders = found.member_of.clone();
        Departure::Goes(Farewell::Forced { by, forwarders })
    };
    if cluster.annotations().get(SKIP_DRAIN).map(String::as_str) == Some("true") {
        return forced(Force::Annotation);
    }
    let bound = if found.namespace_goes {
        BOUND_WITH_NAMESPACE
    } else {
        BOUND
    };
    // A clock that runs behind the API server's makes it wait longer, never shorter than nothing.
    let waited = Duration::try_from(now.duration_since(deleted.0.max(began))).unwrap_or_default();
    if waited >= bound {
        return forced(Force::Bound(bound));
    }
    Departure::Waits
}

/// Tells people how it went.
pub(super) async fn tell(context: &Context, cluster: &NatsCluster, farewell: Farewell) {
    let about = cluster.object_ref(&());
    match farewell {
        Farewell::Unused => {}
        Farewell::Drained => {
            let note = "no forwarder publishes to it any more; it may go".to_owned();
            context.events.normal(&about, "Drained", note).await;
        }
        Farewell::Forced { by, forwarders } => {
            let why = match by {
                Force::Annotation => format!("the annotation {SKIP_DRAIN} says so"),
                Force::Bound(bound) => format!("they have not left it within {} s", bound.as_secs()),
            };
            let note = format!(
                "it goes although forwarders may still publish to it, since {why}: {}. What it has not confirmed goes to other \
                 clusters after the hand-over timeout",
                forwarders.join(", ")
            );
            context.events.warning(&about, "DrainForced", note).await;
        }
    }
}
