//! The controller of `AssetForwarder`: pods that read a channel and publish each record to the cluster that owns its asset.
//!
//! ```text
//! dereference ─▶ validate ─▶ build ─▶ apply ─▶ status
//! (reads)        (pure)      (pure)   (writes) (pure, then one write)
//! ```
//! Which clusters are members ([`members`]), under which epoch, and who is still leaving ([`ring`]), is decided from what the
//! API server has and what the pods say; all that must survive a restart is in the ring's ConfigMap ([`recorded`]).

pub mod build;
pub mod config;
pub mod dereference;
pub mod image;
pub mod members;
pub mod names;
pub mod pods;
pub mod recorded;
pub mod ring;
pub mod rollout;
pub mod validate;

use std::sync::Arc;

use forwarder::shutdown::Shutdown;

use crate::context::Context;

/// Runs the controller until `stop`.
pub async fn run(_context: Arc<Context>, mut stop: Shutdown) {
    stop.requested().await;
}
