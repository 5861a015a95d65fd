//! `where`: which cluster owns an asset.

use std::collections::BTreeMap;

use futures::StreamExt as _;

use crate::api::{Asked, Place};
use crate::fault::{Code, Fault};
use crate::output::{Format, warn};
use crate::view::declared::ring_name;
use crate::view::owner::{OwnerView, WhereView};
use crate::view::snapshot::Snapshot;

/// Forwarders that are read at once.
const AT_ONCE: usize = 4;

pub(super) async fn run(place: &Place, format: Format, asset: String, name: Option<String>) -> Result<Code, Fault> {
    let snapshots = match name {
        Some(name) => vec![place.snapshot(&name, Asked::Status).await?],
        None => all(place).await?,
    };
    let mut gaps = Vec::new();
    let weights = if snapshots.iter().any(is_changing) {
        match place.clusters().await {
            Ok(clusters) => clusters
                .iter()
                .map(|cluster| (ring_name(cluster), cluster.spec.weight))
                .collect(),
            Err(fault) => {
                gaps.push(fault.gap());
                BTreeMap::new()
            }
        }
    } else {
        BTreeMap::new()
    };
    let mut owners = Vec::new();
    let mut first = None;
    for snapshot in &snapshots {
        gaps.extend(snapshot.gaps.iter().cloned());
        match OwnerView::of(snapshot, &asset, &weights) {
            Ok(owner) => owners.push(owner),
            Err(fault) => {
                owners.push(OwnerView::without(snapshot, &fault));
                first = first.or(Some(fault));
            }
        }
    }
    // Where no forwarder tells an owner, the first reason is the answer.
    if let Some(fault) = first
        && owners.iter().all(|owner| owner.cluster.is_none())
    {
        return Err(fault);
    }
    let view = WhereView {
        asset,
        owners,
        not_read: gaps,
    };
    format.show(&view, || view.lines())?;
    warn(&view.not_read);
    Ok(Code::Fine)
}

/// All forwarders of the namespace.
async fn all(place: &Place) -> Result<Vec<Snapshot>, Fault> {
    let forwarders = place.forwarders().await?;
    if forwarders.is_empty() {
        return Err(Fault::NotFound(format!(
            "there is no AssetForwarder in the namespace {}: name another one with --namespace",
            place.namespace
        )));
    }
    let read = forwarders
        .into_iter()
        .map(|forwarder| place.snapshot_of(forwarder, Asked::Status));
    Ok(futures::stream::iter(read).buffered(AT_ONCE).collect().await)
}

fn is_changing(snapshot: &Snapshot) -> bool {
    let declared = snapshot.declared.as_ref();
    declared.is_ok_and(|declared| snapshot.has_converged(declared.config.epoch) == Some(false))
}
