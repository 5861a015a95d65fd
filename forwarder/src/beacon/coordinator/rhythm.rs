//! The rhythm: when digests and statements are sent, and by whom.
//!
//! Each pod sends a digest at each change, and again until it has heard it. Otherwise one pod does so for each cluster: every ten seconds,
//! and every second while there is more than one ring, or one that is not used yet. Statements go to all clusters in the same rhythm, by
//! each pod.

use forwarder_beacon::{Digest, Statement};

use super::pods::is_in_a_change;
use super::views::spread;
use super::{Coordinator, reach};

/// Between two digests of one cluster, and two statements.
pub(super) const RHYTHM: u64 = 10_000_000;

/// The same while there is more than one ring, or one that is not used yet.
const RHYTHM_IN_A_CHANGE: u64 = 1_000_000;

/// The rhythm is longer by up to one part of so many, so that not all pods speak at once.
pub(super) const JITTER: u64 = 10;

/// What is added to the rhythm where subscribers are told when the next digest comes: messages take their time.
const NEXT_SLACK_MS: u64 = 500;

/// A digest is sent by whoever notices, once the one whose turn it is is so late.
pub(super) const LATE: u64 = 5_000_000;

/// What is to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::beacon) struct Due {
    /// With the clusters that it goes to.
    pub(in crate::beacon) digest: Option<(Digest, Vec<String>)>,
    /// With the clusters that it goes to.
    pub(in crate::beacon) statement: Option<(Statement, Vec<String>)>,
}

impl Coordinator {
    /// Whether the rings of this pod, or of another one, are on their way to a newer one.
    fn is_in_a_change(&self, now: u64) -> bool {
        let others_differ = self
            .pods
            .alive(now)
            .any(|said| said.using != self.using || is_in_a_change(said));
        let owes = self.oldest.values().flatten().any(|(_, oldest)| *oldest < self.using);
        self.rings.len() > 1 || self.owes_grace || owes || others_differ
    }

    /// What is to be sent now. It counts as sent: a connection that is lost gets all of it again.
    pub(in crate::beacon) fn due(&mut self, now: u64) -> Due {
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
    pub(in crate::beacon) fn farewell(&mut self, now: u64) -> Due {
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
            // A ring that it owes the grace of is no more than announced.
            announced: self.announced.or(self.owes_grace.then_some(self.using)),
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
