//! What tells people how it is: metrics, alerts, the dashboard and traces. See `cargo e2e test observability`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod rules;
mod traces;
