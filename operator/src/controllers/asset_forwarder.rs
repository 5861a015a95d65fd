//! The controller of `AssetForwarder`: pods that read a channel and publish each record to the cluster that owns its asset.
//!
//! ```text
//! dereference ─▶ decide ─▶ validate ─▶ build ─▶ apply ─▶ status
//! (reads)        (pure)    (pure)      (pure)   (writes) (pure, then one write)
//! ```
//! Which clusters are members ([`members`]), under which epoch, and who is still leaving ([`ring`]), is decided from what the
//! API server has and what the pods say; all that must survive a restart is in the ring's ConfigMap ([`recorded`]).

pub mod apply;
pub mod autoscale;
pub mod beacon;
pub mod build;
pub mod candidates;
pub mod config;
pub mod decide;
pub mod dereference;
mod events;
mod joining;
pub mod members;
pub mod memory;
pub mod names;
pub mod pods;
pub mod readers;
pub mod reconcile;
pub mod recorded;
pub mod ring;
pub mod rivals;
pub mod rollout;
pub mod rollout_trigger;
mod settled;
pub mod sources;
pub mod status;
pub mod steps;
pub mod stores;
#[cfg(test)]
mod tests;
pub mod turns;
pub mod upgrade;
pub mod validate;
pub mod watch;

use std::sync::Arc;

use crds::AssetForwarder;
use forwarder_service::shutdown::Shutdown;
use futures::Stream;
use kube::runtime::reflector::ObjectRef;

use self::autoscale::Histories;
use self::memory::Memory;
use crate::context::Context;
use crate::reconcile::drive::{Slots, drive};

/// Runs the controller until `stop`. `of_secrets` says whose Secrets have changed.
pub async fn run(
    context: Arc<Context>,
    resources: watch::Resources,
    of_secrets: impl Stream<Item = ObjectRef<AssetForwarder>> + Send + 'static,
    stop: Shutdown,
) {
    let memory = Arc::new(Memory::default());
    let histories = Arc::new(Histories::default());
    let (controller, stores) = watch::controller(&context, resources, &memory, &histories, of_secrets);
    context
        .metrics
        .show_ready(controller.store(), |forwarder: &AssetForwarder| {
            let status = forwarder.status.as_ref()?;
            Some((status.observed_generation, &status.conditions))
        });
    stores.wanted_by(&context.readiness);
    let slots = Slots::new(context.settings.concurrency);
    let known = Arc::new(steps::Known {
        stores,
        memory,
        histories,
        turns: turns::Turns::default(),
        lists: dereference::Lists::default(),
    });
    let reconcile = move |forwarder, context| {
        let known = Arc::clone(&known);
        async move { reconcile::reconcile(forwarder, context, &known).await }
    };
    drive("AssetForwarder", controller, slots, context, reconcile, stop).await;
}
