//! What has pods roll: what a person declares, and what pods read once at their start.

use std::collections::BTreeMap;

use crds::AssetForwarderSpec;
use crds::asset_forwarder::{Clusters, Publish, Ring, UpgradePolicy};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use super::dereference::Channel;
use super::names;
use crate::reconcile::child::pairs;

/// For what a pod template was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RolloutTrigger {
    /// The generations of the forwarder and of the channels that it names.
    generations: String,
    /// A hash of what is in their specs that pods depend upon.
    declared: String,
    /// What else has pods roll: see [`Self::of`].
    read: String,
}

impl RolloutTrigger {
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
            // It is in the ring's document.
            publish: Publish {
                mirror_moved_seconds: None,
                ..spec.publish.clone()
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

    /// As the Deployment notes it.
    pub(super) fn annotations(&self) -> BTreeMap<String, String> {
        pairs([
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
