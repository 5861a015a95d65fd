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
//! **The rhythm.** Each pod sends a digest at each change, and again until it has heard it. Otherwise one pod does so for each cluster:
//! every ten seconds, and every second while there is more than one ring. Statements go to all clusters in the same rhythm, by each pod.

mod pods;
mod reach;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use forwarder_beacon::body::MAX_RINGS;
use forwarder_beacon::{Announcement, Digest, Phase, Publishing, Statement};
use forwarder_core::document::{Cluster, RingConfig};

use self::pods::{Heard, Pods, is_in_a_change};
use self::reach::{Reach, Reached};
use self::views::{spread, view};
use super::told::Told;

/// Between two digests of one cluster, and two statements.
const RHYTHM: u64 = 10_000_000;

/// The same while there is more than one ring.
const RHYTHM_IN_A_CHANGE: u64 = 1_000_000;

/// The rhythm is longer by up to one part of so many, so that not all pods speak at once.
const JITTER: u64 = 10;

/// What is added to the rhythm where subscribers are told when the next digest comes: messages take their time.
const NEXT_SLACK_MS: u64 = 500;

/// A digest is sent by whoever notices, once the one whose turn it is is so late.
const LATE: u64 = 5_000_000;

/// Who speaks, and of which ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) ring: String,
    pub(super) pod: String,
    pub(super) process: String,
}

/// What is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// With the clusters that it goes to.
    pub(super) digest: Option<(Digest, Vec<String>)>,
    /// With the clusters that it goes to.
    pub(super) statement: Option<(Statement, Vec<String>)>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Coordinator {
    identity: Identity,
    publishing: Publishing,
    /// The rings that this process has announced or used, and that are not left.
    rings: BTreeMap<u64, Arc<RingConfig>>,
    using: u64,
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
        let others = self.pods.alive(now).filter(|said| has_partitions(&said.oldest));
        let mut pods: BTreeSet<&str> = others.map(|said| said.pod.as_str()).collect();
        if !self.stopping && has_partitions(&self.oldest) {
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
        match epoch.cmp(&self.using) {
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

    /// Whether the rings of this pod, or of another one, are on their way to a newer one.
    fn is_in_a_change(&self, now: u64) -> bool {
        let others_differ = self
            .pods
            .alive(now)
            .any(|said| said.using != self.using || is_in_a_change(said));
        let owes = self.oldest.values().flatten().any(|(_, oldest)| *oldest < self.using);
        self.rings.len() > 1 || owes || others_differ
    }

    /// What is to be sent now. It counts as sent: a connection that is lost gets all of it again.
    pub(super) fn due(&mut self, now: u64) -> Due {
        // Others may have died since somebody spoke.
        self.look(now);
        let rhythm = if self.is_in_a_change(now) {
            RHYTHM_IN_A_CHANGE
        } else {
            RHYTHM
        };
        let digest = self.digest_due(rhythm, now);
        let statement = self.statement_due(rhythm, now);
        for reach in self.reached.0.values_mut() {
            reach.is_new = false;
        }
        Due { digest, statement }
    }

    /// The last word.
    pub(super) fn farewell(&mut self, now: u64) -> Due {
        self.stopping = true;
        Due {
            digest: None,
            statement: self.statement_due(0, now),
        }
    }

    fn digest_due(&mut self, rhythm: u64, now: u64) -> Option<(Digest, Vec<String>)> {
        let newest = self.newest();
        if !self.rings.contains_key(&newest) {
            return None;
        }
        let hash = self.announcement(now).hash;
        let is_news = hash != self.told;
        let asks = now.saturating_sub(self.asked_at) >= RHYTHM_IN_A_CHANGE
            && now.saturating_sub(self.announced_at) < reach::PATIENCE + RHYTHM;
        let jittered = rhythm + spread(&self.identity.pod, &self.digests.to_string()) % (rhythm / JITTER);
        let mut clusters = Vec::new();
        for (name, reach) in &self.reached.0 {
            let is_unheard = asks && reach.is_connected() && reach.echoed < Some(newest);
            let silent = now.saturating_sub(reach.told_at);
            let is_turn = silent >= jittered && (self.leads(name, now) || silent >= jittered + LATE);
            if is_news || reach.is_new || is_unheard || is_turn {
                clusters.push(name.clone());
            }
        }
        if clusters.is_empty() {
            return None;
        }
        for name in &clusters {
            self.reached.told(name, now);
        }
        self.asked_at = now;
        self.told.clone_from(&hash);
        self.digests += 1;
        let digest = Digest {
            ring: self.identity.ring.clone(),
            epoch: newest,
            hash,
            pod: self.identity.pod.clone(),
            sequence: self.digests,
            next_ms: (rhythm + rhythm / JITTER) / 1_000 + NEXT_SLACK_MS,
        };
        Some((digest, clusters))
    }

    /// Whether the rhythm of digests at a cluster is this pod's to keep.
    fn leads(&self, cluster: &str, now: u64) -> bool {
        if self.stopping {
            return false;
        }
        let own = (spread(&self.identity.pod, cluster), self.identity.pod.as_str());
        let others = self.pods.names(now);
        others.into_iter().all(|pod| own <= (spread(pod, cluster), pod))
    }

    fn statement_due(&mut self, rhythm: u64, now: u64) -> Option<(Statement, Vec<String>)> {
        let statement = Statement {
            ring: self.identity.ring.clone(),
            pod: self.identity.pod.clone(),
            process: self.identity.process.clone(),
            sequence: self.statements,
            using: self.using,
            announced: self.announced,
            partitions: self.partitions.clone(),
            oldest: self.oldest.clone(),
            stopping: self.stopping,
        };
        let last = self.stated.as_ref();
        let since = last.map_or(u64::MAX, |(_, at)| now.saturating_sub(*at));
        let is_due = last.is_none_or(|(last, _)| *last != statement)
            || since >= rhythm
            || self.owes_word && since >= RHYTHM_IN_A_CHANGE;
        let new = self.reached.0.iter().filter(|(_, reach)| is_due || reach.is_new);
        let clusters: Vec<String> = new.map(|(name, _)| name.clone()).collect();
        if clusters.is_empty() {
            return None;
        }
        self.owes_word &= !is_due;
        self.statements += 1;
        let statement = Statement {
            sequence: self.statements,
            ..statement
        };
        if is_due {
            self.stated = Some((statement.clone(), now));
        } else if let Some((last, _)) = &mut self.stated {
            last.sequence = self.statements;
        }
        Some((statement, clusters))
    }
}

fn has_partitions(oldest: &BTreeMap<String, Vec<(i32, u64)>>) -> bool {
    oldest.values().any(|partitions| !partitions.is_empty())
}

fn names(rings: &BTreeMap<u64, Arc<RingConfig>>) -> impl Iterator<Item = &str> {
    let clusters = rings.values().flat_map(|ring| &ring.clusters);
    clusters.map(|cluster| cluster.name.as_str())
}
