//! What there is in every run: assets, clusters, and the rings that the clusters can make.

use std::sync::{Arc, LazyLock};

use forwarder_core::delivery::partition::{Inputs, PartitionId};
use forwarder_core::fanout::ring::Ring;

/// How many partitions the topics of a run have.
pub(crate) const TOPICS: &[i32] = &[3];
pub(crate) const CLUSTERS: usize = 4;
pub(crate) const ASSETS: usize = 24;

/// Every ring that clusters can make, by the set of its members as bits: made once, as hashing costs the most.
pub(crate) struct Rings {
    rings: Vec<Option<Arc<Ring>>>,
    /// The cluster that owns each asset.
    owners: Vec<Vec<usize>>,
}

pub(crate) static RINGS: LazyLock<Rings> = LazyLock::new(|| {
    let mut all = Rings {
        rings: vec![None],
        owners: vec![Vec::new()],
    };
    for members in 1..1_usize << CLUSTERS {
        let ring = Ring::new(clusters(members).map(|cluster| (name(cluster), 1)), 8).unwrap();
        let clusters: Vec<usize> = clusters(members).collect();
        let owners = (0..ASSETS).map(|asset| clusters[ring.owner(key(asset).as_bytes())]);
        all.owners.push(owners.collect());
        all.rings.push(Some(Arc::new(ring)));
    }
    all
});

static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| (0..ASSETS).map(|asset| format!("asset-{asset:02}")).collect());

impl Rings {
    pub(crate) fn ring(&self, members: usize) -> Arc<Ring> {
        Arc::clone(self.rings[members].as_ref().unwrap())
    }

    pub(crate) fn owner(&self, members: usize, asset: usize) -> usize {
        self.owners[members][asset]
    }
}

pub(crate) fn clusters(members: usize) -> impl Iterator<Item = usize> {
    (0..CLUSTERS).filter(move |cluster| members >> cluster & 1 == 1)
}

pub(crate) fn name(cluster: usize) -> String {
    format!("C{cluster}")
}

pub(crate) fn key(asset: usize) -> &'static str {
    &KEYS[asset]
}

/// Every partition, in order.
pub(crate) fn partitions(topics: &[i32]) -> Vec<PartitionId> {
    let names: Vec<String> = (0..topics.len()).map(|topic| topic.to_string()).collect();
    let inputs = Inputs::new(names.iter().map(String::as_str));
    let all = inputs.iter().zip(topics);
    let all = all.flat_map(|((input, _), count)| (0..*count).map(move |number| PartitionId::new(input, number)));
    all.map(Option::unwrap).collect()
}

pub(crate) fn lane(members: usize, asset: usize) -> u64 {
    RINGS.ring(members).place(key(asset).as_bytes()).lane
}

/// An asset's records have one of two subjects.
pub(crate) fn subject(asset: usize, offset: i64) -> Vec<u8> {
    format!("{}.{}", key(asset), offset % 2).into_bytes()
}
