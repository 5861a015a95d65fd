//! A simulation of whole forwarders: the real core, driven by a seed through what Kafka, NATS and the group may do to it.
//!
//! Modelled is only the world around: a log with holes, a group that assigns and takes away, servers that stop,
//! connections that end with any part of what was sent received, answers that are late or lost, commits that are
//! refused, rings that change, processes that are killed. The steps of the shell (`process`, `publisher`) are those of
//! the forwarder's intake and publishers, in any order that the seed says.
//!
//! A judge sees everything: what a commit covers at the moment it is performed, the order of first deliveries, where a
//! record is sent under which ring, what late reports change, the caps, and at the end whether anything is lost, stuck or
//! left over.
//!
//! A seed that fails is replayed, with all that happens:
//! `SIMULATION_SEED=123 cargo test -p forwarder-simulation -- --nocapture`

#![allow(
    clippy::unwrap_used,
    reason = "What the simulated world lacks is a fault of the simulation. It ends the run, which reports it."
)]
#![allow(clippy::print_stdout, reason = "A replay tells all that happens.")]

mod outside;
mod process;
mod publisher;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use forwarder_core::delivery::DEAD_LETTER;
use forwarder_core::delivery::caps::{Limits, Load};
use forwarder_core::delivery::commit::CommitPoint;
use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::outbox::Item;
use forwarder_core::fanout::dispatch::{Admission, Again, Dispatcher, Era, Freight, Partition, Phase, Resume, Tuning};

use self::outside::{CLUSTERS, Outside, PARTITIONS};
use self::process::{Event, Process};

/// What a run has shown.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What went wrong first; none: nothing did.
    pub failure: Option<String>,
    /// How often each event happened that is worth counting.
    pub tally: BTreeMap<&'static str, u64>,
}

/// Runs a seed to its end, or to the first thing that goes wrong. The same seed always runs in the same way. With `replay` all that
/// happens is printed.
#[must_use]
pub fn run(seed: u64, replay: bool) -> Run {
    let mut world = World::new(seed, replay);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).is_err();
    Run {
        failure: world.outside.failure.or(panicked.then(|| "panicked".to_owned())),
        tally: world.outside.tally,
    }
}

/// Steps with faults in one run.
const STEPS: usize = 700;

/// Rounds without faults after which a run is stuck.
const PATIENCE: usize = 3_000;

/// Random numbers (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// A routed record.
#[derive(Clone, Debug)]
struct Cargo {
    tag: Tag,
    lane: u64,
    weight: usize,
    subject: Vec<u8>,
}

impl Freight for Cargo {
    fn tag(&self) -> Tag {
        self.tag
    }
    fn lane(&self) -> u64 {
        self.lane
    }
    fn weight(&self) -> usize {
        self.weight
    }
}

impl Item for Cargo {
    fn lane(&self) -> u64 {
        self.lane
    }
    fn subject(&self) -> &[u8] {
        &self.subject
    }
    fn assignment(&self) -> (i32, u32) {
        (self.tag.partition, self.tag.epoch)
    }
}

/// How likely each fault is in a run, in percent of the chances that there are; many are left out of many runs, so that
/// the others get far.
struct Plan {
    processes: usize,
    limits: Limits,
    /// How many records may be out above the limit.
    excess: usize,
    handover_timeout: u64,
    drain_timeout: u64,
    attempts: Option<u32>,
    dead_letter: bool,
    burst: usize,
    pace: u64,
    outages: usize,
    breaks: usize,
    refusals: usize,
    poison: usize,
    /// How likely a publisher closes a lane that is denied.
    closing: usize,
    lost_acks: usize,
    lost_commits: usize,
    late_commits: usize,
    moves: usize,
    kicks: usize,
    kills: usize,
    rings: usize,
}

impl Plan {
    fn new(dice: &mut Dice) -> Self {
        let mut percent = |least: usize, most: usize| {
            if dice.chance(50) {
                least + dice.below(most - least + 1)
            } else {
                0
            }
        };
        let outages = percent(3, 40);
        let breaks = percent(3, 40);
        let refusals = percent(5, 40);
        let lost_acks = percent(2, 30);
        let lost_commits = percent(5, 50);
        let late_commits = percent(30, 95);
        let moves = percent(5, 60);
        let kicks = percent(2, 20);
        let kills = percent(2, 20);
        let rings = percent(5, 40);
        let poison = percent(30, 100);
        let closing = if poison > 0 { 100 } else { percent(20, 100) };
        let outlet = 2 + dice.below(8);
        Self {
            processes: 1 + dice.below(3),
            limits: Limits {
                outlet: Load {
                    records: outlet,
                    bytes: 100 + dice.below(300),
                },
                total: Load {
                    records: outlet + 2 + dice.below(4 * outlet),
                    bytes: 200 + dice.below(1_000),
                },
                queue: 2 + dice.below(12),
            },
            excess: 0,
            handover_timeout: [0, 30_000, 300_000, 3_000_000][dice.below(4)],
            drain_timeout: 1_000 * dice.below(1_500) as u64,
            attempts: dice.chance(50).then(|| 1 + dice.below(3) as u32),
            dead_letter: dice.chance(50),
            burst: 1 + dice.below(10),
            pace: [2_000, 10_000, 40_000, 150_000][dice.below(4)],
            outages,
            breaks,
            refusals,
            poison,
            closing,
            lost_acks,
            lost_commits,
            late_commits,
            moves,
            kicks,
            kills,
            rings,
        }
    }
}

struct World {
    outside: Outside,
    /// `None`: killed.
    processes: Vec<Option<Process>>,
}

impl World {
    fn new(seed: u64, replay: bool) -> Self {
        let mut outside = Outside::new(seed, replay);
        let processes = (0..outside.plan.processes).map(|number| Some(Process::new(number, 0, &mut outside)));
        let processes = processes.collect();
        Self { outside, processes }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
            self.judge();
            if self.outside.failure.is_some() {
                return;
            }
        }
        self.heal();
        for _ in 0..PATIENCE {
            if self.outside.held_up().is_none() {
                break;
            }
            self.round();
            self.judge();
            if self.outside.failure.is_some() {
                return;
            }
        }
        if let Some(held_up) = self.outside.held_up() {
            let mut text = format!("what is refused holds up others: {held_up:?}");
            for process in self.processes.iter().flatten() {
                text.push_str(&format!("\n{:#?}", process.dispatcher));
            }
            return self.outside.fail(text);
        }
        self.cure();
        for _ in 0..PATIENCE {
            self.round();
            self.judge();
            if self.outside.failure.is_some() {
                return;
            }
            if self.is_done() {
                self.outside.judge_the_end();
                for process in self.processes.iter().flatten() {
                    process.judge_the_end(&mut self.outside);
                }
                return;
            }
        }
        let uncommitted = self.outside.uncommitted();
        let mut text = format!("stuck: {uncommitted:?}");
        for process in self.processes.iter().flatten() {
            text.push_str(&format!("\n{:#?}", process.dispatcher));
        }
        self.outside.fail(text);
    }

    fn step(&mut self) {
        let one = self.outside.dice.below(self.processes.len());
        let Self { outside, processes } = self;
        match outside.dice.below(100) {
            0..12 => outside.produce(),
            12..40 => {
                if let Some(process) = &mut processes[one] {
                    if outside.dice.chance(40) {
                        process.turn(outside);
                    } else {
                        process.step(outside);
                    }
                }
            }
            40..60 => {
                if let Some(process) = &mut processes[one] {
                    let turn = outside.dice.chance(30);
                    process.publish(outside, turn);
                }
            }
            60..74 => self.serve(),
            74..80 => {
                if let Some(process) = &mut processes[one] {
                    process.serve_commit(outside);
                    if outside.dice.chance(50) {
                        let count = outside.dice.below(4);
                        process.confirm_letters(outside, count);
                    }
                }
            }
            80..88 => outside.now += outside.dice.below(2 * outside.plan.pace as usize) as u64,
            88..91 => self.assign(),
            _ => self.disturb(one),
        }
    }

    fn serve(&mut self) {
        let outside = &mut self.outside;
        if !outside.wires.is_empty() {
            let at = outside.dice.below(outside.wires.len());
            let number = outside.wires.keys().nth(at).copied().unwrap();
            let count = 1 + outside.dice.below(10);
            outside.serve(number, count);
        }
    }

    /// The group gives what nobody has to somebody.
    fn assign(&mut self) {
        for partition in 0..PARTITIONS {
            if self.outside.owners[partition as usize].is_some() {
                continue;
            }
            let one = self.outside.dice.below(self.processes.len());
            if let Some(process) = &mut self.processes[one] {
                let token = self.outside.assign(partition, one);
                process.events.push_back(Event::Assign(partition, token));
            }
        }
    }

    fn disturb(&mut self, one: usize) {
        let outside = &mut self.outside;
        let cluster = outside.dice.below(CLUSTERS);
        match outside.dice.below(8) {
            0 => {
                if outside.servers[cluster].away {
                    if outside.dice.chance(40) {
                        outside.servers[cluster].away = false;
                        outside.say(|| format!("C{cluster} is back"));
                    }
                } else if outside.fault(outside.plan.outages) {
                    outside.servers[cluster].away = true;
                    outside.count("outages");
                    outside.say(|| format!("C{cluster} is away"));
                }
            }
            1 if outside.fault(outside.plan.breaks) => {
                let open = outside.wires.iter().filter(|(_, wire)| wire.open);
                let open: Vec<u64> = open.map(|(number, _)| *number).collect();
                if !open.is_empty() {
                    let one = outside.dice.below(open.len());
                    outside.cut(open[one]);
                }
            }
            2 if outside.fault(10) => outside.forget_duplicates(cluster),
            3 if outside.fault(outside.plan.moves) => {
                let partition = outside.dice.below(PARTITIONS as usize);
                if let Some(owner) = outside.owners[partition]
                    && let Some(process) = &mut self.processes[owner.process]
                {
                    outside.count("revocations");
                    outside.say(|| format!("{partition} is revoked from {}", owner.process));
                    process.events.push_back(Event::Revoke(partition as i32, owner.token));
                }
            }
            4 if outside.fault(outside.plan.kicks) => self.kick(one),
            5 if self.processes[one].is_none() => {
                // Whoever starts may find an older ring than others have.
                let ring = outside.rings.len() - 1;
                let ring = ring.saturating_sub(outside.dice.below(3));
                self.processes[one] = Some(Process::new(one, ring, outside));
            }
            5 if outside.fault(outside.plan.kills) => {
                outside.count("kills");
                outside.say(|| format!("{one} is killed"));
                self.kick(one);
                self.end(one);
            }
            6 if outside.rings.len() < 8 && outside.fault(outside.plan.rings) => {
                let last = outside.rings[outside.rings.len() - 1];
                let back = outside.rings.len() > 1 && outside.dice.chance(30);
                let next = if back {
                    outside.rings[outside.rings.len() - 2]
                } else {
                    last ^ 1 << outside.dice.below(CLUSTERS)
                };
                if next != 0 {
                    outside.rings.push(next);
                    let epoch = outside.rings.len();
                    outside.say(|| format!("ring {epoch} is {next:04b}"));
                }
            }
            7 => {
                let rings = outside.rings.len();
                if let Some(process) = &mut self.processes[one]
                    && process.next_ring + 1 < rings
                {
                    process.next_ring += 1 + outside.dice.below(rings - process.next_ring - 1);
                }
            }
            _ => {}
        }
    }

    /// The group puts a process out: its partitions are free at once, and it hears of that later.
    fn kick(&mut self, one: usize) {
        for partition in 0..PARTITIONS as usize {
            let Some(owner) = self.outside.owners[partition].filter(|owner| owner.process == one) else {
                continue;
            };
            self.outside.owners[partition] = None;
            self.outside.say(|| format!("{one} has lost {partition}"));
            self.outside.count("losses");
            if let Some(process) = &mut self.processes[one] {
                process.events.push_back(Event::Lost(partition as i32, owner.token));
            }
        }
    }

    fn end(&mut self, one: usize) {
        let Some(process) = self.processes[one].take() else {
            return;
        };
        for wire in process.publishers.iter().filter_map(|publisher| publisher.wire) {
            self.outside.cut(wire);
        }
    }

    fn judge(&mut self) {
        for process in self.processes.iter().flatten() {
            process.judge(&mut self.outside);
        }
    }

    /// No more faults; who is gone comes back, and all have the same ring.
    fn heal(&mut self) {
        let Self { outside, processes } = self;
        outside.say(|| "no more faults".to_owned());
        outside.healed = true;
        let members = outside.rings[outside.rings.len() - 1];
        for cluster in 0..CLUSTERS {
            // What has left for good may never answer again.
            outside.servers[cluster].away = members >> cluster & 1 == 0 && outside.dice.chance(50);
        }
        // What was denied is allowed now: connections find that out when they are made.
        let wires: Vec<u64> = outside.wires.keys().copied().collect();
        wires.into_iter().for_each(|wire| outside.cut(wire));
        let ring = outside.rings.len() - 1;
        for (number, process) in processes.iter_mut().enumerate() {
            process
                .get_or_insert_with(|| Process::new(number, ring, outside))
                .next_ring = ring;
        }
    }

    /// What was refused for good is allowed.
    fn cure(&mut self) {
        self.outside.say(|| "all is allowed".to_owned());
        self.outside.cure();
    }

    fn round(&mut self) {
        self.assign();
        self.outside.now += 20_000;
        let wires: Vec<u64> = self.outside.wires.keys().copied().collect();
        for wire in wires {
            self.outside.serve(wire, 20);
        }
        for process in self.processes.iter_mut().flatten() {
            process.turn(&mut self.outside);
            process.publish(&mut self.outside, true);
            process.serve_commit(&mut self.outside);
            process.confirm_letters(&mut self.outside, 8);
        }
    }

    fn is_done(&self) -> bool {
        self.outside.uncommitted().is_none()
            && self.processes.iter().flatten().all(Process::is_done)
            && self.outside.owners.iter().all(Option::is_some)
    }
}
