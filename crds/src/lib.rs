//! The resources `NatsCluster`, `KafkaChannel` and `AssetForwarder`, as types, and the CustomResourceDefinitions made from them.
//!
//! The API server refuses what a schema or a CEL rule can refuse. The operator judges what depends on other objects.

// `KubeSchema` copies each type, `pub` and all, into a function, where the lint calls that unreachable.
#![allow(unreachable_pub)]
// Columns that are printed have a type each, and rules a text: not what the lint takes them for.
#![allow(clippy::duplicated_attributes)]

pub mod asset_forwarder;
pub mod definition;
pub mod kafka_channel;
pub mod manifest;
pub mod nats_cluster;
pub mod reference;
mod schema;
pub mod status;

pub use self::asset_forwarder::{AssetForwarder, AssetForwarderSpec, AssetForwarderStatus};
pub use self::kafka_channel::{KafkaChannel, KafkaChannelSpec, KafkaChannelStatus};
pub use self::nats_cluster::{NatsCluster, NatsClusterSpec, NatsClusterStatus};

/// The API group of all three.
pub const GROUP: &str = "fanout.openfactory.io";
