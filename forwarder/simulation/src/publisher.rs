//! What a publisher's task does around its outbox, one step at a time.

use std::collections::VecDeque;

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::outbox::{Backoff, Confirmation, Outbox, Outcome, Ticket};
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::Closed;

use crate::message::Message;
use crate::outside::{Answer, Outside, Sent};

/// When an ack is overdue, in microseconds.
const CONFIRM_TIMEOUT: u64 = 400_000;

pub(crate) enum Command {
    Publish(Vec<Message>),
    Recall(Vec<u64>),
    Open(u64),
}

/// What became of a record.
pub(crate) enum Fate {
    Confirmed,
    Dropped,
    GivenUp,
    Impossible,
    Recalled,
    Returned,
}

pub(crate) enum Report {
    Receipt { output: u32, item: Message, fate: Fate },
    Closed { output: u32, closed: Closed },
}

pub(crate) struct Publisher {
    pub(crate) output: u32,
    pub(crate) cluster: usize,
    pub(crate) commands: VecDeque<Command>,
    pub(crate) outbox: Outbox<Message>,
    outcome: Outcome<Message>,
    pub(crate) wire: Option<u64>,
    /// For each fence that is out, the record that it covers alone.
    fences: VecDeque<Option<Ticket>>,
}

impl Publisher {
    pub(crate) fn new(output: u32, cluster: usize, outside: &Outside) -> Self {
        let backoff = Backoff {
            initial: 10_000,
            max: 200_000,
            attempts: outside.plan.attempts,
        };
        Self {
            output,
            cluster,
            commands: VecDeque::new(),
            outbox: Outbox::new(outside.servers[cluster].confirmation, backoff),
            outcome: Outcome::default(),
            wire: None,
            fences: VecDeque::new(),
        }
    }

    /// Any one thing that the task may do next. `ring` is the one that its process uses.
    pub(crate) fn step(&mut self, outside: &mut Outside, ring: usize, fenced: bool, receipts: &mut VecDeque<Report>) {
        match outside.dice.below(8) {
            0 | 1 => self.take_commands(1 + outside.dice.below(4)),
            2 | 3 => self.read(outside),
            4 => self.keep_time(outside),
            _ => self.write(outside, ring, fenced),
        }
        self.hand_out(outside, receipts);
    }

    /// All of it, in order.
    pub(crate) fn turn(&mut self, outside: &mut Outside, ring: usize, fenced: bool, receipts: &mut VecDeque<Report>) {
        self.read(outside);
        self.take_commands(usize::MAX);
        self.keep_time(outside);
        self.write(outside, ring, fenced);
        self.hand_out(outside, receipts);
    }

    pub(crate) fn take_commands(&mut self, count: usize) {
        for _ in 0..count {
            match self.commands.pop_front() {
                Some(Command::Publish(items)) => {
                    let closed = items.into_iter().filter_map(|item| self.outbox.push(item));
                    self.outcome.returned.extend(closed.map(|item| (item, false)));
                }
                Some(Command::Open(lane)) => self.outbox.open(lane),
                Some(Command::Recall(lanes)) => self.outbox.recall(&lanes, &mut self.outcome),
                None => return,
            }
        }
    }

    /// The intake waits for it: nothing more is sent on behalf of these.
    pub(crate) fn abandon(
        &mut self,
        outside: &mut Outside,
        assignments: &[(PartitionId, u32)],
        receipts: &mut VecDeque<Report>,
    ) {
        self.take_commands(usize::MAX);
        self.outbox.abandon(assignments, &mut self.outcome);
        self.hand_out(outside, receipts);
    }

    fn read(&mut self, outside: &mut Outside) {
        let Some(number) = self.wire else {
            self.wire = outside.connect(self.cluster);
            return;
        };
        let now = outside.now;
        let count = 1 + outside.dice.below(8);
        for _ in 0..count {
            let Some(wire) = outside.wires.get_mut(&number) else {
                break;
            };
            match wire.answers.pop_front() {
                Some(Answer::Fence) => {
                    self.fences.pop_front();
                    self.outbox.fence_passed(now, &mut self.outcome);
                }
                Some(Answer::Ack(ticket)) => self.outbox.acked(Ticket::from_u64(ticket), &mut self.outcome),
                Some(Answer::Nack(ticket, refusal)) => {
                    let ticket = Ticket::from_u64(ticket);
                    self.outbox.refused(ticket, refusal, now, &mut self.outcome);
                }
                Some(Answer::Denied(subject)) => {
                    outside.count("denials");
                    if self.outbox.denied(&subject) {
                        continue;
                    }
                    if let Some(Some(alone)) = self.fences.front().copied() {
                        outside.count("records blamed");
                        self.outbox.blame(alone, now, &mut self.outcome);
                    } else {
                        // Nothing of the kind is out: as the session does, it does not trust the connection any more.
                        outside.count("refusals of nobody knows which record");
                        self.outbox.suspect();
                        outside.cut(number);
                        self.lose(outside, number);
                        return;
                    }
                }
                None if wire.open => return,
                None => return self.lose(outside, number),
            }
        }
        if !outside.wires.contains_key(&number) {
            self.lose(outside, number);
        }
    }

    fn lose(&mut self, outside: &mut Outside, number: u64) {
        if let Some(wire) = outside.wires.get_mut(&number) {
            wire.answers.clear();
        }
        self.wire = None;
        self.fences.clear();
        self.outbox.connection_lost(&mut self.outcome);
    }

    /// Whoever writes is a member of the group: a process that has lost a partition and does not know it yet writes nothing.
    /// That is the deadline's work in the engine, outside of this core.
    fn write(&mut self, outside: &mut Outside, ring: usize, fenced: bool) {
        let Some(number) = self.wire.filter(|_| !fenced) else {
            return;
        };
        if !outside.wires.get(&number).is_some_and(|wire| wire.open) {
            return;
        }
        let now = outside.now;
        for _ in 0..1 + outside.dice.below(6) {
            let alone = self.outbox.next_is_alone();
            if alone {
                self.fence(outside, number, None);
            }
            let Some((ticket, item)) = self.outbox.next(now) else {
                break;
            };
            let (tag, subject) = (item.tag, item.subject.clone());
            let cluster = self.cluster;
            outside.say(|| {
                let Tag {
                    partition,
                    offset,
                    epoch,
                    ..
                } = tag;
                format!("  to C{cluster}: {partition:?}@{offset} (epoch {epoch}, connection {number})")
            });
            outside.judge_sending(tag.partition, tag.offset, cluster, ring);
            if let Some(wire) = outside.wires.get_mut(&number) {
                wire.sent.push_back(Sent::Record {
                    ticket: ticket.to_u64(),
                    partition: tag.partition,
                    offset: tag.offset,
                    subject,
                });
            }
            if alone {
                self.fence(outside, number, Some(ticket));
            }
        }
        self.fence(outside, number, None);
    }

    /// Sends a fence behind what was written, where that proves anything.
    fn fence(&mut self, outside: &mut Outside, number: u64, alone: Option<Ticket>) {
        let fenced = outside.servers[self.cluster].confirmation == Confirmation::Fence && self.outbox.fence();
        if let Some(wire) = outside.wires.get_mut(&number).filter(|_| fenced) {
            wire.sent.push_back(Sent::Fence);
            self.fences.push_back(alone);
        }
    }

    fn keep_time(&mut self, outside: &Outside) {
        self.outbox.wake(outside.now);
        if self.wire.is_some() && outside.servers[self.cluster].confirmation == Confirmation::Ack {
            let mut overdue = Vec::new();
            self.outbox.overdue(outside.now, CONFIRM_TIMEOUT, &mut overdue);
            for ticket in overdue {
                self.outbox.expired(ticket, outside.now, &mut self.outcome);
            }
        }
    }

    fn hand_out(&mut self, outside: &mut Outside, receipts: &mut VecDeque<Report>) {
        let output = self.output;
        for item in self.outcome.given_up.iter().chain(&self.outcome.impossible) {
            outside.count("given up");
            outside.give_up(item.tag.partition, item.tag.offset);
        }
        for lane in std::mem::take(&mut self.outcome.denied) {
            // Whoever does not close it keeps its records, against the caps.
            let weight = |item: &Message| item.weight;
            if outside.dice.chance(outside.plan.closing)
                && let Some(weight) = self.outbox.close(lane, &mut self.outcome).map(weight)
            {
                outside.count("lanes closed");
                let closed = Closed { lane, weight };
                receipts.push_back(Report::Closed { output, closed });
            }
        }
        let Outcome {
            confirmed,
            given_up,
            impossible,
            denied: _,
            returned,
            dropped,
            recalled,
        } = &mut self.outcome;
        let confirmed = confirmed.drain(..).map(|(item, _)| (item, Fate::Confirmed));
        let given_up = given_up.drain(..).map(|item| (item, Fate::GivenUp));
        let impossible = impossible.drain(..).map(|item| (item, Fate::Impossible));
        let returned = returned.drain(..).map(|(item, _)| (item, Fate::Returned));
        let dropped = dropped.drain(..).map(|item| (item, Fate::Dropped));
        let recalled = recalled.drain(..).map(|(item, _)| (item, Fate::Recalled));
        let all = confirmed.chain(given_up).chain(impossible).chain(dropped);
        let all = all.chain(recalled).chain(returned);
        receipts.extend(all.map(|(item, fate)| Report::Receipt { output, item, fate }));
    }
}
