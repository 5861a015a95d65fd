//! What is carried: a routed record as the dispatcher sees it, and as the outbox does.

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::outbox::Item;
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::Freight;

/// A routed record.
#[derive(Clone, Debug)]
pub(crate) struct Cargo {
    pub(crate) tag: Tag,
    pub(crate) lane: u64,
    pub(crate) weight: usize,
    pub(crate) subject: Vec<u8>,
}

impl Freight for Cargo {
    fn tag(&self) -> Tag {
        self.tag
    }
    fn lane(&self) -> u64 {
        self.lane
    }
    fn weight(&self) -> usize {
        self.weight
    }
}

impl Item for Cargo {
    fn lane(&self) -> u64 {
        self.lane
    }
    fn subject(&self) -> &[u8] {
        &self.subject
    }
    fn assignment(&self) -> (PartitionId, u32) {
        (self.tag.partition, self.tag.epoch)
    }
}
