//! A ring with its epoch: what the dispatcher goes by from one change of the ring to the next.

use std::sync::Arc;

use crate::delivery::commit::Ahead;
use crate::fanout::ring::Ring;

/// A ring with its epoch and the outputs of its members.
#[derive(Clone, Debug)]
pub struct RingEpoch {
    /// The number of the epoch. It grows with every change of the ring.
    pub epoch: u64,
    /// The ring.
    pub ring: Arc<Ring>,
    outputs: Arc<[u32]>,
    fingerprint: u64,
}

impl RingEpoch {
    /// A ring; `outputs` are those of its members, in the ring's order.
    #[must_use]
    pub fn new(epoch: u64, ring: Arc<Ring>, outputs: Vec<u32>) -> Self {
        Self {
            epoch,
            fingerprint: ring.fingerprint(),
            ring,
            outputs: outputs.into(),
        }
    }

    /// The outputs of the members.
    #[must_use]
    pub fn outputs(&self) -> &[u32] {
        &self.outputs
    }

    /// See [`Ring::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The output of the ring's member.
    #[must_use]
    pub fn output(&self, owner: usize) -> u32 {
        self.outputs[owner]
    }

    /// The output of a lane's assets.
    #[must_use]
    pub fn output_of_lane(&self, lane: u64) -> u32 {
        self.outputs[self.ring.owner_of_lane(lane)]
    }

    /// The output of a member.
    #[must_use]
    pub fn output_named(&self, name: &str) -> Option<u32> {
        let index = self.ring.names().iter().position(|member| member == name)?;
        self.outputs.get(index).copied()
    }

    /// The member of an output.
    #[must_use]
    pub fn name_of(&self, output: u32) -> Option<&str> {
        let index = self.outputs.iter().position(|member| *member == output)?;
        Some(self.ring.name(index))
    }

    /// Whether a commit's metadata is about this ring and its members.
    #[must_use]
    pub fn matches(&self, ahead: &Ahead) -> bool {
        let known = |(name, _): &(String, i64)| self.output_named(name).is_some();
        ahead.members == self.fingerprint && ahead.away.iter().all(known)
    }
}
