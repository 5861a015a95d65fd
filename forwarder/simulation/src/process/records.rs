//! The way of records through a process: taken, read again, handed out, settled.

use forwarder_core::delivery::DEAD_LETTER;
use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::{Admission, Again, Partition};

use super::Process;
use crate::assets::{key, subject};
use crate::message::Message;
use crate::outside::Outside;
use crate::publisher::{Command, Fate, Report};

pub(super) struct Reader {
    number: u64,
    partition: PartitionId,
    at: i64,
    /// The end that it has seen, and has not said yet.
    ended: Option<i64>,
}

impl Process {
    pub(super) fn take(&mut self, outside: &mut Outside, count: usize) {
        for _ in 0..count {
            if !self.dispatcher.has_room() {
                return;
            }
            let slot = outside.dice.below(outside.partitions.len());
            let partition = outside.partitions[slot];
            // As paused as a partition of the consumer is.
            if !self
                .dispatcher
                .partitions()
                .get(&partition)
                .is_some_and(Partition::is_taken)
            {
                continue;
            }
            let Some(record) = outside.record(partition, self.fetched[&partition]) else {
                self.dispatcher.reached(partition, outside.end(partition));
                continue;
            };
            self.fetched.insert(partition, record.offset + 1);
            let Some(asset) = record.asset else {
                let Admission::Take(tag) = self.dispatcher.receive_stray(partition, record.offset) else {
                    continue;
                };
                self.reject(outside, tag);
                continue;
            };
            let place = self.dispatcher.ring_epoch().ring.place(key(asset).as_bytes());
            let admission = self
                .dispatcher
                .receive(partition, record.offset, key(asset).as_bytes(), place);
            let number = self.number;
            outside.say(|| format!(" {number} takes {partition:?}@{}: {admission:?}", record.offset));
            match admission {
                Admission::Take(tag) if record.bad => self.reject(outside, tag),
                Admission::Take(tag) => self.dispatcher.enter(message(tag, place.lane, asset), place.owner),
                Admission::Parked => outside.count("parked"),
                Admission::Unwanted => {}
            }
        }
    }

    /// It can never be delivered.
    fn reject(&mut self, outside: &mut Outside, tag: Tag) {
        if outside.plan.dead_letter {
            self.dispatcher.bury(tag, 7);
            self.letters.push_back((tag, 7));
        } else {
            outside.write_off(tag.partition, tag.offset);
            self.dispatcher.settle(tag);
        }
    }

    pub(super) fn read_again(&mut self, outside: &mut Outside, count: usize) {
        let Some(job) = self.dispatcher.job() else {
            self.reader = None;
            return;
        };
        if self.reader.as_ref().is_none_or(|reader| reader.number != job.number) {
            if let Some(old) = &self.reader {
                // What the reader still had of another replay.
                let at = old.at;
                let answer = self.dispatcher.read_again(old.number, at, Some(b"asset-00"));
                if answer != Again::Done {
                    outside.fail(format!(
                        "a record of replay {} is taken in replay {}",
                        old.number, job.number
                    ));
                }
            }
            self.reader = Some(Reader {
                number: job.number,
                partition: job.partition,
                at: job.from,
                ended: None,
            });
            let number = self.number;
            outside.say(|| format!(" {number} reads again: {job:?}"));
            outside.count("replays");
        }
        for _ in 0..count {
            let Some(reader) = &mut self.reader else { return };
            let (number, partition, at) = (reader.number, reader.partition, reader.at);
            if let Some(end) = reader.ended.take() {
                self.dispatcher.saw_end(number, end);
                return;
            }
            let Some(record) = outside.record(partition, at) else {
                reader.ended = Some(outside.end(partition));
                return;
            };
            let asset = record.asset;
            let again = self
                .dispatcher
                .read_again(number, record.offset, asset.map(|asset| key(asset).as_bytes()));
            let process = self.number;
            outside.say(|| format!(" {process} reads {partition:?}@{} again: {again:?}", record.offset));
            match again {
                Again::Wait | Again::Done => return,
                Again::Skip => reader.at = record.offset + 1,
                Again::Take(tag) => {
                    reader.at = record.offset + 1;
                    let asset = asset.unwrap();
                    if record.bad {
                        self.reject(outside, tag);
                    } else {
                        let place = self.dispatcher.ring_epoch().ring.place(key(asset).as_bytes());
                        self.dispatcher.enter(message(tag, place.lane, asset), place.owner);
                    }
                }
            }
        }
    }

    pub(super) fn hand_out(&mut self) {
        let Self {
            dispatcher, publishers, ..
        } = self;
        for (output, lane) in dispatcher.take_openings() {
            // Who has gone has nothing to open.
            if let Some(publisher) = publishers.iter_mut().find(|publisher| publisher.output == output) {
                publisher.commands.push_back(Command::Open(lane));
            }
        }
        for (output, lane) in dispatcher.take_excess() {
            if let Some(publisher) = publishers.iter_mut().find(|publisher| publisher.output == output) {
                publisher.commands.push_back(Command::Recall(vec![lane]));
            }
        }
        dispatcher.take_batches(|output, batch| {
            if output == DEAD_LETTER {
                return;
            }
            let mut publishers = publishers.iter_mut();
            let publisher = publishers.find(|publisher| publisher.output == output).unwrap();
            publisher.commands.push_back(Command::Publish(batch));
        });
    }

    pub(super) fn recall(&mut self, outside: &mut Outside) {
        for (output, lane) in self.dispatcher.overdue() {
            let mut publishers = self.publishers.iter_mut();
            let publisher = publishers.find(|publisher| publisher.output == output).unwrap();
            publisher.commands.push_back(Command::Recall(vec![lane]));
            outside.count("lanes recalled");
            let number = self.number;
            outside.say(|| format!(" {number} recalls {lane:x} from output {output}"));
        }
    }

    pub(super) fn observe(&mut self, outside: &Outside) {
        let publishers = &self.publishers;
        self.dispatcher.observe(outside.now, |output| {
            let mut publishers = publishers.iter();
            publishers
                .find(|publisher| publisher.output == output)
                .map_or(0, |publisher| publisher.outbox.in_flight())
        });
    }

    // Receipts.

    pub(super) fn settle(&mut self, outside: &mut Outside, count: usize) {
        for _ in 0..count {
            let (output, item, fate) = match self.receipts.pop_front() {
                Some(Report::Receipt { output, item, fate }) => (output, item, fate),
                Some(Report::Closed { output, closed }) => {
                    self.dispatcher.close(output, &[closed]);
                    continue;
                }
                None => return,
            };
            let tag = item.tag;
            let before = self.of_another_epoch(tag);
            self.dispatcher.leave(output, item.weight);
            match fate {
                Fate::Confirmed => self.dispatcher.settle(tag),
                Fate::Dropped => {}
                Fate::Recalled => {
                    outside.count("taken back");
                    self.dispatcher.take_back(output, item);
                }
                Fate::Returned => {
                    outside.count("given back");
                    self.dispatcher.give_back(output, tag, item.lane);
                }
                Fate::GivenUp | Fate::Impossible => {
                    if outside.plan.dead_letter {
                        self.dispatcher.bury_from(output, tag, item.lane, 7);
                        self.letters.push_back((tag, 7));
                    } else {
                        outside.write_off(tag.partition, tag.offset);
                        self.dispatcher.settle(tag);
                    }
                }
            }
            self.judge_late(outside, tag, before);
        }
    }

    /// The dead letter confirms some.
    pub(crate) fn confirm_letters(&mut self, outside: &mut Outside, count: usize) {
        for _ in 0..count {
            let Some((tag, weight)) = self.letters.pop_front() else {
                return;
            };
            outside.write_off(tag.partition, tag.offset);
            let before = self.of_another_epoch(tag);
            self.dispatcher.leave(DEAD_LETTER, weight);
            self.dispatcher.settle(tag);
            self.judge_late(outside, tag, before);
        }
    }

    /// What a report on behalf of an earlier assignment must not change.
    fn of_another_epoch(&self, tag: Tag) -> Option<String> {
        let state = self.dispatcher.partitions().get(&tag.partition)?;
        (state.epoch != tag.epoch).then(|| format!("{state:?} {:?}", self.dispatcher.waiting()))
    }

    fn judge_late(&self, outside: &mut Outside, tag: Tag, before: Option<String>) {
        let Some(before) = before else { return };
        outside.count("late reports");
        let after = self.of_another_epoch(tag);
        if after.as_ref() != Some(&before) {
            outside.fail(format!("a late report of {tag:?} made {after:?} of {before}"));
        }
    }
}

fn message(tag: Tag, lane: u64, asset: usize) -> Message {
    Message {
        tag,
        lane,
        weight: 1 + asset * 7 % 40,
        subject: subject(asset, tag.offset),
    }
}
