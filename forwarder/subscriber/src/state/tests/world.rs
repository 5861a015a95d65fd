//! A forwarder, its clusters, and the pipes between them and a client. Nothing of it runs by itself.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use async_nats::HeaderMap;
use forwarder_beacon::body::ClusterView;
use forwarder_beacon::{Announcement, Body, Digest, Known, Phase, Publishing, RingView, Signer, Subjects};
use tokio::sync::{broadcast, oneshot};

use super::pipes::{Down, Server};
use crate::error::SubscribeError;
use crate::event::{Event, Gap};
use crate::hosts::{LoginOf, Policy};
use crate::limits::{Limits, Repeats};
use crate::queue::Queue;
use crate::state::told::{Told, Totals};
use crate::state::{Setup, State};

pub(super) const RING: &str = "r";
pub(super) const BASE: &str = "_FANOUT.plant.assets";
const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Instant,
    pub(super) events: broadcast::Receiver<Event>,
    pub(super) servers: BTreeMap<String, Server>,
    pub(super) rings: Vec<RingView>,
    pub(super) left: u64,
    pub(super) pods: Vec<String>,
    /// Pods that prove nothing.
    pub(super) silent: Vec<String>,
    pub(super) stream: Option<String>,
    pub(super) has_several: bool,
    /// How often the client has asked elsewhere.
    pub(super) probes: usize,
    pub(super) signer: Signer,
    pub(super) generations: u64,
    sequence: u64,
}

pub(super) fn view(epoch: u64, phase: Phase, clusters: &[&str]) -> RingView {
    let cluster = |name: &&str| ClusterView {
        name: (*name).to_owned(),
        weight: 1,
        servers: vec![format!("nats://{name}")],
    };
    RingView {
        epoch,
        phase,
        replicas: 64,
        clusters: clusters.iter().map(cluster).collect(),
    }
}

pub(super) fn signer() -> Signer {
    Signer::from_seed(SEED).unwrap()
}

impl World {
    pub(super) fn new(rings: Vec<RingView>) -> Self {
        Self::with(rings, Limits::default(), Repeats::Drop, Arc::new(|_| None))
    }

    pub(super) fn with(rings: Vec<RingView>, limits: Limits, repeats: Repeats, login_of: LoginOf) -> Self {
        let signer = signer();
        let (sender, events) = broadcast::channel(100_000);
        let now = Instant::now();
        let state = State::new(Setup {
            verifier: forwarder_beacon::Verifier::of(&signer.public_key()).unwrap(),
            subjects: Subjects::new(BASE),
            policy: Policy::new(&["nats://first"], None, login_of).unwrap(),
            limits,
            repeats,
            known: Arc::new(RwLock::new(Known::of(RING))),
            told: Told::new(sender, Arc::<Totals>::default()),
        });
        let mut world = Self {
            state,
            now,
            events,
            servers: BTreeMap::new(),
            left: rings[0].epoch,
            rings,
            pods: vec!["p-0".to_owned(), "p-1".to_owned()],
            silent: Vec::new(),
            stream: None,
            has_several: false,
            probes: 0,
            signer,
            generations: 0,
            sequence: 0,
        };
        let told = world.announcement("");
        world.state.learn(&told, now);
        world.settle();
        world
    }

    pub(super) fn announcement(&self, nonce: &str) -> Announcement {
        let announcement = Announcement {
            ring: RING.to_owned(),
            nonce: nonce.to_owned(),
            hash: String::new(),
            left: self.left,
            rings: self.rings.clone(),
            pods: self.pods.clone(),
            publishing: Publishing {
                subject: "{key}.{id}".to_owned(),
                stream: self.stream.clone(),
                origin: true,
            },
        };
        announcement.sealed()
    }

    // The program.

    pub(super) fn subscribe(&mut self, assets: &[&str]) -> (Arc<Queue>, oneshot::Receiver<Result<(), SubscribeError>>) {
        let queue = Arc::new(Queue::new(10_000, 1 << 20));
        let begun = self.subscribe_to(assets, &queue);
        (queue, begun)
    }

    pub(super) fn subscribe_to(
        &mut self,
        assets: &[&str],
        queue: &Arc<Queue>,
    ) -> oneshot::Receiver<Result<(), SubscribeError>> {
        let (begun, has_begun) = oneshot::channel();
        let assets = assets.iter().map(|asset| (*asset).to_owned()).collect();
        self.sequence += 1;
        self.state
            .subscribe(self.sequence, assets, "*", Arc::clone(queue), begun, self.now);
        self.settle();
        has_begun
    }

    pub(super) fn gaps(&mut self) -> Vec<Gap> {
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        let gap = |event| match event {
            Event::Gap(gap) => Some(gap),
            _ => None,
        };
        events.filter_map(gap).collect()
    }

    pub(super) fn told(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }

    // The forwarder.

    pub(super) fn write(&mut self, cluster: &str, asset: &str, topic: &str, offset: i64) {
        self.write_with(HeaderMap::new(), cluster, asset, topic, offset);
    }

    /// A copy for subscribers that stay.
    pub(super) fn write_copy(&mut self, cluster: &str, asset: &str, topic: &str, offset: i64) {
        let mut headers = HeaderMap::new();
        headers.insert("Fanout-Mirrored", "1");
        self.write_with(headers, cluster, asset, topic, offset);
    }

    fn write_with(&mut self, mut headers: HeaderMap, cluster: &str, asset: &str, topic: &str, offset: i64) {
        headers.insert("Kafka-Topic", topic);
        headers.insert("Kafka-Partition", "0");
        headers.insert("Kafka-Offset", offset.to_string());
        headers.insert("Kafka-Timestamp", "1");
        let message = async_nats::Message {
            subject: format!("{asset}.temperature").into(),
            reply: None,
            payload: Vec::new().into(),
            headers: Some(headers),
            status: None,
            description: None,
            length: 0,
        };
        let server = self.servers.entry(cluster.to_owned()).or_default();
        let wanted = format!("{asset}.*");
        for (key, subject) in &server.subscriptions {
            if *subject == wanted {
                server.down.push_back(Down::Record(*key, message.clone()));
            }
        }
    }

    /// Announces what is declared now on all clusters.
    pub(super) fn digest(&mut self) {
        self.sequence += 1;
        let digest = Digest {
            ring: RING.to_owned(),
            epoch: 0,
            hash: self.announcement("").hash,
            pod: "p-0".to_owned(),
            sequence: self.sequence,
            next_ms: 1_000,
        };
        let signed = self.signer.sign(&Body::Digest(digest)).unwrap();
        for server in self.servers.values_mut().filter(|server| server.generation.is_some()) {
            server.down.push_back(Down::Digest(signed.clone()));
        }
    }

    /// Declares other rings, and lets the client hear of them.
    pub(super) fn declare(&mut self, left: u64, rings: Vec<RingView>) {
        (self.left, self.rings) = (left, rings);
        self.digest();
        self.settle();
    }
}
