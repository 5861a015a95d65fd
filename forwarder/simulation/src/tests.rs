use std::collections::BTreeMap;

use super::{ONE_TOPIC, TWO_TOPICS, run};

/// Runs in the ordinary tests; `SIMULATION_RUNS` asks for another number.
const RUNS: u64 = 4_000;

/// Runs with two topics.
const RUNS_OF_TWO: u64 = 1_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_reordered_or_sent_back() {
    all_is_well("nothing_is_lost_reordered_or_sent_back", ONE_TOPIC, RUNS);
}

#[test]
fn with_two_topics_nothing_is_lost_and_each_keeps_its_order() {
    all_is_well("with_two_topics", TWO_TOPICS, RUNS_OF_TWO);
}

fn all_is_well(test: &str, topics: &'static [i32], runs: u64) {
    if let Some(seed) = variable("SIMULATION_SEED") {
        let run = run(seed, topics, true);
        println!("{:#?}", run.tally);
        assert_eq!(run.failure, None);
        return;
    }
    let mut tally = BTreeMap::<&str, u64>::new();
    let first = variable("SIMULATION_FIRST").unwrap_or(0);
    let runs = variable("SIMULATION_RUNS").unwrap_or(runs);
    for seed in first..first + runs {
        let run = run(seed, topics, false);
        if let Some(failure) = run.failure {
            panic!(
                "seed {seed}: {failure}\n\nwith all that happens:\n\
                 SIMULATION_SEED={seed} cargo test -p forwarder-simulation {test} -- --nocapture"
            );
        }
        for (what, count) in run.tally {
            *tally.entry(what).or_default() += count;
        }
    }
    println!("{tally:#?}");
}
