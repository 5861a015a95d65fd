//! What is leaving the ring, and which pods keep it. Pure.

use crate::controllers::asset_forwarder::dereference::Existing;
use crate::controllers::asset_forwarder::pods::{Observed, Process};
use crate::controllers::asset_forwarder::validate::Validated;
use crate::reconcile::reason::Reason;

/// More pods than this are counted, not named.
const NAMED: usize = 3;

/// Says of each cluster that is leaving the ring of `epoch` which pods keep it, and what they still hold for it.
pub(super) fn words(validated: &Validated, existing: &Existing, epoch: u64) -> String {
    let leaving = validated.ring.iter().flat_map(|ring| &ring.leaving);
    let clusters = leaving.map(|(reference, ring_name)| {
        let deleting = validated.members.excluded.iter().any(|excluded| {
            excluded.reason == Reason::Deleting && *reference == format!("{}/{}", excluded.namespace, excluded.name)
        });
        let mut words = reference.clone();
        if deleting {
            words.push_str(" (it is being deleted; its status says until when it waits)");
        }
        let kept: Vec<String> = existing
            .pods
            .iter()
            .filter_map(|pod| Some(format!("pod {} {}", pod.name, keeps(pod, ring_name, epoch)?)))
            .collect();
        if let Some((named, more)) = kept.split_at_checked(NAMED).filter(|(_, more)| !more.is_empty()) {
            words = format!("{words}: {}, and {} more pods", named.join(", "), more.len());
        } else if !kept.is_empty() {
            words = format!("{words}: {}", kept.join(", "));
        }
        words
    });
    let clusters: Vec<String> = clusters.collect();
    format!(
        "pods may still publish to clusters that have left the ring: {}",
        clusters.join("; ")
    )
}

/// Why a pod may still publish to a cluster that the ring of `epoch` does not have; none: it does not. The reasons are those of
/// [`Observed::has_left`].
fn keeps(pod: &Observed, ring_name: &str, epoch: u64) -> Option<String> {
    if pod.process == Process::Absent || pod.has_left(ring_name, epoch) {
        return None;
    }
    let Some(report) = &pod.report else {
        return Some("does not answer".to_owned());
    };
    if report.ring.epoch < epoch {
        return Some(format!("still runs epoch {}", report.ring.epoch));
    }
    let cluster = report.clusters.get(ring_name);
    let held = [
        (cluster.map_or(0, |cluster| cluster.pending_records), "unconfirmed"),
        (cluster.map_or(0, |cluster| cluster.parked_records), "parked"),
    ];
    let held: Vec<String> = held
        .into_iter()
        .filter(|(records, _)| *records > 0)
        .map(|(records, how)| format!("{} {how}", magnitude(records)))
        .collect();
    Some(if held.is_empty() {
        "has assets that wait for their old owner".to_owned()
    } else {
        format!("has {}", held.join(" and "))
    })
}

/// A number in words that change seldom: each change of a status is a write.
fn magnitude(records: u64) -> String {
    let bounds = [10_u64, 100, 1_000, 10_000, 100_000];
    match bounds.into_iter().find(|bound| records < *bound) {
        Some(bound) => format!("fewer than {bound} records"),
        None => "100000 records or more".to_owned(),
    }
}
