//! What other pods say of themselves, and what follows for the rings that are left.
//!
//! Everything errs to one side: what is lost, late or sent again by somebody else keeps a ring from being left for longer, and never has
//! it left too early.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use forwarder_beacon::Statement;

/// Most processes of which statements are kept.
pub(super) const MAX_PODS: usize = 256;

/// Most partitions of all topics together. With more, no ring is ever said to be left.
pub(super) const MAX_PARTITIONS: usize = 10_000;

/// Longest name of a pod and of a process that is listened to.
const MAX_NAME: usize = 253;

/// A pod that has said nothing for so long is gone: three statements of the usual rhythm, and one that is late.
pub(super) const LIFE: u64 = 35_000_000;

/// The same of a pod that speaks each second, as it does while a ring of its is not left.
pub(super) const LIFE_IN_A_CHANGE: u64 = 6_000_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// By pod and process: a new process of the same name is somebody else.
    speakers: BTreeMap<(String, String), Speaker>,
    /// Of each partition the newest ring that was said to be its oldest, whoever said it. It counts while nobody who is alive speaks for
    /// the partition. What was true once stays true, so an older word that is sent again changes nothing.
    last: BTreeMap<String, BTreeMap<i32, u64>>,
    /// There are more partitions than are kept.
    overflown: bool,
}

#[derive(Debug)]
struct Speaker {
    said: Statement,
    at: u64,
}

impl Speaker {
    fn is_alive(&self, now: u64) -> bool {
        let life = if is_in_a_change(&self.said) {
            LIFE_IN_A_CHANGE
        } else {
            LIFE
        };
        !self.said.stopping && now.saturating_sub(self.at) < life
    }
}

/// Whether whoever says this says it each second: see [`super::Coordinator`].
pub(super) fn is_in_a_change(said: &Statement) -> bool {
    let oldest = said.oldest.values().flatten().map(|(_, oldest)| *oldest);
    said.announced.is_some() || oldest.min().is_some_and(|oldest| oldest < said.using)
}

/// The ring by which records of whoever says this have gone. None: they go by none yet.
pub(super) fn used_by(said: &Statement) -> Option<u64> {
    let is_used = said.announced != Some(said.using) && said.oldest.values().any(|partitions| !partitions.is_empty());
    is_used.then_some(said.using)
}

/// What a statement was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing: an old one, or one too many.
    Nothing,
    /// It counts.
    News,
    /// It counts, and its process was not known.
    Newcomer,
}

impl Pods {
    /// Takes note of a statement of another process.
    pub(super) fn hear(&mut self, said: Statement, now: u64) -> Heard {
        if said.pod.is_empty() || said.pod.len() > MAX_NAME || said.process.len() > MAX_NAME {
            return Heard::Nothing;
        }
        let name = (said.pod.clone(), said.process.clone());
        let known = self.speakers.get(&name).map(|speaker| speaker.said.sequence);
        if known.is_some_and(|known| said.sequence <= known) {
            return Heard::Nothing;
        }
        if known.is_none() && self.speakers.len() >= MAX_PODS {
            // The dead are remembered, so that what they have said does not count again, for as long as there is room.
            let dead = self.speakers.iter().filter(|(_, speaker)| !speaker.is_alive(now));
            let Some(longest) = dead.min_by_key(|(_, speaker)| speaker.at).map(|(name, _)| name.clone()) else {
                return Heard::Nothing;
            };
            self.speakers.remove(&longest);
        }
        self.remember(&said.oldest);
        self.speakers.insert(name, Speaker { said, at: now });
        if known.is_some() { Heard::News } else { Heard::Newcomer }
    }

    /// Takes note of what somebody says of partitions, this process too.
    pub(super) fn remember(&mut self, oldest: &BTreeMap<String, Vec<(i32, u64)>>) {
        let mut kept: usize = self.last.values().map(BTreeMap::len).sum();
        for (topic, partitions) in oldest {
            let of_topic = self.last.entry(topic.clone()).or_default();
            for (partition, ring) in partitions {
                if kept >= MAX_PARTITIONS && !of_topic.contains_key(partition) {
                    self.overflown = true;
                    return;
                }
                match of_topic.entry(*partition) {
                    Entry::Vacant(new) => {
                        new.insert(*ring);
                        kept += 1;
                    }
                    Entry::Occupied(mut known) => *known.get_mut() = (*known.get()).max(*ring),
                }
            }
        }
    }

    /// The statements of those who are alive.
    pub(super) fn alive(&self, now: u64) -> impl Iterator<Item = &Statement> {
        let alive = self.speakers.values().filter(move |speaker| speaker.is_alive(now));
        alive.map(|speaker| &speaker.said)
    }

    /// The names of those who are alive.
    pub(super) fn names(&self, now: u64) -> BTreeSet<&str> {
        self.alive(now).map(|said| said.pod.as_str()).collect()
    }

    /// The oldest ring under which anything of these topics is on its way, by all that was said; none: that is not known of some partition.
    /// `own`: what this process says of its partitions. `counts`: how many partitions each topic has, as far as this process knows.
    pub(super) fn oldest(
        &self,
        topics: &[String],
        own: &BTreeMap<String, Vec<(i32, u64)>>,
        counts: &BTreeMap<String, i32>,
        now: u64,
    ) -> Option<u64> {
        if self.overflown || topics.is_empty() {
            return None;
        }
        let mut spoken = BTreeMap::<(&str, i32), u64>::new();
        for (topic, partitions) in self.alive(now).map(|said| &said.oldest).chain([own]).flatten() {
            for (partition, ring) in partitions {
                let least = spoken.entry((topic, *partition)).or_insert(*ring);
                *least = (*least).min(*ring);
            }
        }
        let mut oldest = spoken.values().copied().min().unwrap_or(u64::MAX);
        let mut looked_at = 0;
        for topic in topics {
            // A topic that grows is known to have grown by some sooner than by others.
            let told = self.alive(now).map(|said| &said.partitions).chain([counts]);
            let count = told.filter_map(|counts| counts.get(topic)).copied().max();
            for partition in 0..count.filter(|count| *count > 0)? {
                looked_at += 1;
                if looked_at > MAX_PARTITIONS {
                    return None;
                }
                let last = || self.last.get(topic)?.get(&partition).copied();
                oldest = oldest.min(spoken.get(&(topic, partition)).copied().or_else(last)?);
            }
        }
        Some(oldest)
    }
}
