//! All of it together: the processes, and what is around them.

use crate::assets::CLUSTERS;
use crate::outside::Outside;
use crate::process::{Event, Process};

/// Steps with faults in one run.
const STEPS: usize = 700;

/// Rounds without faults after which a run is stuck.
const PATIENCE: usize = 3_000;

pub(crate) struct World {
    pub(crate) outside: Outside,
    /// `None`: killed.
    processes: Vec<Option<Process>>,
}

impl World {
    pub(crate) fn new(seed: u64, topics: &'static [i32], verbose: bool) -> Self {
        let mut outside = Outside::new(seed, topics, verbose);
        if outside.subscribers.grace > 0 {
            outside.commit_beginnings();
        }
        let processes = (0..outside.plan.processes).map(|number| Some(Process::new(number, 0, &mut outside)));
        let processes = processes.collect();
        Self { outside, processes }
    }

    pub(crate) fn run(&mut self) {
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
        for slot in 0..self.outside.partitions.len() {
            let partition = self.outside.partitions[slot];
            if self.outside.owner(partition).is_some() {
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
                let slot = outside.dice.below(outside.partitions.len());
                let partition = outside.partitions[slot];
                if let Some(owner) = outside.owner(partition)
                    && let Some(process) = &mut self.processes[owner.process]
                {
                    outside.count("revocations");
                    outside.say(|| format!("{partition:?} is revoked from {}", owner.process));
                    process.events.push_back(Event::Revoke(partition, owner.token));
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
        for slot in 0..self.outside.partitions.len() {
            let partition = self.outside.partitions[slot];
            let Some(owner) = self.outside.owner(partition).filter(|owner| owner.process == one) else {
                continue;
            };
            self.outside.release(partition);
            self.outside.say(|| format!("{one} has lost {partition:?}"));
            self.outside.count("losses");
            if let Some(process) = &mut self.processes[one] {
                process.events.push_back(Event::Lost(partition, owner.token));
            }
        }
    }

    fn end(&mut self, one: usize) {
        let Some(process) = self.processes[one].take() else {
            return;
        };
        self.outside.end_life(process.life);
        for wire in process.publishers.iter().filter_map(|publisher| publisher.wire) {
            self.outside.cut(wire);
        }
    }

    fn judge(&mut self) {
        self.outside.learn();
        for process in self.processes.iter().flatten() {
            process.judge(&mut self.outside);
            if self.outside.is_stated() {
                for (partition, oldest) in process.dispatcher.oldest_rings() {
                    self.outside.state(partition, oldest);
                }
            }
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
        self.outside.learn();
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
            && self.outside.are_all_owned()
    }
}
