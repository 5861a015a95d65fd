//! Names, labels, annotations and paths of what a forwarder consists of.

use std::collections::BTreeMap;

use crds::AssetForwarder;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};

pub use crate::index::ring_map::{COMPONENT, FORWARDER, IDLE, RING, RING_FILE};
use crate::owner::controller_named;
use crate::reconcile::child::{self, pairs};

/// The longest name that a forwarder may have: its pods' names and labels are longer, and end at 63 characters.
pub const MAX_NAME: usize = 50;

/// The label by which pods are selected: their forwarder's name.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// The component of a configuration's ConfigMap.
pub const CONFIG: &str = "config";
/// The label of all children.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "fanout-operator");

/// On a ring's ConfigMap: a JSON object from ring names to `namespace/name` of the members that the document declares.
pub const MEMBERS: &str = "fanout.openfactory.io/members";
/// On a ring's ConfigMap: a JSON object from `namespace/name` to the ring name of the clusters that some pod may still publish to.
pub const LEAVING: &str = "fanout.openfactory.io/leaving";
/// On a ring's ConfigMap: the share of the hash space that the last change moved, in percent.
pub const MOVED_PERCENT: &str = "fanout.openfactory.io/moved-percent";
/// On a ring's ConfigMap: a JSON object from images to the newest version of the document that their pods have said they read.
pub const READERS: &str = "fanout.openfactory.io/readers";

/// On a Deployment: the generations of the forwarder and of its channels at the last write.
pub const GENERATION: &str = "fanout.openfactory.io/generation";
/// On a Deployment: what its pods read, as channels, topics and group: see [`super::sources::Sources`].
pub const SOURCE: &str = "fanout.openfactory.io/source";
/// On a Deployment: what its pods may read besides, in the same form, until its rollout is complete. Absent where that is nothing.
pub const FORMER_SOURCE: &str = "fanout.openfactory.io/former-source";
/// On a Deployment: a hash of the forwarder's spec, without what scales it, and of its channels.
pub const SPEC: &str = "fanout.openfactory.io/spec";
/// On a Deployment: what else its pods read at their start: a hash of Kafka credentials, and the epoch of the ring in the configuration.
pub const READ_AT_START: &str = "fanout.openfactory.io/read-at-start";
/// On a Deployment: the pod template as it was declared last.
pub const TEMPLATE: &str = "fanout.openfactory.io/pod-template";
/// On a pod template: a hash of the Kafka credentials, which a forwarder reads at its start.
pub const KAFKA_CREDENTIALS: &str = "fanout.openfactory.io/kafka-credentials";
/// On a pod template: the epoch of the ring that the configuration holds; absent where pods watch their ring.
pub const RING_EPOCH: &str = "fanout.openfactory.io/ring-epoch";
/// On a pod: the version of the credentials that its volume should show. A change makes the kubelet look at once.
pub const CREDENTIALS_VERSION: &str = "fanout.openfactory.io/credentials-version";

/// The key of the configuration in its ConfigMap, and its file's name.
pub const CONFIG_FILE: &str = "forwarder.yaml";
/// The key of the nkey seed in the beacon's Secret.
pub const BEACON_SEED: &str = "seed";
/// The key of the same seed in the Secret of credentials, and its file's name. Files of clusters and channels have an underscore in theirs.
pub const BEACON_FILE: &str = "beacon.seed";
/// The key of the version in the Secret of credentials, and its file's name.
pub const VERSION_FILE: &str = "version";

/// Where a pod finds its configuration.
pub const CONFIG_FOLDER: &str = "/etc/fanout/config";
/// Where a pod finds its ring.
pub const RING_FOLDER: &str = "/etc/fanout/ring";
/// Where a pod finds its credentials.
pub const CREDENTIALS_FOLDER: &str = "/etc/fanout/credentials";
/// Where a pod writes dead letters, with a folder of its own on the volume.
pub const DEAD_LETTER_FOLDER: &str = "/var/lib/fanout/dead-letter";
/// The file of a pod's dead letters.
pub const DEAD_LETTER_FILE: &str = "dead-letters.jsonl";

/// The port of probes, metrics and status.
pub const PORT: u16 = 4000;
/// That port's name.
pub const PORT_NAME: &str = "http";
/// The forwarder's container.
pub const CONTAINER: &str = "forwarder";

/// Who a forwarder is.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The UID.
    pub uid: String,
    owner: Option<OwnerReference>,
}

impl Identity {
    /// Of a resource.
    #[must_use]
    pub fn of(forwarder: &AssetForwarder) -> Self {
        Self {
            namespace: forwarder.namespace().unwrap_or_default(),
            name: forwarder.name_any(),
            uid: forwarder.uid().unwrap_or_default(),
            owner: forwarder.controller_owner_ref(&()).map(|owner| OwnerReference {
                // Whoever deletes the forwarder in the foreground sees it until its pods are gone.
                block_owner_deletion: Some(true),
                ..owner
            }),
        }
    }

    /// Whether an object of this namespace is ours: kind, name and UID of its controller agree. A UID alone is easily copied.
    #[must_use]
    pub fn owns(&self, object: &impl Resource) -> bool {
        controller_named::<AssetForwarder>(object, &self.name).is_some_and(|owner| owner.uid == self.uid)
    }

    /// The ring's ConfigMap.
    #[must_use]
    pub fn ring_map(&self) -> String {
        format!("{}-ring", self.name)
    }

    /// The ConfigMap of a configuration with that hash.
    #[must_use]
    pub fn config_map(&self, hash: &str) -> String {
        format!("{}-config-{hash}", self.name)
    }

    /// The Secret of credentials.
    #[must_use]
    pub fn credentials(&self) -> String {
        format!("{}-credentials", self.name)
    }

    /// The Secret of the beacon's key.
    #[must_use]
    pub fn beacon(&self) -> String {
        format!("{}-beacon", self.name)
    }

    /// What chooses the pods.
    #[must_use]
    pub fn selector(&self) -> BTreeMap<String, String> {
        pairs([("app.kubernetes.io/name", "asset-forwarder"), (INSTANCE, &self.name)])
    }

    /// The same as text.
    #[must_use]
    pub fn selector_text(&self) -> String {
        let pairs = self.selector();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        pairs.join(",")
    }

    /// The labels of every child.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.extend(pairs([MANAGED_BY, ("app.kubernetes.io/part-of", "fanout")]));
        labels.insert(FORWARDER.to_owned(), self.name.clone());
        labels
    }

    /// The labels of a ConfigMap.
    #[must_use]
    pub fn labels_of(&self, component: &str) -> BTreeMap<String, String> {
        let mut labels = self.labels();
        labels.insert(COMPONENT.to_owned(), component.to_owned());
        labels
    }

    /// The metadata of a child.
    #[must_use]
    pub fn child(&self, name: String) -> ObjectMeta {
        child::metadata(&self.namespace, name, self.labels(), self.owner.as_ref())
    }
}
