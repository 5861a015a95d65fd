//! NATS servers that the operator runs in pods, with their streams on volumes. See `cargo e2e test managed`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod rig;
mod servers;
