//! The operator where things go wrong, over a long time, and in the hands of other tools. See `cargo e2e test hardening`.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod alone;
mod faults;
mod figures;
mod gitops;
mod kills;
mod managed;
mod namespaces;
mod observability;
mod older_pods;
mod operations;
mod quiet;
mod random_specs;
mod rights;
mod rotation;
mod scaling;
mod scenario;
mod traces;
mod upgrade;
