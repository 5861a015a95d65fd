//! Offsets to the broker.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forwarder_core::commit::Metadata;
use forwarder_core::dispatch::CommitPoint;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::warn;

use super::Intake;
use super::context::OwnConsumer;
use crate::clock::wall_millis;

/// How long the commit that is out is awaited before the group is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Partition, epoch of its assignment, and what is committed for it.
type Points = Vec<(i32, u32, CommitPoint)>;

/// A thread that commits and waits for the answer, so that the intake need not. (librdkafka's asynchronous commit tells its
/// answer only to a callback that rdkafka does not set.)
pub(super) struct Committer {
    requests: mpsc::Sender<(Points, TopicPartitionList)>,
    answers: mpsc::Receiver<(Points, Result<(), KafkaError>)>,
    /// A commit is out.
    out: bool,
    thread: JoinHandle<()>,
}

impl Committer {
    /// Starts the thread.
    pub(super) fn start(consumer: Arc<OwnConsumer>) -> std::io::Result<Self> {
        let (requests, wanted) = mpsc::channel::<(Points, TopicPartitionList)>();
        let (answer, answers) = mpsc::channel();
        let thread = thread::Builder::new().name("commit".to_owned()).spawn(move || {
            while let Ok((points, list)) = wanted.recv() {
                let result = consumer.commit(&list, CommitMode::Sync);
                if answer.send((points, result)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self {
            requests,
            answers,
            out: false,
            thread,
        })
    }

    /// Ends the thread, with its share of the consumer; where the broker does not answer, not for longer than a bound.
    pub(super) fn end(self) {
        let Self { requests, thread, .. } = self;
        drop(requests);
        let deadline = Instant::now() + CLOSE_TIMEOUT;
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Intake {
    pub(super) fn commit_when_due(&mut self) {
        let now = Instant::now();
        if now < self.next_commit {
            return;
        }
        self.next_commit = now + Duration::from_millis(self.config.engine.commit_interval_ms);
        // One at a time: librdkafka answers no rebalance while a commit is out, so an unbroken chain would starve it.
        if self.committer.out {
            return;
        }
        let partitions: Vec<i32> = self.dispatcher.partitions().keys().copied().collect();
        if let Some((points, list)) = self.commit_request(&partitions) {
            self.committer.out = self.committer.requests.send((points, list)).is_ok();
        }
    }

    /// Commits the settled prefix of these partitions, where the broker does not have it yet, and waits for the answer.
    pub(super) fn commit(&mut self, partitions: &[i32]) {
        let Some((points, list)) = self.commit_request(partitions) else {
            return;
        };
        let result = self.consumer.commit(&list, CommitMode::Sync);
        self.note_commit(points, result);
    }

    /// As [`Intake::commit`], for partitions that begin: what is not committed may not begin.
    pub(super) fn commit_starts(&mut self, partitions: &[i32]) -> Result<(), KafkaError> {
        if let Some((points, list)) = self.commit_request(partitions) {
            self.consumer.commit(&list, CommitMode::Sync)?;
            self.note_commit(points, Ok(()));
        }
        Ok(())
    }

    fn commit_request(&mut self, partitions: &[i32]) -> Option<(Points, TopicPartitionList)> {
        let points: Points = partitions
            .iter()
            .filter_map(|partition| {
                let epoch = self.dispatcher.partitions().get(partition)?.epoch;
                Some((*partition, epoch, self.dispatcher.to_commit(*partition)?))
            })
            .collect();
        if points.is_empty() {
            return None;
        }
        match self.commit_list(&points) {
            Ok(list) => Some((points, list)),
            Err(error) => {
                warn!(%error, "failed to make a commit");
                None
            }
        }
    }

    /// Takes the answer of the commit that is out, if it has come.
    pub(super) fn take_commit_answer(&mut self) {
        while let Ok((points, result)) = self.committer.answers.try_recv() {
            self.committer.out = false;
            self.note_commit(points, result);
        }
    }

    fn note_commit(&mut self, points: Points, result: Result<(), KafkaError>) {
        match result {
            Ok(()) => {
                for (partition, epoch, point) in points {
                    self.dispatcher.committed(partition, epoch, point);
                }
                self.metrics.commits.inc();
                self.last_commit_millis = Some(wall_millis());
            }
            Err(error) => {
                self.metrics.commit_failures.inc();
                warn!(%error, "a commit failed; it is repeated, or what it held is delivered again");
            }
        }
    }

    fn commit_list(&self, points: &[(i32, u32, CommitPoint)]) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(points.len());
        for (partition, _, point) in points {
            let CommitPoint { position, ring, ahead } = point.clone();
            let metadata = Metadata {
                partitions: self.group_partitions.unwrap_or(0),
                ring,
                ahead,
            };
            let mut element = list.add_partition(&self.config.source.topic, *partition);
            element.set_offset(Offset::Offset(position))?;
            element.set_metadata(metadata.to_string());
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
