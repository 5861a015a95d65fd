//! The asset forwarder: consumes Kafka and delivers each record to the NATS cluster that owns its asset.
//!
//! [`engine`] is the page to begin with. What decides without I/O is the crate [`forwarder_core`]. The modules stand in two groups:
//!
//! 1. This program's own: [`cli`] and [`run`], [`engine`], [`ring_watch`], [`admin`], and [`router`] for who asks.
//! 2. What any program needs, in the order in which a record meets it: [`intake`], [`message`], [`outputs`], with [`lease`],
//!    [`metrics`], [`traces`] and [`tasks`], and [`beacon`] for those who subscribe. These name nothing of the first group.

pub mod cli;
pub mod run;

pub mod engine;
pub mod ring_watch;

pub mod admin;
pub mod router;

pub mod intake;
pub mod message;
pub mod outputs;

pub mod beacon;
mod budget;
pub mod lease;
pub mod metrics;
pub mod tasks;
pub mod traces;
