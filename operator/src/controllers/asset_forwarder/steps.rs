//! The steps that both ways of a reconcile take: the long one, and the short one of a forwarder of which nothing has to be written.

use std::sync::Arc;
use std::time::Duration;

use crds::{AssetForwarder, AssetForwarderStatus};
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt as _};

use super::autoscale::Histories;
use super::build::BuildError;
use super::dereference::{DereferenceError, Dereferenced, Lists};
use super::memory::Memory;
use super::stores::Stores;
use super::turns::Turns;
use super::validate::Validated;
use crate::context::Context;
use crate::reconcile::apply::ApplyError;
use crate::reconcile::conditions::{Verdict, Words, conditions};
use crate::reconcile::drive::Failure;
use crate::reconcile::reason::Reason;
use crate::watch::hash;

/// Pods are asked this often while a change is on its way through them.
pub(super) const POLL: Duration = Duration::from_secs(2);

/// How often to look again where the next step is somebody else's, and the watches tell of most of them.
const WAIT: Duration = Duration::from_secs(20);

/// How often lag is measured where it says how many pods there are.
const MEASURE: Duration = Duration::from_secs(5);

/// How often a settled forwarder is looked at.
pub(super) const RESYNC: Duration = Duration::from_secs(60);

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Something could not be read.
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    /// A child could not be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A child could not be written.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The status could not be written.
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
}

impl Failure for ReconcileError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(error) => error.reason(),
            Self::Build(_) => "build",
            Self::Apply(_) => "apply",
            Self::Status(_) => "status",
        }
    }

    fn is_contended(&self) -> bool {
        matches!(self, Self::Apply(ApplyError::Changed { .. }))
    }
}

/// What is known besides the API server's word.
pub struct Known {
    /// What the watches tell.
    pub stores: Stores,
    /// What the last reconcile of each forwarder has left.
    pub memory: Arc<Memory>,
    /// What was enough lately, of forwarders that are scaled by their lag.
    pub histories: Arc<Histories>,
    /// Whose turn it is to begin to read.
    pub turns: Turns,
    /// The lists of clusters that reconciles share.
    pub lists: Lists,
}

/// How soon to look again.
pub(super) fn pause(verdict: &Verdict, validated: &Validated, found: &Dereferenced) -> Duration {
    let is_measured = validated.spec.autoscaling.is_some() && validated.replicas > 0 && validated.config.is_ok();
    let longest = if is_measured { MEASURE } else { RESYNC };
    let is_leaving = validated.ring.as_ref().is_some_and(|ring| !ring.leaving.is_empty());
    let has_changed = validated.ring.as_ref() != Some(&validated.recorded);
    let pause = match verdict {
        _ if is_leaving || (has_changed && validated.ring.is_some()) => POLL,
        Verdict::Stalled(words) if words.reason == Reason::SourceTaken => WAIT,
        Verdict::Ready(_) | Verdict::Stalled(_) => RESYNC,
        Verdict::Reconciling(words) => match words.reason {
            Reason::RingConverging
            | Reason::RollingOut
            | Reason::ScalingDown
            | Reason::SourceChanging
            | Reason::CredentialsPropagating
            | Reason::PodsNotAsked => POLL,
            Reason::NoClusters if !found.existing.pods.is_empty() => POLL,
            _ => WAIT,
        },
    };
    pause.min(longest)
}

/// Within a fifth of the pause, another one for each forwarder, so that thousands do not come at once.
pub(super) fn jittered(forwarder: &AssetForwarder, pause: Duration) -> Duration {
    let share = hash(&(&forwarder.metadata.uid, &forwarder.metadata.resource_version)) % 1_000;
    let share = u32::try_from(share).unwrap_or_default();
    pause.mul_f64(0.8 + f64::from(share) / 2_500.0)
}

/// The status with the new members. It is written before the first pod can publish to them, because it delays the deletion of such
/// a cluster.
pub(super) fn with_new_members(
    old: &AssetForwarderStatus,
    validated: &Validated,
    generation: Option<i64>,
) -> Option<AssetForwarderStatus> {
    let ring = validated.ring.as_ref()?;
    let mut known = old.ring.clone().unwrap_or_default();
    let is_new = |reference: &&String| !known.member_refs.contains(reference);
    let new: Vec<String> = ring.members.values().filter(is_new).cloned().collect();
    if new.is_empty() {
        return None;
    }
    known.member_refs.extend(new);
    known.member_refs.sort();
    let mut status = AssetForwarderStatus {
        ring: Some(known),
        ..old.clone()
    };
    if status.conditions.is_empty() {
        // The first status of all: whoever waits for `Ready` must find it.
        let verdict = Verdict::reconciling(
            Reason::RingConverging,
            "the operator records its clusters in the status before its first pod publishes to them",
        );
        status.observed_generation = generation;
        status.conditions = conditions(&[], generation, &verdict, &[], Timestamp::now());
    }
    Some(status)
}

pub(super) async fn write(
    context: &Context,
    forwarder: &AssetForwarder,
    status: AssetForwarderStatus,
    verdict: &Verdict,
    further: &[(&'static str, Words)],
) -> Result<(), ReconcileError> {
    let old = forwarder.status.clone().unwrap_or_default();
    let generation = forwarder.metadata.generation;
    let status = AssetForwarderStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, generation, verdict, further, Timestamp::now()),
        ..status
    };
    put(context, forwarder, &old, &status).await
}

pub(super) async fn put(
    context: &Context,
    forwarder: &AssetForwarder,
    old: &AssetForwarderStatus,
    status: &AssetForwarderStatus,
) -> Result<(), ReconcileError> {
    let namespace = forwarder.namespace().unwrap_or_default();
    let api = Api::<AssetForwarder>::namespaced(context.client.clone(), &namespace);
    crate::reconcile::status::write(context, &api, forwarder, Some(old), status)
        .await
        .map_err(|error| ReconcileError::Status(Box::new(error)))?;
    Ok(())
}

/// Writes the status if the forwarder is still the version that was looked at. Yields whether it is.
pub(super) async fn put_over(
    context: &Context,
    forwarder: &AssetForwarder,
    status: &AssetForwarderStatus,
) -> Result<bool, ReconcileError> {
    let namespace = forwarder.namespace().unwrap_or_default();
    let api = Api::<AssetForwarder>::namespaced(context.client.clone(), &namespace);
    let written = crate::reconcile::status::write_over(context, &api, forwarder, status).await;
    written
        .map(|written| written.is_some())
        .map_err(|error| ReconcileError::Status(Box::new(error)))
}
