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
use super::context::{KafkaConsumer, OwnConsumer};
use super::membership::{Proof, Sent};
use crate::clock::wall_millis;

/// How long the commit that is out is awaited before the group is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Partition, epoch of its assignment, and what is committed for it.
type Points = Vec<(i32, u32, CommitPoint)>;

/// A commit on its way to the broker.
struct Request {
    points: Points,
    list: TopicPartitionList,
    sent: Sent,
}

/// What the broker said to it.
struct Answer {
    points: Points,
    sent: Sent,
    result: Result<(), KafkaError>,
    proof: Proof,
}

/// A thread that commits and waits for the answer, so that the intake need not. (librdkafka's asynchronous commit tells its
/// answer only to a callback that rdkafka does not set.)
pub(super) struct Committer {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Answer>,
    /// A commit is out.
    out: bool,
    thread: JoinHandle<()>,
}

impl Committer {
    /// Starts the thread.
    pub(super) fn start(consumer: Arc<OwnConsumer>) -> std::io::Result<Self> {
        let (requests, wanted) = mpsc::channel::<Request>();
        let (answer, answers) = mpsc::channel();
        let thread = thread::Builder::new().name("commit".to_owned()).spawn(move || {
            while let Ok(Request { points, list, sent }) = wanted.recv() {
                let (result, proof) = commit(&consumer, &list);
                let answered = Answer {
                    points,
                    sent,
                    result,
                    proof,
                };
                if answer.send(answered).is_err() {
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
        let needs_proof = self.membership.needs_proof(now);
        if now < self.next_commit && !needs_proof {
            return;
        }
        self.next_commit = now + Duration::from_millis(self.config.engine.commit_interval_ms);
        // One at a time: librdkafka answers no rebalance while a commit is out, so an unbroken chain would starve it.
        if self.committer.out {
            return;
        }
        let partitions: Vec<i32> = self.dispatcher.partitions().keys().copied().collect();
        let request = self.commit_request(&partitions);
        let request = request.or_else(|| if needs_proof { self.proof_request() } else { None });
        if let Some((points, list)) = request {
            let sent = self.membership.asks(self.clock.micros());
            let request = Request { points, list, sent };
            self.committer.out = self.committer.requests.send(request).is_ok();
        }
    }

    /// A commit that changes nothing, for its answer. One partition is enough.
    fn proof_request(&self) -> Option<(Points, TopicPartitionList)> {
        let mut partitions = self.dispatcher.partitions().iter();
        let point = partitions
            .find_map(|(partition, state)| Some((*partition, state.epoch, self.dispatcher.commit_point(*partition)?)));
        let points = vec![point?];
        match self.commit_list(&points) {
            Ok(list) => Some((points, list)),
            Err(error) => {
                warn!(%error, "failed to make a commit");
                None
            }
        }
    }

    /// Commits the settled prefix of these partitions, where the broker does not have it yet, and waits for the answer.
    pub(super) fn commit(&mut self, partitions: &[i32]) {
        let Some((points, list)) = self.commit_request(partitions) else {
            return;
        };
        let result = self.commit_list_now(&list);
        let begun = self.note_commit(points, result);
        self.ask_for(begun);
    }

    /// As [`Intake::commit`], for partitions that begin: what is not committed may not begin.
    pub(super) fn commit_starts(&mut self, partitions: &[i32]) -> Result<(), KafkaError> {
        if let Some((points, list)) = self.commit_request(partitions) {
            let result = self.commit_list_now(&list);
            // Whoever calls this asks for their records next.
            drop(self.note_commit(points, result.clone()));
            result?;
        }
        Ok(())
    }

    /// Commits and waits for the answer.
    fn commit_list_now(&mut self, list: &TopicPartitionList) -> Result<(), KafkaError> {
        let sent = self.membership.asks(self.clock.micros());
        let (result, proof) = commit(&self.consumer, list);
        self.note_proof(sent, proof);
        result
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
        self.membership.look(!self.dispatcher.partitions().is_empty());
        while let Ok(Answer {
            points,
            sent,
            result,
            proof,
        }) = self.committer.answers.try_recv()
        {
            self.committer.out = false;
            self.note_proof(sent, proof);
            let begun = self.note_commit(points, result);
            self.ask_for(begun);
        }
    }

    fn note_proof(&mut self, sent: Sent, proof: Proof) {
        if self.membership.answered(sent, proof) == Proof::Out {
            self.stop_draining();
        }
    }

    /// Returns the partitions that begin by it.
    fn note_commit(&mut self, points: Points, result: Result<(), KafkaError>) -> Vec<i32> {
        match result {
            Ok(()) => {
                let mut begun = Vec::new();
                for (partition, epoch, point) in points {
                    if self.dispatcher.committed(partition, epoch, point) {
                        begun.push(partition);
                    }
                }
                self.metrics.commits.inc();
                self.last_commit_millis = Some(wall_millis());
                begun
            }
            Err(error) => {
                self.metrics.commit_failures.inc();
                warn!(%error, "a commit failed; it is repeated, or what it held is delivered again");
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::OffsetMetadataTooLarge) && !self.brief {
                    self.brief = true;
                    warn!(
                        "the brokers' offset.metadata.max.bytes has no room for what is settled behind the committed offset: it is \
                         committed without, and a restart while a cluster is away repeats everything since; 4096 is enough"
                    );
                }
                Vec::new()
            }
        }
    }

    fn commit_list(&self, points: &[(i32, u32, CommitPoint)]) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(points.len());
        for (partition, _, point) in points {
            let CommitPoint {
                position,
                ring,
                members,
                ahead,
            } = point.clone();
            let metadata = Metadata {
                partitions: self.group_partitions.unwrap_or(0),
                ring,
                members: Some(members),
                ahead: ahead.filter(|_| !self.brief),
            };
            let mut element = list.add_partition(&self.config.source.topic, *partition);
            element.set_offset(Offset::Offset(position))?;
            element.set_metadata(metadata.to_string());
        }
        Ok(list)
    }
}

/// Commits and waits for the answer, with what it says about our membership.
fn commit(consumer: &KafkaConsumer, list: &TopicPartitionList) -> (Result<(), KafkaError>, Proof) {
    let result = consumer.commit(list, CommitMode::Sync);
    let proof = Proof::of(&result, consumer.assignment_lost());
    (result, proof)
}
