//! The operator and its images on a real Kubernetes: see `cargo e2e test operator`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod cluster;
mod corpus;
