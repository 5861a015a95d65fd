//! What becomes of the topic of a channel that is deleted.

use std::time::Duration;

use crds::KafkaChannel;
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};

use super::dereference::Dereferenced;
use super::{FINALIZER, SKIP_TOPIC_DELETION, deletes_topic};
use crate::context::Context;

/// For how long a topic is tried to be deleted.
const BOUND: Duration = Duration::from_secs(300);

/// With the namespace its Secrets go too, perhaps first: there is little hope after a try or two. With the time of the last one
/// the namespace waits for half a minute at most.
const BOUND_WITH_NAMESPACE: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// The channel is not being deleted.
    Stays,
    /// The topic is to be deleted. With a bound that has passed, this try is the last: perhaps nobody was there to try before.
    Deletes { past: Option<Duration> },
    /// The channel goes, the topic stays.
    Leaves(Why),
}

/// Why a topic stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its policy says so, or it is not ours.
    Policy,
    /// A person said so.
    Annotation,
    /// The time is up.
    Bound(Duration),
}

pub(super) fn removal(channel: &KafkaChannel, found: &Dereferenced, now: Timestamp) -> Removal {
    let Some(deleted) = &channel.meta().deletion_timestamp else {
        return Removal::Stays;
    };
    let is_ours = channel.finalizers().iter().any(|there| there == FINALIZER);
    if !is_ours || !deletes_topic(channel) {
        return Removal::Leaves(Why::Policy);
    }
    if channel.annotations().get(SKIP_TOPIC_DELETION).map(String::as_str) == Some("true") {
        return Removal::Leaves(Why::Annotation);
    }
    let bound = if found.namespace_goes {
        BOUND_WITH_NAMESPACE
    } else {
        BOUND
    };
    // A clock that runs behind the API server's makes it try longer, never shorter than once.
    let tried = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    Removal::Deletes {
        past: (tried >= bound).then_some(bound),
    }
}

/// Tells people why a topic stays that was to go.
pub(super) async fn tell(context: &Context, channel: &KafkaChannel, why: Why) {
    let why = match why {
        Why::Policy => return,
        Why::Annotation => format!("the annotation {SKIP_TOPIC_DELETION} says so"),
        Why::Bound(bound) => format!("it could not be deleted within {} s", bound.as_secs()),
    };
    let topic = &channel.spec.topic.name;
    let note = format!("the topic {topic:?} stays, since {why}; delete it by other means if it is to go");
    context
        .events
        .warning(&channel.object_ref(&()), "TopicLeft", note)
        .await;
}
