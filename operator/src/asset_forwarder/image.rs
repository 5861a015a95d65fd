//! Which image the pods run: a new operator rolls nothing that its people have not asked for.

use std::collections::BTreeMap;

use crds::AssetForwarderSpec;
use crds::asset_forwarder::UpgradePolicy;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::names;

/// For which spec an image was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The resource's generation.
    pub generation: i64,
    /// A hash of its spec.
    pub spec: String,
}

impl Occasion {
    /// Of a spec. What scales it is no reason to take another image: an autoscaler changes it all day.
    ///
    /// # Errors
    /// The spec cannot be serialized.
    pub fn of(generation: i64, spec: &AssetForwarderSpec) -> serde_json::Result<Self> {
        let spec = AssetForwarderSpec {
            replicas: 0,
            suspend: false,
            ..spec.clone()
        };
        let text = serde_json::to_value(spec)?.to_string();
        let digest = Sha256::digest(text);
        Ok(Self {
            generation,
            spec: digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// As annotations of the Deployment.
    #[must_use]
    pub fn annotations(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (names::GENERATION.to_owned(), self.generation.to_string()),
            (names::SPEC.to_owned(), self.spec.clone()),
        ])
    }

    /// Whether the Deployment was written for this spec. By generation, since another version of the operator may serialize a spec in
    /// another way; or by hash, since scaling makes a generation too.
    fn is_of(&self, deployment: &Deployment) -> bool {
        let annotation = |name| deployment.annotations().get(name);
        annotation(names::GENERATION) == Some(&self.generation.to_string())
            || annotation(names::SPEC) == Some(&self.spec)
    }
}

/// The image for the pods.
#[must_use]
pub fn choose(spec: &AssetForwarderSpec, default: &str, occasion: &Occasion, live: Option<&Deployment>) -> String {
    if let Some(image) = &spec.image {
        return image.clone();
    }
    let kept = match spec.upgrade_policy {
        UpgradePolicy::Automatic => None,
        UpgradePolicy::OnSpecChange => live.filter(|live| occasion.is_of(live)).and_then(running),
    };
    kept.unwrap_or_else(|| default.to_owned())
}

/// The image that a Deployment names.
#[must_use]
pub fn running(deployment: &Deployment) -> Option<String> {
    let template = &deployment.spec.as_ref()?.template;
    let containers = &template.spec.as_ref()?.containers;
    let container = containers.iter().find(|container| container.name == names::CONTAINER)?;
    container.image.clone()
}
