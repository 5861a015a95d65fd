//! The ring changes while records flow.
//!
//! 1. *announced*: publishers for new members start, and every commit says that a successor needs the new ring. Where a beacon is
//!    declared, subscribers are told, and have their grace.
//! 2. *in use*: as soon as Kafka has acknowledged that for each partition, and the grace is over. Assets whose owner changes wait for what is
//!    out at the old one ([`forwarder_core::fanout::dispatch`]); all others go on.
//! 3. *done with*: a member that has left the ring is let go when it has nothing more.

use std::sync::Arc;

use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::document::{Checked, RingConfig};
use forwarder_core::fanout::dispatch::{Dispatcher, RingEpoch};
use forwarder_core::fanout::ring::{Ring, RingError, moved};
use forwarder_core::fanout::route::Router;
use forwarder_core::program::Program;
use tokio::sync::watch;
use tracing::{error, info, warn};

use crate::message::Message;
use crate::metrics::Metrics;
use crate::outputs::Command;
use crate::outputs::nats::Publishers;
use forwarder_nats::server::AddressError;

/// Why a ring cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RingChangeError {
    /// Its members make no ring.
    #[error("failed to build the ring")]
    Ring(#[from] RingError),
    /// A server's address cannot be read.
    #[error("failed to read the address of a server of cluster `{cluster}`")]
    Server {
        /// The cluster.
        cluster: String,
        /// The reason.
        source: AddressError,
    },
}

/// A program that places assets by a hash ring.
pub trait RingProgram: Program {
    /// Goes by another ring from the next record on.
    fn use_ring(&mut self, ring: &Arc<Ring>);

    /// Makes no message of a record any more whose subject is this one or below it: subscribers are told of the ring there.
    fn keep_off(&mut self, subject: &str);
}

impl RingProgram for Router {
    fn use_ring(&mut self, ring: &Arc<Ring>) {
        self.set_ring(Arc::clone(ring));
    }

    fn keep_off(&mut self, subject: &str) {
        Self::keep_off(self, subject);
    }
}

/// See the module.
pub(super) struct RingChanges {
    /// Rings that are declared while the engine runs.
    declared: watch::Receiver<Option<Arc<Checked<RingConfig>>>>,
    /// The ring in use, as it is declared.
    using: Arc<RingConfig>,
    /// The ring that is announced and not in use yet.
    announced: Option<Announced>,
    /// The ring that was used before, until that is taken note of.
    former: Option<Arc<Ring>>,
    /// The share of the hash space that the last change of the ring moved.
    moved_share: f64,
}

struct Announced {
    ring_epoch: RingEpoch,
    config: Arc<RingConfig>,
}

/// The ring of a document, with a publisher for each member.
///
/// # Errors
/// See [`RingChangeError`].
pub fn open_ring(config: &RingConfig, publishers: &mut Publishers) -> Result<RingEpoch, RingChangeError> {
    let members = config
        .clusters
        .iter()
        .map(|cluster| (cluster.name.clone(), cluster.weight));
    let ring = Ring::new(members, config.replicas)?;
    let mut outputs = Vec::with_capacity(config.clusters.len());
    for cluster in &config.clusters {
        outputs.push(publishers.open(cluster).map_err(|source| RingChangeError::Server {
            cluster: cluster.name.clone(),
            source,
        })?);
    }
    Ok(RingEpoch::new(config.epoch, Arc::new(ring), outputs))
}

impl RingChanges {
    pub(super) fn new(declared: watch::Receiver<Option<Arc<Checked<RingConfig>>>>, using: Arc<RingConfig>) -> Self {
        Self {
            declared,
            using,
            announced: None,
            former: None,
            moved_share: 0.0,
        }
    }

    /// The epoch of the ring that is announced and not in use yet.
    pub(super) fn announced(&self) -> Option<u64> {
        self.announced.as_ref().map(|announced| announced.ring_epoch.epoch)
    }

    /// The ring in use and the one that is announced, as they are declared.
    pub(super) fn configs(&self) -> (&Arc<RingConfig>, Option<&Arc<RingConfig>>) {
        (&self.using, self.announced.as_ref().map(|announced| &announced.config))
    }

    /// The share of the hash space that the last change moved.
    pub(super) fn moved_share(&self) -> f64 {
        self.moved_share
    }

    /// The ring that was used until a moment ago; it is said once.
    pub(super) fn take_former(&mut self) -> Option<Arc<Ring>> {
        self.former.take()
    }

    /// Takes up a ring that somebody has declared since this was last asked.
    pub(super) fn take_up(
        &mut self,
        dispatcher: &mut Dispatcher<Message>,
        publishers: &mut Publishers,
        program: &mut impl RingProgram,
    ) {
        // A ring whose grace runs is used first. The newer one waits where it is declared.
        if !self.declared.has_changed().unwrap_or(false) || !dispatcher.may_announce() {
            return;
        }
        let Some(config) = self.declared.borrow_and_update().clone() else {
            return;
        };
        let newest = self.announced().unwrap_or(dispatcher.ring_epoch().epoch);
        if config.epoch <= newest {
            return;
        }
        match open_ring(&config, publishers) {
            Ok(ring_epoch) => {
                info!(epoch = ring_epoch.epoch, members = ?ring_epoch.ring.names(), "announcing the new ring");
                if let Some(beacon) = &config.beacon {
                    program.keep_off(&beacon.subject);
                }
                dispatcher.announce_with_grace(&ring_epoch, grace(&config));
                self.announced = Some(Announced {
                    ring_epoch,
                    config: Arc::new(RingConfig::clone(&config)),
                });
            }
            Err(error) => {
                error!(epoch = config.epoch, error = %forwarder_service::chain(&error), "the new ring cannot be used; the current ring stays in use")
            }
        }
    }

    /// Uses the announced ring once every successor is sure to have it. Returns the partitions that begin by that.
    pub(super) fn use_announced(
        &mut self,
        dispatcher: &mut Dispatcher<Message>,
        program: &mut impl RingProgram,
        metrics: &Metrics,
    ) -> Vec<PartitionId> {
        let Some(Announced { ring_epoch, config }) = self.announced.take_if(|_| dispatcher.may_use_announced()) else {
            return Vec::new();
        };
        self.moved_share = moved(&dispatcher.ring_epoch().ring, &ring_epoch.ring)
            .iter()
            .map(|shift| shift.share)
            // Not `sum`: of nothing that is a negative zero, which people would see.
            .fold(0.0, |sum, share| sum + share);
        dispatcher.set_handover_timeout(config.handover_timeout_ms.saturating_mul(1_000));
        self.former = Some(Arc::clone(&dispatcher.ring_epoch().ring));
        self.using = config;
        program.use_ring(&ring_epoch.ring);
        metrics
            .ring_epoch
            .set(i64::try_from(ring_epoch.epoch).unwrap_or(i64::MAX));
        let epoch = ring_epoch.epoch;
        let begun = dispatcher.set_ring(ring_epoch);
        info!(
            epoch,
            moved_share = self.moved_share,
            waiting_assets = dispatcher.waiting(),
            "the new ring is in use"
        );
        begun
    }

    /// Ends the publishers of members that have left and have nothing more.
    pub(super) fn let_go(&self, dispatcher: &Dispatcher<Message>, publishers: &mut Publishers) {
        if publishers.size() <= dispatcher.ring_epoch().outputs().len() {
            return;
        }
        let announced = self
            .announced
            .as_ref()
            .map_or(&[][..], |announced| announced.ring_epoch.outputs());
        publishers.keep(|output| !dispatcher.is_done_with(output) || announced.contains(&output));
    }
}

/// How long subscribers are given to learn of a ring before it is used, in microseconds; 0: they follow no ring.
pub(super) fn grace(config: &RingConfig) -> u64 {
    let beacon = config.beacon.as_ref();
    beacon.map_or(0, |beacon| beacon.grace_ms.saturating_mul(1_000))
}

/// Asks old owners that have not answered in time to give back what they have of assets that are others' now.
pub(super) fn recall_what_is_overdue(dispatcher: &mut Dispatcher<Message>, publishers: &Publishers) {
    let overdue = dispatcher.overdue();
    for lanes in overdue.chunk_by(|a, b| a.0 == b.0) {
        let Some((output, _)) = lanes.first() else { continue };
        let Some(member) = publishers.get(*output) else {
            continue;
        };
        warn!(
            cluster = member.cluster.name,
            assets = lanes.len(),
            "the old owner has not confirmed in time; its unconfirmed records go to the new owner and may arrive twice"
        );
        member.command(Command::Recall(lanes.iter().map(|(_, lane)| *lane).collect()));
    }
}
