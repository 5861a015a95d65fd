//! Offsets to the broker.

use std::time::{Duration, Instant};

use forwarder_core::commit::Metadata;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::warn;

use super::Intake;
use crate::clock::wall_millis;

/// When a commit is taken for lost whose answer never came. librdkafka gives up sooner (`socket.timeout.ms`, 60 s).
const COMMIT_TIMEOUT: Duration = Duration::from_secs(90);

impl Intake {
    pub(super) fn commit_when_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + Duration::from_millis(self.config.engine.commit_interval_ms);
        // One at a time: librdkafka answers no rebalance while a commit is out, so an unbroken chain would starve it.
        if self.commit_out.is_some_and(|since| since.elapsed() < COMMIT_TIMEOUT) {
            return;
        }
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
            (Ok(()), CommitMode::Async) => self.commit_out = Some(Instant::now()),
            (Err(error), _) => {
                self.metrics.commit_failures.inc();
                warn!(%error, "failed to commit; what is uncommitted is delivered again after a restart");
            }
        }
    }

    pub(super) fn note_commit(&mut self, answers: &[(i32, i64, Result<(), KafkaError>)]) {
        let mut refused = 0;
        for (partition, position, result) in answers {
            match result {
                Ok(()) => {
                    if let Some(state) = self.partitions.get_mut(partition) {
                        state.offsets.committed(*position);
                    }
                }
                Err(error) => {
                    refused += 1;
                    warn!(%error, partition, "the broker refused a commit; it is repeated");
                }
            }
        }
        if refused < answers.len() {
            self.metrics.commits.inc();
            self.last_commit_millis = Some(wall_millis());
        }
        if refused > 0 {
            self.metrics.commit_failures.inc();
        }
    }

    pub(super) fn commit_list(&self, positions: &[(i32, i64)]) -> Result<TopicPartitionList, KafkaError> {
        let metadata = Metadata {
            partitions: self.group_partitions.unwrap_or(0),
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
}

/// Whether Kafka says that this process is no member of the group (any more).
pub(super) fn is_out_of_the_group(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownMemberId
                | Code::IllegalGeneration
                | Code::FencedInstanceId
                | Code::FencedMemberEpoch
                | Code::StaleMemberEpoch
        )
    )
}
