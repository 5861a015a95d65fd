//! The asset forwarder: consumes Kafka and delivers each record to the NATS cluster that owns its asset.
//!
//! [`engine`] is the page to begin with. The modules stand in the order in which a record meets them; what decides
//! without I/O is the crate [`forwarder_core`].

pub mod cli;
pub mod run;

pub mod engine;

pub mod intake;

pub mod message;

pub mod outputs;

pub mod ring_watch;

pub mod admin;
pub mod metrics;

pub mod router;

pub mod lease;
pub mod tasks;
pub mod traces;
