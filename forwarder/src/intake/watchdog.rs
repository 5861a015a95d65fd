//! Statistics, lag, status; and the watchdog, which ends a process that is no stable member of its group for too long.

use std::time::{Duration, Instant};

use forwarder_core::config::{Engine, GroupProtocol};
use rdkafka::statistics::Statistics;
use tracing::warn;

use super::Intake;
use super::group::Phase as PartitionPhase;
use crate::admin::{Assignment, ClusterStatus, Phase, Status};

/// The process was no stable member of its group for too long; a new one may do better.
#[derive(Debug, thiserror::Error)]
#[error(
    "no stable member of the consumer group for {0:?} (last state: {1}); ending the process, so that it is started anew. \
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
    last_stable: Instant,
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
            last_stable: now,
            stable: false,
            state: "init".to_owned(),
        }
    }

    pub(super) fn arm(&mut self) {
        if !self.armed {
            self.armed = true;
            self.last_stable = Instant::now();
        }
    }

    /// Takes note of what librdkafka says of the group.
    pub(super) fn note(&mut self, statistics: &Statistics) {
        let Some(group) = &statistics.cgrp else { return };
        self.state = format!("{}, {}", group.state, group.join_state);
        // With KIP-848 a member to which the broker assigns nothing is never told so: it stays in its first state.
        let idle = self.protocol == GroupProtocol::Consumer && group.join_state == "init";
        self.stable = group.state == "up" && (group.join_state == "steady" || idle);
        if self.stable {
            self.last_stable = Instant::now();
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
        self.stable && self.last_stable.elapsed() < Duration::from_secs(10)
    }

    pub(super) fn check(&mut self) -> Result<(), WatchdogError> {
        let now = Instant::now();
        if !self.armed || now < self.next_look {
            return Ok(());
        }
        self.next_look = now + self.interval;
        let unstable = now.duration_since(self.last_stable);
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
        let Some(topic) = statistics.topics.get(&self.config.source.topic) else {
            return;
        };
        for (number, partition) in &topic.partitions {
            let Some(state) = self.partitions.get_mut(number) else {
                continue;
            };
            // With read_committed nothing behind the last stable offset can be read, so that is the end.
            let end = if partition.ls_offset >= 0 {
                partition.ls_offset
            } else {
                partition.hi_offset
            };
            if end >= 0 {
                state.end = Some(end);
            }
        }
    }

    /// Brings gauges and status up to date.
    pub(super) fn report(&mut self) {
        let topic = &self.config.source.topic;
        let mut status = Status {
            phase: self.phase(),
            ring_epoch: self.config.ring.epoch,
            last_commit_millis: self.last_commit_millis,
            ..Status::default()
        };
        for (partition, state) in &self.partitions {
            let lag = state.end.map(|end| end.saturating_sub(state.offsets.position()).max(0));
            if let Some(lag) = lag {
                self.metrics.set_lag(topic, *partition, lag);
            }
            let assignment = Assignment {
                committed: state.offsets.last_committed(),
                lag,
                paused: self.paused || state.phase != PartitionPhase::Active,
            };
            status.assignment.insert(*partition, assignment);
        }
        let loads = self
            .ledger
            .clusters()
            .iter()
            .zip(&self.clusters)
            .zip(&self.links.connections);
        for (((load, counters), link), cluster) in loads.zip(&self.config.ring.clusters) {
            counters
                .pending_records
                .set(i64::try_from(load.records).unwrap_or(i64::MAX));
            counters
                .pending_bytes
                .set(i64::try_from(load.bytes).unwrap_or(i64::MAX));
            let connection = link.status();
            let shown = ClusterStatus {
                connected: connection.connected.is_some(),
                server: connection.connected,
                last_error: connection.last_error,
                pending_records: load.records as u64,
                pending_bytes: load.bytes as u64,
            };
            status.clusters.insert(cluster.name.clone(), shown);
        }
        self.metrics
            .queue_size
            .set(i64::try_from(self.queued()).unwrap_or(i64::MAX));
        self.links.status.send_replace(status);
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
        } else if self.partitions.is_empty() {
            Phase::Idle
        } else {
            Phase::Consuming
        }
    }
}
