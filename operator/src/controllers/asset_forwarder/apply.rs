//! Writes what was built, in the order in which pods may come to need it.
//!
//! ```text
//! beacon's key ─▶ credentials ─▶ ring ─▶ account, Role, Service, policies ─▶ configuration ─▶ Deployment ─▶ pods' annotations ─▶ old configurations
//! ```
//! Credentials are written before the ring that names them, and everything is written before the pods. If the operator is killed in
//! between, the next run completes the rest.
//! Keys, credentials, ring and pods depend on what was read: old credentials that are still needed, the epoch, the source of the pods. So
//! each is written only over the version that was read. A late leader, one that was paused, starts no pods beside those of the new
//! leader.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::json;
use tracing::warn;

use super::build::{Resources, Workload};
use super::dereference::Existing;
use super::names::{self, Identity};
use super::pods::{Observed, Process};
use super::{rollout, upgrade};
use crate::context::Context;
use crate::error::describe;
use crate::reconcile::apply::{Applier, ApplyError, MANAGER};

/// How many configurations are kept besides those in use: for a person who wants to see what has changed.
const KEPT_CONFIGS: usize = 2;

/// What was written.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The Deployment as it is now; none: there is none.
    pub deployment: Option<Deployment>,
    /// The ring's ConfigMap as it is now, if it was written.
    pub ring: Option<ConfigMap>,
    /// The Secret of the beacon's key as it is now, if it was written.
    pub beacon: Option<Secret>,
    /// The Deployment was written.
    pub deployment_written: bool,
    /// Why not all was written. What was written before stays.
    pub failure: Option<ApplyError>,
}

/// Writes all children.
pub async fn apply(context: &Context, identity: &Identity, resources: Resources, existing: &Existing) -> Outcome {
    let mut outcome = Outcome::default();
    // It holds all that is to be written.
    let written = Box::pin(write(context, identity, resources, existing, &mut outcome)).await;
    outcome.failure = written.err();
    outcome
}

/// The same, up to the first failure after which pods must not begin.
async fn write(
    context: &Context,
    identity: &Identity,
    resources: Resources,
    existing: &Existing,
    outcome: &mut Outcome,
) -> Result<(), ApplyError> {
    let Resources {
        beacon,
        credentials,
        ring,
        service_account,
        role,
        role_binding,
        service,
        network_policy,
        disruption_budget,
        workload,
    } = resources;
    let applier = &context.applier;
    let live = existing.deployment.as_ref();
    outcome.deployment = live.cloned();
    let version = version_of(&credentials);
    if let Some(beacon) = beacon {
        // Before its copy: pods never sign with a key that nobody has kept.
        let (beacon, is_written) = applier.apply_over(beacon, existing.beacon.as_ref()).await?;
        outcome.beacon = is_written.then_some(beacon);
    }
    // Where a cluster joins without credentials of its own, nobody has read those that there are.
    if existing.credentials.is_some() || !applier.is_as_declared(&credentials) {
        applier.apply_over(credentials, existing.credentials.as_ref()).await?;
    }
    if let Some(ring) = ring {
        let (ring, is_written) = applier.apply_over(ring, existing.ring.as_ref()).await?;
        outcome.ring = is_written.then_some(ring);
    }
    let budget = async {
        match disruption_budget {
            Some(budget) => applier.apply(budget).await.map(drop),
            None => {
                applier
                    .delete::<PodDisruptionBudget>(&identity.namespace, &identity.name, &identity.uid)
                    .await
            }
        }
    };
    // Each goes on although another one fails: a write that is given up halfway would have to begin anew each time.
    let (service_account, role, service, network_policy, budget) = tokio::join!(
        applier.apply(service_account),
        applier.apply(role),
        applier.apply(service),
        applier.apply(network_policy),
        budget,
    );
    // Last, so that the API server knows of a new Role by then.
    let granted = match role {
        Ok(_) => Box::pin(bind(applier, role_binding)).await,
        Err(error) => Err(error),
    };
    all([
        service_account.map(drop),
        granted,
        service.map(drop),
        network_policy.map(drop),
        budget,
    ])?;
    let mut current = None;
    let (deployment, deployment_written) = match workload {
        Workload::Configured { config, deployment } => {
            current = Some(config.name_any());
            applier.apply(*config).await?;
            let (deployment, is_written) = applier.apply_over_spec(*deployment, live).await?;
            (Some(deployment), is_written)
        }
        Workload::Kept { deployment } => {
            current = upgrade::configuration(&deployment, identity).map(|hash| identity.config_map(&hash));
            let (deployment, is_written) = applier.apply_over_spec(*deployment, live).await?;
            (Some(deployment), is_written)
        }
        // The rest cannot be built now, and stays.
        Workload::Scaled(replicas) => match live {
            Some(live) if rollout::desired(live) != replicas => (Some(applier.scale(live, replicas).await?), true),
            live => (live.cloned(), false),
        },
    };
    outcome.deployment = deployment;
    outcome.deployment_written = deployment_written;
    let mut done = Vec::new();
    if let Some(version) = version {
        for pod in existing.pods.iter().filter(|pod| is_behind(pod, &version)) {
            done.push(ask_to_look(context, &identity.namespace, &pod.name, &version).await);
        }
    }
    for config in obsolete(existing, current.as_deref()) {
        let deleted = applier.delete::<ConfigMap>(&identity.namespace, &config, &identity.uid);
        done.push(deleted.await);
    }
    all(done)
}

/// One failure of several. A contended write is the last choice, since the next reconcile repairs it. The others are logged.
fn all(results: impl IntoIterator<Item = Result<(), ApplyError>>) -> Result<(), ApplyError> {
    let mut failures: Vec<ApplyError> = results.into_iter().filter_map(Result::err).collect();
    failures.sort_by_key(|failure| matches!(failure, ApplyError::Changed { .. }));
    let mut failures = failures.into_iter();
    let first = failures.next();
    for failure in failures {
        warn!(error = describe(&failure), "failed to write another child");
    }
    first.map_or(Ok(()), Err)
}

/// The pauses before a RoleBinding is tried again, in milliseconds.
const UNTIL_KNOWN: [u64; 5] = [50, 100, 200, 400, 800];

/// Writes a RoleBinding. The API server judges it by its Role, which it looks up in a cache of its own. A Role that was made a moment ago may
/// not be in it yet, and the RoleBinding is answered by 404. An administrator's never is.
async fn bind(applier: &Applier, binding: RoleBinding) -> Result<(), ApplyError> {
    for pause in UNTIL_KNOWN {
        match applier.apply(binding.clone()).await {
            Err(error) if error.is_not_found() => tokio::time::sleep(Duration::from_millis(pause)).await,
            written => return written.map(drop),
        }
    }
    applier.apply(binding).await.map(drop)
}

/// Whether a pod shows other credentials than those projected, and was not asked to look yet.
pub(super) fn is_behind(pod: &Observed, version: &str) -> bool {
    let shows = pod.report.as_ref().map(|report| report.credentials_version.as_deref());
    !pod.terminating
        && pod.process == Process::Running
        && pod.credentials_asked.as_deref() != Some(version)
        && shows.is_some_and(|shows| shows != Some(version))
}

/// Any change of a pod makes its kubelet refresh its volumes at once, which would otherwise take a minute and more.
async fn ask_to_look(context: &Context, namespace: &str, pod: &str, version: &str) -> Result<(), ApplyError> {
    let api = Api::<Pod>::namespaced(context.client.clone(), namespace);
    let patch = json!({"metadata": {"annotations": {names::CREDENTIALS_VERSION: version}}});
    context.metrics.api_write("Pod", "patch");
    match api
        .patch(pod, &PatchParams::apply(MANAGER), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
        Err(error) => Err(ApplyError::Api {
            verb: "annotate",
            kind: "Pod".to_owned(),
            namespace: namespace.to_owned(),
            name: pod.to_owned(),
            source: Box::new(error),
        }),
    }
}

/// Whether all children are as declared and nothing is to be taken away, by the word of the watches alone.
pub(super) fn is_done(context: &Context, identity: &Identity, resources: &Resources, existing: &Existing) -> bool {
    let Resources { credentials, ring, .. } = resources;
    let applier = &context.applier;
    let version = version_of(credentials);
    let is_behind = |pod| version.as_ref().is_some_and(|version| is_behind(pod, version));
    applier.is_as_declared(credentials)
        && ring.as_ref().is_none_or(|ring| applier.is_as_declared(ring))
        && !existing.pods.iter().any(is_behind)
        && is_done_but_for_members(context, identity, resources, existing)
}

/// The same of all that does not depend on who is a member: all but the credentials, the ring and what pods are asked to look at.
pub(super) fn is_done_but_for_members(
    context: &Context,
    identity: &Identity,
    resources: &Resources,
    existing: &Existing,
) -> bool {
    let Resources {
        beacon,
        credentials: _,
        ring: _,
        service_account,
        role,
        role_binding,
        service,
        network_policy,
        disruption_budget,
        workload,
    } = resources;
    let applier = &context.applier;
    let (is_configured, deployment) = match workload {
        Workload::Configured { config, deployment } => (applier.is_as_declared(config.as_ref()), deployment),
        Workload::Kept { deployment } => (true, deployment),
        Workload::Scaled(_) => return false,
    };
    let has_its_budget = match disruption_budget {
        Some(budget) => applier.is_as_declared(budget),
        None => {
            let kind = <PodDisruptionBudget as Resource>::kind(&());
            context.children.is_absent(&kind, &identity.namespace, &identity.name)
        }
    };
    is_configured
        && has_its_budget
        && beacon.as_ref().is_none_or(|beacon| applier.is_as_declared(beacon))
        && applier.is_as_declared(service_account)
        && applier.is_as_declared(role)
        && applier.is_as_declared(role_binding)
        && applier.is_as_declared(service)
        && applier.is_as_declared(network_policy)
        && applier.is_as_declared_in(deployment.as_ref(), existing.deployment.as_ref())
        // More of them have to be looked at, with what still uses them.
        && existing.configs.len() <= KEPT_CONFIGS + 1
}

/// The version of projected credentials.
fn version_of(credentials: &Secret) -> Option<String> {
    let version = credentials.data.as_ref()?.get(names::VERSION_FILE)?;
    Some(String::from_utf8_lossy(&version.0).into_owned())
}

/// The configurations that no pod uses or may come to use, but for the newest ones.
pub(super) fn obsolete(existing: &Existing, current: Option<&str>) -> Vec<String> {
    let Some(current) = current else {
        return Vec::new();
    };
    let templates = existing.replica_sets.iter().filter_map(|set| {
        let spec = set.spec.as_ref()?;
        let template = spec.template.as_ref()?;
        (spec.replicas.unwrap_or(1) > 0).then_some(template.spec.as_ref()?)
    });
    let volumes = templates.flat_map(|spec| spec.volumes.iter().flatten());
    let mounted = volumes.filter_map(|volume| Some(volume.config_map.as_ref()?.name.as_str()));
    let mut used: BTreeSet<&str> = mounted.collect();
    used.extend(
        existing
            .pods
            .iter()
            .flat_map(|pod| pod.config_maps.iter().map(String::as_str)),
    );
    used.insert(current);
    let mut unused: Vec<_> = existing
        .configs
        .iter()
        .map(|config| (config.creation_timestamp().map(|time| time.0), config.name_any()))
        .filter(|(_, name)| !used.contains(name.as_str()))
        .collect();
    unused.sort();
    unused.reverse();
    unused.into_iter().skip(KEPT_CONFIGS).map(|(_, name)| name).collect()
}
