//! Which pod template is declared: a new operator restarts no pods by itself.
//!
//! A pod template is made of what a person declares and of what this version of the operator makes of it (its default image, its probes,
//! the text of the configuration). Only the first is a *trigger* of a rollout. So each template is written down on its Deployment together
//! with its trigger; as long as the trigger is the same, and a template was written down, that one stays. Whatever rolls for a reason
//! of its own takes all of today's template: image and configuration always come from one operator.

use crds::asset_forwarder::UpgradePolicy;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt as _;

use super::build::{self, BuildError, Resources, Workload};
use super::dereference::Existing;
use super::names::{self, Identity};
use super::rollout;
use super::rollout_trigger::RolloutTrigger;
use super::validate::Validated;
use crate::reconcile::apply::{MANAGER, owns};

/// A larger template is not written down, and rolls with a new operator: annotations have 256 KiB together, and each ReplicaSet of the
/// Deployment has a copy of them.
const LARGEST: usize = 32 << 10;

/// Builds all children, with the pod template that is declared now.
///
/// # Errors
/// [`BuildError`]
pub fn build(validated: &Validated, existing: &Existing) -> Result<Resources, BuildError> {
    let trigger = validated.config.as_ref().ok().map(|config| &config.trigger);
    let policy = validated.spec.upgrade_policy;
    let fresh = build::build(validated)?;
    hold(fresh, policy, trigger, existing, &validated.identity).map_err(BuildError::Template)
}

/// Writes the trigger and the template down on the Deployment, and puts the one in that was written down before, if it is to stay.
///
/// # Errors
/// A template cannot be serialized.
fn hold(
    mut resources: Resources,
    policy: UpgradePolicy,
    trigger: Option<&RolloutTrigger>,
    existing: &Existing,
    identity: &Identity,
) -> serde_json::Result<Resources> {
    let (Workload::Configured { config, mut deployment }, Some(trigger)) = (resources.workload.clone(), trigger) else {
        return Ok(resources);
    };
    let kept = match policy {
        UpgradePolicy::Automatic => None,
        UpgradePolicy::OnSpecChange => {
            let live = existing.deployment.as_ref().filter(|live| trigger.is_of(live));
            // Of what admission refuses no pod runs, and only another template may be let in.
            let live = live.filter(|live| !has_only_refused_pods(live));
            live.and_then(written_down)
                // One that mounts a configuration which somebody has deleted could start no pod any more.
                .filter(|template| has_its_configuration(template, existing, identity))
        }
    };
    let fresh = deployment.spec.as_mut().map(|spec| &mut spec.template);
    let is_kept = match (fresh, kept) {
        (Some(fresh), Some(kept)) if *fresh != kept => {
            *fresh = kept;
            true
        }
        _ => false,
    };
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let template = serde_json::to_value(template)?.to_string();
    let annotations = deployment.metadata.annotations.get_or_insert_default();
    annotations.extend(trigger.annotations());
    if template.len() <= LARGEST {
        annotations.insert(names::TEMPLATE.to_owned(), template);
    }
    resources.workload = if is_kept {
        Workload::Kept { deployment }
    } else {
        Workload::Configured { config, deployment }
    };
    Ok(resources)
}

/// Whether the API server refuses the pods, and there is none.
fn has_only_refused_pods(live: &Deployment) -> bool {
    let status = live.status.as_ref();
    status.is_some_and(|status| {
        let mut conditions = status.conditions.iter().flatten();
        status.replicas.unwrap_or(0) == 0 && conditions.any(rollout::is_refusal)
    })
}

/// The template that we recorded last. A record that something else has overwritten does not count.
fn written_down(live: &Deployment) -> Option<PodTemplateSpec> {
    let path = format!("f:{}", names::TEMPLATE);
    let is_ours = owns(live, MANAGER, &["f:metadata", "f:annotations", &path]);
    let text = live.annotations().get(names::TEMPLATE).filter(|_| is_ours)?;
    serde_json::from_str(text).ok()
}

fn has_its_configuration(template: &PodTemplateSpec, existing: &Existing, identity: &Identity) -> bool {
    let hash = configuration_in(template, identity);
    let name = hash.map(|hash| identity.config_map(&hash));
    name.is_some_and(|name| existing.configs.iter().any(|config| config.name_any() == name))
}

/// The hash of the configuration that a Deployment's pods mount.
#[must_use]
pub fn configuration(deployment: &Deployment, identity: &Identity) -> Option<String> {
    configuration_in(&deployment.spec.as_ref()?.template, identity)
}

fn configuration_in(template: &PodTemplateSpec, identity: &Identity) -> Option<String> {
    let prefix = identity.config_map("");
    let mut volumes = template.spec.as_ref()?.volumes.iter().flatten();
    volumes.find_map(|volume| {
        let name = &volume.config_map.as_ref()?.name;
        Some(name.strip_prefix(&prefix)?.to_owned())
    })
}
