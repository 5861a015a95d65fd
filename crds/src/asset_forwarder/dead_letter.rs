//! Where records that can never be forwarded go.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::reference::ObjectRef;

/// Where a record that can never be forwarded goes: unchanged, with the reason and its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type != 'Channel' || has(self.channelRef)")
        .message("type: Channel needs a channelRef: name the KafkaChannel to write to"),
    validation = Rule::new("!has(self.channelRef) || self.type == 'Channel'")
        .message("channelRef is used with type: Channel only: write that, or remove it")
        .field_path(".channelRef"),
    validation = Rule::new("self.type != 'File' || has(self.file)")
        .message("type: File needs a file: name the PersistentVolumeClaim in file.claimName"),
    validation = Rule::new("!has(self.file) || self.type == 'File'")
        .message("file is used with type: File only: write that, or remove it")
        .field_path(".file")
)]
pub struct DeadLetter {
    /// `Channel`: a Kafka channel; `File`: files of JSON lines on a volume, a directory for each pod.
    #[serde(rename = "type")]
    pub type_: DeadLetterType,
    /// With `Channel`: the `KafkaChannel` to write to, which must not be the one that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel_ref: Option<ObjectRef>,
    /// With `File`: the volume to write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<DeadLetterFile>,
}

/// The kind of place where dead letters go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum DeadLetterType {
    /// A Kafka channel.
    Channel,
    /// A file of JSON lines for each pod.
    File,
}

/// A volume for dead letters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterFile {
    /// The PersistentVolumeClaim, in the forwarder's namespace. With more than one pod its access mode must allow that.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub claim_name: String,
}
