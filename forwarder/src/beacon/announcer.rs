//! One beacon, from its declaration to another one: what is decided is carried out.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use forwarder_beacon::{Body, Phase, Publishing, RingView};
use forwarder_core::document;
use forwarder_core::status::{BeaconClusterStatus, BeaconRing, BeaconStatus};
use forwarder_service::chain;
use forwarder_service::clock::Clock;
use forwarder_service::log_limit::LogLimit;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::coordinator::{Coordinator, Due, Identity};
use super::post::{Event, Outgoing};
use super::posts::Posts;
use super::told::Told;
use super::voice::{Key, Voice};
use super::{Links, declared};
use crate::metrics::Metrics;

/// The finest step of everything here.
const TICK: Duration = Duration::from_millis(250);

/// How often the log repeats that there is no key.
const REPEAT: Duration = Duration::from_secs(60);

/// How often the key's file is read.
const READ_KEY_AGAIN: u64 = 1_000_000;

/// Whether the rings are the same, by their epochs.
pub(super) fn is_of_same_rings(now: Option<&Told>, before: &Told) -> bool {
    let epochs = |told: &Told| (told.using.epoch, told.announced.as_ref().map(|ring| ring.epoch));
    now.is_some_and(|now| epochs(now) == epochs(before))
}

/// One beacon, from its declaration to another one.
pub(super) struct Announcer {
    coordinator: Coordinator,
    declared: document::Beacon,
    told: Told,
    key: Option<Arc<Key>>,
    key_fault: Option<String>,
    /// When the file was last tried, in microseconds.
    key_read_at: Option<u64>,
    key_lines: LogLimit,
    posts: Posts,
    metrics: Metrics,
    clock: Clock,
    pod: String,
}

impl Announcer {
    /// `identity`: who speaks. `told`: how far the process is.
    pub(super) fn new(
        declared: document::Beacon,
        told: Told,
        identity: Identity,
        publishing: Publishing,
        posts: Posts,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        Self {
            pod: identity.pod.clone(),
            coordinator: Coordinator::new(identity, publishing),
            declared,
            told,
            key: None,
            key_fault: None,
            key_read_at: None,
            key_lines: LogLimit::new(REPEAT),
            posts,
            metrics,
            clock,
        }
    }

    /// Goes on until another beacon is declared, or none. Breaks when the intake has ended.
    pub(super) async fn run(
        mut self,
        links: &mut Links,
        mut events: mpsc::Receiver<(Arc<str>, Event)>,
    ) -> ControlFlow<()> {
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
            self.key_read_at = None;
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

    fn send(&self, due: Due, key: &Key) {
        let Due { digest, statement } = due;
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

    /// Reads the key's file at the start, with each new ring, and in a rhythm: another key may come without another ring.
    async fn read_key(&mut self) {
        let now = self.clock.micros();
        let is_due = match self.key_read_at {
            None => true,
            Some(at) => now.saturating_sub(at) >= READ_KEY_AGAIN,
        };
        if !is_due {
            return;
        }
        self.key_read_at = Some(now);
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
        let ring = |view: &RingView| BeaconRing {
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
            grace_left_ms: (self.told.announced.is_some() || !self.told.is_used).then_some(self.told.grace_left_ms),
            pods: self.coordinator.living(now).into_iter().map(str::to_owned).collect(),
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
