//! The clusters of a ring, with what the pods hold for them.

use std::collections::BTreeMap;

use forwarder_core::status::ClusterStatus;
use serde::Serialize;

use super::pods::sum;
use super::snapshot::Snapshot;
use crate::table::{Table, known, percent};

/// A cluster of a forwarder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ClusterView {
    /// Its name in the ring.
    pub(crate) name: String,
    /// Its object, as `namespace/name`; none: not known.
    pub(crate) nats_cluster: Option<String>,
    /// `true`: it has left the ring, and some pod may still publish to it.
    pub(crate) leaving: bool,
    /// Its weight; none: not known, or it has left.
    pub(crate) weight: Option<u32>,
    /// The share of the hash space that it owns, from 0 to 1; none: not known.
    pub(crate) share: Option<f64>,
    /// Pods that are connected to it.
    pub(crate) connected_pods: Option<u64>,
    /// Records that wait for its confirmation.
    pub(crate) pending_records: Option<u64>,
    /// Records that are to be read again when it has room.
    pub(crate) parked_records: Option<u64>,
    /// Assets whose records wait behind one that it refuses.
    pub(crate) held_assets: Option<u64>,
}

/// The members by their names, then the clusters that are leaving. Without the ring's document the members are those of the forwarder's
/// status.
pub(crate) fn clusters(snapshot: &Snapshot) -> Vec<ClusterView> {
    let mut clusters = Vec::new();
    match &snapshot.declared {
        Ok(declared) => {
            let shares = if declared.idle {
                BTreeMap::new()
            } else {
                declared.shares().unwrap_or_default()
            };
            let members = declared.weights().into_iter().filter(|_| !declared.idle);
            for (name, weight) in members {
                let reference = declared.members.get(&name).cloned();
                clusters.push(ClusterView {
                    weight: Some(weight),
                    // A member whose arcs are all too narrow to be measured has none to speak of.
                    share: Some(shares.get(&name).copied().unwrap_or(0.0)),
                    ..cluster(snapshot, name, reference, false)
                });
            }
            for (reference, name) in &declared.leaving {
                // Of a ring that somebody has deleted only the objects are known.
                let name = if name.is_empty() { reference } else { name };
                clusters.push(cluster(snapshot, name.clone(), Some(reference.clone()), true));
            }
        }
        Err(_) => {
            let ring = snapshot
                .forwarder
                .status
                .as_ref()
                .and_then(|status| status.ring.as_ref());
            if let Some(ring) = ring {
                let names = ring.names.iter();
                clusters.extend(names.map(|name| cluster(snapshot, name.clone(), None, false)));
                let leaving = ring.leaving.iter();
                clusters.extend(leaving.map(|reference| ClusterView {
                    connected_pods: None,
                    pending_records: None,
                    parked_records: None,
                    held_assets: None,
                    ..cluster(snapshot, reference.clone(), Some(reference.clone()), true)
                }));
            }
        }
    }
    clusters
}

/// A cluster with what the pods say of it.
fn cluster(snapshot: &Snapshot, name: String, nats_cluster: Option<String>, leaving: bool) -> ClusterView {
    let total = |of: fn(&ClusterStatus) -> u64| {
        let pods = snapshot.pods.as_deref()?;
        // A process that does not name it has nothing for it.
        sum(pods, |status| Some(status.clusters.get(&name).map_or(0, of)))
    };
    ClusterView {
        connected_pods: total(|cluster| u64::from(cluster.connected)),
        pending_records: total(|cluster| cluster.pending_records),
        parked_records: total(|cluster| cluster.parked_records),
        held_assets: total(|cluster| cluster.held_assets),
        name,
        nats_cluster,
        leaving,
        weight: None,
        share: None,
    }
}

/// A further column: its title, and its cell for each cluster.
pub(crate) struct Column<'a> {
    /// The title.
    pub(crate) title: &'a str,
    /// The cells.
    pub(crate) cell: &'a dyn Fn(&ClusterView) -> String,
}

/// A table of them, with a further column behind the share if there is one.
pub(crate) fn table(clusters: &[ClusterView], further: Option<&Column<'_>>) -> Table {
    let titles = ["WEIGHT", "CONNECTED", "PENDING", "PARKED", "HELD", "OBJECT"];
    let mut table = Table::new(
        ["CLUSTER", "SHARE"]
            .into_iter()
            .chain(further.map(|column| column.title))
            .chain(titles),
    );
    for cluster in clusters {
        let (share, weight) = if cluster.leaving {
            ("leaving".to_owned(), "-".to_owned())
        } else {
            (known(cluster.share.map(percent)), known(cluster.weight))
        };
        let more = further.map(|column| (column.cell)(cluster));
        let rest = [
            weight,
            known(cluster.connected_pods),
            known(cluster.pending_records),
            known(cluster.parked_records),
            known(cluster.held_assets),
            known(cluster.nats_cluster.as_ref()),
        ];
        table.row([cluster.name.clone(), share].into_iter().chain(more).chain(rest));
    }
    table
}
