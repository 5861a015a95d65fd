//! Which epochs are believed.
//! The operator writes the ring's ConfigMap and the status. What a pod reports is a claim: its process may be broken, or a foreign
//! pod may have our labels. A ring needs a higher epoch than any before it, so one false claim could use up all epochs.

use crate::controllers::asset_forwarder::pods::Observed;

/// How far above what we know ourselves a pod's claim may be. Each change of a ring is one epoch, so this is more than a ring ever has.
pub const LEAP: u64 = 1 << 20;

/// What a pod may claim where nothing else is known: the ring's ConfigMap and the status are lost.
pub const MOST_UNKNOWN: u64 = 1 << 40;

/// No claim at or above it is ever believed: the other half of all epochs stays for us.
const MOST: u64 = 1 << 62;

/// The last epoch that a document can have. There is none after it.
pub const LAST: u64 = i64::MAX.unsigned_abs();

/// Epochs that were seen elsewhere than in the document, and are believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The highest that was declared before: what our status and the pods say. Survives the document.
    pub declared: u64,
    /// What pods wait for: the group was served under a higher epoch before.
    pub awaited: u64,
}

/// A claim that is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The pod.
    pub pod: String,
    /// What it claims: the highest one.
    pub epoch: u64,
}

/// Judges what pods claim by what the ring's ConfigMap and our status know. 0: they know nothing.
#[must_use]
pub fn judge(recorded: u64, status: u64, pods: &[Observed]) -> (Seen, Vec<Ignored>) {
    let known = [recorded, status].into_iter().filter(|epoch| has_next(*epoch)).max();
    let known = known.unwrap_or(0);
    let mut seen = Seen {
        declared: if has_next(status) { status } else { 0 },
        awaited: 0,
    };
    let mut ignored = Vec::new();
    for pod in pods {
        // What the document says itself is no news.
        let is_news = |epoch: &u64| *epoch > recorded;
        let is_believed = |epoch: &u64| is_believed(*epoch, known);
        let declared = pod.epochs_known().filter(is_news);
        let awaited = pod.awaits().into_iter().filter(is_news);
        let not = declared
            .clone()
            .chain(awaited.clone())
            .filter(|epoch| !is_believed(epoch));
        if let Some(epoch) = not.max() {
            ignored.push(Ignored {
                pod: pod.name.clone(),
                epoch,
            });
        }
        seen.declared = declared.filter(is_believed).fold(seen.declared, u64::max);
        seen.awaited = awaited.filter(is_believed).fold(seen.awaited, u64::max);
    }
    (seen, ignored)
}

fn is_believed(claim: u64, known: u64) -> bool {
    let most = if known == 0 {
        MOST_UNKNOWN - 1
    } else {
        // What we have declared ourselves is no news.
        known.max(known.saturating_add(LEAP).min(MOST - 1))
    };
    claim <= most
}

/// Whether another epoch can follow.
#[must_use]
pub const fn has_next(epoch: u64) -> bool {
    epoch < LAST
}
