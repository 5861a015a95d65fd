//! What is to be changed to make a topic as declared, and what only a person can change.

use std::collections::BTreeMap;

use crds::kafka_channel::{DifferingSetting, Topic};

use super::refusals::Refusal;
use super::seen::{Seen, SeenTopic};
use super::settings;
use crate::reconcile::reason::Reason;

/// What is to be done, and what remains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Changes, in order.
    pub(super) steps: Vec<Step>,
    /// What cannot be done without a person.
    pub(super) block: Option<Block>,
    /// Where the topic differs and is left as it is, for people.
    pub(super) drift: Vec<Drift>,
    /// Settings that would be written if there were no unknown ones. The brokers are asked which of them they refuse, so that a person
    /// is told of all faults at once.
    pub(super) unasked: BTreeMap<String, String>,
    /// Those of them that are refused.
    pub(super) refused: Vec<Refusal>,
}

/// A change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Makes the topic; what is absent is the brokers' default.
    Create {
        partitions: Option<i32>,
        replication_factor: Option<i32>,
        config: BTreeMap<String, String>,
    },
    /// Adds partitions.
    AddPartitions { from: i32, to: i32 },
    /// Writes settings.
    Configure {
        /// Those that differ.
        names: Vec<String>,
        /// All that are to be set on the topic: others' as they are.
        all: BTreeMap<String, String>,
    },
    /// Deletes the topic with its records.
    Delete,
}

/// What cannot be done without a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// More partitions are declared than the topic has.
    PartitionIncrease { from: i32, to: i32, allowed: Option<i32> },
    /// The brokers know no settings of these names.
    UnknownSettings(Vec<String>),
}

/// Where a topic differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Drift {
    MorePartitions {
        declared: i32,
        found: i32,
    },
    ReplicationFactor {
        declared: i32,
        found: i32,
    },
    /// A setting of the topic cannot be read, so nothing can be written without losing it.
    Unreadable(String),
    /// Kafka took a setting and holds another value.
    Held(DifferingSetting),
}

impl Step {
    /// Whether it writes settings.
    pub(super) const fn configures(&self) -> bool {
        matches!(self, Self::Configure { .. })
    }

    /// The reason and the note of its event.
    pub(super) fn told(&self, topic: &str) -> (Reason, String) {
        match self {
            Self::Create { .. } => (Reason::TopicCreated, format!("created the topic {topic:?}")),
            Self::AddPartitions { from, to } => (
                Reason::PartitionsAdded,
                format!("raised the partitions of the topic {topic:?} from {from} to {to}"),
            ),
            Self::Configure { names, all: _ } => (
                Reason::TopicConfigured,
                format!("set {} of the topic {topic:?} as declared", names.join(", ")),
            ),
            Self::Delete => (
                Reason::TopicDeleted,
                format!("deleted the topic {topic:?}, as spec.topic.deletionPolicy says"),
            ),
        }
    }
}

/// `held` are the settings that Kafka took before and holds differently. Those are not written again: it would not end.
pub(super) fn decide(topic: &Topic, seen: &Seen, held: &[DifferingSetting]) -> Plan {
    if !topic.managed {
        return Plan::default();
    }
    let declared_copies = topic.replication_factor.map(i32::from);
    let Some(found) = &seen.topic else {
        let create = Step::Create {
            partitions: topic.partitions,
            replication_factor: declared_copies,
            config: topic.config.clone(),
        };
        return Plan {
            steps: vec![create],
            ..Plan::default()
        };
    };
    let mut plan = Plan::default();
    plan_partitions(topic, found.partitions, &mut plan);
    if let Some(declared) = declared_copies
        && declared != found.replication_factor
    {
        let found = found.replication_factor;
        plan.drift.push(Drift::ReplicationFactor { declared, found });
    }
    plan_config(topic, found, held, &mut plan);
    plan
}

fn plan_partitions(topic: &Topic, found: i32, plan: &mut Plan) {
    let Some(declared) = topic.partitions else {
        return;
    };
    if declared < found {
        plan.drift.push(Drift::MorePartitions { declared, found });
    } else if declared > found {
        let (from, to) = (found, declared);
        match topic.allow_partition_increase {
            Some(allowed) if allowed >= declared => plan.steps.push(Step::AddPartitions { from, to }),
            allowed => plan.block = Some(Block::PartitionIncrease { from, to, allowed }),
        }
    }
}

fn plan_config(topic: &Topic, found: &SeenTopic, held: &[DifferingSetting], plan: &mut Plan) {
    let (declared, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) = topic
        .config
        .clone()
        .into_iter()
        .partition(|(name, _)| found.config.contains_key(name));
    let (held, differing): (Vec<_>, Vec<_>) = differing(&declared, found)
        .into_iter()
        .partition(|setting| held.contains(setting));
    plan.drift.extend(held.into_iter().map(Drift::Held));
    if !unknown.is_empty() {
        plan.block = Some(Block::UnknownSettings(unknown.into_keys().collect()));
    }
    if differing.is_empty() {
        return;
    }
    let mut all = BTreeMap::new();
    for (name, setting) in found.config.iter().filter(|(_, setting)| setting.own) {
        match &setting.value {
            Some(value) => drop(all.insert(name.clone(), value.clone())),
            None if topic.config.contains_key(name) => {}
            None => {
                plan.drift.push(Drift::Unreadable(name.clone()));
                return;
            }
        }
    }
    all.extend(declared);
    if matches!(plan.block, Some(Block::UnknownSettings(_))) {
        plan.unasked = all;
        return;
    }
    let names = differing.into_iter().map(|setting| setting.name).collect();
    plan.steps.push(Step::Configure { names, all });
}

/// The declared settings of which the topic has other values.
pub(super) fn differing(declared: &BTreeMap<String, String>, found: &SeenTopic) -> Vec<DifferingSetting> {
    let mut differing = Vec::new();
    for (name, declared) in declared {
        let found = found.config.get(name).and_then(|setting| setting.value.as_deref());
        if found.is_none_or(|found| !settings::same(name, declared, found)) {
            differing.push(DifferingSetting {
                name: name.clone(),
                declared: declared.clone(),
                found: found.map(str::to_owned),
            });
        }
    }
    differing
}
