//! The world around the processes: Kafka's log and group, the NATS servers, and a judge who sees all of it.

mod kafka;
mod nats;
mod subscribers;

use std::collections::BTreeMap;

use forwarder_core::delivery::partition::PartitionId;

use self::kafka::Log;
pub(crate) use self::kafka::{Owner, Record};
pub(crate) use self::nats::{Answer, Sent, Server, Wire};
use self::subscribers::Subscribers;
use crate::assets::{ASSETS, CLUSTERS, partitions, subject};
use crate::dice::Dice;
use crate::plan::Plan;

pub(crate) struct Outside {
    pub(crate) dice: Dice,
    pub(crate) plan: Plan,
    pub(crate) now: u64,
    /// The members of each ring so far; the epoch is the index and one.
    pub(crate) rings: Vec<usize>,
    /// How many partitions each topic has.
    pub(crate) topics: &'static [i32],
    /// All partitions. What is kept of each is at the same place of the next fields.
    pub(crate) partitions: Vec<PartitionId>,
    logs: Vec<Log>,
    owners: Vec<Option<Owner>>,
    committed: Vec<Option<(i64, String)>>,
    tokens: u64,
    pub(crate) servers: Vec<Server>,
    pub(crate) wires: BTreeMap<u64, Wire>,
    wire_count: u64,
    /// By topic, the greatest offset of each asset that any server has. Between topics an asset has no order.
    newest: Vec<Vec<i64>>,
    /// By topic, the latest ring under which a record of the asset was sent to its owner. Its partitions may be different processes'.
    sent_under: Vec<Vec<usize>>,
    pub(crate) subscribers: Subscribers,
    /// No faults any more.
    pub(crate) healed: bool,
    pub(crate) verbose: bool,
    pub(crate) failure: Option<String>,
    pub(crate) tally: BTreeMap<&'static str, u64>,
}

impl Outside {
    pub(crate) fn new(seed: u64, topics: &'static [i32], verbose: bool) -> Self {
        let mut dice = Dice::new(seed);
        let mut plan = Plan::new(&mut dice);
        let first = 1 + dice.below((1 << CLUSTERS) - 1);
        let partitions = partitions(topics);
        let subscribers = Subscribers::new(seed, partitions.len(), plan.pace);
        if subscribers.grace > 0 {
            plan.change_more();
        }
        let servers = (0..CLUSTERS).map(|_| Server::new(&mut dice, plan.poison));
        Self {
            servers: servers.collect(),
            plan,
            topics,
            now: 0,
            rings: vec![first],
            logs: partitions.iter().map(|_| Log::default()).collect(),
            owners: vec![None; partitions.len()],
            committed: vec![None; partitions.len()],
            partitions,
            tokens: 0,
            wires: BTreeMap::new(),
            wire_count: 0,
            newest: vec![vec![-1; ASSETS]; topics.len()],
            sent_under: vec![vec![0; ASSETS]; topics.len()],
            subscribers,
            healed: false,
            verbose,
            failure: None,
            tally: BTreeMap::new(),
            dice,
        }
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>9} {}", self.now, text());
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    pub(crate) fn fail(&mut self, text: String) {
        self.say(|| format!("FAILURE {text}"));
        self.failure.get_or_insert(text);
    }

    /// A fault of this likelihood happens now; never after the faults have stopped.
    pub(crate) fn fault(&mut self, percent: usize) -> bool {
        !self.healed && self.dice.chance(percent)
    }

    // The end.

    /// Records of assets that no server refuses, and that nobody has yet.
    pub(crate) fn held_up(&self) -> Option<(PartitionId, Record)> {
        let refused = |asset: usize| {
            let mut servers = self.servers.iter();
            servers.any(|server| (0..2).any(|half| server.poison.contains(&subject(asset, half))))
        };
        let mut partitions = self.partitions.iter().zip(&self.logs);
        partitions.find_map(|(partition, log)| {
            let mut open = log
                .records
                .iter()
                .filter(|record| !record.received && !record.written_off);
            let held_up = open.find(|record| record.asset.is_none_or(|asset| !refused(asset)));
            held_up.map(|record| (*partition, *record))
        })
    }

    /// A person allows all that was denied.
    pub(crate) fn cure(&mut self) {
        for server in &mut self.servers {
            server.poison.clear();
        }
    }

    /// Whether everything is committed; `None`: what is not.
    pub(crate) fn uncommitted(&self) -> Option<(PartitionId, i64)> {
        let mut partitions = self.partitions.iter().enumerate();
        partitions.find_map(|(slot, partition)| {
            let last = self.logs[slot].records.last()?.offset;
            let committed = self.committed[slot].as_ref().map_or(-1, |(at, _)| *at);
            (committed <= last).then_some((*partition, committed))
        })
    }

    pub(crate) fn judge_the_end(&mut self) {
        for (partition, log) in self.partitions.iter().zip(&self.logs) {
            let mut records = log.records.iter();
            if let Some(lost) = records.find(|record| !record.received && !record.written_off) {
                let text = format!("lost: {partition:?} {lost:?}");
                return self.fail(text);
            }
        }
        self.judge_subscribers();
    }
}
