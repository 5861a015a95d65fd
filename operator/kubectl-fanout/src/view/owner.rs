//! Which cluster owns an asset: now, and before the change that is under way.

use std::collections::{BTreeMap, BTreeSet};

use forwarder_core::fanout::ring::moved;
use forwarder_core::fanout::table::Table as Owners;
use serde::Serialize;

use super::declared::Declared;
use super::snapshot::Snapshot;
use crate::fault::{Fault, Gap};
use crate::table::{Table, UNKNOWN};

/// How far the last change of the ring has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Change {
    /// All pods use the ring: what it says is what happens.
    Done,
    /// Some pods use an older ring, or assets wait for their old owner.
    UnderWay {
        /// The owner before the change; none: not known.
        owner_before: Option<String>,
    },
    /// What the pods use is not known.
    NotKnown,
}

/// The owner of an asset, by the ring of a forwarder.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OwnerView {
    /// The forwarder, as `namespace/name`.
    pub(crate) forwarder: String,
    /// The cluster's name in the ring; none: no cluster owns it, or it is not known. See `problem`.
    pub(crate) cluster: Option<String>,
    /// The cluster's object, as `namespace/name`.
    pub(crate) nats_cluster: Option<String>,
    /// The cluster's servers, without user and password.
    pub(crate) urls: Vec<String>,
    /// The epoch of the ring.
    pub(crate) ring_epoch: Option<u64>,
    /// How far the last change has come.
    pub(crate) change: Change,
    /// Why there is no owner to show.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

/// The owners of an asset, by the rings of one or several forwarders.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhereView {
    /// The asset.
    pub(crate) asset: String,
    /// Its owner by each ring.
    pub(crate) owners: Vec<OwnerView>,
    /// What could not be read.
    pub(crate) not_read: Vec<Gap>,
}

impl OwnerView {
    /// The owner of an asset. `weights` are those of all clusters that are known, by their names in rings.
    ///
    /// # Errors
    /// [`Fault`]: there is no ring that says it.
    pub(crate) fn of(snapshot: &Snapshot, asset: &str, weights: &BTreeMap<String, u32>) -> Result<Self, Fault> {
        let declared = match &snapshot.declared {
            Ok(declared) => declared,
            Err(Fault::Forbidden { what, right }) => {
                return Err(Fault::Forbidden {
                    what: what.clone(),
                    right: right.clone(),
                });
            }
            Err(Fault::NotFound(why)) => return Err(Fault::NotFound(why.clone())),
            Err(fault) => return Err(Fault::Ring(fault.to_string())),
        };
        if declared.idle {
            return Err(Fault::NotFound(format!(
                "the AssetForwarder {} has no clusters now, so no cluster owns the asset",
                snapshot.reference()
            )));
        }
        let table = Owners::new(&declared.config).map_err(|error| Fault::Ring(error.to_string()))?;
        let answer = table.answer(asset.to_owned());
        let answer = answer.ok_or_else(|| Fault::Ring("the owner of the asset has no server".to_owned()))?;
        let change = match snapshot.has_converged(answer.ring_epoch) {
            Some(true) => Change::Done,
            Some(false) => Change::UnderWay {
                owner_before: owner_before(snapshot, declared, asset, weights),
            },
            None => Change::NotKnown,
        };
        Ok(Self {
            forwarder: snapshot.reference(),
            nats_cluster: declared.members.get(&answer.cluster_name).cloned(),
            cluster: Some(answer.cluster_name),
            urls: answer.nats_urls,
            ring_epoch: Some(answer.ring_epoch),
            change,
            problem: None,
        })
    }

    /// A forwarder without an owner to show.
    pub(crate) fn without(snapshot: &Snapshot, why: &Fault) -> Self {
        Self {
            forwarder: snapshot.reference(),
            cluster: None,
            nats_cluster: None,
            urls: Vec::new(),
            ring_epoch: None,
            change: Change::NotKnown,
            problem: Some(why.to_string()),
        }
    }
}

impl WhereView {
    /// For people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut table = Table::new(["FORWARDER", "ASSET", "CLUSTER", "EPOCH", "BEFORE", "OBJECT", "URLS"]);
        for owner in &self.owners {
            let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| UNKNOWN.to_owned());
            let before = match &owner.change {
                Change::Done => "-".to_owned(),
                Change::UnderWay { owner_before } => or_unknown(owner_before),
                Change::NotKnown => UNKNOWN.to_owned(),
            };
            table.row([
                owner.forwarder.clone(),
                self.asset.clone(),
                or_unknown(&owner.cluster),
                crate::table::known(owner.ring_epoch),
                before,
                or_unknown(&owner.nats_cluster),
                owner.problem.clone().unwrap_or_else(|| owner.urls.join(",")),
            ]);
        }
        table.lines()
    }
}

/// Who owned the asset before the last change; none: nobody can tell.
///
/// The former ring's document is gone. Its members are known where pods still use it, or where clusters are leaving. Such a ring counts
/// only if the change from it moves the share that the operator has measured.
fn owner_before(
    snapshot: &Snapshot,
    declared: &Declared,
    asset: &str,
    weights: &BTreeMap<String, u32>,
) -> Option<String> {
    let measured = declared.moved_percent.as_deref()?;
    let after = declared.ring_of(&declared.weights()).ok()?;
    former(snapshot, declared, weights).iter().find_map(|members| {
        let before = declared.ring_of(members).ok()?;
        // Beginning at 0.0: the sum of nothing would be shown as -0.0.
        let share = moved(&before, &after).iter().fold(0.0, |sum, shift| sum + shift.share);
        let is_it = format!("{:.1}", share * 100.0) == measured;
        is_it.then(|| before.name(before.owner(asset.as_bytes())).to_owned())
    })
}

/// What the members of the former ring may have been.
fn former(snapshot: &Snapshot, declared: &Declared, weights: &BTreeMap<String, u32>) -> Vec<BTreeMap<String, u32>> {
    let now = declared.weights();
    let mut sets = BTreeSet::new();
    for status in snapshot.pods.iter().flatten().filter_map(|pod| pod.status()) {
        if status.ring.epoch != declared.config.epoch {
            sets.insert(status.clusters.keys().cloned().collect::<BTreeSet<String>>());
        }
    }
    sets.insert(now.keys().chain(declared.leaving.values()).cloned().collect());
    let weigh = |names: BTreeSet<String>| {
        let weighed = names.into_iter().map(|name| {
            let weight = now.get(&name).or_else(|| weights.get(&name)).copied()?;
            Some((name, weight))
        });
        weighed.collect::<Option<BTreeMap<_, _>>>()
    };
    sets.into_iter().filter_map(weigh).collect()
}

#[cfg(test)]
mod tests;
