//! The operator and its images on a real Kubernetes: resources in, pods that route real records out. See `cargo e2e test operator`.
//!
//! Some tests change what all namespaces share, or their operator watches all of them. They are in modules of the name `alone`: each runs
//! while no other test does.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod beacon;
mod channels;
mod charts;
mod cluster;
mod clusters;
mod corpus;
mod departures;
mod faults;
mod figures;
mod flood;
mod judge;
mod kills;
mod kubectl;
mod leaders;
mod lifecycle;
mod namespaces;
mod operations;
mod quiet;
mod random_specs;
mod rights;
mod rings;
mod rolling;
mod router;
mod scale;
mod scaling;
mod scenario;
mod secrets;
mod sources;
mod tenants;
mod upgrade;
mod visible;
