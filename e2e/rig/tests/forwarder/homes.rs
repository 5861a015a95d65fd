//! Which clusters may have an asset while the ring changes.

use std::sync::Arc;

use e2e_rig::observer::AtHome;
use forwarder_core::fanout::ring::Ring;

/// Virtual nodes of a cluster, as by default.
const REPLICAS: u32 = 128;

/// A ring of these clusters, each of weight 1.
pub(crate) fn ring(clusters: &[&str]) -> Ring {
    Ring::new(clusters.iter().map(|name| ((*name).to_owned(), 1)), REPLICAS).unwrap()
}

/// At home is an asset wherever one of these rings puts it.
pub(crate) fn of(rings: &[Vec<&str>]) -> AtHome {
    let rings: Vec<Ring> = rings.iter().map(|clusters| ring(clusters)).collect();
    Arc::new(move |key, cluster| {
        rings
            .iter()
            .any(|ring| ring.name(ring.owner(key.as_bytes())) == cluster)
    })
}
