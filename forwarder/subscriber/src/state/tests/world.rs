//! A forwarder, its clusters, and the pipes between them and a client. Nothing of it runs by itself.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use forwarder_beacon::body::ClusterView;
use forwarder_beacon::{
    Announcement, Body, Digest, Known, Phase, Publishing, Ready, Request, RingView, Signer, Subjects,
};
use tokio::sync::{broadcast, oneshot};

use crate::error::SubscribeError;
use crate::event::{Event, Gap};
use crate::hosts::{LoginOf, Policy};
use crate::limits::{Limits, Repeats};
use crate::merge::Cluster;
use crate::queue::Queue;
use crate::state::told::{Told, Totals};
use crate::state::{Action, Setup, State};

pub(super) const RING: &str = "r";
pub(super) const BASE: &str = "_FANOUT.plant.assets";
const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

/// What is on its way to a server.
enum Up {
    Subscribe {
        key: u64,
        subject: String,
    },
    Unsubscribe(u64),
    Publish {
        subject: String,
        reply: Option<String>,
        body: Vec<u8>,
    },
}

/// What is on its way to the client.
enum Down {
    Record(u64, async_nats::Message),
    Inbox { subject: String, body: Vec<u8> },
    Digest(Vec<u8>),
}

#[derive(Default)]
pub(super) struct Server {
    pub(super) is_away: bool,
    /// The client wants a connection.
    is_wanted: bool,
    generation: Option<u64>,
    up: VecDeque<Up>,
    down: VecDeque<Down>,
    subscriptions: BTreeMap<u64, String>,
    inbox: String,
}

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
    generations: u64,
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
        let mut headers = HeaderMap::new();
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

    // The network.

    /// Lets everything happen that happens without time.
    pub(super) fn settle(&mut self) {
        self.step();
        while let Some(name) = self.busy().first().cloned() {
            self.advance(&name);
        }
    }

    /// Lets everything happen at one cluster, and nothing at others.
    pub(super) fn read_only(&mut self, name: &str) {
        while self.busy().iter().any(|busy| busy == name) {
            self.advance(name);
        }
    }

    /// Clusters with something on its way.
    pub(super) fn busy(&self) -> Vec<String> {
        let is_busy = |server: &Server| {
            let connects = server.is_wanted && server.generation.is_none() && !server.is_away;
            connects || !server.up.is_empty() || !server.down.is_empty()
        };
        let busy = self.servers.iter().filter(|(_, server)| is_busy(server));
        busy.map(|(name, _)| name.clone()).collect()
    }

    /// Lets one thing happen at a cluster.
    pub(super) fn advance(&mut self, name: &str) {
        let cluster = self.number(name);
        let now = self.now;
        let server = self.servers.get_mut(name).unwrap();
        if server.is_wanted && server.generation.is_none() && !server.is_away {
            self.generations += 1;
            let inbox = format!("_INBOX.{}", self.generations);
            server.generation = Some(self.generations);
            server.inbox.clone_from(&inbox);
            self.state.up(cluster, self.generations, inbox, self.has_several, now);
        } else if let Some(up) = server.up.pop_front() {
            match up {
                Up::Subscribe { key, subject } => drop(server.subscriptions.insert(key, subject)),
                Up::Unsubscribe(key) => drop(server.subscriptions.remove(&key)),
                Up::Publish { subject, reply, body } => self.answer(name, subject, reply, &body),
            }
        } else {
            match server.down.pop_front() {
                Some(Down::Record(key, message)) => self.state.record(key, message),
                Some(Down::Inbox { subject, body }) => self.state.inbox(cluster, &subject, &body, false, now),
                Some(Down::Digest(body)) => self.state.digest(cluster, &format!("{BASE}.digest"), &body, now),
                None => {}
            }
        }
        self.step();
    }

    fn answer(&mut self, name: &str, subject: String, reply: Option<String>, body: &[u8]) {
        let mut answers = Vec::new();
        match (subject.strip_prefix(BASE), reply) {
            (Some(".get"), Some(reply)) => {
                let nonce = Request::parse(body).unwrap().nonce;
                answers.push((reply, Body::Announcement(self.announcement(&nonce))));
            }
            (Some(".ready"), Some(reply)) => {
                let nonce = Request::parse(body).unwrap().nonce;
                for pod in self.pods.iter().filter(|pod| !self.silent.contains(pod)) {
                    let ready = Ready {
                        ring: RING.to_owned(),
                        nonce: nonce.clone(),
                        pod: pod.clone(),
                        cluster: name.to_owned(),
                    };
                    answers.push((reply.clone(), Body::Ready(ready)));
                }
            }
            // An echo.
            _ => {
                let server = self.servers.get_mut(name).unwrap();
                assert!(subject.starts_with(&server.inbox), "{subject}");
                let body = Vec::new();
                return server.down.push_back(Down::Inbox { subject, body });
            }
        }
        for (subject, body) in answers {
            let body = self.signer.sign(&body).unwrap();
            let server = self.servers.get_mut(name).unwrap();
            server.down.push_back(Down::Inbox { subject, body });
        }
    }

    /// Something that anybody may have sent below our inbox.
    pub(super) fn send(&mut self, name: &str, token: &str, body: Vec<u8>) {
        let subject = format!("{}.{token}", self.servers[name].inbox);
        self.servers
            .get_mut(name)
            .unwrap()
            .down
            .push_back(Down::Inbox { subject, body });
        self.settle();
    }

    /// Ends the connection to a cluster. What is on its way is lost.
    pub(super) fn cut(&mut self, name: &str, is_away: bool) {
        let cluster = self.number(name);
        let server = self.servers.get_mut(name).unwrap();
        server.is_away = is_away;
        let generation = server.generation.take();
        (server.up, server.down) = Default::default();
        server.subscriptions.clear();
        if let Some(generation) = generation {
            self.state.down(cluster, generation, "the connection was lost");
        }
        self.settle();
    }

    /// An attempt to connect to a cluster fails.
    pub(super) fn fail(&mut self, name: &str) {
        let cluster = self.number(name);
        self.state.failed(cluster, "it is away".to_owned(), self.now);
        self.settle();
    }

    /// A server denies something.
    pub(super) fn deny(&mut self, name: &str, reason: &str) {
        let cluster = self.number(name);
        self.state.denied(cluster, reason.to_owned());
        self.settle();
    }

    /// What is on its way to a cluster, and from it, never arrives.
    pub(super) fn hang(&mut self, name: &str) {
        let server = self.servers.get_mut(name).unwrap();
        (server.up, server.down) = Default::default();
    }

    /// Has the client ask for the announcement, without an answer. Yields the question's number and nonce.
    pub(super) fn ask(&mut self, name: &str) -> (u64, String) {
        let cluster = self.number(name);
        self.state.ask(cluster, self.now);
        self.step();
        self.hang(name);
        let asked = self.state.links[&cluster].asked.as_ref().unwrap();
        (asked.token, asked.nonce.clone())
    }

    /// The number and the nonce of the question for proofs.
    pub(super) fn round(&mut self, name: &str) -> (u64, String) {
        let cluster = self.number(name);
        let round = self.state.links[&cluster].round.as_ref().unwrap();
        (round.token, round.nonce.clone())
    }

    /// As [`Self::send`], after a second in which nothing else happens.
    pub(super) fn send_alone(&mut self, name: &str, token: &str, body: Vec<u8>) {
        let cluster = self.number(name);
        let subject = format!("{}.{token}", self.servers[name].inbox);
        self.now += Duration::from_secs(1);
        self.state.inbox(cluster, &subject, &body, false, self.now);
        self.state.setup.told.flush(self.now);
    }

    pub(super) fn is_connected(&self, name: &str) -> bool {
        self.servers.get(name).is_some_and(|server| server.generation.is_some())
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
        self.settle();
    }

    fn number(&mut self, name: &str) -> Cluster {
        self.state.names.number(name)
    }

    fn step(&mut self) {
        loop {
            let actions = self.state.step(self.now);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(action);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect { cluster, .. } => {
                let name = self.state.name(cluster).to_string();
                let server = self.servers.entry(name).or_default();
                server.is_wanted = true;
                if server.is_away {
                    self.state.failed(cluster, "it is away".to_owned(), self.now);
                }
            }
            Action::Disconnect { cluster } => {
                let name = self.state.name(cluster).to_string();
                let is_away = self.servers[&name].is_away;
                let server = Server {
                    is_away,
                    ..Server::default()
                };
                self.servers.insert(name, server);
            }
            Action::Subscribe {
                cluster,
                generation,
                key,
                subject,
            } => self.push(cluster, generation, Up::Subscribe { key, subject }),
            Action::Unsubscribe { key } => {
                for server in self.servers.values_mut() {
                    server.up.push_back(Up::Unsubscribe(key));
                }
            }
            Action::Publish {
                cluster,
                generation,
                subject,
                reply,
                body,
            } => self.push(cluster, generation, Up::Publish { subject, reply, body }),
            // Nothing waits between the pipe and the state.
            Action::Drain { fence, .. } => self.state.drained(fence, self.now),
            Action::Probe { .. } => {
                self.probes += 1;
                self.state.probed(None, self.now);
            }
        }
    }

    fn push(&mut self, cluster: Cluster, generation: u64, up: Up) {
        let name = self.state.name(cluster).to_string();
        let server = self.servers.get_mut(&name).unwrap();
        if server.generation == Some(generation) {
            server.up.push_back(up);
        }
    }
}
