//! The watchdog ends a process that is no stable member of its group for too long though Kafka answers.

use std::time::{Duration, Instant};

use forwarder_core::document::{Engine, GroupProtocol};
use rdkafka::statistics::Statistics;
use tracing::warn;

/// The process was no stable member of its group for too long; a new one may do better.
#[derive(Debug, thiserror::Error)]
#[error(
    "the process was not a stable member of its consumer group for {0:?}, though the coordinator answers (last state: {1}). \
     The process ends, so that it is restarted. Check the health of the brokers and the group. \
     `engine.watchdogTimeoutMs` (KAFKA_WATCHDOG_TIMEOUT) sets the bound"
)]
pub struct WatchdogError(Duration, String);

/// Armed by the first assignment. A stable member without partitions is idle, not ill.
#[derive(Debug)]
pub(super) struct Watchdog {
    protocol: GroupProtocol,
    armed: bool,
    interval: Duration,
    timeout: Duration,
    next_look: Instant,
    /// When the member was last stable, or could not be: its coordinator was away.
    last_well: Instant,
    /// When anything was told of the group. What is not told is not held against the member: a question to Kafka may hold up the intake.
    last_told: Instant,
    /// Whether there was a connection to the coordinator when that was told last.
    has_coordinator: bool,
    stable: bool,
    state: String,
}

impl Watchdog {
    pub(super) fn new(engine: &Engine, protocol: GroupProtocol, now: Instant) -> Self {
        let interval = Duration::from_millis(engine.watchdog_interval_ms);
        let timeout = Duration::from_millis(engine.watchdog_timeout_ms);
        Self {
            protocol,
            armed: false,
            interval,
            timeout,
            next_look: now + interval,
            last_well: now,
            last_told: now,
            has_coordinator: true,
            stable: false,
            state: "init".to_owned(),
        }
    }

    pub(super) fn arm(&mut self) {
        if !self.armed {
            self.armed = true;
            self.last_well = Instant::now();
        }
    }

    /// Takes note of what librdkafka says of the group.
    pub(super) fn note(&mut self, statistics: &Statistics) {
        let Some(group) = &statistics.cgrp else { return };
        self.state = format!("{}, {}", group.state, group.join_state);
        // With KIP-848 a member to which the broker assigns nothing is never told so: it stays in its first state.
        let idle = self.protocol == GroupProtocol::Consumer && group.join_state == "init";
        // Only while there is a connection to the group's coordinator. A new process would do no better without.
        let has_coordinator = group.state == "up";
        // One that has just come back may have done so a moment ago.
        let had_coordinator = std::mem::replace(&mut self.has_coordinator, has_coordinator);
        self.stable = has_coordinator && (group.join_state == "steady" || idle);
        self.last_told = Instant::now();
        if self.stable || !has_coordinator || !had_coordinator {
            self.last_well = self.last_told;
        }
    }

    pub(super) fn is_armed(&self) -> bool {
        self.armed
    }

    pub(super) fn state(&self) -> &str {
        &self.state
    }

    pub(super) fn is_stable(&self) -> bool {
        // Statistics come every second; a few may be late.
        self.stable && self.last_well.elapsed() < Duration::from_secs(10)
    }

    pub(super) fn check(&mut self) -> Result<(), WatchdogError> {
        let now = Instant::now();
        if !self.armed || now < self.next_look {
            return Ok(());
        }
        self.next_look = now + self.interval;
        let unstable = self.last_told.saturating_duration_since(self.last_well);
        if unstable > self.timeout {
            return Err(WatchdogError(unstable, self.state.clone()));
        }
        if unstable > self.interval {
            warn!(
                ?unstable,
                state = self.state,
                "not a stable member of the consumer group"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::ConsumerGroup;

    use super::*;

    /// What comes of a member that was last well an hour ago, and is told this of its group.
    fn judged(state: &str, join_state: &str) -> Result<(), WatchdogError> {
        judged_by(&mut watchdog(), state, join_state)
    }

    fn watchdog() -> Watchdog {
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3_600)).unwrap();
        let mut watchdog = Watchdog::new(&Engine::default(), GroupProtocol::Classic, long_ago);
        watchdog.armed = true;
        watchdog
    }

    fn judged_by(watchdog: &mut Watchdog, state: &str, join_state: &str) -> Result<(), WatchdogError> {
        watchdog.note(&Statistics {
            cgrp: Some(ConsumerGroup {
                state: state.to_owned(),
                join_state: join_state.to_owned(),
                ..ConsumerGroup::default()
            }),
            ..Statistics::default()
        });
        watchdog.check()
    }

    #[test]
    fn a_member_that_is_stuck_while_its_coordinator_answers_ends_the_process() {
        assert!(judged("up", "wait-join").is_err());
        assert!(judged("up", "steady").is_ok());
    }

    #[test]
    fn a_coordinator_that_comes_back_is_given_time() {
        let mut watchdog = watchdog();
        let long_ago = watchdog.last_well;
        watchdog.has_coordinator = false;
        assert!(judged_by(&mut watchdog, "up", "wait-join").is_ok());
        (watchdog.last_well, watchdog.next_look) = (long_ago, long_ago);
        assert!(judged_by(&mut watchdog, "up", "wait-join").is_err());
    }

    #[test]
    fn time_of_which_nothing_was_told_does_not_count() {
        let mut watchdog = watchdog();
        let long_ago = watchdog.last_well;
        assert!(watchdog.check().is_ok());
        watchdog.next_look = long_ago;
        assert!(judged_by(&mut watchdog, "up", "wait-join").is_err());
    }

    #[test]
    fn without_a_coordinator_nobody_is_stuck() {
        for state in [
            "init",
            "query-coord",
            "wait-coord",
            "wait-broker",
            "wait-broker-transport",
        ] {
            assert!(judged(state, "init").is_ok(), "{state}");
            assert!(judged(state, "steady").is_ok(), "{state}");
        }
    }
}
