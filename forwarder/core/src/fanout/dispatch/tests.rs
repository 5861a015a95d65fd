mod assignments;
mod damage;
mod grace;
mod handover;
mod parking;
mod rings;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::delivery::DEAD_LETTER;
use crate::delivery::commit::Ahead;
use crate::delivery::partition::{Inputs, first};
use crate::fanout::ring::Ring;

const SECOND: u64 = 1_000_000;

/// Little of each, so that tests get there.
const TUNING: Tuning = Tuning {
    slack: 6,
    quantum: 30,
    retry: 200_000,
};

#[derive(Clone, Copy, Debug)]
struct Message {
    tag: Tag,
    lane: u64,
}

impl Deliverable for Message {
    fn tag(&self) -> Tag {
        self.tag
    }
    fn lane(&self) -> u64 {
        self.lane
    }
    fn weight(&self) -> usize {
        10
    }
    fn subject(&self) -> &[u8] {
        b"subject"
    }
}

/// The ring of some members, named by digits: `12` is C1 and C2, whose outputs are 1 and 2.
fn ring_epoch(epoch: u64, members: &str) -> RingEpoch {
    let outputs: Vec<u32> = members.chars().map(|member| member.to_digit(10).unwrap()).collect();
    ring_epoch_with(epoch, members, outputs)
}

fn ring_epoch_with(epoch: u64, members: &str, outputs: Vec<u32>) -> RingEpoch {
    let ring = Ring::new(members.chars().map(|member| (format!("C{member}"), 1)), 16).unwrap();
    RingEpoch::new(epoch, Arc::new(ring), outputs)
}

/// The `number`-th key that these members own under these rings.
fn key(way: &[(&str, u32)], number: usize) -> String {
    let ring_epochs: Vec<_> = way
        .iter()
        .map(|(members, owner)| (ring_epoch(0, members), *owner))
        .collect();
    let mut keys = (0..).map(|number| format!("asset-{number}"));
    keys.by_ref()
        .filter(|key| {
            ring_epochs
                .iter()
                .all(|(ring_epoch, owner)| ring_epoch.output(ring_epoch.ring.owner(key.as_bytes())) == *owner)
        })
        .nth(number)
        .unwrap()
}

/// A partition, a dispatcher that forwards it, and what its outputs have.
struct Desk {
    dispatcher: Dispatcher<Message>,
    now: u64,
    log: Vec<String>,
    /// One past what is no record behind those.
    end: i64,
    out: BTreeMap<u32, Vec<Message>>,
}

impl Desk {
    /// Outputs that overflow as soon as they have so many.
    fn new(members: &str, cap: usize) -> Self {
        let load = |records| Load {
            records,
            bytes: 1 << 20,
        };
        let limits = Limits {
            output: load(cap),
            total: load(100),
            queue: 1_000,
        };
        let mut dispatcher = Dispatcher::tuned(limits, ring_epoch(1, members), SECOND, TUNING);
        dispatcher.assign(first(0), &Resume::default(), Phase::Active);
        Self {
            dispatcher,
            now: 0,
            log: Vec::new(),
            end: 0,
            out: BTreeMap::new(),
        }
    }

    /// A record comes that is next in the log.
    fn comes(&mut self, key: &str) -> Admission {
        let offset = self.log.len() as i64;
        self.log.push(key.to_owned());
        let place = self.dispatcher.ring_epoch().ring.place(key.as_bytes());
        let admission = self.dispatcher.receive(first(0), offset, key.as_bytes(), place);
        if let Admission::Take(tag) = admission {
            self.dispatcher.enter(Message { tag, lane: place.lane }, place.owner);
        }
        self.hand_out();
        admission
    }

    /// A partition begins at `offset`, and C1's records from `from` on are parked.
    fn resumes(&mut self, partition: PartitionId, offset: i64, from: i64) {
        let resume = Resume {
            offset,
            away: vec![("C1".to_owned(), from)],
            ..Resume::default()
        };
        self.dispatcher.assign(partition, &resume, Phase::Active);
    }

    fn hand_out(&mut self) {
        let out = &mut self.out;
        self.dispatcher
            .take_batches(|output, batch| out.entry(output).or_default().extend(batch));
    }

    /// The offsets that an output has, in the order in which it got them.
    fn at(&self, output: u32) -> Vec<i64> {
        let messages = self.out.get(&output).into_iter().flatten();
        messages.map(|message| message.tag.offset).collect()
    }

    fn leaves(&mut self, output: u32, offset: i64) -> Message {
        let messages = self.out.get_mut(&output).unwrap();
        let at = messages
            .iter()
            .position(|message| message.tag.offset == offset)
            .unwrap();
        self.dispatcher.leave(output, 10);
        messages.remove(at)
    }

    fn confirm(&mut self, output: u32, offset: i64) {
        let message = self.leaves(output, offset);
        self.dispatcher.settle(message.tag);
        self.hand_out();
    }

    fn give_back(&mut self, output: u32, offset: i64) {
        let message = self.leaves(output, offset);
        self.dispatcher.take_back(output, message);
        self.hand_out();
    }

    fn wait(&mut self, time: u64) {
        self.now += time;
        self.dispatcher.observe(self.now, |_| 0);
    }

    /// Time in which outputs at their cap are found to overflow.
    fn overflow(&mut self) {
        self.wait(0);
        self.wait(SECOND);
    }

    fn change(&mut self, epoch: u64, members: &str) {
        self.dispatcher.set_ring(ring_epoch(epoch, members));
        self.hand_out();
    }

    /// Reads again until a record is to wait or the replay is over; the offsets that were taken.
    fn read_again(&mut self) -> Vec<i64> {
        let mut taken = Vec::new();
        let Some(job) = self.dispatcher.job() else { return taken };
        let mut position = self.end.max(self.log.len() as i64);
        for offset in job.from..self.log.len() as i64 {
            let key = self.log[offset as usize].clone();
            match self.dispatcher.read_again(job.number, offset, Some(key.as_bytes())) {
                Again::Take(tag) => {
                    let place = self.dispatcher.ring_epoch().ring.place(key.as_bytes());
                    self.dispatcher.enter(Message { tag, lane: place.lane }, place.owner);
                    taken.push(offset);
                }
                Again::Skip => {}
                Again::Wait | Again::Done => {
                    position = offset;
                    break;
                }
            }
        }
        self.dispatcher.saw_end(job.number, position);
        self.hand_out();
        taken
    }

    fn position(&self) -> i64 {
        self.dispatcher.partitions()[&first(0)].position()
    }

    fn ahead(&self) -> Option<Ahead> {
        self.dispatcher.commit_point(first(0)).unwrap().ahead
    }
}
