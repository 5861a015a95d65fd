//! A controller for each kind. None of them calls another one: what they share is in `reconcile`.

pub mod asset_forwarder;
pub mod kafka_channel;
pub mod nats_cluster;
