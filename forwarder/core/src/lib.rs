//! The pure part of the asset forwarder.
//!
//! No I/O, no clock, no async runtime: what is decided here is decided the same way in a test, in a simulation
//! and in production. The modules stand in the order in which a record meets them.

pub mod commit;
pub mod config;
pub mod offsets;
pub mod outbox;
pub mod record;
pub mod start;
