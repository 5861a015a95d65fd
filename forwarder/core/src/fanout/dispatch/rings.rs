//! The ring changes: announced first, then used, and what moves is handed over.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::backlog::Ways;
use super::grace::Announced;
use super::{Dispatcher, Phase, RingEpoch};
use crate::delivery::DEAD_LETTER;
use crate::delivery::deliverable::Deliverable;
use crate::delivery::partition::PartitionId;

impl<T: Deliverable> Dispatcher<T> {
    /// The ring in use.
    #[must_use]
    pub fn ring_epoch(&self) -> &RingEpoch {
        &self.ring_epoch
    }

    /// From now on commits say that a successor needs the ring of this epoch and fingerprint. Only when all have been acknowledged may
    /// that ring be used: otherwise a successor with the old one would send assets back.
    pub fn announce(&mut self, epoch: u64, fingerprint: u64) {
        if epoch > self.announced.epoch {
            self.announced = Announced::at_once(epoch, fingerprint);
        }
    }

    /// Whether the broker knows for each partition that a successor needs the announced ring.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        let mut ours = self
            .partitions
            .values()
            .filter(|state| matches!(state.phase, Phase::Active | Phase::Draining | Phase::Examined));
        ours.all(|state| {
            state
                .committed
                .as_ref()
                .is_some_and(|point| point.ring >= self.announced.epoch)
        })
    }

    /// How long an asset waits for its old owner, in microseconds, from the next change of the ring on.
    pub fn set_handover_timeout(&mut self, timeout: u64) {
        self.handover_timeout = timeout;
    }

    /// Uses another ring from now on. Returns the partitions that waited for it and begin: their records are to be asked for.
    pub fn set_ring(&mut self, ring_epoch: RingEpoch) -> Vec<PartitionId> {
        self.announce(ring_epoch.epoch, ring_epoch.fingerprint());
        if self.is_known() {
            self.known = Some(self.ring_epoch.epoch);
        }
        self.grace = self.grace_of(ring_epoch.epoch);
        self.announced.is_awaited &= self.announced.epoch > ring_epoch.epoch;
        let is_known = self.is_known();
        self.ring_epoch = ring_epoch;
        self.make_outputs_known();
        let ours = &self.ring_epoch;
        let mut begun = Vec::new();
        let mut ways = Ways::default();
        for (partition, state) in &mut self.partitions {
            state.backlog.change(ours, &mut ways);
            if state.rings.has_begun() {
                state.use_ring(ours.epoch);
            }
            let phase = match state.phase {
                Phase::Behind(epoch)
                    if epoch == ours.epoch
                        && state.past.members.is_some_and(|members| members != ours.fingerprint()) =>
                {
                    state.ring = epoch.saturating_add(1);
                    Phase::Contested
                }
                Phase::Behind(epoch) if epoch == ours.epoch => {
                    let told = state.later.take().filter(|ahead| ours.matches(ahead));
                    if let Some(ahead) = told.filter(|ahead| ahead.upto >= state.start) {
                        state.go_on_behind(ahead, ours, self.tuning.slack, self.now);
                    }
                    Phase::Active
                }
                Phase::Behind(epoch) if epoch < ours.epoch => Phase::Announcing,
                Phase::Contested => Phase::Announcing,
                _ => continue,
            };
            state.phase = state.past.phase_under(ours, is_known, phase);
            self.may_owe |= state.enter(ours.epoch);
            if state.is_taken() {
                begun.push(*partition);
            }
        }
        // What is being read again is looked at anew: its classes have other names now.
        self.replay = None;
        self.rebuild_hand_over();
        self.forget_older_rings();
        begun
    }

    /// How many assets wait for their old owner.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.hand_over.len()
    }

    /// Whether an output has nothing and gets nothing any more.
    #[must_use]
    pub fn is_done_with(&self, output: u32) -> bool {
        !self.ring_epoch.outputs().contains(&output) && self.caps.load(output as usize).records == 0
    }

    pub(super) fn rebuild_hand_over(&mut self) {
        let mut out = HashMap::<u64, (u32, usize), FixedState>::default();
        for place in self.partitions.values().flat_map(|state| state.offsets.whereabouts()) {
            let Some(output) = place.output.filter(|output| *output != DEAD_LETTER) else {
                continue;
            };
            if self.hand_over.contains(place.lane) || self.ring_epoch.output_of_lane(place.lane) != output {
                out.entry(place.lane).or_insert((output, 0)).1 += 1;
            }
        }
        let ring_epoch = self.ring_epoch.clone();
        let deadline = self.now.saturating_add(self.handover_timeout);
        for lane in self
            .hand_over
            .rebuild(&out, |lane| ring_epoch.output_of_lane(lane), deadline)
        {
            self.release(lane);
        }
    }

    pub(super) fn forget_older_rings(&mut self) {
        if self.hand_over.is_empty() {
            for state in self.partitions.values_mut() {
                state.backlog.forget_older();
            }
        }
    }

    pub(super) fn make_outputs_known(&mut self) {
        let greatest = self.ring_epoch.outputs().iter().copied().max().unwrap_or(0);
        self.caps.make_known(greatest as usize);
        self.caps.share(self.ring_epoch.outputs().len());
    }
}
