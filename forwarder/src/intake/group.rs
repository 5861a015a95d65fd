//! Membership: partitions taken and given up, offsets committed.
//!
//! A rebalance is carried out in steps, one look per turn of the loop, so that nothing blocks the other partitions:
//! - *joining*: where each partition begins is looked up (and committed where it is new) before the first record is
//!   asked for; as long as Kafka does not answer, the assignment waits.
//! - *leaving*: no more records are taken, what is out is awaited within a bound, the rest is abandoned, then commit
//!   and release. When the partitions are lost already, there is nothing to wait for and nothing to commit.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use forwarder_core::commit::Metadata;
use forwarder_core::offsets::Offsets;
use forwarder_core::start::Start;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::{Intake, starts};
use crate::clock::wall_millis;
use crate::metrics::Rebalance;
use crate::publisher::Order;

/// Pause before Kafka is asked again where a partition begins.
const RETRY_JOIN: Duration = Duration::from_secs(1);

/// How long publishers may take to drop what they have not sent. They do nothing else meanwhile.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);

/// A partition that is ours.
#[derive(Debug)]
pub(super) struct Partition {
    /// The assignment's epoch.
    pub(super) epoch: u32,
    pub(super) offsets: Offsets,
    pub(super) phase: Phase,
    /// One past the newest record that the broker has, as of the last statistics.
    pub(super) end: Option<i64>,
}

/// What a partition of ours is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its records are taken.
    Active,
    /// It is being given up: what is out is awaited.
    Draining,
    /// Its committed offset is gone, and the policy is to leave that to a person.
    Stopped,
}

impl Partition {
    pub(super) fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }
}

/// Partitions that were assigned and do not run yet.
#[derive(Debug)]
pub(super) struct Joining {
    partitions: Vec<i32>,
    try_at: Instant,
}

/// Partitions that are to be given up.
#[derive(Debug)]
pub(super) struct Leaving {
    partitions: Vec<i32>,
    lost: bool,
    deadline: Instant,
}

impl Intake {
    pub(super) fn begin_joining(&mut self, partitions: Vec<i32>) {
        self.metrics.rebalance(Rebalance::Assign).inc();
        self.watchdog.arm();
        info!(?partitions, "assigned");
        self.joining = Some(Joining {
            partitions,
            try_at: Instant::now(),
        });
        self.go_on_joining();
    }

    /// Looks up where the assigned partitions begin, then starts them.
    pub(super) fn go_on_joining(&mut self) {
        let Some(joining) = self.joining.take_if(|joining| joining.try_at <= Instant::now()) else {
            return;
        };
        match self.start(&joining.partitions) {
            Ok(()) => {}
            Err(error) => {
                warn!(%error, partitions = ?joining.partitions, "failed to look up where the assigned partitions begin; trying again");
                self.joining = Some(Joining {
                    try_at: Instant::now() + RETRY_JOIN,
                    ..joining
                });
            }
        }
    }

    fn start(&mut self, partitions: &[i32]) -> Result<(), KafkaError> {
        if partitions.is_empty() {
            // An idle member; the group waits for its word all the same.
            return self.consumer.incremental_assign(&TopicPartitionList::new());
        }
        let begin = starts::look_up(&self.consumer, &self.config.source, partitions)?;
        self.group_partitions = begin.group_partitions;
        // A start that the broker does not hold yet is committed before anything is read from there: if this process
        // died after the first records, the next one would look up another end, and what lies between would be lost.
        let new: Vec<(i32, i64)> = begin
            .starts
            .iter()
            .filter(|(_, start)| !start.committed)
            .filter_map(|(partition, start)| Some((*partition, start.offset?)))
            .collect();
        if !new.is_empty() {
            self.consumer.commit(&self.commit_list(&new)?, CommitMode::Sync)?;
        }
        let topic = self.config.source.topic.clone();
        let mut list = TopicPartitionList::new();
        let mut stopped = TopicPartitionList::new();
        for (partition, start) in &begin.starts {
            let Start { offset, fault, .. } = start;
            if let Some(fault) = fault {
                self.metrics.missing_offset(&topic, *partition);
                error!(partition, ?fault, policy = ?self.config.source.missing_offset, "the broker no longer has the committed offset");
            }
            list.add_partition_offset(&topic, *partition, Offset::Offset(offset.unwrap_or(0)))?;
            if offset.is_none() {
                stopped.add_partition(&topic, *partition);
            }
        }
        self.consumer.incremental_assign(&list)?;
        if stopped.count() > 0 {
            self.consumer.pause(&stopped)?;
        }
        self.epoch += 1;
        for (partition, Start { offset, .. }) in begin.starts {
            let phase = if offset.is_some() {
                Phase::Active
            } else {
                Phase::Stopped
            };
            let offsets = Offsets::new(offset.unwrap_or(0), true);
            debug!(partition, offset, "begins");
            self.partitions.insert(
                partition,
                Partition {
                    epoch: self.epoch,
                    offsets,
                    phase,
                    end: None,
                },
            );
        }
        if self.paused {
            // The caps are reached: the new partitions wait like the others.
            self.set_paused(true);
        }
        Ok(())
    }

    pub(super) fn begin_leaving(&mut self, partitions: Vec<i32>, lost: bool) {
        if lost {
            self.metrics.rebalance(Rebalance::Lost).inc();
            warn!(
                ?partitions,
                "lost: this member was out of the group; others may own the partitions already"
            );
        } else {
            self.metrics.rebalance(Rebalance::Revoke).inc();
            info!(?partitions, "revoked: what is out is awaited, then they are given up");
        }
        // What has not begun yet need not end.
        if let Some(joining) = &mut self.joining {
            joining.partitions.retain(|partition| !partitions.contains(partition));
        }
        for partition in &partitions {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.phase = Phase::Draining;
            }
        }
        let deadline = Instant::now() + Duration::from_millis(self.config.engine.drain_timeout_ms);
        self.leaving = Some(Leaving {
            partitions,
            lost,
            deadline,
        });
        self.go_on_leaving();
    }

    /// Gives the revoked partitions up as soon as nothing of theirs is out, or the time for that is over.
    pub(super) fn go_on_leaving(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let lost = leaving.lost || self.consumer.assignment_lost();
        let unsettled: usize = leaving
            .partitions
            .iter()
            .filter_map(|partition| self.partitions.get(partition))
            .map(|state| state.offsets.unsettled())
            .sum();
        if unsettled > 0 && !lost && Instant::now() < leaving.deadline {
            return;
        }
        let Some(Leaving { partitions, .. }) = self.leaving.take() else {
            return;
        };
        if unsettled > 0 {
            let ours: Vec<(i32, u32)> = partitions
                .iter()
                .filter_map(|partition| Some((*partition, self.partitions.get(partition)?.epoch)))
                .collect();
            self.abandon(&ours);
            // Between the abandonment and now some more may have been confirmed.
            self.settle();
            warn!(
                records = unsettled,
                lost, "gave partitions up with records out; their next owner delivers them again"
            );
        }
        if !lost {
            self.commit(&partitions, CommitMode::Sync);
        }
        let mut list = TopicPartitionList::new();
        for partition in &partitions {
            list.add_partition(&self.config.source.topic, *partition);
            self.partitions.remove(partition);
            self.metrics.forget_partition(&self.config.source.topic, *partition);
        }
        if let Err(error) = self.consumer.incremental_unassign(&list) {
            error!(%error, ?partitions, "failed to give partitions up");
        }
    }

    /// Answers a rebalance that was being carried out: closing would wait for it.
    pub(super) fn answer_what_is_owed(&mut self) {
        let mut answers = Vec::new();
        if self.joining.take().is_some() {
            answers.push(self.consumer.incremental_assign(&TopicPartitionList::new()));
        }
        if let Some(leaving) = self.leaving.take() {
            let mut list = TopicPartitionList::new();
            for partition in leaving.partitions {
                list.add_partition(&self.config.source.topic, partition);
            }
            answers.push(self.consumer.incremental_unassign(&list));
        }
        for error in answers.into_iter().filter_map(Result::err) {
            debug!(%error, "failed to answer a rebalance before closing");
        }
    }

    /// Makes publishers drop what they have not sent for these assignments. Returns when they have, so that nothing of
    /// theirs is sent after the partitions are given up.
    pub(super) fn abandon(&self, assignments: &[(i32, u32)]) {
        if assignments.is_empty() || self.ledger.is_idle() {
            return;
        }
        let assignments: Arc<[(i32, u32)]> = assignments.into();
        let (done, all_done) = mpsc::channel();
        for publisher in &self.links.publishers {
            publisher
                .send(Order::Abandon {
                    assignments: Arc::clone(&assignments),
                    done: done.clone(),
                })
                .ok();
        }
        drop(done);
        // Nobody sends: the channel ends when the last publisher has dropped its end.
        if let Err(mpsc::RecvTimeoutError::Timeout) = all_done.recv_timeout(ABANDON_TIMEOUT) {
            error!("publishers did not answer in time; records of partitions that are given up may still go out");
        }
    }

    /// All that is ours, with epochs.
    pub(super) fn assignments(&self) -> Vec<(i32, u32)> {
        self.partitions
            .iter()
            .map(|(partition, state)| (*partition, state.epoch))
            .collect()
    }

    pub(super) fn commit_when_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + Duration::from_millis(self.config.engine.commit_interval_ms);
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        self.commit(&partitions, CommitMode::Async);
    }

    /// Commits the settled prefix of these partitions, where the broker does not have it yet.
    pub(super) fn commit(&mut self, partitions: &[i32], mode: CommitMode) {
        let positions: Vec<(i32, i64)> = partitions
            .iter()
            .filter_map(|partition| Some((*partition, self.partitions.get(partition)?.offsets.to_commit()?)))
            .collect();
        if positions.is_empty() {
            return;
        }
        let committed = self
            .commit_list(&positions)
            .and_then(|list| self.consumer.commit(&list, mode));
        match (committed, mode) {
            (Ok(()), CommitMode::Sync) => {
                self.note_commit(
                    &positions
                        .iter()
                        .map(|(partition, position)| (*partition, *position, Ok(())))
                        .collect::<Vec<_>>(),
                );
            }
            // The answer comes as an event.
            (Ok(()), CommitMode::Async) => {}
            (Err(error), _) => {
                self.metrics.commit_failures.inc();
                warn!(%error, "failed to commit; what is uncommitted is delivered again after a restart");
            }
        }
    }

    pub(super) fn note_commit(&mut self, answers: &[(i32, i64, Result<(), KafkaError>)]) {
        self.metrics.commits.inc();
        self.last_commit_millis = Some(wall_millis());
        for (partition, position, result) in answers {
            match result {
                Ok(()) => {
                    if let Some(state) = self.partitions.get_mut(partition) {
                        state.offsets.committed(*position);
                    }
                }
                Err(error) => warn!(%error, partition, "the broker refused a commit; it is repeated"),
            }
        }
    }

    fn commit_list(&self, positions: &[(i32, i64)]) -> Result<TopicPartitionList, KafkaError> {
        let metadata = Metadata {
            partitions: self.group_partitions,
            ring: self.config.ring.epoch,
        }
        .to_string();
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for (partition, position) in positions {
            let mut element = list.add_partition(&self.config.source.topic, *partition);
            element.set_offset(Offset::Offset(*position))?;
            element.set_metadata(&metadata);
        }
        Ok(list)
    }

    /// Pauses or resumes every partition of ours that may run.
    pub(super) fn set_paused(&mut self, paused: bool) {
        let mut list = TopicPartitionList::new();
        for (partition, state) in &self.partitions {
            if state.is_active() {
                list.add_partition(&self.config.source.topic, *partition);
            }
        }
        let result = if paused {
            self.consumer.pause(&list)
        } else {
            self.consumer.resume(&list)
        };
        match result {
            Ok(()) => {
                debug!(paused, "all partitions");
                self.paused = paused;
            }
            Err(error) => warn!(%error, paused, "failed to pause or resume; trying again"),
        }
    }

    /// Some partition's position is gone from the broker while it was read: finds out which and applies the policy.
    pub(super) fn repair_positions(&mut self) {
        let active: Vec<(i32, i64)> = self
            .partitions
            .iter()
            .filter(|(_, state)| state.is_active())
            .map(|(partition, state)| (*partition, state.offsets.next()))
            .collect();
        for (partition, position) in active {
            if let Err(error) = self.repair_position(partition, position) {
                warn!(%error, partition, "failed to look up where to go on; trying again");
            }
        }
    }

    fn repair_position(&mut self, partition: i32, position: i64) -> Result<(), KafkaError> {
        let source = &self.config.source;
        let Some(start) = starts::after_loss(&self.consumer, source, partition, position)? else {
            return Ok(());
        };
        self.metrics.missing_offset(&source.topic, partition);
        error!(partition, position, fault = ?start.fault, policy = ?source.missing_offset, "the broker no longer has the next record");
        let mut list = TopicPartitionList::new();
        list.add_partition(&source.topic, partition);
        // librdkafka has stopped fetching the partition; taking it anew is what starts it again.
        self.consumer.incremental_unassign(&list)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            &source.topic,
            partition,
            Offset::Offset(start.offset.unwrap_or(position)),
        )?;
        self.consumer.incremental_assign(&list)?;
        let Some(state) = self.partitions.get_mut(&partition) else {
            return Ok(());
        };
        match start.offset {
            Some(offset) => {
                // What was read before the loss is still out: it is settled under the old epoch's name, so its receipts
                // are ignored; it lies before the new start, which is committed with the next round.
                self.epoch += 1;
                state.epoch = self.epoch;
                state.offsets = Offsets::new(offset, false);
            }
            None => {
                state.phase = Phase::Stopped;
                self.consumer.pause(&list)?;
            }
        }
        if self.paused {
            self.set_paused(true);
        }
        Ok(())
    }
}
