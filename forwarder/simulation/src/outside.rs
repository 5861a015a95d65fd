//! The world around the processes: Kafka's log and group, the NATS servers, and a judge who sees all of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, LazyLock};

use forwarder_core::delivery::commit::Metadata;
use forwarder_core::delivery::outbox::{Confirmation, Refusal};
use forwarder_core::fanout::ring::Ring;

use super::{Dice, Plan};

pub(super) const PARTITIONS: i32 = 3;
pub(super) const CLUSTERS: usize = 4;
pub(super) const ASSETS: usize = 24;

/// Every ring that clusters can make, by the set of its members as bits: made once, as hashing costs the most.
pub(super) struct Rings {
    rings: Vec<Option<Arc<Ring>>>,
    /// The cluster that owns each asset.
    owners: Vec<Vec<usize>>,
}

pub(super) static RINGS: LazyLock<Rings> = LazyLock::new(|| {
    let mut all = Rings {
        rings: vec![None],
        owners: vec![Vec::new()],
    };
    for members in 1..1_usize << CLUSTERS {
        let ring = Ring::new(clusters(members).map(|cluster| (name(cluster), 1)), 8).unwrap();
        let clusters: Vec<usize> = clusters(members).collect();
        let owners = (0..ASSETS).map(|asset| clusters[ring.owner(key(asset).as_bytes())]);
        all.owners.push(owners.collect());
        all.rings.push(Some(Arc::new(ring)));
    }
    all
});

static KEYS: LazyLock<Vec<String>> = LazyLock::new(|| (0..ASSETS).map(|asset| format!("asset-{asset:02}")).collect());

impl Rings {
    pub(super) fn ring(&self, members: usize) -> Arc<Ring> {
        Arc::clone(self.rings[members].as_ref().unwrap())
    }

    pub(super) fn owner(&self, members: usize, asset: usize) -> usize {
        self.owners[members][asset]
    }
}

pub(super) fn clusters(members: usize) -> impl Iterator<Item = usize> {
    (0..CLUSTERS).filter(move |cluster| members >> cluster & 1 == 1)
}

pub(super) fn name(cluster: usize) -> String {
    format!("C{cluster}")
}

pub(super) fn key(asset: usize) -> &'static str {
    &KEYS[asset]
}

fn partition_of(asset: usize) -> i32 {
    asset as i32 % PARTITIONS
}

/// A record of the log, with what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) offset: i64,
    /// `None`: it has no key.
    pub(super) asset: Option<usize>,
    /// Its value makes no message.
    pub(super) bad: bool,
    /// No stream can take it.
    impossible: bool,
    /// A server has it.
    received: bool,
    /// Confirmed by the dead letter, or counted as invalid.
    written_off: bool,
    /// Refused so often that it went to the dead letter once: where it comes after that is no matter of order.
    given_up: bool,
}

#[derive(Debug, Default)]
struct Log {
    records: Vec<Record>,
    end: i64,
}

/// Whose a partition is: a process, and the number of the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) process: usize,
    pub(super) token: u64,
}

#[derive(Debug)]
pub(super) struct Server {
    pub(super) confirmation: Confirmation,
    pub(super) away: bool,
    /// Subjects that are denied on every connection, until a person allows them.
    poison: BTreeSet<Vec<u8>>,
    /// It names a denied subject by another one that it has mapped it to.
    maps: bool,
    /// Message ids in the window for duplicates.
    stored: BTreeSet<(i32, i64)>,
}

#[derive(Clone, Debug)]
pub(super) enum Sent {
    Record {
        ticket: u64,
        partition: i32,
        offset: i64,
        subject: Vec<u8>,
    },
    Fence,
}

#[derive(Clone, Debug)]
pub(super) enum Answer {
    Denied(Vec<u8>),
    Fence,
    Ack(u64),
    Nack(u64, Refusal),
}

/// A connection: what is on its way in both directions. One that was lost still delivers what the network had taken.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) cluster: usize,
    pub(super) open: bool,
    pub(super) sent: VecDeque<Sent>,
    pub(super) answers: VecDeque<Answer>,
    denied: BTreeSet<Vec<u8>>,
}

pub(super) struct Outside {
    pub(super) dice: Dice,
    pub(super) plan: Plan,
    pub(super) now: u64,
    /// The members of each ring so far; the epoch is the index and one.
    pub(super) rings: Vec<usize>,
    logs: Vec<Log>,
    pub(super) owners: Vec<Option<Owner>>,
    pub(super) committed: Vec<Option<(i64, String)>>,
    tokens: u64,
    pub(super) servers: Vec<Server>,
    pub(super) wires: BTreeMap<u64, Wire>,
    wire_count: u64,
    /// The greatest offset of each asset that any server has.
    newest: Vec<i64>,
    /// The latest ring under which a record of the asset was sent to its owner.
    sent_under: Vec<usize>,
    /// No faults any more.
    pub(super) healed: bool,
    pub(super) replay: bool,
    pub(super) failure: Option<String>,
    pub(super) tally: BTreeMap<&'static str, u64>,
}

impl Outside {
    pub(super) fn new(seed: u64, replay: bool) -> Self {
        let mut dice = Dice(seed);
        let plan = Plan::new(&mut dice);
        let first = 1 + dice.below((1 << CLUSTERS) - 1);
        let servers = (0..CLUSTERS).map(|_| Server {
            confirmation: if dice.chance(50) {
                Confirmation::Fence
            } else {
                Confirmation::Ack
            },
            away: false,
            poison: poison(&mut dice, plan.poison),
            maps: dice.chance(30),
            stored: BTreeSet::new(),
        });
        Self {
            servers: servers.collect(),
            plan,
            now: 0,
            rings: vec![first],
            logs: (0..PARTITIONS).map(|_| Log::default()).collect(),
            owners: vec![None; PARTITIONS as usize],
            committed: vec![None; PARTITIONS as usize],
            tokens: 0,
            wires: BTreeMap::new(),
            wire_count: 0,
            newest: vec![-1; ASSETS],
            sent_under: vec![0; ASSETS],
            healed: false,
            replay,
            failure: None,
            tally: BTreeMap::new(),
            dice,
        }
    }

    pub(super) fn say(&self, text: impl FnOnce() -> String) {
        if self.replay {
            println!("{:>9} {}", self.now, text());
        }
    }

    pub(super) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(super) fn fail(&mut self, text: String) {
        self.say(|| format!("FAILURE {text}"));
        self.failure.get_or_insert(text);
    }

    /// A fault of this likelihood happens now; never after the faults have stopped.
    pub(super) fn fault(&mut self, percent: usize) -> bool {
        !self.healed && self.dice.chance(percent)
    }

    // Kafka: the log.

    pub(super) fn produce(&mut self) {
        for _ in 0..1 + self.dice.below(self.plan.burst) {
            let asset = self.dice.below(ASSETS);
            let partition = partition_of(asset);
            let (stray, bad) = (self.dice.chance(2), self.dice.chance(4));
            let impossible = self.plan.poison > 0 && self.dice.chance(2);
            let hole = if self.dice.chance(15) {
                self.dice.below(4) as i64
            } else {
                0
            };
            let log = &mut self.logs[partition as usize];
            let offset = log.end + hole;
            log.records.push(Record {
                offset,
                asset: (!stray).then_some(asset),
                bad,
                impossible,
                received: false,
                written_off: false,
                given_up: false,
            });
            // A control record, now and then.
            log.end = offset + 1 + i64::from(self.dice.chance(10));
            let asset = (!stray).then_some(asset);
            self.say(|| {
                format!(
                    "log: {partition}@{offset} of {asset:?}{}",
                    if bad { ", bad" } else { "" }
                )
            });
        }
    }

    /// The first record at or after an offset.
    pub(super) fn record(&self, partition: i32, from: i64) -> Option<Record> {
        let records = &self.logs[partition as usize].records;
        records
            .get(records.partition_point(|record| record.offset < from))
            .copied()
    }

    pub(super) fn end(&self, partition: i32) -> i64 {
        self.logs[partition as usize].end
    }

    fn record_mut(&mut self, partition: i32, offset: i64) -> &mut Record {
        let records = &mut self.logs[partition as usize].records;
        let at = records.binary_search_by_key(&offset, |record| record.offset).unwrap();
        &mut records[at]
    }

    pub(super) fn write_off(&mut self, partition: i32, offset: i64) {
        self.record_mut(partition, offset).written_off = true;
    }

    pub(super) fn give_up(&mut self, partition: i32, offset: i64) {
        self.record_mut(partition, offset).given_up = true;
    }

    // Kafka: the group.

    pub(super) fn assign(&mut self, partition: i32, process: usize) -> u64 {
        self.tokens += 1;
        self.owners[partition as usize] = Some(Owner {
            process,
            token: self.tokens,
        });
        self.tokens
    }

    pub(super) fn is_member(&self, partition: i32, token: u64) -> bool {
        self.owners[partition as usize].is_some_and(|owner| owner.token == token)
    }

    /// Performs a commit, if whoever asks is still the owner.
    pub(super) fn commit(&mut self, partition: i32, token: u64, position: i64, text: &str) -> bool {
        if !self.is_member(partition, token) {
            return false;
        }
        self.say(|| format!("committed: {partition}@{position} {text}"));
        self.judge_commit(partition, position, text);
        self.committed[partition as usize] = Some((position, text.to_owned()));
        true
    }

    /// What would a successor not deliver? All of that must be settled. An older forwarder passes over the words about lanes.
    fn judge_commit(&mut self, partition: i32, position: i64, text: &str) {
        self.judge_words(partition, position, text);
        if text.contains(" lanes=") {
            self.count("commits with lanes");
            let newer = |word: &&str| {
                ["beyond=", "except=", "lanes="]
                    .iter()
                    .any(|newer| word.starts_with(newer))
            };
            let older: Vec<&str> = text.split(' ').filter(|word| !newer(word)).collect();
            self.judge_words(partition, position, &older.join(" "));
        }
    }

    fn judge_words(&mut self, partition: i32, position: i64, text: &str) {
        let Some(metadata) = Metadata::parse(text) else {
            return self.fail(format!("the metadata cannot be read: {text}"));
        };
        if let Some((before, old)) = &self.committed[partition as usize] {
            let old = Metadata::parse(old).unwrap();
            if position < *before || metadata.ring < old.ring {
                let text = format!("commit: {partition} goes back from {before} {old} to {position} {metadata}");
                return self.fail(text);
            }
        }
        let ahead = metadata.ahead.map(|ahead| {
            let mut rings = self.rings.iter();
            let members = rings.find(|members| RINGS.ring(**members).fingerprint() == ahead.members);
            (ahead, *members.unwrap())
        });
        let covered = |record: &Record| {
            record.offset < position
                || ahead.as_ref().is_some_and(|(ahead, members)| {
                    let owner = record.asset.map(|asset| name(RINGS.owner(*members, asset)));
                    let lane = record.asset.map(|asset| lane(*members, asset));
                    if let Some(told) = ahead.lanes.iter().find(|told| Some(told.lane) == lane) {
                        return record.offset < ahead.upto && record.offset < told.from;
                    }
                    record.offset < ahead.upto
                        && !ahead
                            .away
                            .iter()
                            .any(|(name, from)| Some(name) == owner.as_ref() && *from <= record.offset)
                })
        };
        let lost = self.logs[partition as usize]
            .records
            .iter()
            .find(|record| covered(record) && !record.received && !record.written_off);
        if let Some(lost) = lost {
            let text = format!("commit: {partition}@{position} {text} covers a record that nobody has: {lost:?}");
            self.fail(text);
        }
        if ahead.is_some() {
            self.count("commits with something ahead");
        }
    }

    // NATS.

    pub(super) fn connect(&mut self, cluster: usize) -> Option<u64> {
        if self.servers[cluster].away {
            return None;
        }
        let mut denied = BTreeSet::new();
        if self.servers[cluster].confirmation == Confirmation::Fence && self.fault(self.plan.refusals) {
            for _ in 0..1 + self.dice.below(4) {
                denied.insert(subject(self.dice.below(ASSETS), self.dice.below(2) as i64));
            }
        }
        self.wire_count += 1;
        let wire = Wire {
            cluster,
            open: true,
            sent: VecDeque::new(),
            answers: VecDeque::new(),
            denied,
        };
        self.wires.insert(self.wire_count, wire);
        Some(self.wire_count)
    }

    /// A process sends a record to a cluster. That its assets are sent back to a former owner would show here.
    pub(super) fn judge_sending(&mut self, partition: i32, offset: i64, cluster: usize, ring: usize) {
        let asset = self.record_mut(partition, offset).asset.unwrap();
        let mut rings = self.rings[..=ring].iter();
        let Some(under) = rings.rposition(|members| RINGS.owner(*members, asset) == cluster) else {
            return self.fail(format!(
                "{partition}@{offset} of {asset} is sent to C{cluster}, never its owner"
            ));
        };
        if under < self.sent_under[asset] {
            let later = self.sent_under[asset] + 1;
            let text = format!(
                "{partition}@{offset} of {asset} is sent back to C{cluster}, its owner under ring {}; ring {later} was in use",
                under + 1
            );
            self.fail(text);
        }
        self.sent_under[asset] = under;
    }

    /// A server reads so much of what a connection brings.
    pub(super) fn serve(&mut self, number: u64, count: usize) {
        for _ in 0..count {
            let Some(wire) = self.wires.get_mut(&number) else {
                return;
            };
            let (cluster, open) = (wire.cluster, wire.open);
            if self.servers[cluster].away {
                return;
            }
            let Some(sent) = wire.sent.pop_front() else {
                if !open {
                    self.forget_ghost(number);
                }
                return;
            };
            let server = &self.servers[cluster];
            let is_denied = |subject: &Vec<u8>| wire.denied.contains(subject) || server.poison.contains(subject);
            let denied = matches!(&sent, Sent::Record { subject, .. } if is_denied(subject));
            let (confirmation, maps) = (server.confirmation, server.maps);
            let answer = match sent {
                Sent::Fence => Some(Answer::Fence),
                Sent::Record {
                    ticket,
                    partition,
                    offset,
                    subject,
                } => match confirmation {
                    Confirmation::Fence if denied && maps => Some(Answer::Denied(b"mapped".to_vec())),
                    Confirmation::Fence if denied => Some(Answer::Denied(subject)),
                    Confirmation::Fence => {
                        self.receive(cluster, partition, offset);
                        None
                    }
                    Confirmation::Ack if self.record_mut(partition, offset).impossible => {
                        Some(Answer::Nack(ticket, Refusal::Impossible))
                    }
                    Confirmation::Ack if denied || self.fault(self.plan.refusals / 4) => {
                        Some(Answer::Nack(ticket, Refusal::Denied))
                    }
                    Confirmation::Ack if self.fault(self.plan.refusals / 2) => {
                        Some(Answer::Nack(ticket, Refusal::Transient))
                    }
                    Confirmation::Ack => {
                        if self.servers[cluster].stored.insert((partition, offset)) {
                            self.receive(cluster, partition, offset);
                        }
                        (!self.fault(self.plan.lost_acks)).then_some(Answer::Ack(ticket))
                    }
                },
            };
            if let Some(wire) = self.wires.get_mut(&number).filter(|wire| wire.open) {
                wire.answers.extend(answer);
            }
        }
    }

    fn forget_ghost(&mut self, number: u64) {
        // Whoever had it may still read what was answered.
        self.wires
            .retain(|other, wire| *other != number || !wire.answers.is_empty());
    }

    fn receive(&mut self, cluster: usize, partition: i32, offset: i64) {
        let record = self.record_mut(partition, offset);
        let first = !std::mem::replace(&mut record.received, true);
        let (asset, given_up) = (record.asset.unwrap(), record.given_up);
        self.say(|| {
            let again = if first { "" } else { " again" };
            format!("C{cluster} has {partition}@{offset} of {asset}{again}")
        });
        self.count(if first { "first deliveries" } else { "repeats" });
        if !first || given_up {
            return;
        }
        if offset < self.newest[asset] {
            let text = format!(
                "order: C{cluster} gets {partition}@{offset} of {asset} after {}",
                self.newest[asset]
            );
            self.fail(text);
        }
        self.newest[asset] = offset;
    }

    /// A connection ends. Any part of what was sent has gone out; any part of what was answered has come.
    pub(super) fn cut(&mut self, number: u64) {
        let Some(wire) = self.wires.get_mut(&number) else {
            return;
        };
        wire.open = false;
        wire.sent.truncate(self.dice.below(wire.sent.len() + 1));
        wire.answers.truncate(self.dice.below(wire.answers.len() + 1));
        let left = wire.sent.len();
        let cluster = wire.cluster;
        self.say(|| format!("connection {number} to C{cluster} ends with {left} on its way"));
        self.count("connections lost");
    }

    pub(super) fn forget_duplicates(&mut self, cluster: usize) {
        self.servers[cluster].stored.clear();
    }

    // The end.

    /// Records of assets that no server refuses, and that nobody has yet.
    pub(super) fn held_up(&self) -> Option<(i32, Record)> {
        let refused = |asset: usize| {
            let mut servers = self.servers.iter();
            servers.any(|server| (0..2).any(|half| server.poison.contains(&subject(asset, half))))
        };
        let mut partitions = (0..PARTITIONS).zip(&self.logs);
        partitions.find_map(|(partition, log)| {
            let mut open = log
                .records
                .iter()
                .filter(|record| !record.received && !record.written_off);
            let held_up = open.find(|record| record.asset.is_none_or(|asset| !refused(asset)));
            held_up.map(|record| (partition, *record))
        })
    }

    /// A person allows all that was denied.
    pub(super) fn cure(&mut self) {
        for server in &mut self.servers {
            server.poison.clear();
        }
    }

    /// Whether everything is committed; `None`: what is not.
    pub(super) fn uncommitted(&self) -> Option<(i32, i64)> {
        (0..PARTITIONS).find_map(|partition| {
            let last = self.logs[partition as usize].records.last()?.offset;
            let committed = self.committed[partition as usize].as_ref().map_or(-1, |(at, _)| *at);
            (committed <= last).then_some((partition, committed))
        })
    }

    pub(super) fn judge_the_end(&mut self) {
        for partition in 0..PARTITIONS {
            let mut records = self.logs[partition as usize].records.iter();
            if let Some(lost) = records.find(|record| !record.received && !record.written_off) {
                let text = format!("lost: {partition} {lost:?}");
                return self.fail(text);
            }
        }
    }
}

/// What a server denies.
fn poison(dice: &mut Dice, percent: usize) -> BTreeSet<Vec<u8>> {
    if !dice.chance(percent) {
        return BTreeSet::new();
    }
    let count = 1 + dice.below(6);
    (0..count)
        .map(|_| subject(dice.below(ASSETS), dice.below(2) as i64))
        .collect()
}

fn lane(members: usize, asset: usize) -> u64 {
    RINGS.ring(members).place(key(asset).as_bytes()).lane
}

/// An asset's records have one of two subjects.
pub(super) fn subject(asset: usize, offset: i64) -> Vec<u8> {
    format!("{}.{}", key(asset), offset % 2).into_bytes()
}
