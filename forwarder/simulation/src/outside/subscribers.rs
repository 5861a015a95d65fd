//! Subscribers: they hear of rings, follow the assets' owners, and get what is published while they are subscribed there.
//!
//! A subscriber is subscribed to an asset's owner under each ring that it knows and that is not left. It learns of a ring from a process
//! that lives, some time after the announcement was heard. It drops a ring as soon as the processes' last words on all partitions allow
//! that: nobody could do so sooner.
//!
//! Some learn too late on purpose: what they miss shows that the others could have missed it, too.

use std::collections::BTreeSet;

use forwarder_core::delivery::commit::Metadata;
use forwarder_core::delivery::partition::PartitionId;

use super::Outside;
use crate::assets::RINGS;
use crate::dice::Dice;

/// How many of them follow all assets and learn in time.
const IN_TIME: usize = 3;

/// How many learn too late.
const LATE: usize = 1;

#[derive(Debug, Default)]
struct Subscriber {
    is_late: bool,
    /// The rings that it knows, by their index.
    known: BTreeSet<usize>,
    /// Records that came while it was subscribed where they were published.
    got: BTreeSet<(PartitionId, i64)>,
}

/// What a subscriber will learn, if the process that says it lives so long.
#[derive(Debug)]
struct Word {
    due: u64,
    subscriber: usize,
    life: u64,
    rings: Vec<usize>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Subscribers {
    /// Their own, so that a run without a grace goes as it did before there were subscribers.
    dice: Dice,
    /// How long they need, in microseconds; 0: they are not waited for.
    pub(crate) grace: u64,
    /// In which time they learn of a ring, in microseconds.
    learning: u64,
    /// How long an announcement is on its way at most, in microseconds.
    hearing: u64,
    all: Vec<Subscriber>,
    words: Vec<Word>,
    /// By ring, when an announcement of it was first heard.
    heard: Vec<Option<u64>>,
    /// By partition, the epoch of the oldest ring by the last word on it.
    stated: Vec<Option<u64>>,
    /// By partition, the newest ring under which a record of it was sent.
    sent_under: Vec<usize>,
    /// All rings of lower epochs are left.
    left: u64,
    /// Processes that have begun, dead or alive.
    lives: u64,
}

impl Subscribers {
    /// The first ring is known to all. Half of all seeds have no grace.
    pub(super) fn new(seed: u64, partitions: usize, pace: u64) -> Self {
        let mut dice = Dice::new(!seed);
        let grace = match dice.chance(50) {
            true => pace * (1 + dice.below(12) as u64),
            false => 0,
        };
        let subscriber = |number| Subscriber {
            is_late: number >= IN_TIME,
            known: BTreeSet::from([0]),
            got: BTreeSet::new(),
        };
        Self {
            grace,
            learning: if grace == 0 { 6 * pace } else { grace },
            hearing: grace * [0, 1, 3][dice.below(3)],
            dice,
            all: (0..IN_TIME + LATE).map(subscriber).collect(),
            words: Vec::new(),
            heard: vec![Some(0)],
            stated: vec![None; partitions],
            sent_under: vec![0; partitions],
            left: 0,
            lives: 0,
        }
    }
}

impl Outside {
    /// A process begins; names its life.
    pub(crate) fn begin_life(&mut self) -> u64 {
        self.subscribers.lives += 1;
        self.subscribers.lives
    }

    /// When an announcement that is made now is heard.
    pub(crate) fn heard_at(&mut self) -> u64 {
        let hearing = self.subscribers.hearing as usize + 1;
        self.now + self.subscribers.dice.below(hearing) as u64
    }

    /// The announcement of these rings was heard. Who makes it goes on answering for as long as it lives.
    pub(crate) fn hear(&mut self, life: u64, rings: &[usize]) {
        let now = self.now;
        self.say(|| format!("life {life} is heard: rings {rings:?}"));
        self.count("announcements heard");
        let Subscribers {
            dice,
            learning,
            all,
            words,
            heard,
            ..
        } = &mut self.subscribers;
        for ring in rings {
            heard.resize(heard.len().max(ring + 1), None);
            heard[*ring].get_or_insert(now);
        }
        for (number, subscriber) in all.iter().enumerate() {
            let delay = dice.below(*learning as usize) as u64;
            let delay = if subscriber.is_late {
                2 * *learning + 4 * delay
            } else {
                delay
            };
            words.push(Word {
                due: now + delay,
                subscriber: number,
                life,
                rings: rings.to_vec(),
            });
        }
    }

    /// A process is killed: what nobody has learned of it is lost.
    pub(crate) fn end_life(&mut self, life: u64) {
        self.subscribers.words.retain(|word| word.life != life);
    }

    /// Time has passed.
    pub(crate) fn learn(&mut self) {
        let now = self.now;
        let Subscribers { all, words, .. } = &mut self.subscribers;
        for word in words.extract_if(.., |word| word.due <= now) {
            all[word.subscriber].known.extend(word.rings);
        }
    }

    /// Whether a process speaks now of how far its partitions are.
    pub(crate) fn is_stated(&mut self) -> bool {
        self.subscribers.dice.chance(15)
    }

    /// A process says which ring is the oldest under which anything of a partition is on its way.
    pub(crate) fn state(&mut self, partition: PartitionId, oldest: u64) {
        let slot = self.slot(partition);
        self.subscribers.stated[slot] = Some(oldest);
        let left = self.subscribers.stated.iter().copied().min().flatten().unwrap_or(0);
        if left > self.subscribers.left {
            self.subscribers.left = left;
            self.count("rings left");
            self.say(|| format!("rings before {left} are left"));
        }
    }

    /// Every partition has a past: one without any begins under whatever ring its first process has.
    pub(crate) fn commit_beginnings(&mut self) {
        for (slot, partition) in self.partitions.iter().enumerate() {
            let text = Metadata {
                partitions: self.topics[partition.input().index()].unsigned_abs(),
                ring: 1,
                members: Some(RINGS.ring(self.rings[0]).fingerprint()),
                ..Metadata::default()
            };
            self.committed[slot] = Some((0, text.to_string()));
        }
    }

    /// A process that uses `ring` sends a record to a cluster.
    pub(super) fn judge_ring(&mut self, partition: PartitionId, asset: usize, cluster: usize, ring: usize) {
        let slot = self.slot(partition);
        let newest = self.subscribers.sent_under[slot];
        if ring < newest {
            let text = format!("{partition:?} goes back from ring {} to ring {}", newest + 1, ring + 1);
            return self.fail(text);
        }
        self.subscribers.sent_under[slot] = ring;
        let Subscribers { grace, heard, .. } = &self.subscribers;
        if *grace == 0 {
            return;
        }
        let known = |at: &Option<u64>| at.is_some_and(|at| at == 0 || at + grace <= self.now);
        let known = heard.iter().enumerate().filter(|(_, at)| known(at));
        let mut owners = known.map(|(ring, _)| RINGS.owner(self.rings[ring], asset));
        if !owners.any(|owner| owner == cluster) {
            let text = format!("asset {asset} of {partition:?} is sent to C{cluster} before the grace is over");
            self.fail(text);
        }
    }

    /// A cluster publishes a record.
    pub(super) fn publish(&mut self, cluster: usize, partition: PartitionId, offset: i64, asset: usize) {
        let Subscribers { all, left, .. } = &mut self.subscribers;
        let mut misses = Vec::new();
        for (number, Subscriber { known, got, .. }) in all.iter_mut().enumerate() {
            let mut rings = known.iter().filter(|ring| **ring as u64 + 1 >= *left);
            if rings.any(|ring| RINGS.owner(self.rings[*ring], asset) == cluster) {
                got.insert((partition, offset));
            } else {
                misses.push(number);
            }
        }
        if !misses.is_empty() {
            self.say(|| format!("subscribers {misses:?} are not at C{cluster} for {partition:?}@{offset} of {asset}"));
        }
    }

    /// Who has learned in time has missed nothing, if there is a grace. What the dead letter has is none of it.
    pub(super) fn judge_subscribers(&mut self) {
        let grace = self.subscribers.grace;
        let (mut missed, mut late, mut without) = (None, 0, 0);
        for (partition, log) in self.partitions.iter().zip(&self.logs) {
            let delivered = log
                .records
                .iter()
                .filter(|record| record.received && !record.written_off && !record.given_up);
            for record in delivered {
                for (number, subscriber) in self.subscribers.all.iter().enumerate() {
                    if subscriber.got.contains(&(*partition, record.offset)) {
                        continue;
                    }
                    match (grace, subscriber.is_late) {
                        (0, _) => without += 1,
                        (_, true) => late += 1,
                        (_, false) => missed = missed.or(Some((number, *partition, *record))),
                    }
                }
            }
        }
        *self.tally.entry("missed by who learned too late").or_default() += late;
        *self.tally.entry("missed without a grace").or_default() += without;
        if let Some((number, partition, record)) = missed {
            self.fail(format!("subscriber {number} has missed {partition:?} {record:?}"));
        }
    }
}
