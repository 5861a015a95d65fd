//! Which former owners of an asset get a copy of its records, and until when.
//!
//! A subscriber that cannot follow the ring stays where it was. So for some time after a change, what the owner has confirmed goes to the
//! clusters too that owned the asset before.
//!
//! ```text
//!   ring 7: A    ring 8: B    ring 9: C         copies of the asset's records
//!   ────────────┬────────────┬──────────────▶   to A: until 8 was used for so long
//!               8 used       9 used             to B: until 9 was used for so long
//! ```
//!
//! - A copy goes only to members of the ring in use. Whoever has left it, or drains, gets none.
//! - Whoever owns the asset again gets no copy, because it gets the records.
//! - Time is an argument, in microseconds since any fixed moment. It is the process's own, from when that process used a ring.
//!
//! Pure: the forwarder's intake asks, and publishers write.

use std::sync::Arc;

use super::dispatch::RingEpoch;
use super::ring::Ring;
use crate::document::MAX_RING_NODES;

/// So many former rings are remembered, at most. Where the ring changes more often, the oldest one's time ends early.
const MAX_FORMER: usize = 8;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// For how long copies are made after a change.
    duration: u64,
    /// Rings that were used before the present one, oldest first. Empty: no copy is made.
    former: Vec<Former>,
}

/// A ring that is used no more.
#[derive(Clone, Debug)]
struct Former {
    ring: Arc<Ring>,
    fingerprint: u64,
    /// The outputs of its members as long as these are members of the ring in use, in the ring's order.
    outputs: Vec<Option<u32>>,
    /// Since when another ring is used.
    since: u64,
}

impl Mirror {
    /// The ring of `ring_epoch` is used from `now` on. `former`: the ring before it, as far as anybody knows. `duration`: for how long
    /// copies are made after a change; 0: none are made.
    ///
    /// Returns how many former rings are forgotten before their time, since there are too many.
    pub fn ring_used(&mut self, former: Option<Arc<Ring>>, ring_epoch: &RingEpoch, duration: u64, now: u64) -> usize {
        self.duration = duration;
        if duration == 0 {
            self.former.clear();
            return 0;
        }
        self.expire(now);
        if let Some(ring) = former {
            self.leave(ring, ring_epoch, now);
        }
        let forgotten = self.forget_excess();
        for Former { ring, outputs, .. } in &mut self.former {
            *outputs = ring.names().iter().map(|name| ring_epoch.output_named(name)).collect();
        }
        forgotten
    }

    /// Whether a copy may be made of anything. While nothing is declared and nothing has moved, nothing else needs to be asked.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.former.is_empty()
    }

    /// Forgets rings whose time is over.
    pub fn expire(&mut self, now: u64) {
        let duration = self.duration;
        self.former.retain(|former| !former.is_over(duration, now));
    }

    /// Whether the records of a lane may have to be copied: some member owned it that does not own it by `ring_epoch`, the ring in use.
    #[must_use]
    pub fn moves(&self, lane: u64, ring_epoch: &RingEpoch) -> bool {
        if self.former.is_empty() {
            return false;
        }
        let owner = ring_epoch.output_of_lane(lane);
        self.former
            .iter()
            .any(|former| former.output_of_lane(lane).is_some_and(|output| output != owner))
    }

    /// For whom a copy of a record of a lane is that the output `confirmed` has confirmed. They are put into `recipients`, which is
    /// cleared; each is there once.
    pub fn recipients(
        &self,
        lane: u64,
        ring_epoch: &RingEpoch,
        confirmed: u32,
        now: u64,
        recipients: &mut Vec<Recipient>,
    ) {
        recipients.clear();
        let owner = ring_epoch.output_of_lane(lane);
        for former in &self.former {
            let Some(output) = former.output_of_lane(lane).filter(|output| *output != confirmed) else {
                continue;
            };
            let is_known = recipients.iter().any(|known| known.output() == output);
            if is_known || former.is_over(self.duration, now) {
                continue;
            }
            recipients.push(if output == owner {
                Recipient::OwnsAgain(output)
            } else {
                Recipient::Gets(output)
            });
        }
    }

    /// A ring is former from now on, unless the next one has the same owners.
    fn leave(&mut self, ring: Arc<Ring>, next: &RingEpoch, now: u64) {
        let fingerprint = ring.fingerprint();
        if fingerprint == next.fingerprint() {
            return;
        }
        self.former.retain(|known| known.fingerprint != fingerprint);
        self.former.push(Former {
            ring,
            fingerprint,
            outputs: Vec::new(),
            since: now,
        });
    }

    fn forget_excess(&mut self) -> usize {
        let mut nodes = 0_u64;
        let of_newest = self.former.iter().rev().take(MAX_FORMER).take_while(|former| {
            nodes = nodes.saturating_add(former.ring.positions().len() as u64);
            nodes <= MAX_RING_NODES
        });
        let kept = of_newest.count();
        let excess = self.former.len() - kept;
        self.former.drain(..excess);
        excess
    }
}

impl Former {
    fn is_over(&self, duration: u64, now: u64) -> bool {
        now.saturating_sub(self.since) >= duration
    }

    fn output_of_lane(&self, lane: u64) -> Option<u32> {
        self.outputs.get(self.ring.owner_of_lane(lane)).copied().flatten()
    }
}

/// A former owner, by its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// It gets a copy.
    Gets(u32),
    /// It owns the asset again. It gets no copy of what the owner in between has confirmed, which would come among its own records.
    OwnsAgain(u32),
}

impl Recipient {
    const fn output(self) -> u32 {
        match self {
            Self::Gets(output) | Self::OwnsAgain(output) => output,
        }
    }
}

/// Whether a copy that waits at `output` may still be written under `ring_epoch`.
///
/// # Errors
/// Why not.
pub fn may_wait(output: u32, lane: u64, ring_epoch: &RingEpoch) -> Result<(), NoCopy> {
    if !ring_epoch.outputs().contains(&output) {
        return Err(NoCopy::Left);
    }
    if ring_epoch.output_of_lane(lane) == output {
        return Err(NoCopy::OwnsAgain);
    }
    Ok(())
}

/// Why a copy is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoCopy {
    /// The cluster is no member of the ring in use.
    Left,
    /// The cluster owns the asset again.
    OwnsAgain,
}

#[cfg(test)]
mod tests;
