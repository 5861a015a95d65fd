//! What the intake tells the beacon, about once a second and at each change. Nothing of it is per record.

use std::collections::BTreeMap;
use std::sync::Arc;

use forwarder_core::document::RingConfig;

use crate::outputs::nats::Answers;

/// How far the process is.
#[derive(Clone, Debug)]
pub struct Told {
    /// The ring in use.
    pub using: Arc<RingConfig>,
    /// Records go by it, or may. Not so while a process that has just begun owes subscribers the grace of that ring.
    pub is_used: bool,
    /// A newer one, if it is announced.
    pub announced: Option<Arc<RingConfig>>,
    /// For how many milliseconds the newest ring is not used yet, as far as the grace goes.
    pub grace_left_ms: u64,
    /// Of each topic the partitions that are ours, each with the oldest ring under which something of it is on its way. A topic with none
    /// has partitions that are ours, and nothing can be said of them yet.
    pub oldest: BTreeMap<String, Vec<(i32, u64)>>,
    /// How many partitions each topic has. A topic of which that is not known is not among them.
    pub partitions: BTreeMap<String, i32>,
    /// Every topic that the process reads.
    pub topics: Arc<[String]>,
    /// What goes out through the publishers' connections, by cluster.
    pub answers: BTreeMap<String, Answers>,
    /// The process ends: it takes no more records.
    pub stopping: bool,
}
