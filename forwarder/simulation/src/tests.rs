use std::collections::BTreeMap;

use super::run;

/// Runs in the ordinary tests; `SIMULATION_RUNS` asks for another number.
const RUNS: u64 = 4_000;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_reordered_or_sent_back() {
    if let Some(seed) = variable("SIMULATION_SEED") {
        let run = run(seed, true);
        println!("{:#?}", run.tally);
        assert_eq!(run.failure, None);
        return;
    }
    let mut tally = BTreeMap::<&str, u64>::new();
    let first = variable("SIMULATION_FIRST").unwrap_or(0);
    let runs = variable("SIMULATION_RUNS").unwrap_or(RUNS);
    for seed in first..first + runs {
        let run = run(seed, false);
        if let Some(failure) = run.failure {
            panic!(
                "seed {seed}: {failure}\n\nwith all that happens:\n\
                 SIMULATION_SEED={seed} cargo test -p forwarder-simulation -- --nocapture"
            );
        }
        for (what, count) in run.tally {
            *tally.entry(what).or_default() += count;
        }
    }
    println!("{tally:#?}");
}
