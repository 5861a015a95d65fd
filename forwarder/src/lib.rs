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

pub mod fleet;
pub mod parcel;
pub mod publisher;
pub mod ring_watch;

pub mod nats;

pub mod dead_letter;

pub mod admin;
pub mod http;
pub mod metrics;

pub mod router;

pub mod clock;
pub mod lease;
pub mod shutdown;
pub mod tasks;
pub mod traces;

/// An error with its sources, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
