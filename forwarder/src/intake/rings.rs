//! The ring changes while records flow.
//!
//! 1. *announced*: publishers for new members start, and every commit says that a successor needs the new ring.
//! 2. *in use*: as soon as Kafka has acknowledged that for each partition. Assets whose owner changes wait for what is
//!    out at the old one ([`forwarder_core::fanout::dispatch`]); all others go on.
//! 3. *done with*: a member that has left the ring is let go when it has nothing more.

use std::sync::Arc;

use forwarder_core::document::RingConfig;
use forwarder_core::fanout::dispatch::Era;
use forwarder_core::fanout::ring::{Ring, RingError, moved};
use tracing::{error, info, warn};

use super::Intake;
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

/// A ring that is announced.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) era: Era,
    handover_timeout_ms: u64,
}

/// The ring of a document, with a publisher for each member.
///
/// # Errors
/// See [`RingChangeError`].
pub fn era(config: &RingConfig, fleet: &mut Publishers) -> Result<Era, RingChangeError> {
    let members = config
        .clusters
        .iter()
        .map(|cluster| (cluster.name.clone(), cluster.weight));
    let ring = Ring::new(members, config.replicas)?;
    let mut outlets = Vec::with_capacity(config.clusters.len());
    for cluster in &config.clusters {
        outlets.push(fleet.open(cluster).map_err(|source| RingChangeError::Server {
            cluster: cluster.name.clone(),
            source,
        })?);
    }
    Ok(Era::new(config.epoch, Arc::new(ring), outlets))
}

impl Intake {
    /// Takes up a ring that somebody has declared since the last look.
    pub(super) fn note_ring(&mut self) {
        if !self.links.rings.has_changed().unwrap_or(false) {
            return;
        }
        let Some(config) = self.links.rings.borrow_and_update().clone() else {
            return;
        };
        let newest = self
            .change
            .as_ref()
            .map_or(self.dispatcher.era().epoch, |change| change.era.epoch);
        if config.epoch <= newest {
            return;
        }
        match era(&config, &mut self.links.fleet) {
            Ok(era) => {
                info!(epoch = era.epoch, members = ?era.ring.names(), "a new ring: announcing it");
                self.dispatcher.announce(era.epoch, era.fingerprint());
                self.change = Some(Change {
                    era,
                    handover_timeout_ms: config.handover_timeout_ms,
                });
            }
            Err(error) => {
                error!(epoch = config.epoch, error = %forwarder_service::chain(&error), "the new ring cannot be used; the old one stays")
            }
        }
    }

    /// Uses the announced ring once every successor is sure to have it; lets go of members that have left.
    pub(super) fn go_on_changing(&mut self) {
        if let Some(change) = self.change.take_if(|_| self.dispatcher.is_announced()) {
            let Change {
                era,
                handover_timeout_ms,
            } = change;
            self.moved_share = moved(&self.dispatcher.era().ring, &era.ring)
                .iter()
                .map(|shift| shift.share)
                // Not `sum`: of nothing that is a negative zero, which people would see.
                .fold(0.0, |sum, share| sum + share);
            self.dispatcher
                .set_handover_timeout(handover_timeout_ms.saturating_mul(1_000));
            self.router.set_ring(Arc::clone(&era.ring));
            self.metrics
                .ring_epoch
                .set(i64::try_from(era.epoch).unwrap_or(i64::MAX));
            let epoch = era.epoch;
            let begun = self.dispatcher.set_ring(era);
            info!(
                epoch,
                moved_share = self.moved_share,
                waiting_assets = self.dispatcher.waiting(),
                "the new ring is in use"
            );
            self.ask_for(begun);
        }
        self.let_go();
    }

    /// Ends the publishers of members that have left and have nothing more.
    fn let_go(&mut self) {
        if self.links.fleet.size() <= self.dispatcher.era().outlets().len() {
            return;
        }
        let announced = self.change.as_ref().map(|change| change.era.outlets().to_vec());
        let Self { dispatcher, links, .. } = self;
        links.fleet.keep(|outlet| {
            !dispatcher.is_done_with(outlet) || announced.iter().flatten().any(|member| *member == outlet)
        });
    }

    /// Asks old owners that have not answered in time to give back what they have of assets that are others' now.
    pub(super) fn recall_what_is_overdue(&mut self) {
        let overdue = self.dispatcher.overdue();
        for lanes in overdue.chunk_by(|a, b| a.0 == b.0) {
            let Some((outlet, _)) = lanes.first() else { continue };
            let Some(member) = self.links.fleet.get(*outlet) else {
                continue;
            };
            warn!(
                cluster = member.cluster.name,
                assets = lanes.len(),
                "the old owner has not confirmed in time; its unconfirmed records go to the new one and may come twice"
            );
            member.command(Command::Recall(lanes.iter().map(|(_, lane)| *lane).collect()));
        }
    }
}
