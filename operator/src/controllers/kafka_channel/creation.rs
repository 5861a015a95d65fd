//! The record that a channel has created its topic: without it, deleting the channel leaves the topic.
//!
//! The record and the topic are in two places, and the operator may be killed between any two steps:
//!
//! ```text
//! look: no topic ─▶ check ─▶ record `Begun` ─▶ create ─▶ record `Done` ─▶ look ─▶ record the topic's ID
//! ```
//! - `Done` is written only after the brokers have said that this very request made the topic. They say something else where it was there.
//! - A kill (or a lost answer) between the two leaves `Begun` and perhaps a topic, which somebody else may have made meanwhile. It counts
//!   as created by the channel only if it is exactly as it was asked for, no record was ever written to it, and little time has passed.
//!   Otherwise the record goes and the topic is left: a topic too many is better than one too few.
//! - A request that is refused takes `Begun` back, so no topic that others make later is taken for its own. It is checked before, so
//!   that this happens hardly ever.
//! - Who deletes a topic and makes another one of its name makes one with another ID, which does not match the record. A record gets its
//!   ID right after the creation. One that has none then (the brokers were slow, or an older operator wrote it) takes no ID later: the
//!   topic may be another one by then, and is left.
//! - Brokers that tell no IDs at all (before 2.8) leave only the Kafka to be compared.
//!
//! The record has a field manager of its own. A status that is written by what an old cache says leaves it alone.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::kafka_channel::{CreationState, Topic, TopicCreation};
use crds::{KafkaChannel, KafkaChannelStatus};
use jiff::Timestamp;
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::seen::{Seen, SeenTopic, Setting, TopicId};
use super::settings;
use super::{ReconcileError, deletes_topic};
use crate::context::Context;
use crate::reconcile::status;

/// The record's field manager.
const MANAGER: &str = "fanout-operator-topic";

/// For how long a topic that appears after a creation was begun may be its outcome, and an ID be that of the topic that was made: another operator takes over within a minute or so.
const SOON: Duration = Duration::from_secs(600);

/// Whose topic it is that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The channel has created it.
    Ours,
    /// It does not count as created by the channel.
    NotOurs(NotOurs),
    /// The brokers have not told what would tell it from another one.
    Untold,
}

/// Why a topic does not count as created by the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOurs {
    /// There is no record.
    NoRecord,
    /// The record is about another topic, or another Kafka.
    Another,
    /// The record does not say which topic it is about, and it is too late to find out.
    Unidentified,
}

impl NotOurs {
    /// For people.
    pub(super) const fn told(self) -> &'static str {
        match self {
            Self::NoRecord => "this channel has no record of having created it",
            Self::Another => "it is not the topic that this channel has created, but another one with the same name",
            Self::Unidentified => {
                "the record of the topic that this channel has created does not hold its ID, so this may be another one with the \
                 same name"
            }
        }
    }
}

/// Whether the topic that was seen is the one that the channel has created.
pub(super) fn whose(creation: Option<&TopicCreation>, seen: &Seen, topic: &SeenTopic, now: Timestamp) -> Whose {
    let Some(creation) = creation.filter(|creation| creation.state == CreationState::Done) else {
        return Whose::NotOurs(NotOurs::NoRecord);
    };
    match (&creation.topic_id, &topic.id) {
        (Some(ours), TopicId::Told(found)) if ours == found => return Whose::Ours,
        (Some(_), TopicId::Told(_)) => return Whose::NotOurs(NotOurs::Another),
        (Some(_), TopicId::NotYet | TopicId::Never) => return Whose::Untold,
        (None, _) => {}
    }
    match (&creation.cluster_id, &seen.cluster_id) {
        // Brokers that tell no ID of their cluster: the topic's own is enough, just after it was made.
        (None, None) if matches!(topic.id, TopicId::Told(_)) && is_young(creation, now) => return Whose::Ours,
        (None, _) => return Whose::NotOurs(NotOurs::Unidentified),
        (Some(_), None) => return Whose::Untold,
        (Some(ours), Some(found)) if ours != found => return Whose::NotOurs(NotOurs::Another),
        (Some(_), Some(_)) => {}
    }
    match topic.id {
        // Later it may be one that somebody else has made since.
        TopicId::Told(_) if is_young(creation, now) => Whose::Ours,
        TopicId::Told(_) => Whose::NotOurs(NotOurs::Unidentified),
        TopicId::NotYet => Whose::Untold,
        // There is nothing better than that it is in the same Kafka.
        TopicId::Never => Whose::Ours,
    }
}

/// Whether the ID that was seen belongs into the record, which has none yet.
pub(super) fn gives_id(creation: &TopicCreation, seen: &Seen, topic: &SeenTopic, now: Timestamp) -> bool {
    creation.topic_id.is_none()
        && matches!(topic.id, TopicId::Told(_))
        && whose(Some(creation), seen, topic, now) == Whose::Ours
}

/// Whether the record has no ID yet and may still be given one.
pub(super) fn awaits_id(creation: Option<&TopicCreation>, now: Timestamp) -> bool {
    creation.is_some_and(|creation| creation.topic_id.is_none() && is_young(creation, now))
}

/// Whether the brokers are asked for the topic's ID: where deletion depends on it, and where the record may be given one.
pub(super) fn asks_for_id(channel: &KafkaChannel, creation: Option<&TopicCreation>, now: Timestamp) -> bool {
    deletes_topic(channel) || channel.spec.topic.managed && awaits_id(creation, now)
}

/// The record before the topic is asked for.
pub(super) fn begun(seen: &Seen, now: Timestamp) -> TopicCreation {
    TopicCreation {
        state: CreationState::Begun,
        cluster_id: seen.cluster_id.clone(),
        topic_id: None,
        begun_at: Some(now.to_string()),
    }
}

/// Whether a record before the topic is asked for is there already, and young enough to be of use. It is not written again: an operator
/// that is killed by each of its writes would never come to create the topic.
pub(super) fn has_begun(creation: Option<&TopicCreation>, seen: &Seen, now: Timestamp) -> bool {
    creation.is_some_and(|creation| {
        creation.state == CreationState::Begun
            && creation.cluster_id == seen.cluster_id
            && age(creation, now).is_some_and(|age| age <= SOON / 2)
    })
}

fn is_young(creation: &TopicCreation, now: Timestamp) -> bool {
    age(creation, now).is_some_and(|age| age <= SOON)
}

fn age(creation: &TopicCreation, now: Timestamp) -> Option<Duration> {
    let begun_at: Timestamp = creation.begun_at.as_deref()?.parse().ok()?;
    Some(now.duration_since(begun_at).unsigned_abs())
}

/// The record of a topic that was made, after the one of before; `topic` as it was seen since. Until its ID is known, the record keeps
/// when the creation began.
pub(super) fn done(begun: &TopicCreation, seen: &Seen, topic: Option<&SeenTopic>) -> TopicCreation {
    let topic_id = match topic.map(|topic| &topic.id) {
        Some(TopicId::Told(id)) => Some(id.clone()),
        Some(TopicId::NotYet | TopicId::Never) | None => None,
    };
    let begun_at = if topic_id.is_none() {
        begun.begun_at.clone()
    } else {
        None
    };
    TopicCreation {
        state: CreationState::Done,
        cluster_id: seen.cluster_id.clone(),
        topic_id,
        begun_at,
    }
}

/// Whether the topic can be what came of a creation that was begun. It is looked at only then whether it was written to.
pub(super) fn can_be_outcome(
    creation: &TopicCreation,
    declared: &Topic,
    seen: &Seen,
    found: &SeenTopic,
    config: &BTreeMap<String, Setting>,
    now: Timestamp,
) -> bool {
    let copies = declared.replication_factor.map(i32::from);
    let set: BTreeMap<&String, Option<&str>> = config
        .iter()
        .filter(|(_, setting)| setting.own)
        .map(|(name, setting)| (name, setting.value.as_deref()))
        .collect();
    let as_declared = |(name, value): (&String, &String)| {
        let found = set.get(name).copied().flatten();
        found.is_some_and(|found| settings::same(name, value, found))
    };
    is_young(creation, now)
        && creation.cluster_id == seen.cluster_id
        && declared.partitions.is_none_or(|declared| declared == found.partitions)
        && copies.is_none_or(|declared| declared == found.replication_factor)
        && set.len() == declared.config.len()
        && declared.config.iter().all(as_declared)
}

/// The record as it is now: a cache may be behind it. None: there is none, or no channel any more.
pub(super) async fn current(
    api: &Api<KafkaChannel>,
    channel: &KafkaChannel,
) -> Result<Option<TopicCreation>, ReconcileError> {
    let found = api
        .get_opt(&channel.name_any())
        .await
        .map_err(ReconcileError::channel)?;
    Ok(found
        .filter(|found| found.uid() == channel.uid())
        .and_then(|found| recorded(&found).cloned()))
}

/// The record in a channel.
pub(super) fn recorded(channel: &KafkaChannel) -> Option<&TopicCreation> {
    channel.status.as_ref()?.topic_creation.as_ref()
}

/// Writes the record; none: removes it. A channel that is gone is an error: a topic that is made for it would never be deleted.
pub(super) async fn record(
    context: &Context,
    api: &Api<KafkaChannel>,
    channel: &KafkaChannel,
    creation: Option<&TopicCreation>,
) -> Result<(), ReconcileError> {
    let fields = creation.map_or_else(|| json!({}), |creation| json!({"topicCreation": creation}));
    let written = status::write_as(context, api, channel, MANAGER, &fields).await;
    match written.map_err(ReconcileError::status)? {
        Some(_) => Ok(()),
        None => Err(ReconcileError::Gone),
    }
}

/// A status without the record, which is written by itself.
pub(super) fn without(status: &KafkaChannelStatus) -> KafkaChannelStatus {
    KafkaChannelStatus {
        topic_creation: None,
        ..status.clone()
    }
}
