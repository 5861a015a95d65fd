//! What the engine says of itself.

use std::collections::BTreeMap;

use forwarder_core::dispatch;
use serde::{Serialize, Serializer};

/// Where the process is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "phase", content = "reason", rename_all = "camelCase")]
pub enum Phase {
    /// Not yet a member of the group.
    #[default]
    Starting,
    /// A stable member that takes records of its partitions.
    Consuming,
    /// A stable member with partitions of which it takes none, with the reason.
    Waiting(String),
    /// A stable member without a partition: there are more members than partitions.
    Idle,
    /// Between two assignments.
    Rebalancing,
    /// No stable member, with the reason.
    Outside(String),
    /// Stopping: what is in flight is waited for.
    Draining,
}

impl Phase {
    /// Of a stable member whose ring is of the epoch `ring`, by what each of its partitions is doing.
    #[must_use]
    pub fn of_member(ring: u64, partitions: impl Iterator<Item = dispatch::Phase>) -> Self {
        let mut waiting = BTreeMap::<String, usize>::new();
        for phase in partitions {
            match phase {
                dispatch::Phase::Active | dispatch::Phase::Draining => return Self::Consuming,
                dispatch::Phase::Stopped
                | dispatch::Phase::Behind(_)
                | dispatch::Phase::Announcing
                | dispatch::Phase::Contested => {
                    *waiting.entry(words(phase)).or_default() += 1;
                }
            }
        }
        if waiting.is_empty() {
            return Self::Idle;
        }
        let reasons: Vec<String> = waiting
            .iter()
            .map(|(words, count)| format!("{count} × \"{words}\""))
            .collect();
        Self::Waiting(format!(
            "no records of the assigned partitions are taken: {}; the ring in use has epoch {ring}",
            reasons.join(", ")
        ))
    }

    /// Why the process is not ready, if it is not. A rebalance is part of a member's life and is ready.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        match self {
            Self::Consuming | Self::Idle | Self::Rebalancing => None,
            Self::Starting => Some("not yet a member of the group".to_owned()),
            Self::Waiting(reason) => Some(reason.clone()),
            Self::Outside(reason) => Some(format!("no stable member of the group: {reason}")),
            Self::Draining => Some("stopping".to_owned()),
        }
    }
}

/// What the engine says of itself, as `/status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Where the process is in its life.
    #[serde(flatten)]
    pub phase: Phase,
    /// The epoch of the ring in use.
    pub ring_epoch: u64,
    /// The ring.
    pub ring: RingStatus,
    /// The partitions that are assigned, by number.
    pub assignment: BTreeMap<i32, Assignment>,
    /// The clusters, by name.
    pub clusters: BTreeMap<String, ClusterStatus>,
    /// Whether a commit has proved lately that the process is a member of the group. Nothing is published while none has.
    pub membership_proven: bool,
    /// When the last commit was answered, in milliseconds since 1970; absent: not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_commit_millis: Option<i64>,
}

/// The ring in use, and how far its last change has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RingStatus {
    /// The epoch of the ring in use.
    pub epoch: u64,
    /// The epoch of a ring that is declared, and announced to Kafka before it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announced: Option<u64>,
    /// The share of the hash space that the last change moved, from 0 to 1.
    pub moved_share: f64,
    /// Assets that wait until their old owner has confirmed their earlier records.
    pub waiting_assets: usize,
    /// Why what is declared now cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// An assigned partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// What it is doing.
    #[serde(serialize_with = "in_words")]
    pub state: dispatch::Phase,
    /// The committed offset; absent: not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<i64>,
    /// Records that are not committed; absent: not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Whether nothing is read of it: it waits for room, a person or a newer ring.
    pub paused: bool,
}

/// What a partition is doing, for people.
fn words(phase: dispatch::Phase) -> String {
    match phase {
        dispatch::Phase::Active => "active".to_owned(),
        dispatch::Phase::Draining => "draining".to_owned(),
        dispatch::Phase::Stopped => "stopped: the committed offset is gone".to_owned(),
        dispatch::Phase::Behind(epoch) => format!("waits for ring epoch {epoch}"),
        dispatch::Phase::Announcing => "announces its ring".to_owned(),
        dispatch::Phase::Contested => {
            "waits for a higher ring epoch: others have delivered under another ring of this one".to_owned()
        }
    }
}

fn in_words<S: Serializer>(phase: &dispatch::Phase, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&words(*phase))
}

/// A cluster of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Whether it is connected.
    pub connected: bool,
    /// The server it is connected to, without user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why there is no connection, or why the last one ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Records that wait for a confirmation.
    pub pending_records: u64,
    /// Bytes that wait for a confirmation.
    pub pending_bytes: u64,
    /// Records that are to be read from Kafka again when the cluster has room, as far as this process has seen them.
    pub parked_records: u64,
    /// For how many seconds there have been some.
    pub parked_seconds: u64,
}
