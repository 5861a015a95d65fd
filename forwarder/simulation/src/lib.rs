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
//! Half of the seeds have a grace: a ring is used only after simulated subscribers had time to learn of it. Each of them that learned in
//! time must be subscribed to an owner when that one publishes a record. The other half runs as if there were no subscribers.
//!
//! A seed that fails can be run again, and then prints all that happens:
//! `SIMULATION_SEED=123 cargo test -p forwarder-simulation -- --nocapture`

#![allow(
    clippy::unwrap_used,
    reason = "What the simulated world lacks is a fault of the simulation. It ends the run, which reports it."
)]
#![allow(clippy::print_stdout, reason = "A verbose run prints all that happens.")]

mod assets;
mod dice;
mod message;
mod outside;
mod plan;
mod process;
mod publisher;
mod world;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use self::world::World;

/// What a run has shown.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What went wrong first; none: nothing did.
    pub failure: Option<String>,
    /// How often each event happened that is worth counting.
    pub tally: BTreeMap<&'static str, u64>,
}

/// What most forwarders read: one topic. A run is told how many partitions each of its topics has.
pub const ONE_TOPIC: &[i32] = &[3];

/// Two topics that share neither a number of partitions nor, for most assets, the partition's number.
pub const TWO_TOPICS: &[i32] = &[3, 2];

/// Runs a seed to its end, or to the first thing that goes wrong. The same seed always runs in the same way for the same topics. With
/// `verbose` all that happens is printed.
#[must_use]
pub fn run(seed: u64, topics: &'static [i32], verbose: bool) -> Run {
    let mut world = World::new(seed, topics, verbose);
    let panicked = catch_unwind(AssertUnwindSafe(|| world.run())).is_err();
    Run {
        failure: world.outside.failure.or(panicked.then(|| "panicked".to_owned())),
        tally: world.outside.tally,
    }
}
