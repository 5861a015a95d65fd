//! A forwarder's process: the shell around the core, in the same steps as the intake's loop.

use std::collections::{BTreeMap, VecDeque};

use forwarder_core::delivery::commit::Metadata;
use forwarder_core::delivery::start::{History, Known, Sameness, start};
use forwarder_core::document::{MissingOffset, StartFrom};

use super::outside::{Outside, PARTITIONS, RINGS, clusters, key, name, subject};
use super::publisher::{Fate, Order, Publisher, Report};
use super::{Admission, Again, Cargo, CommitPoint, DEAD_LETTER, Dispatcher, Era, Phase, Resume, Tag, Tuning};

/// Little of each, so that a run gets there.
const TUNING: Tuning = Tuning {
    slack: 6,
    quantum: 30,
    retry: 200_000,
};

/// What the group tells a member.
pub(super) enum Event {
    Assign(i32, u64),
    Revoke(i32, u64),
    Lost(i32, u64),
}

/// A commit for one partition.
struct Wish {
    partition: i32,
    epoch: u32,
    token: u64,
    point: CommitPoint,
}

enum Commit {
    /// The broker has not seen it.
    Asked(Vec<Wish>),
    /// What of it was performed.
    Answered(Vec<Wish>),
}

struct Reader {
    number: u64,
    partition: i32,
    at: i64,
    /// The end that it has seen, and has not said yet.
    ended: Option<i64>,
}

pub(super) struct Process {
    number: usize,
    pub(super) dispatcher: Dispatcher<Cargo>,
    /// The assignments' numbers at the group.
    tokens: BTreeMap<i32, u64>,
    /// Where the consumer is.
    fetched: BTreeMap<i32, i64>,
    pub(super) events: VecDeque<Event>,
    /// Partitions that drain, and until when.
    leaving: BTreeMap<i32, u64>,
    /// The ring in use, and the one that it is to use.
    pub(super) ring: usize,
    pub(super) next_ring: usize,
    pub(super) publishers: Vec<Publisher>,
    outlets: u32,
    pub(super) receipts: VecDeque<Report>,
    commit: Option<Commit>,
    reader: Option<Reader>,
    /// What the dead letter has and has not confirmed.
    letters: VecDeque<(Tag, usize)>,
}

impl Process {
    pub(super) fn new(number: usize, ring: usize, outside: &mut Outside) -> Self {
        let mut publishers = Vec::new();
        let mut outlets = outside.dice.below(3) as u32;
        let era = era(ring, &mut publishers, &mut outlets, outside);
        outside.say(|| format!("process {number} begins with ring {}", ring + 1));
        Self {
            number,
            dispatcher: Dispatcher::tuned(outside.plan.limits, era, outside.plan.handover_timeout, TUNING),
            tokens: BTreeMap::new(),
            fetched: BTreeMap::new(),
            events: VecDeque::new(),
            leaving: BTreeMap::new(),
            ring,
            next_ring: ring,
            publishers,
            outlets,
            receipts: VecDeque::new(),
            commit: None,
            reader: None,
            letters: VecDeque::new(),
        }
    }

    /// One turn of the intake's loop.
    pub(super) fn turn(&mut self, outside: &mut Outside) {
        self.settle(outside, usize::MAX);
        self.handle_events(outside);
        self.go_on_leaving(outside);
        self.take_commit_answer(outside);
        self.ask_commit(outside);
        self.change_ring(outside);
        self.look(outside);
        self.take(outside, 8);
        self.read_again(outside, 12);
        self.hand_out();
        self.recall(outside);
    }

    /// Any one thing of it.
    pub(super) fn step(&mut self, outside: &mut Outside) {
        let few = 1 + outside.dice.below(8);
        match outside.dice.below(16) {
            0 => self.settle(outside, 1),
            1 => self.settle(outside, usize::MAX),
            2 => self.handle_events(outside),
            3 => self.go_on_leaving(outside),
            4 => self.take_commit_answer(outside),
            5 | 6 => self.ask_commit(outside),
            7 => self.change_ring(outside),
            8 => self.look(outside),
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

    pub(super) fn publish(&mut self, outside: &mut Outside, turn: bool) {
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

    // Records.

    fn take(&mut self, outside: &mut Outside, count: usize) {
        for _ in 0..count {
            if !self.dispatcher.has_room() {
                return;
            }
            let partition = outside.dice.below(PARTITIONS as usize) as i32;
            // As paused as a partition of the consumer is.
            if !self
                .dispatcher
                .partitions()
                .get(&partition)
                .is_some_and(super::Partition::is_taken)
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
            let place = self.dispatcher.era().ring.place(key(asset).as_bytes());
            let admission = self
                .dispatcher
                .receive(partition, record.offset, key(asset).as_bytes(), place);
            let number = self.number;
            outside.say(|| format!(" {number} takes {partition}@{}: {admission:?}", record.offset));
            match admission {
                Admission::Take(tag) if record.bad => self.reject(outside, tag),
                Admission::Take(tag) => self.dispatcher.enter(cargo(tag, place.lane, asset), place.owner),
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

    fn read_again(&mut self, outside: &mut Outside, count: usize) {
        let Some(job) = self.dispatcher.job() else {
            self.reader = None;
            return;
        };
        if self.reader.as_ref().is_none_or(|reader| reader.number != job.number) {
            if let Some(old) = &self.reader {
                // What the reader still had of another pass.
                let at = old.at;
                let answer = self.dispatcher.read_again(old.number, at, Some(b"asset-00"));
                if answer != Again::Done {
                    outside.fail(format!(
                        "a record of pass {} is taken in pass {}",
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
            outside.count("passes");
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
            outside.say(|| format!(" {process} reads {partition}@{} again: {again:?}", record.offset));
            match again {
                Again::Wait | Again::Done => return,
                Again::Skip => reader.at = record.offset + 1,
                Again::Take(tag) => {
                    reader.at = record.offset + 1;
                    let asset = asset.unwrap();
                    if record.bad {
                        self.reject(outside, tag);
                    } else {
                        let place = self.dispatcher.era().ring.place(key(asset).as_bytes());
                        self.dispatcher.enter(cargo(tag, place.lane, asset), place.owner);
                    }
                }
            }
        }
    }

    fn hand_out(&mut self) {
        let Self {
            dispatcher, publishers, ..
        } = self;
        for (outlet, lane) in dispatcher.take_openings() {
            // Who has gone has nothing to open.
            if let Some(publisher) = publishers.iter_mut().find(|publisher| publisher.outlet == outlet) {
                publisher.orders.push_back(Order::Open(lane));
            }
        }
        for (outlet, lane) in dispatcher.take_excess() {
            if let Some(publisher) = publishers.iter_mut().find(|publisher| publisher.outlet == outlet) {
                publisher.orders.push_back(Order::Recall(vec![lane]));
            }
        }
        dispatcher.take_batches(|outlet, batch| {
            if outlet == DEAD_LETTER {
                return;
            }
            let mut publishers = publishers.iter_mut();
            let publisher = publishers.find(|publisher| publisher.outlet == outlet).unwrap();
            publisher.orders.push_back(Order::Publish(batch));
        });
    }

    fn recall(&mut self, outside: &mut Outside) {
        for (outlet, lane) in self.dispatcher.overdue() {
            let mut publishers = self.publishers.iter_mut();
            let publisher = publishers.find(|publisher| publisher.outlet == outlet).unwrap();
            publisher.orders.push_back(Order::Recall(vec![lane]));
            outside.count("lanes recalled");
            let number = self.number;
            outside.say(|| format!(" {number} recalls {lane:x} from outlet {outlet}"));
        }
    }

    fn look(&mut self, outside: &Outside) {
        let publishers = &self.publishers;
        self.dispatcher.look(outside.now, |outlet| {
            let mut publishers = publishers.iter();
            publishers
                .find(|publisher| publisher.outlet == outlet)
                .map_or(0, |publisher| publisher.outbox.in_flight())
        });
    }

    // Receipts.

    fn settle(&mut self, outside: &mut Outside, count: usize) {
        for _ in 0..count {
            let (outlet, item, fate) = match self.receipts.pop_front() {
                Some(Report::Receipt { outlet, item, fate }) => (outlet, item, fate),
                Some(Report::Closed { outlet, closed }) => {
                    self.dispatcher.close(outlet, &[closed]);
                    continue;
                }
                None => return,
            };
            let tag = item.tag;
            let before = self.of_another_epoch(tag);
            self.dispatcher.leave(outlet, item.weight);
            match fate {
                Fate::Confirmed => self.dispatcher.settle(tag),
                Fate::Dropped => {}
                Fate::Recalled => {
                    outside.count("taken back");
                    self.dispatcher.take_back(outlet, item);
                }
                Fate::Returned => {
                    outside.count("given back");
                    self.dispatcher.give_back(outlet, tag, item.lane);
                }
                Fate::GivenUp | Fate::Impossible => {
                    if outside.plan.dead_letter {
                        self.dispatcher.bury_from(outlet, tag, item.lane, 7);
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
    pub(super) fn confirm_letters(&mut self, outside: &mut Outside, count: usize) {
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

    // The group.

    pub(super) fn handle_events(&mut self, outside: &mut Outside) {
        while let Some(event) = self.events.pop_front() {
            match event {
                Event::Assign(partition, token) => self.begin(outside, partition, token),
                Event::Revoke(partition, token) => {
                    if self.tokens.get(&partition) == Some(&token) {
                        self.dispatcher.set_phase(partition, Phase::Draining);
                        self.leaving.insert(partition, outside.now + outside.plan.drain_timeout);
                    } else if outside.is_member(partition, token) {
                        outside.owners[partition as usize] = None;
                    }
                }
                Event::Lost(partition, token) => {
                    if self.tokens.get(&partition) == Some(&token) {
                        self.give_up(outside, partition);
                    }
                }
            }
        }
    }

    fn begin(&mut self, outside: &mut Outside, partition: i32, token: u64) {
        let ring = self.dispatcher.era().epoch;
        let metadata = |outside: &Outside| {
            let committed = outside.committed[partition as usize].clone();
            committed.map(|(offset, text)| (offset, Metadata::parse(&text).unwrap()))
        };
        if metadata(outside).is_none() {
            let text = Metadata {
                partitions: PARTITIONS as u32,
                ring,
                members: Some(self.dispatcher.era().fingerprint()),
                ahead: None,
            };
            if !outside.commit(partition, token, 0, &text.to_string()) {
                return;
            }
        }
        let Some((committed, metadata)) = metadata(outside) else {
            return;
        };
        let fingerprint = self.dispatcher.era().fingerprint();
        let known = Known {
            partition: partition.unsigned_abs(),
            committed: Some(committed),
            low: 0,
            high: outside.end(partition),
            at_time: None,
            ahead: metadata.ahead.as_ref().filter(|ahead| ahead.members == fingerprint),
            topic: Sameness::Unknown,
        };
        let history = History::of([metadata.to_string().as_str()]);
        let begin = start(&known, history, StartFrom::Latest, MissingOffset::Stop);
        if begin.fault.is_some() {
            return outside.fail(format!("{partition} begins with {begin:?}"));
        }
        let phase = match metadata.ring.cmp(&ring) {
            std::cmp::Ordering::Less => Phase::Announcing,
            std::cmp::Ordering::Equal => Phase::Active,
            std::cmp::Ordering::Greater => Phase::Behind(metadata.ring),
        };
        let resume = Resume {
            offset: begin.offset.unwrap(),
            away: begin.away,
            lanes: begin.lanes,
            members: metadata.members,
            later: metadata.ahead.filter(|ahead| ahead.members != fingerprint),
        };
        if !resume.away.is_empty() {
            outside.count("begun with something away");
        }
        let number = self.number;
        outside.say(|| format!(" {number} begins {partition} {resume:?} {phase:?}"));
        self.fetched.insert(partition, resume.offset);
        self.tokens.insert(partition, token);
        self.dispatcher.assign(partition, &resume, phase);
    }

    fn go_on_leaving(&mut self, outside: &mut Outside) {
        let leaving: Vec<(i32, u64)> = self.leaving.iter().map(|(a, b)| (*a, *b)).collect();
        for (partition, deadline) in leaving {
            let lost = !outside.is_member(partition, self.tokens[&partition]);
            if self.dispatcher.awaited(partition) > 0 && !lost && outside.now < deadline {
                continue;
            }
            self.give_up(outside, partition);
        }
    }

    fn give_up(&mut self, outside: &mut Outside, partition: i32) {
        let epoch = self.dispatcher.partitions()[&partition].epoch;
        for publisher in &mut self.publishers {
            publisher.abandon(outside, &[(partition, epoch)], &mut self.receipts);
        }
        // Between the abandonment and now some more may have been confirmed.
        self.settle(outside, usize::MAX);
        let token = self.tokens[&partition];
        if let Some(point) = self.dispatcher.to_commit(partition)
            && !outside.fault(outside.plan.lost_commits)
        {
            self.serve_commit(outside);
            outside.commit(partition, token, point.position, &text(&point));
        }
        self.dispatcher.remove(partition);
        self.tokens.remove(&partition);
        self.fetched.remove(&partition);
        self.leaving.remove(&partition);
        let number = self.number;
        outside.say(|| format!(" {number} has given {partition} up"));
        if outside.is_member(partition, token) {
            outside.owners[partition as usize] = None;
        }
    }

    // Commits.

    fn ask_commit(&mut self, outside: &mut Outside) {
        if self.commit.is_some() || outside.fault(outside.plan.late_commits) {
            return;
        }
        let wishes = self.dispatcher.partitions().iter().filter_map(|(partition, state)| {
            Some(Wish {
                partition: *partition,
                epoch: state.epoch,
                token: self.tokens[partition],
                point: self.dispatcher.to_commit(*partition)?,
            })
        });
        let wishes: Vec<Wish> = wishes.collect();
        if !wishes.is_empty() {
            self.commit = Some(Commit::Asked(wishes));
            if outside.fault(outside.plan.lost_commits) {
                // The request is lost; the thread that waits for its answer says so in the end.
                self.commit = Some(Commit::Answered(Vec::new()));
            }
        }
    }

    /// The broker sees the commit that is out.
    pub(super) fn serve_commit(&mut self, outside: &mut Outside) {
        let Some(Commit::Asked(wishes)) = self.commit.take_if(|commit| matches!(commit, Commit::Asked(_))) else {
            return;
        };
        let mut performed = Vec::new();
        for wish in wishes {
            if outside.commit(wish.partition, wish.token, wish.point.position, &text(&wish.point)) {
                performed.push(wish);
            }
        }
        if outside.fault(outside.plan.lost_commits) {
            performed.clear();
        }
        self.commit = Some(Commit::Answered(performed));
    }

    fn take_commit_answer(&mut self, outside: &mut Outside) {
        let answered = self.commit.take_if(|commit| matches!(commit, Commit::Answered(_)));
        let Some(Commit::Answered(performed)) = answered else {
            return;
        };
        for Wish {
            partition,
            epoch,
            point,
            ..
        } in performed
        {
            let state = |process: &Self| {
                let state = process.dispatcher.partitions().get(&partition)?;
                (state.epoch != epoch).then(|| format!("{state:?}"))
            };
            let before = state(self);
            self.dispatcher.committed(partition, epoch, point);
            if before != state(self) {
                outside.fail(format!("a late answer to a commit of epoch {epoch} changed {before:?}"));
            }
        }
    }

    // The ring.

    fn change_ring(&mut self, outside: &mut Outside) {
        if self.next_ring == self.ring {
            // A publisher that is done with ends, and its connection.
            let Self {
                publishers, dispatcher, ..
            } = self;
            publishers.retain(|publisher| {
                let done = dispatcher.is_done_with(publisher.outlet);
                if let Some(wire) = publisher.wire.filter(|_| done) {
                    outside.cut(wire);
                }
                !done
            });
            return;
        }
        let fingerprint = RINGS.ring(outside.rings[self.next_ring]).fingerprint();
        self.dispatcher.announce(self.next_ring as u64 + 1, fingerprint);
        if !self.dispatcher.is_announced() {
            return;
        }
        self.ring = self.next_ring;
        let era = era(self.ring, &mut self.publishers, &mut self.outlets, outside);
        for partition in self.dispatcher.set_ring(era) {
            self.fetched
                .insert(partition, self.dispatcher.partitions()[&partition].next());
        }
        outside.count("rings taken up");
        let (number, ring, waiting) = (self.number, self.ring + 1, self.dispatcher.waiting());
        outside.say(|| format!(" {number} uses ring {ring}, {waiting} assets wait"));
        if waiting > 0 {
            outside.count("rings with assets that wait");
        }
    }

    /// What the process must be like at any time.
    pub(super) fn judge(&self, outside: &mut Outside) {
        let (total, limit) = (self.dispatcher.moving(), outside.plan.limits.total);
        if total.records > limit.records + outside.plan.excess {
            outside.fail(format!(
                "{} records are out, where {} are allowed",
                total.records, limit.records
            ));
        }
    }

    pub(super) fn is_done(&self) -> bool {
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
    pub(super) fn judge_the_end(&self, outside: &mut Outside) {
        let dispatcher = &self.dispatcher;
        let loads: Vec<_> = (0..=self.outlets + 1)
            .map(|outlet| dispatcher.load(outlet))
            .filter(|load| *load != super::Load::default())
            .collect();
        let unsettled: usize = dispatcher.partitions().values().map(super::Partition::unsettled).sum();
        let flight: usize = self.publishers.iter().map(|one| one.outbox.in_flight()).sum();
        let left = (
            dispatcher.waiting(),
            dispatcher.total(),
            unsettled,
            dispatcher.batched(),
            flight,
            dispatcher.is_clear(),
        );
        if left != (0, super::Load::default(), 0, 0, 0, true) || !loads.is_empty() {
            let number = self.number;
            outside.fail(format!(
                "left over in process {number}: {left:?} {loads:?} {dispatcher:?}"
            ));
        }
    }
}

fn cargo(tag: Tag, lane: u64, asset: usize) -> Cargo {
    Cargo {
        tag,
        lane,
        weight: 1 + asset * 7 % 40,
        subject: subject(asset, tag.offset),
    }
}

fn text(point: &CommitPoint) -> String {
    let metadata = Metadata {
        partitions: PARTITIONS as u32,
        ring: point.ring,
        members: Some(point.members),
        ahead: point.ahead.clone(),
    };
    metadata.to_string()
}

/// The ring with the outlets of its members; a member that has none gets one. One that comes back may get a new one
/// while the old one is still at work, as one does whose servers have changed.
fn era(ring: usize, publishers: &mut Vec<Publisher>, outlets: &mut u32, outside: &mut Outside) -> Era {
    let members = outside.rings[ring];
    let mut used = Vec::new();
    for cluster in clusters(members) {
        let known = publishers.iter().rev().find(|publisher| publisher.cluster == cluster);
        let anew = outside.fault(10);
        used.push(match known.filter(|_| !anew) {
            Some(publisher) => publisher.outlet,
            None => {
                *outlets += 1;
                publishers.push(Publisher::new(*outlets, cluster, outside));
                *outlets
            }
        });
    }
    debug_assert_eq!(
        RINGS.ring(members).names(),
        clusters(members).map(name).collect::<Vec<_>>()
    );
    Era::new(ring as u64 + 1, RINGS.ring(members), used)
}
