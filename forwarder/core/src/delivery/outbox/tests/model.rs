//! The outbox, driven by random steps against a model of a server that loses connections, loses acks and denies subjects.

use std::collections::{BTreeMap, BTreeSet, VecDeque, btree_map};

use proptest::prelude::*;

use super::*;

/// A server and a network that do what real ones do, one step at a time.
struct World {
    outbox: Outbox<Record>,
    outcome: Outcome<Record>,
    confirmation: Confirmation,
    now: u64,
    /// What is on its way to the server on the current connection.
    wire: VecDeque<Sent>,
    /// What is on its way back.
    answers: VecDeque<Answer>,
    /// Old connections whose bytes the server has not read yet.
    ghosts: Vec<VecDeque<Sent>>,
    denied: BTreeSet<String>,
    /// Lanes that are recalled, with their records: who asked for them keeps them for a while, and what comes since.
    recalled: BTreeMap<u64, Vec<Record>>,
    /// First deliveries of each lane, in order.
    delivered: BTreeMap<u64, Vec<u32>>,
    pushed: BTreeMap<u64, u32>,
}

#[derive(Clone)]
enum Sent {
    Record(Ticket, Record),
    Fence,
}

enum Answer {
    Denied(String),
    Pong,
    Ack(Ticket),
    Nack(Ticket),
}

#[derive(Clone, Debug)]
enum Step {
    Push { lane: u64, subject: u8 },
    Send(usize),
    Fence,
    Serve(usize),
    ServeGhost(usize),
    Answer { count: usize, lose: bool },
    Break,
    Deny(u8),
    Allow(u8),
    Recall(u64),
    Return(u64),
    Wait(u64),
}

impl World {
    fn new(confirmation: Confirmation) -> Self {
        Self {
            outbox: outbox(confirmation),
            outcome: Outcome::default(),
            confirmation,
            now: 0,
            wire: VecDeque::new(),
            answers: VecDeque::new(),
            ghosts: Vec::new(),
            denied: BTreeSet::new(),
            recalled: BTreeMap::new(),
            delivered: BTreeMap::new(),
            pushed: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Push { lane, subject } => {
                let number = self.pushed.entry(lane).or_default();
                let record = record(lane, *number, &format!("{lane}.{subject}"));
                *number += 1;
                match self.recalled.get_mut(&lane) {
                    Some(kept) => kept.push(record),
                    None => drop(self.outbox.push(record)),
                }
            }
            Step::Send(count) => {
                for _ in 0..count {
                    let Some((ticket, record)) = self.outbox.next(self.now) else {
                        break;
                    };
                    self.wire.push_back(Sent::Record(ticket, record.clone()));
                }
            }
            Step::Fence => {
                if self.confirmation == Confirmation::Fence && self.outbox.fence() {
                    self.wire.push_back(Sent::Fence);
                }
            }
            Step::Serve(count) => {
                for _ in 0..count {
                    let Some(sent) = self.wire.pop_front() else { break };
                    if let Some(answer) = self.serve(sent) {
                        self.answers.push_back(answer);
                    }
                }
            }
            Step::ServeGhost(count) => {
                for mut ghost in std::mem::take(&mut self.ghosts) {
                    for _ in 0..count {
                        let Some(sent) = ghost.pop_front() else { break };
                        self.serve(sent);
                    }
                    self.ghosts.push(ghost);
                }
            }
            Step::Answer { count, lose } => {
                for _ in 0..count {
                    let Some(answer) = self.answers.pop_front() else { break };
                    match answer {
                        Answer::Denied(subject) => {
                            self.outbox.denied(subject.as_bytes());
                        }
                        Answer::Pong => self.outbox.fence_passed(self.now, &mut self.outcome),
                        // Only with acks can an answer get lost and the connection live.
                        Answer::Ack(_) | Answer::Nack(_) if lose => {}
                        Answer::Ack(ticket) => self.outbox.acked(ticket, &mut self.outcome),
                        Answer::Nack(ticket) => {
                            self.outbox
                                .refused(ticket, Refusal::Denied, self.now, &mut self.outcome)
                        }
                    }
                }
            }
            Step::Break => {
                self.ghosts.push(std::mem::take(&mut self.wire));
                self.answers.clear();
                self.outbox.connection_lost(&mut self.outcome);
            }
            // What is denied changes where a connection begins: see the module on a server that changes its mind.
            Step::Deny(subject) => {
                self.take(Step::Break);
                self.ghosts.clear();
                self.denied.insert(format!("{}.{subject}", subject % 3));
            }
            Step::Allow(subject) => {
                self.take(Step::Break);
                self.ghosts.clear();
                self.denied.remove(&format!("{}.{subject}", subject % 3));
            }
            Step::Recall(lane) => {
                if let btree_map::Entry::Vacant(kept) = self.recalled.entry(lane) {
                    self.outbox.recall(&[lane], &mut self.outcome);
                    let mut records: Vec<Record> = self.outcome.recalled.drain(..).map(|(record, _)| record).collect();
                    records.sort_by_key(|record| record.number);
                    kept.insert(records);
                }
            }
            Step::Return(lane) => {
                for record in self.recalled.remove(&lane).unwrap_or_default() {
                    self.outbox.push(record);
                }
            }
            Step::Wait(time) => {
                self.now += time;
                let mut overdue = Vec::new();
                if self.confirmation == Confirmation::Ack {
                    self.outbox.overdue(self.now, 5_000, &mut overdue);
                }
                for ticket in overdue {
                    self.outbox.expired(ticket, self.now, &mut self.outcome);
                }
                self.outbox.wake(self.now);
            }
        }
    }

    fn serve(&mut self, sent: Sent) -> Option<Answer> {
        match sent {
            Sent::Fence => Some(Answer::Pong),
            Sent::Record(ticket, record) => {
                let refused = self.denied.contains(&record.subject);
                if !refused {
                    let first = self.delivered.entry(record.lane).or_default();
                    if !first.contains(&record.number) {
                        first.push(record.number);
                    }
                }
                match (self.confirmation, refused) {
                    (Confirmation::Fence, true) => Some(Answer::Denied(record.subject)),
                    (Confirmation::Fence, false) => None,
                    (Confirmation::Ack, true) => Some(Answer::Nack(ticket)),
                    (Confirmation::Ack, false) => Some(Answer::Ack(ticket)),
                }
            }
        }
    }

    /// Everything works again; runs until nothing is left.
    fn heal(&mut self) {
        self.denied.clear();
        (0..3).for_each(|lane| self.take(Step::Return(lane)));
        for _ in 0..10_000 {
            if self.outbox.is_empty() {
                return;
            }
            for step in [
                Step::Send(100),
                Step::Fence,
                Step::Serve(200),
                Step::Answer {
                    count: 200,
                    lose: false,
                },
                Step::Wait(1_000),
            ] {
                self.take(step);
            }
        }
        panic!("records are stuck: {:?}", self.outbox);
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_u64, 0..9_u8).prop_map(|(lane, subject)| Step::Push { lane, subject }),
        6 => (1..8_usize).prop_map(Step::Send),
        4 => Just(Step::Fence),
        6 => (1..8_usize).prop_map(Step::Serve),
        2 => (1..8_usize).prop_map(Step::ServeGhost),
        6 => (1..8_usize, proptest::bool::weighted(0.2)).prop_map(|(count, lose)| Step::Answer { count, lose }),
        1 => Just(Step::Break),
        1 => (0..9_u8).prop_map(Step::Deny),
        1 => (0..9_u8).prop_map(Step::Allow),
        1 => (0..3_u64).prop_map(Step::Recall),
        2 => (0..3_u64).prop_map(Step::Return),
        3 => (1..3_000_u64).prop_map(Step::Wait),
    ]
}

fn check(confirmation: Confirmation, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut world = World::new(confirmation);
    for step in steps {
        world.take(step);
    }
    world.heal();
    for (lane, count) in &world.pushed {
        let expected: Vec<u32> = (0..*count).collect();
        prop_assert_eq!(world.delivered.get(lane), Some(&expected), "lane {}", lane);
    }
    let confirmed = world.outcome.confirmed.len();
    prop_assert_eq!(
        confirmed,
        world.pushed.values().sum::<u32>() as usize,
        "each record is confirmed once"
    );
    prop_assert_eq!(world.outbox.in_flight(), 0);
    prop_assert_eq!(world.outbox.overtaken(), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn with_fences_nothing_is_lost_or_reordered(steps in proptest::collection::vec(step(), 0..120)) {
        check(Confirmation::Fence, steps)?;
    }

    #[test]
    fn with_acks_nothing_is_lost_or_reordered(steps in proptest::collection::vec(step(), 0..120)) {
        check(Confirmation::Ack, steps)?;
    }
}
