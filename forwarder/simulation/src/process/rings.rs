//! The ring changes: announced, then used.

use forwarder_core::fanout::dispatch::RingEpoch;

use super::Process;
use crate::assets::{RINGS, clusters, name};
use crate::outside::Outside;
use crate::publisher::Publisher;

impl Process {
    pub(super) fn change_ring(&mut self, outside: &mut Outside) {
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
        let fingerprint = RINGS.ring(outside.rings[self.next_ring]).fingerprint();
        self.dispatcher.announce(self.next_ring as u64 + 1, fingerprint);
        if !self.dispatcher.is_announced() {
            return;
        }
        self.ring = self.next_ring;
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
