//! A forwarder's process: the shell around the core, in the same steps as the intake's loop.

mod group;
mod records;
mod rings;

use std::collections::{BTreeMap, VecDeque};

use forwarder_core::delivery::caps::Load;
use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::{Dispatcher, Partition, Tuning};

use self::group::Commit;
pub(crate) use self::group::Event;
use self::records::Reader;
use self::rings::open_ring;
use crate::message::Message;
use crate::outside::Outside;
use crate::publisher::{Publisher, Report};

/// Little of each, so that a run gets there.
const TUNING: Tuning = Tuning {
    slack: 6,
    quantum: 30,
    retry: 200_000,
};

pub(crate) struct Process {
    number: usize,
    /// Which of all processes that ever were.
    pub(crate) life: u64,
    pub(crate) dispatcher: Dispatcher<Message>,
    /// The assignments' numbers at the group.
    tokens: BTreeMap<PartitionId, u64>,
    /// Where the consumer is.
    fetched: BTreeMap<PartitionId, i64>,
    pub(crate) events: VecDeque<Event>,
    /// Partitions that drain, and until when.
    leaving: BTreeMap<PartitionId, u64>,
    /// The ring in use, and the one that it is to use.
    pub(crate) ring: usize,
    pub(crate) next_ring: usize,
    /// The ring that is announced last.
    announced: usize,
    /// When the announcement will be heard.
    heard_at: Option<u64>,
    pub(crate) publishers: Vec<Publisher>,
    outputs: u32,
    pub(crate) receipts: VecDeque<Report>,
    commit: Option<Commit>,
    reader: Option<Reader>,
    /// What the dead letter has and has not confirmed.
    letters: VecDeque<(Tag, usize)>,
}

impl Process {
    pub(crate) fn new(number: usize, ring: usize, outside: &mut Outside) -> Self {
        let mut publishers = Vec::new();
        let mut outputs = outside.dice.below(3) as u32;
        let ring_epoch = open_ring(ring, &mut publishers, &mut outputs, outside);
        outside.say(|| format!("process {number} begins with ring {}", ring + 1));
        let handover_timeout = outside.plan.handover_timeout;
        let mut dispatcher = Dispatcher::tuned(outside.plan.limits, ring_epoch, handover_timeout, TUNING);
        dispatcher.set_grace(outside.subscribers.grace);
        Self {
            number,
            life: outside.begin_life(),
            dispatcher,
            tokens: BTreeMap::new(),
            fetched: BTreeMap::new(),
            events: VecDeque::new(),
            leaving: BTreeMap::new(),
            ring,
            next_ring: ring,
            announced: ring,
            heard_at: Some(outside.heard_at()),
            publishers,
            outputs,
            receipts: VecDeque::new(),
            commit: None,
            reader: None,
            letters: VecDeque::new(),
        }
    }

    /// One turn of the intake's loop.
    pub(crate) fn turn(&mut self, outside: &mut Outside) {
        self.settle(outside, usize::MAX);
        self.handle_events(outside);
        self.go_on_leaving(outside);
        self.take_commit_answer(outside);
        self.ask_commit(outside);
        self.change_ring(outside);
        self.observe(outside);
        self.take(outside, 8);
        self.read_again(outside, 12);
        self.hand_out();
        self.recall(outside);
    }

    /// Any one thing of it.
    pub(crate) fn step(&mut self, outside: &mut Outside) {
        let few = 1 + outside.dice.below(8);
        match outside.dice.below(16) {
            0 => self.settle(outside, 1),
            1 => self.settle(outside, usize::MAX),
            2 => self.handle_events(outside),
            3 => self.go_on_leaving(outside),
            4 => self.take_commit_answer(outside),
            5 | 6 => self.ask_commit(outside),
            7 => self.change_ring(outside),
            8 => self.observe(outside),
            9 | 10 => self.take(outside, few),
            11 | 12 => self.read_again(outside, few),
            13 => self.hand_out(),
            14 => self.recall(outside),
            _ if outside.fault(20) => {
                self.reader = None;
                self.dispatcher.stop_reading();
            }
            _ => {}
        }
    }

    pub(crate) fn publish(&mut self, outside: &mut Outside, turn: bool) {
        let fenced = self.is_fenced(outside);
        let ring = self.ring;
        if turn {
            for publisher in &mut self.publishers {
                publisher.turn(outside, ring, fenced, &mut self.receipts);
            }
        } else {
            let one = outside.dice.below(self.publishers.len());
            self.publishers[one].step(outside, ring, fenced, &mut self.receipts);
        }
    }

    /// It was put out of the group and does not know it yet.
    fn is_fenced(&self, outside: &Outside) -> bool {
        let mut ours = self.tokens.iter();
        ours.any(|(partition, token)| !outside.is_member(*partition, *token))
    }

    /// What the process must be like at any time.
    pub(crate) fn judge(&self, outside: &mut Outside) {
        let (total, limit) = (self.dispatcher.moving(), outside.plan.limits.total);
        if total.records > limit.records + outside.plan.excess {
            outside.fail(format!(
                "{} records are out, where {} are allowed",
                total.records, limit.records
            ));
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        let empty = self.publishers.iter();
        self.ring == self.next_ring
            && self.events.is_empty()
            && self.leaving.is_empty()
            && self.commit.is_none()
            && self.dispatcher.is_idle()
            && self.dispatcher.parked().is_empty()
            && self.receipts.is_empty()
            && empty
                .into_iter()
                .all(|one| one.outbox.is_empty() && one.outbox.closed_lanes() == 0)
    }

    /// What must not be left when nothing is to be done.
    pub(crate) fn judge_the_end(&self, outside: &mut Outside) {
        let dispatcher = &self.dispatcher;
        let loads: Vec<_> = (0..=self.outputs + 1)
            .map(|output| dispatcher.load(output))
            .filter(|load| *load != Load::default())
            .collect();
        let unsettled: usize = dispatcher.partitions().values().map(Partition::unsettled).sum();
        let flight: usize = self.publishers.iter().map(|one| one.outbox.in_flight()).sum();
        let left = (
            dispatcher.waiting(),
            dispatcher.total(),
            unsettled,
            dispatcher.batched(),
            flight,
            dispatcher.is_clear(),
        );
        if left != (0, Load::default(), 0, 0, 0, true) || !loads.is_empty() {
            let number = self.number;
            outside.fail(format!(
                "left over in process {number}: {left:?} {loads:?} {dispatcher:?}"
            ));
        }
    }
}
