//! What subscribers learn of the ring, and how: see the crate `forwarder-beacon` for what is said.
//!
//! ```text
//!  intake ── rings, partitions (a watch) ──▶ ┐
//!                                            ├─ beacon: coordinator ── digests, statements ──▶ post of each cluster ──▶ NATS
//!  intake ◀── heard (a watch) ────────────── ┘        ▲                                              │
//!                                                     └──────── echoes, statements, faults ──────────┘
//! ```
//!
//! [`coordinator`] decides. [`post`] has the connections of its own, answers and signs. Nothing here is on a record's way: the intake
//! never waits for it, and where no beacon is declared the task sleeps. Proofs of readiness alone leave through the publishers'
//! connections: see [`Answers`].
//!
//! [`Answers`]: crate::outputs::nats::Answers

mod budget;
mod coordinator;
mod faults;
mod post;
mod posts;
mod told;
mod voice;

use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use forwarder_beacon::{Body, Phase, Publishing, Subjects};
use forwarder_core::document::{self, Checked, Publish, PublishMode, RingConfig};
use forwarder_core::status::{BeaconClusterStatus, BeaconRing, BeaconStatus};
use forwarder_core::subject::{Template, takes};
use forwarder_service::chain;
use forwarder_service::clock::Clock;
use forwarder_service::log_limit::LogLimit;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use self::coordinator::{Coordinator, Identity};
use self::post::{Event, Outgoing};
use self::posts::Posts;
pub use self::told::Told;
pub use self::voice::is_answerable;
use self::voice::{Key, Voice};
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// The finest step of everything here.
const TICK: Duration = Duration::from_millis(250);

/// What posts have told and was not heard yet. What does not find room is said again, but for what they wait to tell.
const EVENTS: usize = 1_024;

/// How often the log says that there is no key, and how often the file is tried again.
const REPEAT: Duration = Duration::from_secs(60);

/// See the module.
pub struct Beacon {
    links: Links,
    pod: String,
    process: String,
    client_name: String,
    publishing: Publishing,
    /// What a managed stream stores.
    stored: Vec<String>,
    metrics: Metrics,
    clock: Clock,
    tasks: Tasks,
}

/// What the beacon is connected to.
struct Links {
    told: watch::Receiver<Option<Told>>,
    heard: watch::Sender<Option<u64>>,
    status: watch::Sender<Option<BeaconStatus>>,
}

/// The intake's ends.
#[derive(Debug)]
pub struct ToBeacon {
    /// Where the intake tells how far it is; none: no beacon is declared.
    pub told: watch::Sender<Option<Told>>,
    /// The newest ring whose announcement was heard.
    pub heard: watch::Receiver<Option<u64>>,
}

/// The beacon that goes with these rings: that of the ring in use, which subscribers know, or else that of the announced one.
#[must_use]
pub fn declared<'a>(using: &'a RingConfig, announced: Option<&'a RingConfig>) -> Option<&'a document::Beacon> {
    let announced = announced.and_then(|ring| ring.beacon.as_ref());
    using.beacon.as_ref().or(announced)
}

impl Beacon {
    /// A beacon that nobody has told anything. What it says of itself is put up at `status`.
    #[must_use]
    pub fn new(
        config: &Checked,
        status: watch::Sender<Option<BeaconStatus>>,
        metrics: Metrics,
        clock: Clock,
        tasks: Tasks,
    ) -> (Self, ToBeacon) {
        let (told_in, told) = watch::channel(None);
        let (heard, heard_out) = watch::channel(None);
        let unique = RandomState::new().hash_one(std::process::id());
        let process = format!("{unique:016x}");
        let name = config.admin.forwarder.as_deref().filter(|name| *name != "unknown");
        let beacon = Self {
            links: Links { told, heard, status },
            pod: name.map_or_else(|| format!("forwarder-{process}"), str::to_owned),
            process,
            client_name: format!("fanout-forwarder beacon {}", config.source.group),
            publishing: publishing(&config.publish),
            stored: stored(&config.publish),
            metrics,
            clock,
            tasks,
        };
        let ends = ToBeacon {
            told: told_in,
            heard: heard_out,
        };
        (beacon, ends)
    }

    /// Goes on until the intake ends.
    pub async fn run(mut self) {
        while self.links.told.changed().await.is_ok() {
            while let Some(told) = self.next_told() {
                if self.announce(told).await.is_break() {
                    return;
                }
            }
            self.links.status.send_replace(None);
            self.links.heard.send_replace(None);
        }
    }

    fn next_told(&mut self) -> Option<Told> {
        self.links.told.borrow_and_update().clone()
    }

    /// Announces until another beacon is declared, or none. Breaks when the intake has ended.
    async fn announce(&mut self, told: Told) -> ControlFlow<()> {
        let Some(declared) = declared(&told.using, told.announced.as_deref()).cloned() else {
            return self.wait().await;
        };
        let subjects = Subjects::new(&declared.subject);
        if let Some(pattern) = self.capturing(&subjects) {
            let fault = format!(
                "the managed stream's subjects {pattern:?} would store what is said below {}: declare another subject for the beacon, \
                 or narrower publish.stream.subjects",
                declared.subject
            );
            error!(fault, "nothing is announced to subscribers; records are not affected");
            return self.stand_still(&declared, &told, fault).await;
        }
        let (events_in, events) = mpsc::channel(EVENTS);
        let identity = Identity {
            ring: declared.ring.clone(),
            pod: self.pod.clone(),
            process: self.process.clone(),
        };
        info!(
            subject = declared.subject,
            ring = declared.ring,
            pod = self.pod,
            "announcing the ring to subscribers"
        );
        let posts = Posts::new(
            &self.client_name,
            &subjects,
            events_in,
            self.metrics.clone(),
            self.clock,
            self.tasks.clone(),
        );
        let announcer = Announcer {
            coordinator: Coordinator::new(identity, self.publishing.clone()),
            declared,
            told,
            key: None,
            key_fault: None,
            key_tried_at: None,
            key_lines: LogLimit::new(REPEAT),
            posts,
            metrics: self.metrics.clone(),
            clock: self.clock,
            pod: self.pod.clone(),
        };
        announcer.run(&mut self.links, events).await
    }

    /// The pattern of a managed stream that takes what is said.
    fn capturing(&self, subjects: &Subjects) -> Option<&str> {
        let said = [subjects.get(), subjects.digest(), subjects.ready(), subjects.pods()];
        let captures = |pattern: &&String| said.iter().any(|subject| takes(pattern, subject));
        self.stored.iter().find(captures).map(String::as_str)
    }

    /// Announces nothing, and says why. Nobody waits for what nobody can hear.
    async fn stand_still(&mut self, declared: &document::Beacon, told: &Told, fault: String) -> ControlFlow<()> {
        let newest = told.announced.as_ref().unwrap_or(&told.using).epoch;
        self.links.heard.send_replace(Some(newest));
        self.links.status.send_replace(Some(BeaconStatus {
            subject: declared.subject.clone(),
            ring: declared.ring.clone(),
            fault: Some(fault),
            ..BeaconStatus::default()
        }));
        let mut ended = self.wait().await;
        // The intake speaks each second; all that matters here is which rings there are.
        while ended.is_continue() && is_of_same_rings(self.links.told.borrow().as_ref(), told) {
            self.links.told.borrow_and_update();
            ended = self.wait().await;
        }
        ended
    }

    async fn wait(&mut self) -> ControlFlow<()> {
        match self.links.told.changed().await {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Whether the rings are the same, by their epochs.
fn is_of_same_rings(now: Option<&Told>, before: &Told) -> bool {
    let epochs = |told: &Told| (told.using.epoch, told.announced.as_ref().map(|ring| ring.epoch));
    now.is_some_and(|now| epochs(now) == epochs(before))
}

/// One beacon, from its declaration to another one.
struct Announcer {
    coordinator: Coordinator,
    declared: document::Beacon,
    told: Told,
    key: Option<Arc<Key>>,
    key_fault: Option<String>,
    /// When the file was last tried, in microseconds.
    key_tried_at: Option<u64>,
    key_lines: LogLimit,
    posts: Posts,
    metrics: Metrics,
    clock: Clock,
    pod: String,
}

impl Announcer {
    async fn run(mut self, links: &mut Links, mut events: mpsc::Receiver<(Arc<str>, Event)>) -> ControlFlow<()> {
        self.coordinator.tell(&self.told, self.clock.micros());
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = links.told.changed() => {
                    if changed.is_err() {
                        self.say_farewell().await;
                        return ControlFlow::Break(());
                    }
                    let told = links.told.borrow_and_update().clone();
                    let Some(told) = told.filter(|told| self.is_same_beacon(told)) else {
                        self.posts.end().await;
                        return ControlFlow::Continue(());
                    };
                    self.take(told);
                }
                Some((cluster, event)) = events.recv() => {
                    if !self.hear(&cluster, event) {
                        continue;
                    }
                }
                _ = ticks.tick() => {}
            }
            self.step(links).await;
        }
    }

    fn is_same_beacon(&self, told: &Told) -> bool {
        let is_same = |declared: &document::Beacon| {
            document::Beacon {
                grace_ms: self.declared.grace_ms,
                ..declared.clone()
            } == self.declared
        };
        declared(&told.using, told.announced.as_deref()).is_some_and(is_same)
    }

    fn take(&mut self, told: Told) {
        let is_changed = !is_of_same_rings(Some(&told), &self.told);
        self.told = told;
        self.coordinator.tell(&self.told, self.clock.micros());
        if is_changed {
            // Another key may be there with another ring.
            self.key_tried_at = None;
        }
    }

    /// Whether it is worth a step at once.
    fn hear(&mut self, cluster: &str, event: Event) -> bool {
        let now = self.clock.micros();
        let coordinator = &mut self.coordinator;
        match event {
            Event::Connected => coordinator.connected(cluster, None, now),
            Event::Away(reason) => coordinator.connected(cluster, Some(reason), now),
            Event::Fault(fault) => coordinator.fault(cluster, fault),
            Event::Statement(statement) => {
                coordinator.hear(*statement, now);
                return false;
            }
            Event::Echo(epoch) => coordinator.echoed(cluster, epoch, now),
            Event::Digest => {
                coordinator.digested(cluster, now);
                return false;
            }
        }
        true
    }

    /// Says what is due, and shows how it is.
    async fn step(&mut self, links: &mut Links) {
        self.read_key().await;
        let now = self.clock.micros();
        let due = self.coordinator.due(now);
        if let Some(key) = self.key.clone() {
            let announcement = Arc::new(self.coordinator.announcement(now));
            let voice = |cluster: &str| Voice {
                key: Arc::clone(&key),
                pod: self.pod.clone(),
                announcement: Arc::clone(&announcement),
                answers: self.told.answers.get(cluster).cloned(),
            };
            let ended = self.posts.keep(&self.coordinator.clusters(), voice);
            for cluster in ended {
                let reason = "the configuration of the cluster has changed".to_owned();
                self.coordinator.connected(&cluster, Some(reason), now);
            }
            self.send(due, &key);
        }
        let heard = self.coordinator.heard(now);
        links.heard.send_if_modified(|before| {
            let is_news = *before != heard;
            *before = heard;
            is_news
        });
        self.metrics.show_grace(Duration::from_millis(self.told.grace_left_ms));
        links.status.send_replace(Some(self.status(now)));
    }

    fn send(&self, due: coordinator::Due, key: &Key) {
        let coordinator::Due { digest, statement } = due;
        // The statement first: it says what the digest's hash follows from.
        if let Some((statement, clusters)) = statement
            && let Some(signed) = key.sign_known(&Body::Statement(statement))
        {
            self.posts.send(&clusters, signed, Outgoing::Statement);
        }
        if let Some((digest, clusters)) = digest {
            let epoch = digest.epoch;
            if let Some(signed) = key.sign_known(&Body::Digest(digest)) {
                self.posts
                    .send(&clusters, signed, |signed| Outgoing::Digest(epoch, signed));
            }
        }
    }

    /// Reads the key's file at the start, with each new ring, and again until it can be read.
    async fn read_key(&mut self) {
        let now = self.clock.micros();
        let is_due = match self.key_tried_at {
            None => true,
            Some(at) => self.key_fault.is_some() && now.saturating_sub(at) >= 1_000_000,
        };
        if !is_due {
            return;
        }
        self.key_tried_at = Some(now);
        match Key::read(&self.declared.key_file).await {
            Ok(key) => {
                self.key_fault = None;
                self.key_lines.forget();
                let public_key = key.public_key();
                if self.key.as_ref().is_none_or(|known| known.public_key() != public_key) {
                    info!(public_key, "subscribers pin this key");
                    self.key = Some(Arc::new(key));
                }
            }
            // With the key that there is, if there is one.
            Err(error) => {
                let fault = chain(&error);
                if self.key_lines.pass(&()).is_some() {
                    warn!(fault, "the beacon has no new key; records are not affected");
                }
                self.key_fault = Some(fault);
            }
        }
    }

    async fn say_farewell(mut self) {
        let due = self.coordinator.farewell(self.clock.micros());
        if let Some(key) = self.key.take() {
            self.send(due, &key);
        }
        self.posts.end().await;
    }

    fn status(&self, now: u64) -> BeaconStatus {
        let announcement = self.coordinator.announcement(now);
        let ring = |view: &forwarder_beacon::RingView| BeaconRing {
            epoch: view.epoch,
            phase: words(view.phase).to_owned(),
        };
        let clusters = self.coordinator.reaches().iter();
        BeaconStatus {
            public_key: self.key.as_ref().map(|key| key.public_key()),
            subject: self.declared.subject.clone(),
            ring: self.declared.ring.clone(),
            fault: self.key_fault.clone(),
            left: self.coordinator.left(),
            rings: announcement.rings.iter().map(ring).collect(),
            heard: self.coordinator.heard(now),
            grace_left_ms: self.told.announced.as_ref().map(|_| self.told.grace_left_ms),
            pods: announcement.pods,
            clusters: clusters
                .map(|(name, reach)| {
                    let shown = BeaconClusterStatus {
                        connected: reach.is_connected(),
                        fault: reach.shown_fault(now),
                    };
                    (name.clone(), shown)
                })
                .collect(),
        }
    }
}

const fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Announced => "announced",
        Phase::InUse => "inUse",
        Phase::Leaving => "leaving",
    }
}

fn publishing(publish: &Publish) -> Publishing {
    Publishing {
        subject: publish.subject.clone(),
        stream: publish.stream.as_ref().map(|stream| stream.name.clone()),
        origin: publish.headers.origin,
    }
}

/// The patterns of a managed stream. One that is not managed is somebody else's to keep.
fn stored(publish: &Publish) -> Vec<String> {
    let managed = publish.stream.as_ref().filter(|stream| stream.manage);
    let Some(stream) = managed.filter(|_| publish.mode == PublishMode::JetStream) else {
        return Vec::new();
    };
    if !stream.subjects.is_empty() {
        return stream.subjects.clone();
    }
    let template = Template::parse(&publish.subject).ok();
    template
        .map(|template| format!("{}.>", template.literal_prefix()))
        .into_iter()
        .collect()
}
