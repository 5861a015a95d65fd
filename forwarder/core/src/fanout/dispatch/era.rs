//! A ring in use.

use std::sync::Arc;

use crate::delivery::commit::Ahead;
use crate::fanout::ring::Ring;

/// A ring in use, with the outlets of its members.
#[derive(Clone, Debug)]
pub struct Era {
    /// The ring's epoch.
    pub epoch: u64,
    /// The ring.
    pub ring: Arc<Ring>,
    outlets: Arc<[u32]>,
    fingerprint: u64,
}

impl Era {
    /// A ring; `outlets` are those of its members, in the ring's order.
    #[must_use]
    pub fn new(epoch: u64, ring: Arc<Ring>, outlets: Vec<u32>) -> Self {
        Self {
            epoch,
            fingerprint: ring.fingerprint(),
            ring,
            outlets: outlets.into(),
        }
    }

    /// The outlets of the members.
    #[must_use]
    pub fn outlets(&self) -> &[u32] {
        &self.outlets
    }

    /// See [`Ring::fingerprint`].
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The outlet of the ring's member.
    #[must_use]
    pub fn outlet(&self, owner: usize) -> u32 {
        self.outlets[owner]
    }

    /// The outlet of a lane's assets.
    #[must_use]
    pub fn outlet_of_lane(&self, lane: u64) -> u32 {
        self.outlets[self.ring.owner_of_lane(lane)]
    }

    /// The outlet of a member.
    #[must_use]
    pub fn outlet_named(&self, name: &str) -> Option<u32> {
        let index = self.ring.names().iter().position(|member| member == name)?;
        self.outlets.get(index).copied()
    }

    /// The member of an outlet.
    #[must_use]
    pub fn name_of(&self, outlet: u32) -> Option<&str> {
        let index = self.outlets.iter().position(|member| *member == outlet)?;
        Some(self.ring.name(index))
    }

    /// Whether what was told is about this ring and its members.
    #[must_use]
    pub fn is_told_by(&self, ahead: &Ahead) -> bool {
        let known = |(name, _): &(String, i64)| self.outlet_named(name).is_some();
        ahead.members == self.fingerprint && ahead.away.iter().all(known)
    }
}
