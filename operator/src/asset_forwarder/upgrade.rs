//! Which pod template is declared: a new operator restarts no pod that nobody has asked it to.
//!
//! A pod template is made of what a person declares and of what this version of the operator makes of it (its default image, its probes,
//! the text of the configuration). Only the first is an *occasion* to roll. So each template is written down on its Deployment together
//! with its occasion; as long as the occasion is the same, and a template was written down, that one stays. Whatever rolls for a reason
//! of its own takes all of today's template: image and configuration always come from one operator.

use std::collections::BTreeMap;

use crds::AssetForwarderSpec;
use crds::asset_forwarder::{Clusters, Ring, UpgradePolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::build::{Resources, Workload};
use super::dereference::{Channel, Existing};
use super::names::{self, Identity};
use crate::apply::{MANAGER, owns};

/// For what a pod template was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The generations of the forwarder and of the channels that it names.
    generations: String,
    /// A hash of what is in their specs that pods depend upon.
    declared: String,
    /// What else has pods roll: see [`Self::of`].
    read: String,
}

/// A larger template is not written down, and rolls with a new operator: annotations have 256 KiB together, and each ReplicaSet of the
/// Deployment has a copy of them.
const LARGEST: usize = 32 << 10;

impl Occasion {
    /// Of a spec with its channels, and of what else is read at the start: Kafka's credentials, and the ring that a configuration holds.
    /// What does not reach the configuration is no reason to take another template; what scales least of all, for an autoscaler
    /// changes it all day.
    ///
    /// # Errors
    /// A spec cannot be serialized.
    pub fn of(
        generation: i64,
        spec: &AssetForwarderSpec,
        channels: &[&Channel],
        read: String,
    ) -> serde_json::Result<Self> {
        let spec = AssetForwarderSpec {
            replicas: 0,
            autoscaling: None,
            suspend: false,
            upgrade_policy: UpgradePolicy::default(),
            clusters: Clusters {
                selector: LabelSelector::default(),
                namespace_selector: None,
            },
            ring: Ring {
                update: spec.ring.update,
                ..Ring::default()
            },
            ..spec.clone()
        };
        let mut generations = generation.to_string();
        let mut declared = serde_json::to_value(spec)?.to_string();
        for channel in channels {
            generations = format!("{generations} {}", channel.revision);
            declared = format!(
                "{declared} {} {}",
                channel.topic,
                serde_json::to_value(&channel.connection)?
            );
        }
        let digest = Sha256::digest(declared);
        Ok(Self {
            generations,
            declared: digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
            read,
        })
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        names::pairs([
            (names::GENERATION, &self.generations),
            (names::SPEC, &self.declared),
            (names::READ_AT_START, &self.read),
        ])
    }

    /// Whether the Deployment was written for this one. By generation, since another version of the operator may serialize a spec in
    /// another way; or by hash, since scaling makes a generation too.
    pub(super) fn is_of(&self, deployment: &Deployment) -> bool {
        let is = |name, value: &str| deployment.annotations().get(name).is_some_and(|found| found == value);
        is(names::READ_AT_START, &self.read)
            && (is(names::GENERATION, &self.generations) || is(names::SPEC, &self.declared))
    }
}

/// Writes the occasion and the template down on the Deployment, and puts the one in that was written down before, if it is to stay.
///
/// # Errors
/// A template cannot be serialized.
pub fn hold(
    mut resources: Resources,
    policy: UpgradePolicy,
    occasion: Option<&Occasion>,
    existing: &Existing,
    identity: &Identity,
) -> serde_json::Result<Resources> {
    let (Workload::Configured { config, mut deployment }, Some(occasion)) = (resources.workload.clone(), occasion)
    else {
        return Ok(resources);
    };
    let kept = match policy {
        UpgradePolicy::Automatic => None,
        UpgradePolicy::OnSpecChange => {
            let live = existing.deployment.as_ref().filter(|live| occasion.is_of(live));
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
    annotations.extend(occasion.annotations());
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

/// The template that we have written down last. One that another hand has written over ours is nobody's word: it is not to be had.
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

/// The image that a Deployment names.
#[must_use]
pub fn image(deployment: &Deployment) -> Option<String> {
    image_in(&deployment.spec.as_ref()?.template).map(str::to_owned)
}

/// The forwarder's image in a pod template.
pub(super) fn image_in(template: &PodTemplateSpec) -> Option<&str> {
    forwarders_image(template.spec.as_ref()?)
}

/// The forwarder's image in what a pod consists of.
pub(super) fn forwarders_image(pod: &PodSpec) -> Option<&str> {
    let mut containers = pod.containers.iter();
    let container = containers.find(|container| container.name == names::CONTAINER)?;
    container.image.as_deref()
}
