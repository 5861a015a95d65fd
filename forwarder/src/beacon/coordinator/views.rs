//! Rings as subscribers see them, and the order of pods that all of them agree on.

use forwarder_beacon::body::ClusterView;
use forwarder_beacon::{Phase, RingView};
use forwarder_core::document::{Cluster, RingConfig};

/// A ring as subscribers need it.
pub(super) fn view(ring: &RingConfig, phase: Phase) -> RingView {
    let cluster = |cluster: &Cluster| ClusterView {
        name: cluster.name.clone(),
        weight: cluster.weight,
        servers: cluster
            .servers_of_clients()
            .iter()
            .map(|server| plain(server))
            .collect(),
    };
    RingView {
        epoch: ring.epoch,
        phase,
        replicas: ring.replicas,
        clusters: ring.clusters.iter().map(cluster).collect(),
    }
}

/// A server's address without user and password: every subscriber reads it.
pub(super) fn plain(server: &str) -> String {
    match server.rsplit_once('@') {
        Some((before, host)) => {
            let scheme = before.split_once("://").map_or("nats", |(scheme, _)| scheme);
            format!("{scheme}://{host}")
        }
        None => server.to_owned(),
    }
}

/// A number that is the same in every process (FNV-1a), so that all pods agree on whose turn it is.
pub(super) fn spread(pod: &str, cluster: &str) -> u64 {
    let bytes = pod.bytes().chain([0]).chain(cluster.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
