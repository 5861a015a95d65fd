//! What subscribers learn of the ring, and how: see the crate `forwarder-beacon` for what is said.
//!
//! ```text
//!  intake ── rings, partitions (a watch) ──▶ ┐
//!                                            ├─ beacon: coordinator ── digests, statements ──▶ post of each cluster ──▶ NATS
//!  intake ◀── heard (a watch) ────────────── ┘        ▲                                              │
//!                                                     └──────── echoes, statements, faults ──────────┘
//! ```
//!
//! `coordinator` decides, and `announcer` carries it out. `post` has connections of its own, and answers there. Nothing here is on a
//! record's way: the intake never waits for it, and where no beacon is declared the task sleeps. Proofs of readiness alone leave through
//! the publishers' connections: see [`Answers`].
//!
//! [`Answers`]: crate::outputs::nats::Answers

mod announcer;
mod coordinator;
mod faults;
mod post;
mod posts;
mod told;
mod voice;

use std::hash::{BuildHasher as _, RandomState};
use std::ops::ControlFlow;

use forwarder_beacon::{Publishing, Subjects};
use forwarder_core::document::{self, Checked, Publish, PublishMode, RingConfig};
use forwarder_core::status::BeaconStatus;
use forwarder_core::subject::{Template, takes};
use forwarder_service::clock::Clock;
use tokio::sync::{mpsc, watch};
use tracing::{error, info};

use self::announcer::{Announcer, is_of_same_rings};
use self::coordinator::Identity;
use self::posts::Posts;
pub use self::told::Told;
pub use self::voice::is_answerable;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// What posts have told and was not heard yet. What does not find room is said again, but for what they wait to tell.
const EVENTS: usize = 1_024;

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
        if let Some(pattern) = capturing(&self.stored, &subjects) {
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
        let announcer = Announcer::new(
            declared,
            told,
            identity,
            self.publishing.clone(),
            posts,
            self.metrics.clone(),
            self.clock,
        );
        announcer.run(&mut self.links, events).await
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
    // A checked document has a template that can be read.
    let template = Template::parse(&publish.subject).ok();
    let prefix = template.as_ref().map_or("", Template::literal_prefix);
    stream.managed_subjects(prefix)
}

/// The pattern of a stream that would take what is said.
fn capturing<'a>(stored: &'a [String], subjects: &Subjects) -> Option<&'a str> {
    let said = [subjects.get(), subjects.digest(), subjects.ready(), subjects.pods()];
    let captures = |pattern: &&String| said.iter().any(|subject| takes(pattern, subject));
    stored.iter().find(captures).map(String::as_str)
}

#[cfg(test)]
mod tests;
