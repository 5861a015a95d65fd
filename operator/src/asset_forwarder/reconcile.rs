//! One reconcile: all stages in order, and one status at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{AssetForwarder, AssetForwarderStatus};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use kube::{Api, Resource as _, ResourceExt as _};

use super::apply::{self, Outcome};
use super::autoscale::{self, Histories};
use super::build::{BuildError, build};
use super::dereference::{self, DereferenceError, Dereferenced, dereference};
use super::names::Identity;
use super::readers::PODS_NOT_ASKED;
use super::validate::{SOURCE_CHANGING, Validated, validate};
use super::watch::SecretIndex;
use super::{status, upgrade};
use crate::apply::ApplyError;
use crate::conditions::{Verdict, Words, conditions};
use crate::context::{Context, Settings};
use crate::controller::{Failure, describe};

/// Pods are asked this often while a change is on its way through them.
const POLL: Duration = Duration::from_secs(2);

/// How often to look again where the next step is somebody else's, and the watches tell of most of them.
const WAIT: Duration = Duration::from_secs(20);

/// How often lag is measured where it says how many pods there are.
const MEASURE: Duration = Duration::from_secs(5);

/// How often a settled forwarder is looked at.
const RESYNC: Duration = Duration::from_secs(60);

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

/// Brings a forwarder one step on, or finds that there is nothing to do.
///
/// # Errors
/// [`ReconcileError`]
pub async fn reconcile(
    forwarder: Arc<AssetForwarder>,
    context: Arc<Context>,
    index: &SecretIndex,
    histories: &Histories,
) -> Result<Action, ReconcileError> {
    let mut found = match dereference(&context, &forwarder).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            index.forget(&forwarder);
            histories.forget(&forwarder);
            return Ok(Action::await_change());
        }
        Err(error) => {
            if error.is_refused() {
                tell_refusal(&context, &forwarder, &error).await?;
            }
            return Err(error.into());
        }
    };
    index.note(&found.forwarder, found.secrets.clone());
    let old = found.forwarder.status.clone().unwrap_or_default();
    let identity = Identity::of(&found.forwarder);
    found.scaled = histories.decide(&found, Instant::now());
    let validated = match scaled(&mut found, &context.settings) {
        Ok(validated) => validated,
        Err(verdict) => {
            let status = status::counted(&old, &identity, found.existing.deployment.as_ref());
            write(&context, &found.forwarder, status, &verdict, &[]).await?;
            return Ok(Action::requeue(RESYNC));
        }
    };
    let occasion = validated.config.as_ref().ok().map(|config| &config.occasion);
    let policy = validated.spec.upgrade_policy;
    let resources = upgrade::hold(build(&validated)?, policy, occasion, &found.existing, &identity)
        .map_err(BuildError::Template)?;
    if let Some(registered) = with_new_members(&old, &validated, found.forwarder.metadata.generation) {
        put(&context, &found.forwarder, &old, &registered).await?;
        found.forwarder.status = Some(registered);
        // Who was deleted before that was written was let go without us.
        if !dereference::are_there(&context, &old, &validated).await? {
            return Ok(Action::requeue(POLL));
        }
    }
    let outcome = match apply::apply(&context, &identity, resources, &found.existing).await {
        Ok(outcome) => outcome,
        Err(error) => {
            let known = found.forwarder.status.clone().unwrap_or_default();
            let status = status::counted(&known, &identity, found.existing.deployment.as_ref());
            write(&context, &found.forwarder, status, &failed(&error), &[]).await?;
            return Err(error.into());
        }
    };
    if let (Some(from), Some(to)) = (autoscale::pods(&found), found.scaled)
        && from != to
    {
        histories.taken(&found.forwarder, from, to, Instant::now());
    }
    tell(&context, &found, &validated, &outcome).await;
    let (status, verdict) = status::status(&old, &validated, outcome.deployment.as_ref(), &found.existing);
    let further = status::further(&validated);
    write(&context, &found.forwarder, status, &verdict, &further).await?;
    Ok(Action::requeue(pause(&verdict, &validated, &found)))
}

/// Judges what was read. A pass that changes the ring does not change the number of pods too: one step at a time.
fn scaled(found: &mut Dereferenced, settings: &Settings) -> Result<Validated, Verdict> {
    let validated = validate(found, settings)?;
    let before = autoscale::pods(found);
    let is_another = found.scaled.is_some() && before.is_some() && found.scaled != before;
    if is_another && validated.ring.as_ref() != Some(&validated.recorded) {
        found.scaled = before;
        return validate(found, settings);
    }
    Ok(validated)
}

fn pause(verdict: &Verdict, validated: &Validated, found: &Dereferenced) -> Duration {
    let is_measured = validated.spec.autoscaling.is_some() && validated.replicas > 0 && validated.config.is_ok();
    let longest = if is_measured { MEASURE } else { RESYNC };
    let is_leaving = validated.ring.as_ref().is_some_and(|ring| !ring.leaving.is_empty());
    let has_changed = validated.ring.as_ref() != Some(&validated.recorded);
    let pause = match verdict {
        _ if is_leaving || (has_changed && validated.ring.is_some()) => POLL,
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

/// The status with members that it does not know yet. It is written before the first pod can publish to them: whoever deletes
/// such a cluster is held up by that.
fn with_new_members(
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

/// Says in the status what may not be read: nothing else would, and `Ready` would stay as it was.
async fn tell_refusal(
    context: &Context,
    forwarder: &AssetForwarder,
    error: &DereferenceError,
) -> Result<(), ReconcileError> {
    // The watch may be behind, and the status of before says who is a member: it must be the last one.
    let Some(current) = dereference::current(context, forwarder).await? else {
        return Ok(());
    };
    let status = current.status.clone().unwrap_or_default();
    let verdict = Verdict::reconciling("ReadFailed", describe(error));
    write(context, &current, status, &verdict, &[]).await
}

fn failed(error: &ApplyError) -> Verdict {
    match error {
        ApplyError::NotOurs { .. } => Verdict::stalled("NameTaken", describe(error)),
        ApplyError::Deleting { .. } => Verdict::reconciling("ChildDeleting", describe(error)),
        ApplyError::Changed { .. } | ApplyError::Api { .. } | ApplyError::Serialize { .. } => {
            Verdict::reconciling("ApplyFailed", describe(error))
        }
    }
}

async fn write(
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

async fn put(
    context: &Context,
    forwarder: &AssetForwarder,
    old: &AssetForwarderStatus,
    status: &AssetForwarderStatus,
) -> Result<(), ReconcileError> {
    let namespace = forwarder.namespace().unwrap_or_default();
    let api = Api::<AssetForwarder>::namespaced(context.client.clone(), &namespace);
    crate::status::write(context, &api, forwarder, Some(old), status)
        .await
        .map_err(|error| ReconcileError::Status(Box::new(error)))
}

/// Says what a person should see in the resource's events.
async fn tell(context: &Context, found: &Dereferenced, validated: &Validated, outcome: &Outcome) {
    let about = found.forwarder.object_ref(&());
    let old = found.forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
    if let Some(ring) = &validated.ring
        && outcome.ring_written
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
        let moved = ring.moved_percent.as_deref().unwrap_or("100.0");
        let note = format!(
            "epoch {}: {} clusters; joined: {}; left: {}; {moved} % of the hash space moves",
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
            let image = upgrade::image(now).unwrap_or_default();
            let note = format!("configuration {configuration}, image {image}");
            context.events.normal(&about, "RolloutStarted", note).await;
        }
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
