//! On which clusters pods cannot announce the ring to subscribers. Pure.

use std::collections::BTreeMap;

use crate::controllers::asset_forwarder::dereference::Existing;
use crate::controllers::asset_forwarder::pods::BeaconFault;
use crate::controllers::asset_forwarder::validate::Validated;
use crate::reconcile::conditions::Words;
use crate::reconcile::reason::Reason;

/// The condition while there is such a cluster. `Ready` stays as it is: records need no announcement.
pub(super) const BEACON_FAILING: &str = "BeaconFailing";

/// More faults, and more pods with one of them, are counted, not named.
const NAMED: usize = 3;

/// Says which clusters these are, what pods say of each, and which pods; none: no pod tells of a fault.
pub(super) fn words(validated: &Validated, existing: &Existing) -> Option<Words> {
    // A pod that has not taken up the ring yet may speak of a beacon that is declared no more.
    validated.ring.as_ref()?.document.as_ref()?.beacon.as_ref()?;
    let mut failing = BTreeMap::<&BeaconFault, Vec<&str>>::new();
    for pod in existing.pods.iter().filter(|pod| !pod.terminating) {
        for fault in &pod.beacon_faults {
            failing.entry(fault).or_default().push(&pod.name);
        }
    }
    if failing.is_empty() {
        return None;
    }
    let faults = failing.iter().map(|(BeaconFault { cluster, fault }, pods)| {
        let cluster = cluster.as_deref().unwrap_or("all clusters");
        format!("{cluster}: {fault} ({})", named(", ", "pods", pods.iter().copied()))
    });
    let message = format!(
        "pods cannot announce the ring to subscribers, while records go on: {}",
        named("; ", "faults", faults)
    );
    Some(Words::new(Reason::BeaconFailing, message))
}

/// The first few of them, and how many more there are.
fn named(between: &str, what: &str, all: impl Iterator<Item = impl Into<String>>) -> String {
    let mut all: Vec<String> = all.map(Into::into).collect();
    let more = all.len().saturating_sub(NAMED);
    all.truncate(NAMED);
    if more > 0 {
        all.push(format!("and {more} more {what}"));
    }
    all.join(between)
}
