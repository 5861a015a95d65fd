//! Statistics, lag, status; and the watchdog, which ends a process that is no stable member of its group for too long though Kafka
//! answers.

use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::document::{Engine, GroupProtocol};
use forwarder_core::fanout::dispatch::Phase::Sought;
use forwarder_core::status::{Assignment, ClusterStatus, Phase, RingStatus, Status};
use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::statistics::Statistics;
use tracing::{debug, warn};

use super::Intake;

/// The process was no stable member of its group for too long; a new one may do better.
#[derive(Debug, thiserror::Error)]
#[error(
    "no stable member of the consumer group for {0:?} though its coordinator answers (last state: {1}); ending the process, so that it is started anew. \
     Look at the brokers' and the group's health; `engine.watchdogTimeoutMs` (KAFKA_WATCHDOG_TIMEOUT) sets the bound"
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
            warn!(?unstable, state = self.state, "no stable member of the group");
        }
        Ok(())
    }
}

impl Intake {
    pub(super) fn note_statistics(&mut self, statistics: &Statistics) {
        self.watchdog.note(statistics);
        let topics = self.inputs.iter();
        let found = topics.filter_map(|(input, name)| Some((input, statistics.topics.get(name)?)));
        let found: Vec<_> = found.collect();
        if found.is_empty() {
            return;
        }
        let all = found.into_iter().flat_map(|(input, topic)| {
            let partitions = topic.partitions.iter();
            partitions.filter_map(move |(number, partition)| Some((PartitionId::new(input, *number)?, partition)))
        });
        for (id, partition) in all {
            if !self.dispatcher.partitions().contains_key(&id) {
                continue;
            }
            // With read_committed nothing behind the last stable offset can be read, so that is the end.
            let end = if partition.ls_offset >= 0 {
                partition.ls_offset
            } else {
                partition.hi_offset
            };
            if end >= 0 {
                self.ends.insert(id, end);
            }
        }
        self.note_positions();
    }

    /// Lets what was read behind the last record, which is nothing to forward, count as read.
    fn note_positions(&mut self) {
        let partitions = self.dispatcher.partitions().iter();
        let mut at_end = partitions.map(|(id, state)| self.ends.get(id).is_none_or(|end| *end <= state.next()));
        if at_end.all(|at_end| at_end) {
            return;
        }
        match self.consumer.position() {
            Ok(positions) => {
                for place in positions.elements() {
                    let partition = self.inputs.partition(place.topic(), place.partition());
                    if let (Some(partition), Offset::Offset(offset)) = (partition, place.offset()) {
                        self.dispatcher.reached(partition, offset);
                    }
                }
            }
            Err(error) => debug!(%error, "librdkafka does not say how far it has read"),
        }
    }

    /// Brings gauges and status up to date.
    pub(super) fn report(&mut self) {
        let mut status = Status {
            phase: self.phase(),
            ring_epoch: self.dispatcher.era().epoch,
            ring: self.ring_status(),
            last_commit_millis: self.last_commit_millis,
            membership_proven: self.membership.is_proven(),
            ..Status::default()
        };
        for (partition, state) in self.dispatcher.partitions() {
            // Where it is not known where a partition begins, its position is none.
            let end = self.ends.get(partition).filter(|_| state.phase != Sought);
            let lag = end.map(|end| end.saturating_sub(state.position()).max(0));
            if let Some(lag) = lag {
                let topic = self.inputs.topic_of(*partition);
                self.metrics.set_lag(topic, partition.number(), lag);
            }
            let assignment = Assignment {
                state: state.phase.to_string(),
                committed: state.committed(),
                lag,
                paused: self.paused || !state.is_taken(),
                fault: self.identity.fault(*partition).cloned(),
            };
            status.assignment.insert(partition.number(), assignment);
        }
        let parked = self.dispatcher.parked();
        let held_assets = self.dispatcher.held_assets();
        let now = self.clock.micros();
        for (outlet, member) in self.links.fleet.members() {
            let load = self.dispatcher.load(outlet);
            let parked = parked.get(&outlet).copied().unwrap_or_default();
            let parked_for = parked.since.map_or(0, |since| now.saturating_sub(since) / 1_000_000);
            let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let metrics = &member.metrics;
            metrics.pending_records.set(gauge(load.records as u64));
            metrics.pending_bytes.set(gauge(load.bytes as u64));
            metrics.parked_records.set(gauge(parked.records));
            let held = held_assets.get(&outlet).copied().unwrap_or(0);
            metrics.held_assets.set(gauge(held as u64));
            metrics.parked_seconds.set(gauge(parked_for));
            let connection = member.link.status();
            let shown = ClusterStatus {
                connected: connection.connected.is_some(),
                server: connection.connected,
                last_error: connection.last_error,
                pending_records: load.records as u64,
                pending_bytes: load.bytes as u64,
                parked_records: parked.records,
                parked_seconds: parked_for,
                held_assets: held as u64,
            };
            status.clusters.insert(member.cluster.name.clone(), shown);
        }
        self.metrics
            .queue_size
            .set(i64::try_from(self.dispatcher.unsent()).unwrap_or(i64::MAX));
        self.metrics
            .handover_waiting
            .set(i64::try_from(status.ring.waiting_assets).unwrap_or(i64::MAX));
        self.links.status.send_replace(status);
    }

    fn ring_status(&self) -> RingStatus {
        let epoch = self.dispatcher.era().epoch;
        let partitions = self.dispatcher.partitions().values();
        RingStatus {
            epoch,
            announced: self.change.as_ref().map(|change| change.era.epoch),
            awaits: RingStatus::awaited(epoch, partitions.map(|state| state.phase)),
            moved_share: self.moved_share,
            waiting_assets: self.dispatcher.waiting(),
            // What is declared beyond that is added where it is shown.
            ..RingStatus::default()
        }
    }

    fn phase(&self) -> Phase {
        if self.links.shutdown.is_requested() {
            Phase::Draining
        } else if !self.watchdog.is_armed() && !self.watchdog.is_stable() {
            Phase::Starting
        } else if self.joining.is_some() || self.leaving.is_some() {
            Phase::Rebalancing
        } else if !self.watchdog.is_stable() {
            Phase::Outside(self.watchdog.state().to_owned())
        } else {
            let partitions = self.dispatcher.partitions().values();
            Phase::of_member(self.dispatcher.era().epoch, partitions.map(|state| state.phase))
        }
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
