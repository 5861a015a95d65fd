//! The operator: keeps clusters, channels and forwarders as their resources declare them.
//!
//! ```text
//! watch ─▶ queue ─▶ reconcile: dereference ─▶ validate ─▶ build ─▶ apply ─▶ status
//!                              (reads)        (pure)      (pure)   (writes) (one write)
//! ```
//! One replica, the leader, reconciles; every replica answers the router and the probes.

pub mod apply;
pub mod check_health;
pub mod cli;
pub mod conditions;
pub mod context;
pub mod controller;
pub mod controllers;
pub mod credentials;
pub mod events;
#[cfg(test)]
mod fake_api;
pub mod finalizer;
pub mod http;
pub mod index;
pub mod leader;
pub mod metrics;
mod pod;
pub mod readiness;
pub mod reference;
pub mod router;
pub mod run;
pub mod status;
