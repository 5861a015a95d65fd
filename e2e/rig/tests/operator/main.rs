//! The operator and its images on a real Kubernetes: resources in, pods that route real records out. See `cargo e2e test operator`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod alone;
mod channels;
mod charts;
mod cluster;
mod clusters;
mod corpus;
mod judge;
mod leaders;
mod lifecycle;
mod rings;
mod rolling;
mod secrets;
mod visible;
