//! The asset forwarder: consumes Kafka and delivers each record to the NATS cluster that owns its asset.

pub mod kafka;
pub mod metrics;
pub mod nats;
