//! What becomes of the topic of a channel that is deleted.
//!
//! Whatever cannot be read or reached, the channel goes at its bound: so what a person said and how much time has passed is looked at
//! before anything that can fail, and what fails is a reason to try again, never an error.

use std::time::{Duration, Instant};

use crds::KafkaChannel;
use crds::kafka_channel::CreationState;
use jiff::Timestamp;
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::warn;

use super::creation::{self, NotOurs, Whose};
use super::decide::Step;
use super::inspect;
use super::keep::is_outcome;
use super::seen::{Failure, Kind};
use super::status::Facts;
use super::{FINALIZER, ReconcileError, SKIP_TOPIC_DELETION, apply, deletes_topic, dereference, users, with_kafka};
use crate::context::Context;
use crate::error::describe;
use crate::reconcile::reason::Reason;
use crate::reconcile::reference::namespace_is_deleted;

/// For how long a topic is tried to be deleted.
const BOUND: Duration = Duration::from_secs(300);

/// With the namespace its Secrets go too, perhaps first: there is little hope after a try or two. With the time of the last one
/// the namespace waits for half a minute at most.
const BOUND_WITH_NAMESPACE: Duration = Duration::from_secs(10);

/// For one try. A connection that answers nothing must not take the time of the last one.
pub(super) const TRY: Duration = Duration::from_secs(60);

/// The topic's deletion is asked for within this part of a try, or not in it. The end of a try does not end its thread: a later request
/// could be carried out after people were told that the topic stays. The brokers' answer (`apply::WITHIN`) comes before the end.
const ASKED_WITHIN: Duration = Duration::from_secs(45);
const _: () = assert!(ASKED_WITHIN.as_secs() + apply::WITHIN.as_secs() < TRY.as_secs());

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// The channel is not being deleted.
    Stays,
    /// The topic is to be deleted. If a bound has passed, this try is the last: no operator may have run before.
    Deletes { past: Option<Duration> },
    /// The channel goes, the topic stays.
    Leaves(Why),
}

/// Why a topic stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its policy says so.
    Policy,
    /// A person said so.
    Annotation,
    /// The channel has not created it, as far as anybody knows.
    NotOurs(NotOurs),
    /// The time is up, and this was in the way.
    Bound(Duration, String),
}

pub(super) fn removal(channel: &KafkaChannel, namespace_goes: bool, now: Timestamp) -> Removal {
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
    let bound = if namespace_goes { BOUND_WITH_NAMESPACE } else { BOUND };
    // A clock that runs behind the API server's makes it try longer, never shorter than once.
    let tried = Duration::try_from(now.duration_since(deleted.0)).unwrap_or_default();
    Removal::Deletes {
        past: (tried >= bound).then_some(bound),
    }
}

/// Whether the channel's whole namespace is being deleted. Who cannot tell goes by the longer bound.
pub(super) async fn namespace_goes(channel: &KafkaChannel, context: &Context) -> bool {
    let namespace = channel.namespace().unwrap_or_default();
    namespace_is_deleted(context, &namespace).await.unwrap_or_else(|error| {
        warn!(%error, namespace, "failed to read the namespace of a KafkaChannel that is being deleted");
        false
    })
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The topic is gone.
    Gone,
    /// The topic is to stay.
    Left(Why),
    /// Not yet.
    Waits(Facts),
}

/// What follows from a try: with a bound that has passed, what still waits, or has failed, is left.
pub(super) fn concluded(tried: Result<Tried, ReconcileError>, past: Option<Duration>) -> Tried {
    let tried =
        tried.unwrap_or_else(|error| Tried::Waits(Facts::Failed(Failure::new(Kind::Refused, describe(&error)))));
    match (tried, past) {
        (Tried::Waits(facts), Some(bound)) => Tried::Left(Why::Bound(bound, facts.hindrance())),
        (tried, _) => tried,
    }
}

/// Tries to delete the topic, if the channel has created it and nothing else uses it.
pub(super) async fn remove(
    channel: &KafkaChannel,
    context: &Context,
    api: &Api<KafkaChannel>,
    now: Timestamp,
) -> Result<Tried, ReconcileError> {
    let deadline = Instant::now() + ASKED_WITHIN;
    let Some(record) = creation::current(api, channel).await? else {
        return Ok(Tried::Left(Why::NotOurs(NotOurs::NoRecord)));
    };
    let users = users::listed(context, channel).await.map_err(ReconcileError::users)?;
    if !users.is_empty() {
        return Ok(Tried::Waits(Facts::InUse(users)));
    }
    let secrets = dereference::secrets(channel, context).await?;
    let removed = with_kafka(context, channel, &secrets, move |topic, connection| {
        // Who is refused, and why, only this tells.
        let seen = inspect::inspect(&connection, &topic, true)?;
        let Some(found) = &seen.topic else {
            return Ok(Tried::Gone);
        };
        let whose = if record.state == CreationState::Done {
            creation::whose(Some(&record), &seen, found, now)
        } else if is_outcome(&connection, &topic, &record, &seen, found, now)? {
            Whose::Ours
        } else {
            Whose::NotOurs(NotOurs::NoRecord)
        };
        match may_delete(whose, &topic.name, deadline)? {
            Ok(()) => apply::change(&connection, &topic.name, &Step::Delete, &topic.config).map(|()| Tried::Gone),
            Err(why) => Ok(Tried::Left(why)),
        }
    });
    Ok(removed.await?.unwrap_or_else(Tried::Waits))
}

/// Whether the topic's deletion may be asked for, right before that; else why it is to stay.
///
/// # Errors
/// Neither is known, or this try has no time left. Another try may tell.
pub(super) fn may_delete(whose: Whose, topic: &str, deadline: Instant) -> Result<Result<(), Why>, Failure> {
    match whose {
        Whose::NotOurs(why) => return Ok(Err(Why::NotOurs(why))),
        Whose::Untold => {
            let message = format!(
                "the brokers do not return the ID of the topic {topic:?}, so it may be another one with the same name. Check that \
                 the brokers answer in time"
            );
            return Err(Failure::new(Kind::Refused, message));
        }
        Whose::Ours => {}
    }
    if Instant::now() >= deadline {
        let message = format!("the brokers were too slow to delete the topic {topic:?} in one try");
        return Err(Failure::new(Kind::Refused, message));
    }
    Ok(Ok(()))
}

/// Tells people what has become of the topic.
pub(super) async fn tell(context: &Context, channel: &KafkaChannel, tried: &Tried) {
    let (topic, about) = (&channel.spec.topic.name, channel.object_ref(&()));
    let why = match tried {
        Tried::Gone => {
            let (reason, note) = Step::Delete.told(topic);
            context.events.normal(&about, reason, note).await;
            return;
        }
        Tried::Waits(_) | Tried::Left(Why::Policy) => return,
        Tried::Left(Why::Annotation) => format!("the annotation {SKIP_TOPIC_DELETION} says so"),
        Tried::Left(Why::NotOurs(why)) => why.told().to_owned(),
        Tried::Left(Why::Bound(bound, hindrance)) => {
            format!(
                "the operator could not delete it within {} s: {hindrance}",
                bound.as_secs()
            )
        }
    };
    let note = format!("the topic {topic:?} stays because {why}. To delete it, use Kafka's own tools");
    context.events.warning(&about, Reason::TopicLeft, note).await;
}
