//! The ring changes: announced, then used.

use forwarder_core::fanout::dispatch::RingEpoch;

use super::Process;
use crate::assets::{RINGS, clusters, name};
use crate::outside::Outside;
use crate::publisher::Publisher;

impl Process {
    pub(super) fn change_ring(&mut self, outside: &mut Outside) {
        self.pass_time(outside);
        if self.next_ring == self.ring {
            // A publisher that is done with ends, and its connection.
            let Self {
                publishers, dispatcher, ..
            } = self;
            publishers.retain(|publisher| {
                let done = dispatcher.is_done_with(publisher.output);
                if let Some(wire) = publisher.wire.filter(|_| done) {
                    outside.cut(wire);
                }
                !done
            });
            return;
        }
        if self.announced != self.next_ring {
            self.announce(outside);
        }
        if self.announced == self.ring || !self.dispatcher.may_use_announced() {
            return;
        }
        self.ring = self.announced;
        let ring_epoch = open_ring(self.ring, &mut self.publishers, &mut self.outputs, outside);
        for partition in self.dispatcher.set_ring(ring_epoch) {
            self.fetched
                .insert(partition, self.dispatcher.partitions()[&partition].next());
        }
        outside.count("rings taken up");
        let (number, ring, waiting) = (self.number, self.ring + 1, self.dispatcher.waiting());
        outside.say(|| format!(" {number} uses ring {ring}, {waiting} assets wait"));
        if waiting > 0 {
            outside.count("rings with assets that wait");
        }
    }
}

impl Process {
    fn announce(&mut self, outside: &mut Outside) {
        let ring = RINGS.ring(outside.rings[self.next_ring]);
        let outputs = vec![0; ring.len()];
        let ring_epoch = RingEpoch::new(self.next_ring as u64 + 1, ring, outputs);
        let grace = outside.subscribers.grace;
        if self.dispatcher.announce_with_grace(&ring_epoch, grace) {
            self.announced = self.next_ring;
            self.heard_at = Some(outside.heard_at());
            if self.dispatcher.grace_left().is_some() {
                outside.count("rings announced with a grace");
            }
        } else {
            outside.count("rings that wait for another one's grace");
        }
    }

    /// What nothing but time brings about.
    fn pass_time(&mut self, outside: &mut Outside) {
        if self.heard_at.take_if(|at| *at <= outside.now).is_some() {
            self.dispatcher.heard(self.announced as u64 + 1, outside.now);
            outside.hear(self.life, &[self.ring, self.announced]);
        }
        for partition in self.dispatcher.end_grace() {
            outside.count("partitions whose grace is over");
            self.fetched
                .insert(partition, self.dispatcher.partitions()[&partition].next());
        }
    }
}

/// The ring with the outputs of its members; a member that has none gets one. One that comes back may get a new one
/// while the old one is still at work, as one does whose servers have changed.
pub(super) fn open_ring(
    ring: usize,
    publishers: &mut Vec<Publisher>,
    outputs: &mut u32,
    outside: &mut Outside,
) -> RingEpoch {
    let members = outside.rings[ring];
    let mut used = Vec::new();
    for cluster in clusters(members) {
        let known = publishers.iter().rev().find(|publisher| publisher.cluster == cluster);
        let anew = outside.fault(10);
        used.push(match known.filter(|_| !anew) {
            Some(publisher) => publisher.output,
            None => {
                *outputs += 1;
                publishers.push(Publisher::new(*outputs, cluster, outside));
                *outputs
            }
        });
    }
    debug_assert_eq!(
        RINGS.ring(members).names(),
        clusters(members).map(name).collect::<Vec<_>>()
    );
    RingEpoch::new(ring as u64 + 1, RINGS.ring(members), used)
}
