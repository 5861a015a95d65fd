//! From what was found to the status.

use std::time::Duration;

use crds::kafka_channel::TopicCreation;
use crds::{KafkaChannel, KafkaChannelStatus};
use jiff::Timestamp;
use kube::Resource as _;

use super::creation::{self, Whose};
use super::decide::{Block, Drift, Plan};
use super::deletes_topic;
use super::refusals::{self, Refusal};
use super::seen::{Failure, Kind, Seen};
use super::users::Users;
use crate::reconcile::conditions::{Verdict, Words, conditions};
use crate::reconcile::invalid_spec::InvalidSpec;
use crate::reconcile::reason::Reason;

/// Between two checks of a topic that is healthy, or that only a person can repair.
const INTERVAL: Duration = Duration::from_secs(300);

/// The most between two looks at what may come right by itself.
const FAILING: Duration = Duration::from_secs(60);

/// The least: many outages are short.
const SOON: Duration = Duration::from_secs(2);

/// While a topic cannot be deleted: somebody waits for the channel to go.
const DELETING: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Facts {
    /// The spec or a Secret cannot be used.
    Refused(InvalidSpec),
    /// The brokers say nothing, or refuse.
    Failed(Failure),
    /// What the brokers say, after all steps were taken, and what is left to do.
    Seen { seen: Seen, plan: Plan },
    /// The topic is to be deleted, and these still use it.
    InUse(Users),
}

impl Facts {
    /// What was in the way of a deletion, in words.
    pub(super) fn hindrance(&self) -> String {
        match self {
            Self::Refused(refused) => refused.to_string(),
            Self::Failed(failure) => failure.message.clone(),
            Self::Seen { .. } => "the topic still exists".to_owned(),
            Self::InUse(users) => format!("the topic is used by {users}"),
        }
    }
}

/// The status; `record` says whether the channel has created its topic, and is no part of it.
pub(super) fn status(
    channel: &KafkaChannel,
    facts: &Facts,
    record: Option<&TopicCreation>,
    now: Timestamp,
) -> KafkaChannelStatus {
    let generation = channel.meta().generation;
    let old = channel.status.clone().unwrap_or_default();
    let drift = drift(facts);
    let further: Vec<_> = drift.into_iter().map(|words| ("Drifted", words)).collect();
    let mut status = KafkaChannelStatus {
        observed_generation: generation,
        conditions: conditions(
            &old.conditions,
            generation,
            &verdict(channel, facts, record, now),
            &further,
            now,
        ),
        ..KafkaChannelStatus::default()
    };
    match facts {
        Facts::Seen { seen, plan } => {
            let held = plan.drift.iter().filter_map(|drift| match drift {
                Drift::Held(setting) => Some(setting.clone()),
                _ => None,
            });
            status.differing_settings = held.collect();
            status.cluster_id.clone_from(&seen.cluster_id);
            status.partitions = seen.topic.as_ref().map(|topic| topic.partitions);
            status.replication_factor = seen.topic.as_ref().map(|topic| topic.replication_factor);
        }
        // What was seen last stays, for as long as it is about the same spec.
        Facts::Refused(_) | Facts::Failed(_) | Facts::InUse(_) if old.observed_generation == generation => {
            status.cluster_id = old.cluster_id;
            status.partitions = old.partitions;
            status.replication_factor = old.replication_factor;
            status.differing_settings = old.differing_settings;
        }
        Facts::Refused(_) | Facts::Failed(_) | Facts::InUse(_) => {}
    }
    status
}

fn verdict(channel: &KafkaChannel, facts: &Facts, record: Option<&TopicCreation>, now: Timestamp) -> Verdict {
    let deleted = channel.meta().deletion_timestamp.is_some();
    let topic = &channel.spec.topic.name;
    match facts {
        Facts::Refused(invalid) => invalid.verdict(),
        // A deletion ends by itself, at its bound: nobody must do anything.
        Facts::Failed(Failure { kind: _, message }) if deleted => {
            Verdict::reconciling(Reason::TopicDeletionFailed, message.clone())
        }
        Facts::Failed(Failure { kind, message }) => match kind {
            Kind::Unreachable => Verdict::reconciling(Reason::Unreachable, message.clone()),
            Kind::Tls => Verdict::reconciling(Reason::TlsFailed, message.clone()),
            Kind::Authentication => Verdict::reconciling(Reason::AuthenticationFailed, message.clone()),
            Kind::Authorization => Verdict::reconciling(Reason::NotAuthorized, message.clone()),
            Kind::Client => Verdict::reconciling(Reason::ClientFailed, message.clone()),
            Kind::Refused => Verdict::reconciling(Reason::TopicRefused, message.clone()),
            Kind::Invalid | Kind::Settings => Verdict::stalled(Reason::TopicInvalid, message.clone()),
        },
        Facts::InUse(users) => Verdict::reconciling(
            Reason::TopicInUse,
            format!(
                "the topic {topic:?} is to be deleted with this channel, but is still used by {users}. The operator deletes it \
                 once they are gone. If that takes too long, the channel is deleted and the topic stays"
            ),
        ),
        Facts::Seen { seen, plan } => match (&plan.block, &seen.topic) {
            (Some(block), _) => blocked(channel, block, &plan.refused),
            (None, None) if channel.spec.topic.managed => Verdict::reconciling(
                Reason::TopicPending,
                format!("the topic {topic:?} is created, but not every broker knows it yet"),
            ),
            (None, None) => Verdict::reconciling(
                Reason::TopicMissing,
                format!(
                    "there is no topic {topic:?}; create it, or let the operator create it with spec.topic.managed"
                ),
            ),
            (None, Some(_)) if !plan.steps.is_empty() => Verdict::reconciling(
                Reason::TopicPending,
                format!("the operator has changed the topic {topic:?}; the brokers do not show the change yet"),
            ),
            (None, Some(found)) => Verdict::ready(
                Reason::TopicReady,
                match creation::whose(record, seen, found, now) {
                    Whose::NotOurs(why) if deletes_topic(channel) => format!(
                        "the topic {topic:?} exists, with {} partitions. Deleting this channel leaves it, because {}. To delete \
                         it as well, use Kafka's own tools",
                        found.partitions,
                        why.told()
                    ),
                    _ => format!("the topic {topic:?} exists, with {} partitions", found.partitions),
                },
            ),
        },
    }
}

fn blocked(channel: &KafkaChannel, block: &Block, refused: &[Refusal]) -> Verdict {
    let topic = &channel.spec.topic.name;
    match block {
        Block::PartitionIncrease { from, to, allowed } => {
            let allowed = allowed.map_or_else(String::new, |allowed| format!(" (now {allowed})"));
            Verdict::stalled(
                Reason::PartitionIncreaseNotAcknowledged,
                format!(
                    "the topic {topic:?} has {from} partitions, and {to} are declared. More partitions move most keys to other \
                     partitions, where new records can overtake old ones of the same asset. Stop the producers until all records \
                     are read, then set spec.topic.allowPartitionIncrease to {to}{allowed}. Or declare {from}"
                ),
            )
        }
        Block::UnknownSettings(names) => {
            let mut sentences = vec![format!(
                "spec.topic.config: the brokers do not know the setting {}; correct or remove it",
                names.join(", ")
            )];
            if !refused.is_empty() {
                sentences.push(refusals::told(refused));
            }
            Verdict::stalled(Reason::InvalidSpec, sentences.join(". "))
        }
    }
}

/// Where the topic differs and is left as it is.
fn drift(facts: &Facts) -> Option<Words> {
    let Facts::Seen { plan, .. } = facts else {
        return None;
    };
    let reason = match plan.drift.first()? {
        Drift::MorePartitions { .. } => Reason::Partitions,
        Drift::ReplicationFactor { .. } => Reason::ReplicationFactor,
        Drift::Unreadable(_) | Drift::Held(_) => Reason::Config,
    };
    let sentences = plan.drift.iter().map(|drift| match drift {
        Drift::MorePartitions { declared, found } => format!(
            "the topic has {found} partitions, and {declared} are declared. Kafka cannot remove partitions: declare {found}"
        ),
        Drift::ReplicationFactor { declared, found } => format!(
            "the topic's partitions have {found} replicas, and {declared} are declared: reassign them with Kafka's own tools, or declare \
             {found}"
        ),
        Drift::Unreadable(name) => format!(
            "settings differ, and the operator does not repair them: {name} is set on the topic and cannot be read, so writing \
             other settings would reset it"
        ),
        Drift::Held(setting) => {
            let held = setting.found.as_ref().map_or_else(|| "no value that they return".to_owned(), |held| format!("{held:?}"));
            format!(
                "spec.topic.config declares {}: {:?}; the brokers took it, but hold {held}. The operator does not write it again. \
                 Declare what they hold, or find out what changes it",
                setting.name, setting.declared
            )
        }
    });
    Some(Words::new(reason, sentences.collect::<Vec<_>>().join(". ")))
}

/// When to look again. The pause of an outage grows with its age, which the condition tells: no counter is needed, and a
/// restart changes nothing.
pub(super) fn again_after(
    channel: &KafkaChannel,
    status: &KafkaChannelStatus,
    record: Option<&TopicCreation>,
    now: Timestamp,
) -> Duration {
    if channel.meta().deletion_timestamp.is_some() {
        return DELETING;
    }
    let is = |type_: &str| status.conditions.iter().find(|condition| condition.type_ == type_);
    match (is("Reconciling"), is("Ready")) {
        (Some(_), Some(ready)) => {
            let age = now.duration_since(ready.last_transition_time.0);
            let half = Duration::try_from(age).unwrap_or_default() / 2;
            half.clamp(SOON, FAILING)
        }
        // Perhaps the brokers were only slow to show what they took.
        _ if !status.differing_settings.is_empty() => FAILING,
        // Nor is there much time to learn which topic was made.
        _ if creation::awaits_id(record, now) => FAILING,
        _ => INTERVAL,
    }
}
