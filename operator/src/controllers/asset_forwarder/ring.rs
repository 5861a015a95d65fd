//! Declares the ring: its document with an epoch that only grows, and the clusters that are leaving it.

pub mod claims;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use forwarder_core::document::{Beacon, ConfigErrors, MirrorConfig, PreviousRing, RingConfig};
use forwarder_core::fanout::ring::{LeanRing, RingError, moved};

use self::claims::{LAST, Seen, has_next};
use super::members::Member;
use super::recorded::Recorded;
use crate::index::in_turn;

/// What the spec says about the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Virtual nodes of a cluster of weight 1.
    pub replicas: u32,
    /// How long an asset waits for its old owner, in milliseconds.
    pub handover_timeout_ms: u64,
    /// How subscribers learn of the ring, in a form that its readers take; none: they do not.
    pub beacon: Option<Beacon>,
    /// For how long records of assets that moved are copied to their previous owner, in milliseconds, where its readers take that; none:
    /// they are not.
    pub mirror_moved_ms: Option<u64>,
}

/// Virtual nodes of a ring that is declared, at most. In a pod they take 31 MB, and twice as much during a change. Pods read rings of up
/// to [`forwarder_core::document::MAX_RING_NODES`], so a larger ring that was declared before goes on, and may change as long as it does not grow.
pub const MOST_NODES: u64 = 1 << 19;

/// Why a ring cannot be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The document says what cannot be.
    #[error(transparent)]
    Document(#[from] ConfigErrors),
    /// The members make no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// It would take too much memory in each pod.
    #[error(
        "the ring would have {nodes} virtual nodes, but the limit is {MOST_NODES}. Lower spec.ring.replicas ({replicas}), or \
         spec.weight of its NatsClusters (together {weights}). The pods keep the ring that they have"
    )]
    TooLarge {
        /// Virtual nodes.
        nodes: u64,
        /// Of a cluster of weight 1.
        replicas: u32,
        /// Of all clusters together.
        weights: u64,
    },
}

/// What is to be written; `None`: there is no member, and there never was one.
///
/// `readers` is what is noted of those who read it; `members` are in a form that they read.
/// Nothing is written anew while members and shape are what they were: the same input gives what is recorded. A cluster that leaves
/// with this change is `leaving` at least until the next look, for which this has been written: `has_left` is asked, by ring name, about
/// those alone that were leaving before. How much a change moves is not in it: that is for [`measure`].
///
/// # Errors
/// [`RingFault`]: the spec cannot be, and what is recorded stays.
pub fn declare(
    members: &[Member],
    shape: Shape,
    recorded: &Recorded,
    seen: Seen,
    readers: BTreeMap<String, u32>,
    has_left: impl Fn(&str) -> bool,
) -> Result<Option<Recorded>, RingFault> {
    let declared: BTreeMap<String, String> = members
        .iter()
        .map(|member| (member.cluster.name.clone(), member.reference.clone()))
        .collect();
    let stays = |reference: &str| members.iter().any(|member| member.reference == reference);
    let mut leaving: BTreeMap<String, String> = recorded
        .leaving
        .iter()
        .filter(|(reference, name)| !stays(reference) && !has_left(name))
        .map(|(reference, name)| (reference.clone(), name.clone()))
        .collect();
    let gone = recorded.members.iter().filter(|(_, reference)| !stays(reference));
    leaving.extend(gone.map(|(name, reference)| (reference.clone(), name.clone())));

    if members.is_empty() {
        // A document without members is none; pods keep the last one until they are gone.
        let idle = recorded.document.as_ref().map(|_| Recorded {
            members: declared,
            leaving,
            readers,
            idle: true,
            ..recorded.clone()
        });
        return Ok(idle);
    }
    let wanted = RingConfig {
        epoch: recorded.epoch(),
        replicas: shape.replicas,
        handover_timeout_ms: shape.handover_timeout_ms,
        clusters: members.iter().map(|member| member.cluster.clone()).collect(),
        beacon: shape.beacon,
        mirror: None,
    };
    let mirror = shape.mirror_moved_ms.map(|moved_ms| MirrorConfig {
        moved_ms,
        previous: previous(&wanted, recorded.document.as_ref()),
    });
    let wanted = RingConfig { mirror, ..wanted };
    fits(&wanted, recorded.document.as_ref())?;
    // By hand anything can be written there; pods refuse what is no epoch.
    let is_one = (1..=LAST).contains(&wanted.epoch);
    let is_same = is_one && recorded.document.as_ref() == Some(&wanted) && seen.declared <= wanted.epoch;
    let epoch = if is_same {
        wanted.epoch
    } else {
        // An epoch that leaves no other one was written by hand. Pods that have not taken it up are saved by not going on from there.
        let before = [wanted.epoch, seen.declared]
            .into_iter()
            .filter(|epoch| has_next(*epoch));
        before.max().unwrap_or(0) + 1
    };
    let document = RingConfig {
        epoch: epoch.max(seen.awaited),
        ..wanted
    };
    document.check()?;
    Ok(Some(Recorded {
        document: Some(document),
        members: declared,
        leaving,
        moved_percent: recorded.moved_percent.clone().filter(|_| is_same),
        readers,
        idle: false,
    }))
}

/// The last ring that had other owners than `wanted`, as far as what is recorded tells.
fn previous(wanted: &RingConfig, recorded: Option<&RingConfig>) -> Option<PreviousRing> {
    let recorded = recorded?;
    let last = PreviousRing::of(recorded);
    if last != PreviousRing::of(wanted) {
        return Some(last);
    }
    recorded.mirror.as_ref()?.previous.clone()
}

/// Refuses a ring that is too large, unless one as large is recorded.
fn fits(wanted: &RingConfig, recorded: Option<&RingConfig>) -> Result<(), RingFault> {
    let weights = |ring: &RingConfig| {
        ring.clusters
            .iter()
            .map(|cluster| u64::from(cluster.weight))
            .sum::<u64>()
    };
    let nodes = |ring: &RingConfig| weights(ring).saturating_mul(u64::from(ring.replicas));
    let is_larger = recorded.is_none_or(|recorded| nodes(wanted) > nodes(recorded));
    if nodes(wanted) > MOST_NODES && is_larger {
        return Err(RingFault::TooLarge {
            nodes: nodes(wanted),
            replicas: wanted.replicas,
            weights: weights(wanted),
        });
    }
    Ok(())
}

/// Sets in `ring` which share of the hash space moves, if it differs from the recorded one. This builds both rings, so it must not
/// run on a thread of the runtime.
///
/// # Errors
/// [`RingFault`]: the members make no ring.
pub fn measure(recorded: &Recorded, ring: &mut Recorded) -> Result<(), RingFault> {
    let (Some(before), Some(after)) = (&recorded.document, &ring.document) else {
        return Ok(());
    };
    if before != after && ring.moved_percent.is_none() {
        ring.moved_percent = Some(format!("{:.1}", moved_share(before, after)? * 100.0));
    }
    Ok(())
}

/// All that says where a ring's virtual nodes are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Nodes {
    replicas: u32,
    clusters: Vec<(String, u32)>,
}

impl Nodes {
    fn of(document: &RingConfig) -> Self {
        let clusters = document.clusters.iter();
        Self {
            replicas: document.replicas,
            clusters: clusters.map(|cluster| (cluster.name.clone(), cluster.weight)).collect(),
        }
    }

    fn ring(&self) -> Result<LeanRing, RingError> {
        LeanRing::new(self.clusters.iter().cloned(), self.replicas)
    }
}

/// A change with the share that it moves.
type Measured = ((Nodes, Nodes), f64);

/// The last one that was measured. A cluster that joins changes the rings of all its forwarders in the same way.
static MEASURED: Mutex<Option<Measured>> = Mutex::new(None);

/// The share of the hash space that goes to another owner.
fn moved_share(before: &RingConfig, after: &RingConfig) -> Result<f64, RingFault> {
    let change = (Nodes::of(before), Nodes::of(after));
    // Often only the epoch is another one: pods may ask for that every two seconds.
    if change.0 == change.1 {
        return Ok(0.0);
    }
    in_turn(|| {
        let mut measured = MEASURED.lock().unwrap_or_else(PoisonError::into_inner);
        share_of(change, &mut measured)
    })
}

/// The share of a change: that of the last one, if it is the same.
fn share_of(change: (Nodes, Nodes), last: &mut Option<Measured>) -> Result<f64, RingFault> {
    if let Some((known, share)) = last.as_ref()
        && *known == change
    {
        return Ok(*share);
    }
    let (before, after) = &change;
    let after = after.ring()?;
    let share = match before.ring() {
        // Beginning at 0.0: the sum of nothing would be shown as -0.0.
        Ok(before) => moved(&before, &after).iter().fold(0.0, |sum, shift| sum + shift.share),
        // What was written before may be broken by hand; then all of it counts as moved.
        Err(_) => 1.0,
    };
    *last = Some((change, share));
    Ok(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_measured_once_until_another_one_comes() {
        let nodes = |names: &[&str]| Nodes {
            replicas: 64,
            clusters: names.iter().map(|name| ((*name).to_owned(), 1)).collect(),
        };
        let (joins, joins_too) = (
            (nodes(&["a", "b"]), nodes(&["a", "b", "c"])),
            (nodes(&["a"]), nodes(&["a", "b"])),
        );
        let mut last = None;
        let share = share_of(joins.clone(), &mut last).unwrap();
        assert!((0.2..0.5).contains(&share), "{share}");
        // What is remembered is believed.
        last = Some((joins.clone(), 0.125));
        assert_eq!(share_of(joins.clone(), &mut last).unwrap(), 0.125);
        assert_ne!(share_of(joins_too, &mut last).unwrap(), 0.125);
        assert_eq!(share_of(joins, &mut last).unwrap(), share);
    }
}
