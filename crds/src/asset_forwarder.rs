//! `AssetForwarder`: pods that read a channel and publish each record to the cluster that owns its asset.

mod autoscaling;
mod dead_letter;
mod pods;
mod publish;
mod ring;
mod source;
mod status;
mod telemetry;

use kube::{CustomResource, KubeSchema};
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

pub use self::autoscaling::Autoscaling;
pub use self::dead_letter::{DeadLetter, DeadLetterFile, DeadLetterType};
pub use self::pods::{ImagePullSecret, Limits, LogFormat, LogLevel, Logging, PodTemplate, UpgradePolicy};
pub use self::publish::{Headers, Publish, PublishMode, Storage, Stream};
pub use self::ring::{Beacon, Clusters, Ring, RingUpdate};
pub use self::source::{GroupProtocol, MissingOffset, Source, StartFrom, StartFromType};
pub use self::status::{AssetForwarderStatus, BeaconStatus, ExcludedCluster, RingStatus};
pub use self::telemetry::{Telemetry, Traces};
use crate::schema::{self, rule};

/// Reads Kafka, routes by consistent hash, publishes to NATS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.publish) || !has(self.publish.maxAttempts) || has(self.deadLetter)")
        .message("maxAttempts needs a deadLetter, because a record that is given up must not be lost: declare one, or remove maxAttempts")
        .field_path(".publish.maxAttempts"),
    validation = Rule::new(
        "!has(self.deadLetter) || !has(self.deadLetter.channelRef) || !self.sources.exists(source, \
         source.channelRef.name == self.deadLetter.channelRef.name \
         && has(source.channelRef.__namespace__) == has(self.deadLetter.channelRef.__namespace__) \
         && (!has(source.channelRef.__namespace__) \
             || source.channelRef.__namespace__ == self.deadLetter.channelRef.__namespace__))"
    )
    .message("the dead-letter channel is also the source, so dead letters would be read again: name another KafkaChannel")
    .field_path(".deadLetter.channelRef")
)]
#[kube(
    group = "fanout.openfactory.io",
    version = "v1alpha1",
    kind = "AssetForwarder",
    plural = "assetforwarders",
    singular = "assetforwarder",
    shortname = "af",
    category = "fanout",
    namespaced,
    derive = "PartialEq",
    status = "AssetForwarderStatus",
    doc = "Pods that read a Kafka channel and publish each record to the NATS cluster that owns its asset.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(name = "Ready-Pods", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Clusters", type_ = "integer", json_path = ".status.ring.members"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.ring.epoch"),
    printcolumn(name = "Converged", type_ = "string", json_path = ".status.ring.converged"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    // Its Service has its name, and its pods' names are longer.
    validation = Rule::new("size(self.metadata.name) <= 50 && self.metadata.name.matches(r'^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message(
            "metadata.name must be valid for a Service and for pods: at most 50 lower case letters, digits and dashes, beginning with \
             a letter and not ending with a dash"
        )
)]
pub struct AssetForwarderSpec {
    /// Number of pods. Pods beyond the partitions of all sources are idle. 0: nothing is forwarded, offsets stay.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Lets the operator choose the number of pods by measured lag. `replicas` is ignored then. Absent: `replicas` applies, and an
    /// autoscaler of your own may change it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscaling: Option<Autoscaling>,
    /// What is read: a channel, or several of one Kafka. They need the same connection and login, and all fields but `channelRef` are the
    /// same in each. An asset's records keep their order within each topic only. A change rolls the pods. Another channel or group begins
    /// at its own offsets.
    #[schemars(schema_with = "sources")]
    pub sources: Vec<Source>,
    /// Which `NatsCluster`s are members of the ring.
    pub clusters: Clusters,
    /// The hash ring, and how its changes reach the pods.
    #[serde(default)]
    pub ring: Ring,
    /// How records reach their cluster. A change rolls the pods.
    #[serde(default)]
    pub publish: Publish,
    /// Where a record that can never be forwarded goes: unchanged, with the reason. Absent: it is counted, logged and skipped.
    /// A change rolls the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<DeadLetter>,
    /// Caps and bounds of a pod. A change rolls the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What a pod logs. A change rolls the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// What a pod reports about single records. Absent: nothing. A change rolls the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// The forwarder's image. Absent: the operator's default image, subject to `upgradePolicy`. A change rolls the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "image")]
    pub image: Option<String>,
    /// Whether a new version of the operator rolls running pods, for its default image or other changes of their template.
    /// `OnSpecChange` (the default): pods take these up when they next roll for another reason; `Automatic`: at once.
    #[serde(default)]
    pub upgrade_policy: UpgradePolicy,
    /// What is added to the pods: labels, resources, where they run. A change rolls the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// `true`: no pods. Offsets stay; nothing is lost as long as Kafka keeps the records. By default `false`.
    #[serde(default)]
    pub suspend: bool,
}

const fn one() -> i32 {
    1
}

fn sources(generator: &mut SchemaGenerator) -> Schema {
    source::list(generator)
}

pub(crate) fn image(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        512,
        &[rule(
            "self.matches(r'^[A-Za-z0-9][A-Za-z0-9._:/@-]*$')",
            "is not a valid image: write repository:tag or repository@digest",
        )],
    )
}
