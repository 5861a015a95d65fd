//! What is announced, and what follows from what is heard. Pure: no I/O, and time is an argument, in microseconds.
//!
//! ```text
//!  intake ── rings, partitions ──▶ ┐                ┌──▶ the announcement, digests, statements
//!  clusters ── echoes, faults ───▶ ├─ coordinator ──┤
//!  pods ── statements ───────────▶ ┘                └──▶ heard: the grace may begin
//! ```
//!
//! **Left.** A ring is left when nothing is on its way under it. That is claimed only when it is known of every partition of every topic:
//! what its owner says, or, while it has none, what was said of it last. A pod that is alive and uses an older ring holds it back. What
//! was claimed once stays claimed. A process that has just started knows nothing and claims nothing.
//!
//! **Heard.** An announcement is heard when this pod's own digest of it has come back from every cluster. A cluster that is away, or where
//! the beacon is at fault, is not waited for, and nothing is waited for longer than [`PATIENCE`](reach::PATIENCE).
//!
//! **In use.** A ring is in use when records go by it: those of this pod, or those of another one that is alive. A pod that has just
//! begun may owe the grace of its only ring. Until that is over, it says that the ring is announced.

mod pods;
mod reach;
mod rhythm;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forwarder_beacon::body::MAX_RINGS;
use forwarder_beacon::{Announcement, Phase, Publishing, Statement};
use forwarder_core::document::{Cluster, RingConfig};

use self::pods::{Heard, Pods, used_by};
use self::reach::{Reach, Reached};
pub(super) use self::rhythm::Due;
use self::views::view;
use super::told::Told;

/// Who speaks, and of which ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) ring: String,
    pub(super) pod: String,
    pub(super) process: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Coordinator {
    identity: Identity,
    publishing: Publishing,
    /// The rings that this process has announced or used, and that are not left.
    rings: BTreeMap<u64, Arc<RingConfig>>,
    using: u64,
    /// No record of this process goes by the ring in use yet: it owes subscribers the grace.
    owes_grace: bool,
    /// The newest ring by which records have gone, as far as that is known here; at most the one in use. It only grows.
    used: u64,
    announced: Option<u64>,
    /// When the newest ring was announced here.
    announced_at: u64,
    left: u64,
    topics: Arc<[String]>,
    oldest: BTreeMap<String, Vec<(i32, u64)>>,
    partitions: BTreeMap<String, i32>,
    /// This pod takes no more records. Its statements say so from then on.
    stopping: bool,
    pods: Pods,
    reached: Reached,
    digests: u64,
    statements: u64,
    /// The hash of the last digest that all clusters were sent.
    told: String,
    /// What the last statement said, and when.
    stated: Option<(Statement, u64)>,
    /// When the own digest was last sent for its echo.
    asked_at: u64,
    /// Somebody new has spoken, who has not heard this pod yet.
    owes_word: bool,
}

impl Coordinator {
    pub(super) fn new(identity: Identity, publishing: Publishing) -> Self {
        Self {
            identity,
            publishing,
            rings: BTreeMap::new(),
            using: 0,
            owes_grace: false,
            used: 0,
            announced: None,
            announced_at: 0,
            left: 0,
            topics: Arc::default(),
            oldest: BTreeMap::new(),
            partitions: BTreeMap::new(),
            stopping: false,
            pods: Pods::default(),
            reached: Reached::default(),
            digests: 0,
            statements: 0,
            told: String::new(),
            stated: None,
            asked_at: 0,
            owes_word: false,
        }
    }

    /// Takes note of how far this process is.
    pub(super) fn tell(&mut self, told: &Told, now: u64) {
        let Told {
            using,
            is_used,
            announced,
            grace_left_ms: _,
            oldest,
            partitions,
            topics,
            answers: _,
            stopping,
        } = told;
        let newest = self.newest();
        self.using = using.epoch;
        self.owes_grace = !is_used;
        self.announced = announced.as_ref().map(|ring| ring.epoch);
        for ring in [Some(using), announced.as_ref()].into_iter().flatten() {
            self.rings.entry(ring.epoch).or_insert_with(|| Arc::clone(ring));
        }
        // A ring that was announced and is not any more, without being used, will never be.
        let (using, announced) = (self.using, self.announced);
        self.rings
            .retain(|epoch, _| *epoch <= using || Some(*epoch) == announced);
        if self.newest() != newest {
            self.announced_at = now;
        }
        self.stopping |= *stopping;
        self.topics = Arc::clone(topics);
        self.partitions.clone_from(partitions);
        self.oldest.clone_from(oldest);
        self.pods.remember(oldest);
        self.look(now);
    }

    /// Takes note of a statement of another process.
    pub(super) fn hear(&mut self, said: Statement, now: u64) {
        let Identity { ring, pod, process } = &self.identity;
        if said.ring != *ring || (said.pod == *pod && said.process == *process) {
            return;
        }
        match self.pods.hear(said, now) {
            Heard::Nothing => return,
            Heard::News => {}
            Heard::Newcomer => self.owes_word = true,
        }
        self.look(now);
    }

    /// The connection to a cluster has come, or gone for this reason.
    pub(super) fn connected(&mut self, cluster: &str, away: Option<String>, now: u64) {
        self.reached.connected(cluster, away, now);
    }

    /// What is wrong at a cluster, or nothing any more.
    pub(super) fn fault(&mut self, cluster: &str, fault: Option<String>) {
        self.reached.fault(cluster, fault);
    }

    /// The digest of this epoch has come back from a cluster.
    pub(super) fn echoed(&mut self, cluster: &str, epoch: u64, now: u64) {
        self.reached.echoed(cluster, epoch);
        self.reached.told(cluster, now);
    }

    /// Another pod's digest was heard at a cluster.
    pub(super) fn digested(&mut self, cluster: &str, now: u64) {
        self.reached.told(cluster, now);
    }

    /// Draws the conclusions.
    fn look(&mut self, now: u64) {
        let using = self.pods.alive(now).map(|said| said.using).min();
        let bound = using.unwrap_or(u64::MAX).min(self.using);
        let oldest = self.pods.oldest(&self.topics, &self.oldest, &self.partitions, now);
        if let Some(oldest) = oldest {
            self.left = self.left.max(oldest.min(bound));
        }
        // Where all older rings are left, records have gone by the next one.
        let own = if self.owes_grace { self.left } else { self.using };
        let others = self.pods.alive(now).filter_map(used_by);
        let newest = others.filter(|used| *used <= self.using).max().unwrap_or(0);
        self.used = self.used.max(own).max(newest);
        self.rings = self.rings.split_off(&self.left);
        while self.rings.len() > MAX_RINGS {
            self.rings.pop_first();
        }
        let names: BTreeSet<&str> = names(&self.rings).collect();
        self.reached.keep(names.iter().copied(), now);
    }

    fn newest(&self) -> u64 {
        self.announced.unwrap_or(self.using).max(self.using)
    }

    /// The clusters on which the ring is announced: members, and those that are being left. Each as the newest ring has it.
    pub(super) fn clusters(&self) -> BTreeMap<&str, &Cluster> {
        let all = self.rings.values().flat_map(|ring| &ring.clusters);
        all.map(|cluster| (cluster.name.as_str(), cluster)).collect()
    }

    /// What is answered, with its hash and without a nonce.
    pub(super) fn announcement(&self, now: u64) -> Announcement {
        // Who has no partition publishes nothing, and has no lease by which it could prove anything.
        let others = self.pods.alive(now).filter(|said| !said.oldest.is_empty());
        let mut pods: BTreeSet<&str> = others.map(|said| said.pod.as_str()).collect();
        if !self.stopping && !self.oldest.is_empty() {
            pods.insert(&self.identity.pod);
        }
        let announcement = Announcement {
            ring: self.identity.ring.clone(),
            nonce: String::new(),
            hash: String::new(),
            left: self.left,
            rings: self
                .rings
                .values()
                .map(|ring| view(ring, self.phase(ring.epoch)))
                .collect(),
            pods: pods.into_iter().map(str::to_owned).collect(),
            publishing: self.publishing.clone(),
        };
        announcement.sealed()
    }

    /// The pods that are alive and not about to end.
    pub(super) fn living(&self, now: u64) -> BTreeSet<&str> {
        let mut pods = self.pods.names(now);
        if !self.stopping {
            pods.insert(&self.identity.pod);
        }
        pods
    }

    fn phase(&self, epoch: u64) -> Phase {
        match epoch.cmp(&self.used) {
            std::cmp::Ordering::Less => Phase::Leaving,
            std::cmp::Ordering::Equal => Phase::InUse,
            std::cmp::Ordering::Greater => Phase::Announced,
        }
    }

    /// The newest ring whose announcement was heard wherever it can be; none: there is none.
    pub(super) fn heard(&self, now: u64) -> Option<u64> {
        let newest = self.newest();
        let known = self.rings.contains_key(&newest);
        (known && self.reached.have_heard(newest, self.announced_at, now)).then_some(newest)
    }

    /// The clusters, as far as they are reached.
    pub(super) fn reaches(&self) -> &BTreeMap<String, Reach> {
        &self.reached.0
    }

    /// All rings of lower epochs are left.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

fn names(rings: &BTreeMap<u64, Arc<RingConfig>>) -> impl Iterator<Item = &str> {
    let clusters = rings.values().flat_map(|ring| &ring.clusters);
    clusters.map(|cluster| cluster.name.as_str())
}
