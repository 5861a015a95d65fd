//! Declares the ring: its document with an epoch that only grows, and the clusters that are leaving it.

use std::collections::BTreeMap;

use forwarder_core::config::{ConfigErrors, RingConfig};
use forwarder_core::ring::{Ring, RingError, moved};

use super::members::Member;
use super::recorded::Recorded;

/// What the spec says about the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Virtual nodes of a cluster of weight 1.
    pub replicas: u32,
    /// How long an asset waits for its old owner, in milliseconds.
    pub handover_timeout_ms: u64,
}

/// Epochs that were seen elsewhere than in the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The highest that was declared before: what our status and the pods say. Survives the document.
    pub declared: u64,
    /// What pods wait for: the group was served under a higher epoch before.
    pub awaited: u64,
}

/// Why a ring cannot be declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingFault {
    /// The document says what cannot be.
    #[error(transparent)]
    Document(#[from] ConfigErrors),
    /// The members make no ring.
    #[error(transparent)]
    Ring(#[from] RingError),
}

/// What is to be written; `None`: there is no member, and there never was one.
///
/// `readers` is what is noted of those who read it; `members` are in a form that they read.
/// Nothing is written anew while members and shape are what they were: the same input gives what is recorded. A cluster that leaves
/// with this change is `leaving` at least until the next look, for which this has been written: `has_left` is asked, by ring name, about
/// those alone that were leaving before.
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
    };
    let is_same = recorded.document.as_ref() == Some(&wanted) && seen.declared <= wanted.epoch;
    let epoch = if is_same {
        wanted.epoch
    } else {
        wanted.epoch.max(seen.declared).saturating_add(1)
    };
    let document = RingConfig {
        epoch: epoch.max(seen.awaited),
        ..wanted
    };
    let moved_percent = match &recorded.document {
        Some(_) if is_same => recorded.moved_percent.clone(),
        Some(before) => Some(percent(before, &document)?),
        None => None,
    };
    document.check()?;
    Ok(Some(Recorded {
        document: Some(document),
        members: declared,
        leaving,
        moved_percent,
        readers,
        idle: false,
    }))
}

/// The share of the hash space that goes to another owner, with one decimal.
fn percent(before: &RingConfig, after: &RingConfig) -> Result<String, RingFault> {
    let after = ring(after)?;
    // What was written before may be broken by hand; then all of it counts as moved.
    let share = match ring(before) {
        // Beginning at 0.0: the sum of nothing would be shown as -0.0.
        Ok(before) => moved(&before, &after).iter().fold(0.0, |sum, shift| sum + shift.share),
        Err(_) => 1.0,
    };
    Ok(format!("{:.1}", share * 100.0))
}

fn ring(document: &RingConfig) -> Result<Ring, RingError> {
    let members = document
        .clusters
        .iter()
        .map(|cluster| (cluster.name.clone(), cluster.weight));
    Ring::new(members, document.replicas)
}
