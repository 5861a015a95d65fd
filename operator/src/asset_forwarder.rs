//! The controller of `AssetForwarder`: pods that read a channel and publish each record to the cluster that owns its asset.
//!
//! ```text
//! dereference ─▶ validate ─▶ build ─▶ apply ─▶ status
//! (reads)        (pure)      (pure)   (writes) (pure, then one write)
//! ```
//! Which clusters are members ([`members`]), under which epoch, and who is still leaving ([`ring`]), is decided from what the
//! API server has and what the pods say; all that must survive a restart is in the ring's ConfigMap ([`recorded`]).

pub mod apply;
pub mod autoscale;
pub mod build;
pub mod config;
pub mod dereference;
pub mod members;
pub mod names;
pub mod pods;
pub mod readers;
pub mod reconcile;
pub mod recorded;
pub mod ring;
pub mod rollout;
pub mod status;
#[cfg(test)]
mod tests;
pub mod upgrade;
pub mod validate;
pub mod watch;

use std::sync::Arc;

use crds::AssetForwarder;
use forwarder::shutdown::Shutdown;

use self::autoscale::Histories;
use self::watch::SecretIndex;
use crate::context::Context;
use crate::controller::drive;

/// Runs the controller until `stop`.
pub async fn run(context: Arc<Context>, stop: Shutdown) {
    let index = Arc::new(SecretIndex::default());
    let controller = watch::controller(&context, &index);
    context
        .metrics
        .show_ready(controller.store(), |forwarder: &AssetForwarder| {
            let status = forwarder.status.as_ref()?;
            Some((status.observed_generation, &status.conditions))
        });
    let histories = Arc::new(Histories::default());
    let reconcile = move |forwarder, context| {
        let (index, histories) = (Arc::clone(&index), Arc::clone(&histories));
        async move { reconcile::reconcile(forwarder, context, &index, &histories).await }
    };
    drive("AssetForwarder", controller, context, reconcile, stop).await;
}
