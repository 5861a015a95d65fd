//! Copies for subscribers that cannot follow the ring.

use crate::document::fault::Faults;
use crate::document::{MirrorConfig, PreviousRing, Publish, PublishMode, RingConfig};
use crate::fanout::ring::check_members;

pub(super) fn check_mirror(faults: &mut Faults<'_>, mirror: &MirrorConfig) {
    let MirrorConfig { moved_ms, previous } = mirror;
    faults.at("movedMs").range(*moved_ms, 1_000, 24 * 3_600_000);
    if let Some(PreviousRing { replicas, clusters }) = previous {
        let members: Vec<_> = clusters
            .iter()
            .map(|cluster| (cluster.name.clone(), cluster.weight))
            .collect();
        if let Err(error) = check_members(&members, *replicas) {
            faults.at("previous").add(
                format!("makes no ring: {error}"),
                "write the members and replicas of the ring before, or leave it out",
            );
        }
    }
}

/// A stream keeps its records, so there is nothing to copy.
pub(super) fn check_mode(faults: &mut Faults<'_>, ring: &RingConfig, publish: &Publish) {
    if ring.mirror.is_some() && publish.mode == PublishMode::JetStream {
        faults.at("ring.mirror").add(
            "is not used in mode JetStream: a stream keeps its records, and consumers read them there",
            "remove it, or write publish.mode: Core",
        );
    }
}
