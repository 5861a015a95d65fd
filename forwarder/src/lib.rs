//! The asset forwarder: consumes Kafka and delivers each record to the NATS cluster that owns its asset.
//!
//! [`engine`] is the page to begin with. The modules stand in the order in which a record meets them; what decides
//! without I/O is the crate [`forwarder_core`].

pub mod cli;
pub mod logging;
pub mod run;

pub mod engine;

pub mod intake;
pub mod kafka;

pub mod parcel;
pub mod publisher;

pub mod nats;

pub mod dead_letter;

pub mod admin;
pub mod http;
pub mod metrics;

pub mod router;

pub mod clock;
pub mod shutdown;
