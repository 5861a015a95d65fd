//! What the engine says of itself.

use std::collections::BTreeMap;

use serde::Serialize;

/// Where the process is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "phase", content = "reason", rename_all = "camelCase")]
pub enum Phase {
    /// Not yet a member of the group.
    #[default]
    Starting,
    /// A stable member with partitions.
    Consuming,
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
    /// Why the process is not ready, if it is not. A rebalance is part of a member's life and is ready.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        match self {
            Self::Consuming | Self::Idle | Self::Rebalancing => None,
            Self::Starting => Some("not yet a member of the group".to_owned()),
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The committed offset; absent: not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<i64>,
    /// Records that are not committed; absent: not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Whether the partition waits for a person or a newer ring.
    pub paused: bool,
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
