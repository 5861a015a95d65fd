//! Writes what was built, in the order in which pods may come to need it.
//!
//! ```text
//! credentials ─▶ ring ─▶ account, Role, Service, policies ─▶ configuration ─▶ Deployment ─▶ pods' annotations ─▶ old configurations
//! ```
//! Credentials are there before the ring that names them, and everything before the pods. Whoever is killed in between leaves nothing
//! that the next run does not bring to its end.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::build::{Resources, Workload};
use super::dereference::Existing;
use super::names::{self, Identity};
use super::pods::{Observed, Process};
use super::{rollout, upgrade};
use crate::apply::{ApplyError, MANAGER};
use crate::context::Context;

/// How many configurations are kept besides those in use: for a person who wants to see what has changed.
const KEPT_CONFIGS: usize = 2;

/// What was written.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The Deployment as it is now; none: there is none.
    pub deployment: Option<Deployment>,
    /// The ring's ConfigMap was written.
    pub ring_written: bool,
    /// The Deployment was written.
    pub deployment_written: bool,
}

/// Writes all children.
///
/// # Errors
/// [`ApplyError`] of the first that could not be written.
pub async fn apply(
    context: &Context,
    identity: &Identity,
    resources: Resources,
    existing: &Existing,
) -> Result<Outcome, ApplyError> {
    let Resources {
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
    let version = credentials
        .data
        .as_ref()
        .and_then(|data| data.get(names::VERSION_FILE))
        .map(|version| String::from_utf8_lossy(&version.0).into_owned());
    applier.apply(credentials).await?;
    let ring_written = match ring {
        Some(ring) => applier.apply_over(ring, existing.ring.as_ref()).await?.written,
        None => false,
    };
    applier.apply(service_account).await?;
    applier.apply(role).await?;
    applier.apply(role_binding).await?;
    applier.apply(service).await?;
    applier.apply(network_policy).await?;
    match disruption_budget {
        Some(budget) => {
            applier.apply(budget).await?;
        }
        None => {
            applier
                .delete::<PodDisruptionBudget>(&identity.namespace, &identity.name, &identity.uid)
                .await?;
        }
    }
    let mut current = None;
    let (deployment, deployment_written) = match workload {
        Workload::Configured { config, deployment } => {
            current = Some(config.name_any());
            applier.apply(*config).await?;
            let applied = applier.apply(*deployment).await?;
            (Some(applied.object), applied.written)
        }
        Workload::Kept { deployment } => {
            current = upgrade::configuration(&deployment, identity).map(|hash| identity.config_map(&hash));
            let applied = applier.apply(*deployment).await?;
            (Some(applied.object), applied.written)
        }
        Workload::Scaled(replicas) => match &existing.deployment {
            Some(live) if rollout::desired(live) != replicas => (Some(scale(context, live, replicas).await?), true),
            live => (live.clone(), false),
        },
    };
    if let Some(version) = version {
        for pod in existing.pods.iter().filter(|pod| is_behind(pod, &version)) {
            ask_to_look(context, &identity.namespace, &pod.name, &version).await?;
        }
    }
    for config in obsolete(existing, current.as_deref()) {
        applier
            .delete::<ConfigMap>(&identity.namespace, &config, &identity.uid)
            .await?;
    }
    Ok(Outcome {
        deployment,
        ring_written,
        deployment_written,
    })
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
        Err(error) => Err(failed("annotate", "Pod", namespace, pod, error)),
    }
}

/// Brings only the number of pods to what is wanted: the rest cannot be built now, and stays.
async fn scale(context: &Context, live: &Deployment, replicas: i32) -> Result<Deployment, ApplyError> {
    let (namespace, name) = (live.namespace().unwrap_or_default(), live.name_any());
    let api = Api::<Deployment>::namespaced(context.client.clone(), &namespace);
    let patch = json!({"metadata": {"uid": live.uid()}, "spec": {"replicas": replicas}});
    context.metrics.api_write("Deployment", "patch");
    api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Merge(&patch))
        .await
        .map_err(|error| failed("scale", "Deployment", &namespace, &name, error))
}

fn failed(verb: &'static str, kind: &str, namespace: &str, name: &str, error: kube::Error) -> ApplyError {
    ApplyError::Api {
        verb,
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: Box::new(error),
    }
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
