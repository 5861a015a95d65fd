//! The steps that both ways of a reconcile take: the long one, and the short one of a forwarder of which nothing has to be written.

use std::sync::Arc;
use std::time::Duration;

use crds::{AssetForwarder, AssetForwarderStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Resource as _, ResourceExt as _};

use super::apply::Outcome;
use super::autoscale::{self, Histories};
use super::build::BuildError;
use super::dereference::{DereferenceError, Dereferenced};
use super::memory::Memory;
use super::readers::PODS_NOT_ASKED;
use super::rivals::SOURCE_TAKEN;
use super::stores::Stores;
use super::validate::{SOURCE_CHANGING, Validated, validate};
use super::{ring, rollout, status, upgrade};
use crate::context::{Context, Settings};
use crate::reconcile::apply::ApplyError;
use crate::reconcile::conditions::{Verdict, Words, conditions};
use crate::reconcile::drive::Failure;
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
}

/// As [`scaled`], with the share of the hash space that a new ring moves. It blocks while rings are made.
pub(super) fn measured(found: &mut Dereferenced, settings: &Settings) -> Result<Validated, Verdict> {
    let mut validated = scaled(found, settings)?;
    if let Some(ring) = &mut validated.ring {
        ring::measure(&validated.recorded, ring).map_err(|fault| Verdict::stalled("InvalidSpec", fault.to_string()))?;
    }
    Ok(validated)
}

/// Judges what was read. A pass that changes the ring does not change the number of pods too: one step at a time.
pub(super) fn scaled(found: &mut Dereferenced, settings: &Settings) -> Result<Validated, Verdict> {
    let validated = validate(found, settings)?;
    let before = autoscale::pods(found);
    let is_another = found.scaled.is_some() && before.is_some() && found.scaled != before;
    if is_another && validated.ring.as_ref() != Some(&validated.recorded) {
        found.scaled = before;
        return validate(found, settings);
    }
    Ok(validated)
}

pub(super) fn pause(verdict: &Verdict, validated: &Validated, found: &Dereferenced) -> Duration {
    let is_measured = validated.spec.autoscaling.is_some() && validated.replicas > 0 && validated.config.is_ok();
    let longest = if is_measured { MEASURE } else { RESYNC };
    let is_leaving = validated.ring.as_ref().is_some_and(|ring| !ring.leaving.is_empty());
    let has_changed = validated.ring.as_ref() != Some(&validated.recorded);
    let pause = match verdict {
        _ if is_leaving || (has_changed && validated.ring.is_some()) => POLL,
        Verdict::Stalled(words) if words.reason == SOURCE_TAKEN => WAIT,
        Verdict::Ready(_) | Verdict::Stalled(_) => RESYNC,
        Verdict::Reconciling(words) => match words.reason {
            "RingConverging"
            | "RollingOut"
            | "ScalingDown"
            | SOURCE_CHANGING
            | "CredentialsPropagating"
            | PODS_NOT_ASKED => POLL,
            "NoClusters" if !found.existing.pods.is_empty() => POLL,
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

/// The status with members that it does not know yet. It is written before the first pod can publish to them: whoever deletes
/// such a cluster is held up by that.
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
            "RingConverging",
            "its clusters are told of it before its first pod publishes to them",
        );
        status.observed_generation = generation;
        status.conditions = conditions(&[], generation, &verdict, &[], Timestamp::now());
    }
    Some(status)
}

pub(super) async fn write(
    context: &Context,
    memory: &Memory,
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
    put(context, memory, forwarder, &old, &status).await
}

pub(super) async fn put(
    context: &Context,
    memory: &Memory,
    forwarder: &AssetForwarder,
    old: &AssetForwarderStatus,
    status: &AssetForwarderStatus,
) -> Result<(), ReconcileError> {
    let namespace = forwarder.namespace().unwrap_or_default();
    let api = Api::<AssetForwarder>::namespaced(context.client.clone(), &namespace);
    let written = crate::reconcile::status::write(context, &api, forwarder, Some(old), status)
        .await
        .map_err(|error| ReconcileError::Status(Box::new(error)))?;
    if let Some(written) = written {
        memory.status_written(&written);
    }
    Ok(())
}

/// Tells in events what was written.
pub(super) async fn tell_written(context: &Context, found: &Dereferenced, validated: &Validated, outcome: &Outcome) {
    let told = tell_all_written(context, found, validated, outcome);
    // The API server's failures are logged where they are met.
    drop(tokio::time::timeout(TOLD_WITHIN, told).await);
}

/// Tells in events what a person should look at.
pub(super) async fn tell(context: &Context, found: &Dereferenced, validated: &Validated) {
    // As above.
    drop(tokio::time::timeout(TOLD_WITHIN, tell_concerns(context, found, validated)).await);
}

async fn tell_all_written(context: &Context, found: &Dereferenced, validated: &Validated, outcome: &Outcome) {
    let about = found.forwarder.object_ref(&());
    if let Some(ring) = &validated.ring
        && outcome.ring.is_some()
        && ring.epoch() != validated.recorded.epoch()
    {
        let before = &validated.recorded.members;
        let join = |names: Vec<&str>| {
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let joined = ring
            .members
            .values()
            .filter(|member| !before.values().any(|known| known == *member));
        let left = before
            .values()
            .filter(|member| !ring.members.values().any(|known| known == *member));
        // Nobody knows what moves where there was no ring before, or where its document is lost.
        let moved = ring.moved_percent.as_ref();
        let moved = moved.map_or_else(String::new, |moved| format!("; {moved} % of the hash space moves"));
        let note = format!(
            "epoch {}: {} clusters; joined: {}; left: {}{moved}",
            ring.epoch(),
            ring.members.len(),
            join(joined.map(String::as_str).collect()),
            join(left.map(String::as_str).collect()),
        );
        context.events.normal(&about, "RingChanged", note).await;
    }
    if let (Some(now), true) = (&outcome.deployment, outcome.deployment_written) {
        let template = |deployment: &Deployment| deployment.spec.as_ref().map(|spec| spec.template.clone());
        let before = found.existing.deployment.as_ref();
        if before.and_then(template) != template(now) {
            let configuration = upgrade::configuration(now, &validated.identity).unwrap_or_default();
            let image = rollout::image(now).unwrap_or_default();
            let note = format!("configuration {configuration}, image {image}");
            context.events.normal(&about, "RolloutStarted", note).await;
        }
    }
}

async fn tell_concerns(context: &Context, found: &Dereferenced, validated: &Validated) {
    let about = found.forwarder.object_ref(&());
    let old = found.forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
    let old_conditions = found.forwarder.status.iter().flat_map(|status| &status.conditions);
    let told = old_conditions.filter(|condition| condition.type_ == status::EPOCH_CLAIM_IGNORED);
    if told.count() == 0
        && let Some(claim) = validated.ignored.first()
    {
        let note = format!(
            "pod {} claims ring epoch {}, too far above the last declared one; the operator ignores it",
            claim.pod, claim.epoch
        );
        context.events.warning(&about, status::EPOCH_CLAIM_IGNORED, note).await;
    }
    for excluded in status::of_concern(&validated.members.excluded) {
        let is_known = old.is_some_and(|old| {
            let mut known = old.excluded.iter();
            known.any(|known| {
                (&known.namespace, &known.name, &known.reason)
                    == (&excluded.namespace, &excluded.name, &excluded.reason)
            })
        });
        if !is_known {
            let note = format!("{}/{}: {}", excluded.namespace, excluded.name, excluded.message);
            context.events.warning(&about, "ClusterExcluded", note).await;
        }
    }
}

/// All events of one look take no longer: what is not told by then is in the status.
const TOLD_WITHIN: Duration = Duration::from_secs(10);
