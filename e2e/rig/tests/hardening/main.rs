//! The operator where things go wrong, over a long time, and in the hands of other tools. See `cargo e2e test hardening`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod alone;
mod departures;
mod faults;
mod figures;
mod flood;
mod gitops;
mod kills;
mod managed;
mod namespaces;
mod neighbours;
mod observability;
mod older_pods;
mod operations;
mod quiet;
mod random_specs;
mod rights;
mod rotation;
mod scale;
mod scaling;
mod scenario;
mod tenants;
mod traces;
mod upgrade;
