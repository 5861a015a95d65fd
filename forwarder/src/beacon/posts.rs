//! The posts: one for each cluster on which the ring is announced.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forwarder_beacon::Subjects;
use forwarder_core::document::Cluster;
use forwarder_service::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, info_span, warn};

use super::post::{Event, Outgoing, Post};
use super::voice::Voice;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// So much waits for a post at most. What is dropped then is said again in the next turn.
const OUTGOING: usize = 16;

/// How long the last words may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Starts posts and ends them.
pub(super) struct Posts {
    client_name: String,
    subjects: Subjects,
    events: mpsc::Sender<(Arc<str>, Event)>,
    metrics: Metrics,
    clock: Clock,
    tasks: Tasks,
    running: BTreeMap<String, Running>,
}

struct Running {
    /// As it was declared when the post was started.
    cluster: Cluster,
    voice: watch::Sender<Voice>,
    outgoing: mpsc::Sender<Outgoing>,
    task: JoinHandle<()>,
}

/// A post that is not wanted any more ends at once.
impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Posts {
    pub(super) fn new(
        client_name: &str,
        subjects: &Subjects,
        events: mpsc::Sender<(Arc<str>, Event)>,
        metrics: Metrics,
        clock: Clock,
        tasks: Tasks,
    ) -> Self {
        Self {
            client_name: client_name.to_owned(),
            subjects: subjects.clone(),
            events,
            metrics,
            clock,
            tasks,
            running: BTreeMap::new(),
        }
    }

    /// These are the clusters from now on. `voice`: what is said at each. Yields those whose posts have ended.
    pub(super) fn keep(&mut self, clusters: &BTreeMap<&str, &Cluster>, voice: impl Fn(&str) -> Voice) -> Vec<String> {
        let is_kept = |name: &str, post: &Running| {
            clusters
                .get(name)
                .is_some_and(|cluster| is_same(cluster, &post.cluster))
        };
        let gone: Vec<String> = self
            .running
            .iter()
            .filter(|(name, post)| !is_kept(name, post))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &gone {
            self.running.remove(name);
            if !clusters.contains_key(name.as_str()) {
                self.metrics.forget_beacon(name);
            }
        }
        for (name, cluster) in clusters {
            let voice = voice(name);
            match self.running.get(*name) {
                Some(post) => drop(post.voice.send_replace(voice)),
                None => self.start(cluster, voice),
            }
        }
        gone
    }

    fn start(&mut self, cluster: &Cluster, voice: Voice) {
        let (voice, voice_out) = watch::channel(voice);
        let (outgoing, outgoing_out) = mpsc::channel(OUTGOING);
        let post = Post::new(
            cluster,
            &self.client_name,
            &self.subjects,
            voice_out,
            outgoing_out,
            self.events.clone(),
            self.metrics.beacon(&cluster.name),
            self.clock,
        );
        let post = match post {
            Ok(post) => post,
            // Cannot be: the publisher has read the same addresses.
            Err(error) => {
                warn!(cluster = cluster.name, %error, "the beacon cannot use the address of a server");
                return;
            }
        };
        let span = info_span!("beacon", cluster = cluster.name);
        let task = self
            .tasks
            .guarded(format!("beacon {}", cluster.name), post.run().instrument(span));
        let running = Running {
            cluster: cluster.clone(),
            voice,
            outgoing,
            task: tokio::spawn(task),
        };
        self.running.insert(cluster.name.clone(), running);
    }

    /// Publishes something on these clusters, as far as they are connected.
    pub(super) fn send(&self, clusters: &[String], signed: Vec<u8>, make: impl Fn(Bytes) -> Outgoing) {
        let signed = Bytes::from(signed);
        for post in clusters.iter().filter_map(|name| self.running.get(name)) {
            // A full queue has enough to say.
            post.outgoing.try_send(make(signed.clone())).ok();
        }
    }

    /// Waits a moment until what was sent is written.
    pub(super) async fn end(mut self) {
        let running = std::mem::take(&mut self.running);
        let written = async {
            for (_, mut post) in running {
                // Its other end is how a post knows that nothing more comes.
                let (closed, _) = mpsc::channel(1);
                post.outgoing = closed;
                (&mut post.task).await.ok();
            }
        };
        // Nobody is lost who does not hear it: a pod that is silent is gone after a while.
        tokio::time::timeout(FAREWELL, written).await.ok();
    }
}

/// Whether the connection would be the same.
fn is_same(a: &Cluster, b: &Cluster) -> bool {
    let connection = |cluster: &Cluster| Cluster {
        weight: 1,
        client_servers: Vec::new(),
        ..cluster.clone()
    };
    connection(a) == connection(b)
}
