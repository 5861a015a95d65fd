//! A record on its way: what the dispatcher and the outboxes carry.

use forwarder_core::delivery::deliverable::Deliverable;
use forwarder_core::delivery::offsets::Tag;

/// A routed record.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) tag: Tag,
    pub(crate) lane: u64,
    pub(crate) weight: usize,
    pub(crate) subject: Vec<u8>,
}

impl Deliverable for Message {
    fn tag(&self) -> Tag {
        self.tag
    }
    fn lane(&self) -> u64 {
        self.lane
    }
    fn weight(&self) -> usize {
        self.weight
    }
    fn subject(&self) -> &[u8] {
        &self.subject
    }
}
