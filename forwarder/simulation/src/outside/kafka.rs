//! Kafka: a log with holes, and a group that keeps what is committed. Each commit is judged when it is performed.

use forwarder_core::delivery::commit::Metadata;
use forwarder_core::delivery::partition::PartitionId;

use super::Outside;
use crate::assets::{ASSETS, RINGS, lane, name};

/// A record of the log, with what became of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub(crate) offset: i64,
    /// `None`: it has no key.
    pub(crate) asset: Option<usize>,
    /// Its value makes no message.
    pub(crate) bad: bool,
    /// No stream can take it.
    pub(super) impossible: bool,
    /// A server has it.
    pub(super) received: bool,
    /// Confirmed by the dead letter, or counted as invalid.
    pub(super) written_off: bool,
    /// Refused so often that it went to the dead letter once: where it comes after that is no matter of order.
    pub(super) given_up: bool,
}

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) records: Vec<Record>,
    end: i64,
}

/// Whose a partition is: a process, and the number of the assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) process: usize,
    pub(crate) token: u64,
}

impl Outside {
    /// Where the partition is among all.
    pub(super) fn slot(&self, partition: PartitionId) -> usize {
        self.partitions.iter().position(|one| *one == partition).unwrap()
    }

    // The log.

    pub(crate) fn produce(&mut self) {
        for _ in 0..1 + self.dice.below(self.plan.burst) {
            let asset = self.dice.below(ASSETS);
            let slot = asset % self.partitions.len();
            let (stray, bad) = (self.dice.chance(2), self.dice.chance(4));
            let impossible = self.plan.poison > 0 && self.dice.chance(2);
            let hole = if self.dice.chance(15) {
                self.dice.below(4) as i64
            } else {
                0
            };
            let partition = self.partitions[slot];
            let log = &mut self.logs[slot];
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
                    "log: {partition:?}@{offset} of {asset:?}{}",
                    if bad { ", bad" } else { "" }
                )
            });
        }
    }

    /// The first record at or after an offset.
    pub(crate) fn record(&self, partition: PartitionId, from: i64) -> Option<Record> {
        let records = &self.logs[self.slot(partition)].records;
        records
            .get(records.partition_point(|record| record.offset < from))
            .copied()
    }

    pub(crate) fn end(&self, partition: PartitionId) -> i64 {
        self.logs[self.slot(partition)].end
    }

    pub(super) fn record_mut(&mut self, partition: PartitionId, offset: i64) -> &mut Record {
        let slot = self.slot(partition);
        let records = &mut self.logs[slot].records;
        let at = records.binary_search_by_key(&offset, |record| record.offset).unwrap();
        &mut records[at]
    }

    pub(crate) fn write_off(&mut self, partition: PartitionId, offset: i64) {
        self.record_mut(partition, offset).written_off = true;
    }

    pub(crate) fn give_up(&mut self, partition: PartitionId, offset: i64) {
        self.record_mut(partition, offset).given_up = true;
    }

    // The group.

    pub(crate) fn assign(&mut self, partition: PartitionId, process: usize) -> u64 {
        self.tokens += 1;
        let slot = self.slot(partition);
        self.owners[slot] = Some(Owner {
            process,
            token: self.tokens,
        });
        self.tokens
    }

    /// Nobody has it any more.
    pub(crate) fn release(&mut self, partition: PartitionId) {
        let slot = self.slot(partition);
        self.owners[slot] = None;
    }

    pub(crate) fn owner(&self, partition: PartitionId) -> Option<Owner> {
        self.owners[self.slot(partition)]
    }

    pub(crate) fn are_all_owned(&self) -> bool {
        self.owners.iter().all(Option::is_some)
    }

    pub(crate) fn committed(&self, partition: PartitionId) -> Option<&(i64, String)> {
        self.committed[self.slot(partition)].as_ref()
    }

    pub(crate) fn is_member(&self, partition: PartitionId, token: u64) -> bool {
        self.owners[self.slot(partition)].is_some_and(|owner| owner.token == token)
    }

    /// Performs a commit, if whoever asks is still the owner.
    pub(crate) fn commit(&mut self, partition: PartitionId, token: u64, position: i64, text: &str) -> bool {
        if !self.is_member(partition, token) {
            return false;
        }
        self.say(|| format!("committed: {partition:?}@{position} {text}"));
        self.judge_commit(partition, position, text);
        let slot = self.slot(partition);
        self.committed[slot] = Some((position, text.to_owned()));
        true
    }

    /// What would a successor not deliver? All of that must be settled. An older forwarder passes over the words about lanes.
    fn judge_commit(&mut self, partition: PartitionId, position: i64, text: &str) {
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

    fn judge_words(&mut self, partition: PartitionId, position: i64, text: &str) {
        let Some(metadata) = Metadata::parse(text) else {
            return self.fail(format!("the metadata cannot be read: {text}"));
        };
        if let Some((before, old)) = &self.committed[self.slot(partition)] {
            let old = Metadata::parse(old).unwrap();
            if position < *before || metadata.ring < old.ring {
                let text = format!("commit: {partition:?} goes back from {before} {old} to {position} {metadata}");
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
        let lost = self.logs[self.slot(partition)]
            .records
            .iter()
            .find(|record| covered(record) && !record.received && !record.written_off);
        if let Some(lost) = lost {
            let text = format!("commit: {partition:?}@{position} {text} covers a record that nobody has: {lost:?}");
            self.fail(text);
        }
        if ahead.is_some() {
            self.count("commits with something ahead");
        }
    }
}
