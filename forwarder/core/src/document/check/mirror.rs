//! Copies for subscribers that cannot follow the ring.

use std::collections::HashSet;

use crate::document::fault::Faults;
use crate::document::{MAX_RING_NODES, MirrorConfig, PreviousCluster, PreviousRing, Publish, PublishMode, RingConfig};

pub(super) fn check_mirror(faults: &mut Faults<'_>, mirror: &MirrorConfig) {
    let MirrorConfig { moved_ms, previous } = mirror;
    faults.at("movedMs").range(*moved_ms, 1_000, 24 * 3_600_000);
    if let Some(previous) = previous
        && let Some(problem) = problem(previous)
    {
        faults.at("previous").add(
            problem,
            "write the members and replicas of the ring before, or leave it out",
        );
    }
}

/// Why it was no ring.
fn problem(previous: &PreviousRing) -> Option<&'static str> {
    let PreviousRing { replicas, clusters } = previous;
    let mut names = HashSet::new();
    let mut nodes = 0_u64;
    for PreviousCluster { name, weight } in clusters {
        if name.is_empty() {
            return Some("has a cluster without a name");
        }
        if !names.insert(name) {
            return Some("names a cluster twice");
        }
        if *weight == 0 {
            return Some("has a cluster of weight 0");
        }
        nodes = nodes.saturating_add(u64::from(*weight) * u64::from(*replicas));
    }
    match nodes {
        0 => Some("has no virtual nodes"),
        1..=MAX_RING_NODES => None,
        _ => Some("has more virtual nodes than any ring may have"),
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
