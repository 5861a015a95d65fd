//! The operator: keeps clusters, channels and forwarders as their resources declare them.
//!
//! ```text
//! watch ─▶ queue ─▶ reconcile: dereference ─▶ decide ─▶ validate ─▶ build ─▶ apply ─▶ status
//!                              (reads)        (pure)    (pure)      (pure)   (writes) (one write)
//! ```
//! One replica, the leader, reconciles and fills all of the index. Every replica knows the rings and answers over HTTP.

pub mod check_health;
pub mod cli;
pub mod context;
pub mod controllers;
pub mod error;
#[cfg(test)]
mod fake_api;
pub mod index;
pub mod leader;
pub mod metrics;
pub mod owner;
pub mod reconcile;
pub mod run;
pub mod serve;
pub mod watch;
