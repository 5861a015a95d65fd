//! What `/status` shows and readiness is judged by.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::publisher::Link;

/// The intake's state, as of its last report.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// A stable member of the group, with or without partitions.
    pub stable: bool,
    /// An assignment waits for Kafka to say where its partitions begin.
    pub joining: bool,
    /// The caps are reached.
    pub paused: bool,
    /// The partitions.
    pub partitions: Vec<PartitionStatus>,
}

/// A partition of this process.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// One past the settled prefix.
    pub position: i64,
    /// The position that the broker acknowledged.
    pub committed: Option<i64>,
    /// Records received and not settled.
    pub unsettled: usize,
    /// Records between the position and the end, as of the last statistics.
    pub lag: Option<i64>,
    /// `active`, `draining` or `stopped`.
    pub phase: &'static str,
}

/// Where the intake puts its state up and the admin server reads it.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Snapshot>>);

impl Board {
    // Held for a swap once a second, and for a clone when somebody asks.
    pub(crate) fn put(&self, snapshot: Snapshot) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// The newest state.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The whole process, as `/status` shows it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether records are taken, or could be if there were any.
    pub ready: bool,
    /// Why not, where they are not.
    pub reason: Option<String>,
    /// The topic.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// The ring's epoch.
    pub ring_epoch: u64,
    /// Whether intake pauses because too much waits for confirmation.
    pub paused: bool,
    /// The clusters, in the order of the ring.
    pub clusters: Vec<ClusterStatus>,
    /// The partitions of this process.
    pub partitions: Vec<PartitionStatus>,
}

/// A cluster of the ring.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Its name in the ring.
    pub name: String,
    /// The server, while there is a connection.
    pub connected: Option<String>,
    /// Why there is none, or why the last one ended.
    pub last_error: Option<String>,
    /// Records that wait for confirmation.
    pub pending_records: i64,
    /// Their bytes.
    pub pending_bytes: i64,
}

impl ClusterStatus {
    /// From the publisher's link and the intake's count.
    #[must_use]
    pub fn new(name: &str, link: &Link, pending_records: i64, pending_bytes: i64) -> Self {
        let link = link.status();
        Self {
            name: name.to_owned(),
            connected: link.connected,
            last_error: link.last_error,
            pending_records,
            pending_bytes,
        }
    }
}
