//! A record on its way, as the dispatcher and the outboxes see it.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::offsets::Tag;
use super::partition::PartitionId;

/// A record on its way to an output.
pub trait Deliverable {
    /// Which record it is.
    fn tag(&self) -> Tag;

    /// Its asset's lane. Records of one lane are delivered in the order in which they were pushed.
    fn lane(&self) -> u64;

    /// What counts against the caps, in bytes.
    fn weight(&self) -> usize;

    /// The NATS subject: what a server denies or accepts.
    fn subject(&self) -> &[u8];

    /// [`subject_hash`] of its subject. The outbox asks for it when the bytes of the subject have long left the processor's
    /// caches. So a record that was given the hash before keeps it.
    fn subject_hash(&self) -> u64 {
        subject_hash(self.subject())
    }

    /// Partition and assignment epoch on whose behalf it is sent.
    fn assignment(&self) -> (PartitionId, u32) {
        let tag = self.tag();
        (tag.partition, tag.epoch)
    }
}

/// By which an outbox remembers a subject.
#[must_use]
pub fn subject_hash(subject: &[u8]) -> u64 {
    FixedState::default().hash_one(subject)
}
