//! Writes of others that never end, beside what an operator is asked to do.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crds::NatsCluster;
use e2e_rig::kubernetes::Namespace;
use e2e_rig::manifests::nats_cluster;
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Writers of a flood of so many events a second. One alone would wait for its answers at the higher rates.
const WRITERS: u32 = 10;

/// Writers that go on until this is dropped.
#[derive(Default)]
pub(crate) struct Flood {
    writers: JoinSet<()>,
    written: Arc<AtomicU64>,
}

impl Flood {
    /// So many events a second of clusters that are labelled like members of ours, in a namespace that grants nobody anything.
    pub(crate) async fn of_ungranted_clusters(namespace: &Namespace, per_second: u32) -> Self {
        let name = |writer: u32| format!("flood-{writer}");
        // Nobody listens there: each look at it fails at once.
        let cluster =
            |writer| nats_cluster(&name(writer), &format!("FLOOD-{writer}"), "nats://127.0.0.1:1").to_string();
        let manifests: Vec<String> = (0..WRITERS).map(cluster).collect();
        namespace.apply(&manifests.join("\n---\n")).await.unwrap();
        let mut flood = Self::default();
        let period = Duration::from_secs(1) * WRITERS / per_second;
        for writer in 0..WRITERS {
            flood.touch(
                namespace.api::<NatsCluster>(),
                &name(writer),
                "annotations",
                Some(period),
            );
        }
        flood.check_goes_on().await;
        flood
    }

    /// One more writer: it changes a label or an annotation of an object in each period, or as fast as the API server takes it.
    pub(crate) fn touch<K>(&mut self, api: Api<K>, name: &str, field: &'static str, period: Option<Duration>)
    where
        K: Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let (name, written) = (name.to_owned(), Arc::clone(&self.written));
        // A value that another writer has written changes nothing.
        let own = self.writers.len();
        self.writers.spawn(async move {
            let mut ticks = period.map(interval);
            if let Some(ticks) = &mut ticks {
                // What the server did not take in time is not made up for: the rate is never higher than what was asked for.
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
            for number in 0_u64.. {
                if let Some(ticks) = &mut ticks {
                    ticks.tick().await;
                }
                let patch = json!({"metadata": {field: {"touched": format!("{own}-{number}")}}});
                // A conflict with another writer is one write less.
                if api
                    .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
                    .await
                    .is_ok()
                {
                    written.fetch_add(1, Ordering::AcqRel);
                }
            }
        });
    }

    /// How many writes there were.
    pub(crate) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Waits for a write after this moment: the flood has not ended before it.
    pub(crate) async fn check_goes_on(&self) {
        let before = self.written();
        wait::eventually(SOON, "the flood goes on", || {
            std::future::ready(Ok(self.written() > before))
        })
        .await
        .unwrap();
    }

    /// Ends it, and yields how many writes there were.
    pub(crate) async fn end(mut self) -> u64 {
        // They never end by themselves, so one that has ended has failed.
        assert!(self.writers.try_join_next().is_none(), "a writer has ended");
        self.writers.shutdown().await;
        self.written()
    }
}
