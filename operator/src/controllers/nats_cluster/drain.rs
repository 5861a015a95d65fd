//! When a deleted cluster may go.
//!
//! Whatever cannot be read, it goes by the annotation or at its bound. So both are judged before anything that can fail, and what fails
//! leaves [`Remaining::Unknown`], never an error.

use std::time::Duration;

use crds::NatsCluster;
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};

use super::SKIP_DRAIN;
use super::dereference::Remaining;
use crate::context::Context;
use crate::reconcile::reason::Reason;

/// A drain takes the forwarders' hand-over timeout (a minute by default) after all pods have taken the ring up. What takes longer
/// than this waits for somebody who does not come.
const BOUND: Duration = Duration::from_secs(600);

/// The forwarders of a namespace that is being deleted go with it; only those of others are waited for.
const BOUND_WITH_NAMESPACE: Duration = Duration::from_secs(20);

/// What is to be done about a cluster's leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Departure {
    /// Some forwarder may still publish to it.
    Waits {
        /// Until then it waits at most.
        until: Timestamp,
    },
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
    /// Some forwarder may still publish to it.
    Forced { by: Force, remaining: Remaining },
}

/// Why the cluster does not wait any longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// A person said so.
    Annotation,
    /// The time is up.
    Bound(Duration),
}

/// A cluster that is being deleted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaving<'a> {
    pub(super) cluster: &'a NatsCluster,
    deleted: Timestamp,
    began: Timestamp,
    /// Whether its whole namespace is being deleted. False until that is known.
    pub(super) namespace_goes: bool,
}

impl<'a> Leaving<'a> {
    /// None: it is not being deleted. `began` is when this controller started: time without an operator does not count.
    pub(super) fn of(cluster: &'a NatsCluster, began: Timestamp) -> Option<Self> {
        let deleted = cluster.meta().deletion_timestamp.as_ref()?;
        Some(Self {
            cluster,
            deleted: deleted.0,
            began,
            namespace_goes: false,
        })
    }

    /// Why it is removed although forwarders may still publish to it; none: nothing forces it yet.
    pub(super) fn forced(&self, now: Timestamp) -> Option<Force> {
        let annotations = self.cluster.annotations();
        if annotations.get(SKIP_DRAIN).map(String::as_str) == Some("true") {
            return Some(Force::Annotation);
        }
        (now >= self.until()).then_some(Force::Bound(self.bound()))
    }

    /// What is to be done, with those who may still publish to it.
    pub(super) fn departure(&self, remaining: &Remaining, now: Timestamp) -> Departure {
        if *remaining == Remaining::Known(Vec::new()) {
            let status = self.cluster.status.as_ref();
            let was_member = status.is_some_and(|status| !status.member_of.is_empty());
            return Departure::Goes(if was_member {
                Farewell::Drained
            } else {
                Farewell::Unused
            });
        }
        match self.forced(now) {
            Some(by) => Departure::Goes(Farewell::Forced {
                by,
                remaining: remaining.clone(),
            }),
            None => Departure::Waits { until: self.until() },
        }
    }

    fn bound(&self) -> Duration {
        if self.namespace_goes {
            BOUND_WITH_NAMESPACE
        } else {
            BOUND
        }
    }

    /// A clock that runs behind the API server's makes it wait longer, never shorter than nothing.
    fn until(&self) -> Timestamp {
        let since = self.deleted.max(self.began);
        since.saturating_add(self.bound()).unwrap_or(Timestamp::MAX)
    }
}

/// Tells people how it went.
pub(super) async fn tell(context: &Context, cluster: &NatsCluster, farewell: Farewell) {
    let about = cluster.object_ref(&());
    match farewell {
        Farewell::Unused => {}
        Farewell::Drained => {
            let note = "no forwarder publishes to the cluster any more; the operator lets it be removed".to_owned();
            context.events.normal(&about, Reason::Drained, note).await;
        }
        Farewell::Forced { by, remaining } => {
            let why = match by {
                Force::Annotation => format!("the annotation {SKIP_DRAIN} says so"),
                Force::Bound(bound) => format!(
                    "forwarders have not stopped publishing to it within {} s",
                    bound.as_secs()
                ),
            };
            let whom = match remaining {
                Remaining::Known(forwarders) => forwarders.join(", "),
                Remaining::Unknown(why) => format!("(cannot be read: {why})"),
            };
            let note = format!(
                "the operator lets the cluster be removed because {why}. These forwarders may still publish to it: {whom}. \
                 Records that it has not confirmed go to other clusters after the hand-over timeout"
            );
            context.events.warning(&about, Reason::DrainForced, note).await;
        }
    }
}
