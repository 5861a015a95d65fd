//! Copies of confirmed records for subscribers that cannot follow the ring.
//!
//! ```text
//!   receipts ─ confirmed, and its asset has moved ─▶ mirror: whose subscribers may be waiting? ─▶ those publishers
//! ```
//!
//! A copy is made of what the owner has confirmed. So copies of an asset are in its order, and behind what the former owner had itself.
//! Where no copies are declared, a record costs one comparison.

use std::sync::Arc;
use std::time::Duration;

use forwarder_core::document::{MirrorConfig, PreviousRing, PublishMode};
use forwarder_core::fanout::dispatch::RingEpoch;
use forwarder_core::fanout::mirror::{Mirror, Recipient};
use forwarder_core::fanout::ring::{Ring, RingError};
use tracing::{info, warn};

use crate::message::Message;
use crate::metrics::MirrorDrop;
use crate::outputs::nats::Publishers;

/// See the module.
pub(super) struct Mirroring {
    mode: PublishMode,
    mirror: Mirror,
    /// What was confirmed since copies were last handed out, each with the output that confirmed it.
    confirmed: Vec<(u32, Arc<Message>)>,
    /// Used again and again.
    recipients: Vec<Recipient>,
}

impl Mirroring {
    /// Nothing is copied yet.
    pub(super) fn new(mode: PublishMode) -> Self {
        Self {
            mode,
            mirror: Mirror::default(),
            confirmed: Vec::new(),
            recipients: Vec::new(),
        }
    }

    /// The process begins with a ring. `declared`: what its document says of copies.
    pub(super) fn begin(
        &mut self,
        declared: Option<&MirrorConfig>,
        ring_epoch: &RingEpoch,
        publishers: &Publishers,
        now: u64,
    ) {
        let previous = declared.and_then(|declared| declared.previous.as_ref());
        let previous = previous.and_then(|previous| match ring_of(previous) {
            Ok(ring) => Some(Arc::new(ring)),
            // Cannot be: the document was checked.
            Err(error) => {
                warn!(%error, "the previous ring cannot be used; no copies are made until the ring changes");
                None
            }
        });
        self.ring_used(previous, declared, ring_epoch, publishers, now);
    }

    /// A ring is used from `now` on, and `former` was used before it.
    pub(super) fn ring_used(
        &mut self,
        former: Option<Arc<Ring>>,
        declared: Option<&MirrorConfig>,
        ring_epoch: &RingEpoch,
        publishers: &Publishers,
        now: u64,
    ) {
        let duration = match (declared, self.mode) {
            (None, _) => 0,
            (Some(declared), PublishMode::Core) => declared.moved_ms.saturating_mul(1_000),
            (Some(_), PublishMode::JetStream) => {
                warn!("ring.mirror is not used in mode JetStream, because a stream keeps its records");
                0
            }
        };
        let was_on = self.mirror.is_on();
        let forgotten = self.mirror.ring_used(former, ring_epoch, duration, now);
        if forgotten > 0 {
            warn!(
                rings = forgotten,
                "the ring has changed too often: the owners by the oldest rings get no more copies"
            );
        }
        if self.mirror.is_on() {
            info!(
                seconds = Duration::from_micros(duration).as_secs(),
                "records of assets that have moved are copied to their previous owners"
            );
        }
        if was_on {
            // Ahead of all records and copies by the new ring.
            publishers
                .members()
                .for_each(|(_, publisher)| publisher.use_ring(ring_epoch));
        }
    }

    /// Whether records of a lane may have to be copied once they are confirmed.
    pub(super) fn moves(&self, lane: u64, ring_epoch: &RingEpoch) -> bool {
        self.mirror.moves(lane, ring_epoch)
    }

    /// A message of such a lane is confirmed.
    pub(super) fn confirmed(&mut self, output: u32, message: Arc<Message>) {
        self.confirmed.push((output, message));
    }

    /// Gives former owners their copies. `ring_epoch` is the ring in use; `now` is asked only where there are some.
    pub(super) fn hand_out(&mut self, ring_epoch: &RingEpoch, publishers: &Publishers, now: impl FnOnce() -> u64) {
        if self.confirmed.is_empty() {
            return;
        }
        let now = now();
        self.mirror.expire(now);
        for (output, message) in self.confirmed.drain(..) {
            self.mirror
                .recipients(message.lane, ring_epoch, output, now, &mut self.recipients);
            for recipient in &self.recipients {
                match recipient {
                    Recipient::Gets(output) => {
                        if let Some(publisher) = publishers.get(*output) {
                            publisher.copy(Arc::clone(&message));
                        }
                    }
                    Recipient::OwnsAgain(output) => {
                        if let Some(publisher) = publishers.get(*output) {
                            publisher.metrics.mirror.dropped(MirrorDrop::OwnedAgain).inc();
                        }
                    }
                }
            }
        }
    }
}

fn ring_of(previous: &PreviousRing) -> Result<Ring, RingError> {
    let clusters = previous.clusters.iter();
    let members = clusters.map(|cluster| (cluster.name.clone(), cluster.weight));
    Ring::new(members, previous.replicas)
}
