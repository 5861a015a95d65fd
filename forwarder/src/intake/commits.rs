//! Offsets to the broker.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forwarder_core::delivery::commit::{CommitPoint, Metadata, text_of};
use forwarder_core::delivery::partition::{Input, PartitionId};
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::warn;

use super::Intake;
use super::context::{KafkaConsumer, OwnConsumer};
use super::membership::{Proof, Sent, is_passing};
use forwarder_service::clock::wall_millis;

/// How long the commit that is out is awaited before the group is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a last commit is repeated once it was refused amid a rebalance: some hundred times what one of a few members takes.
const LAST_COMMIT: Duration = Duration::from_secs(3);

/// Pause before a last commit is tried again.
pub(super) const RETRY_COMMIT: Duration = Duration::from_millis(25);

/// Partition, epoch of its assignment, and what is committed for it.
type Points = Vec<(PartitionId, u32, CommitPoint)>;

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
///
/// It does all commits, those too whose answer the intake waits for: of two threads the one with the older offsets might come last, and what
/// lies between would be delivered again.
pub(super) struct Committer {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Answer>,
    /// Commits without an answer yet: they are answered in their order.
    out: usize,
    thread: JoinHandle<()>,
}

impl Committer {
    /// Starts the thread.
    ///
    /// `membership`: the number of the one that we are in, see [`super::membership`].
    pub(super) fn start(consumer: Arc<OwnConsumer>, membership: Arc<AtomicU64>) -> std::io::Result<Self> {
        let (requests, wanted) = mpsc::channel::<Request>();
        let (answer, answers) = mpsc::channel();
        let thread = thread::Builder::new().name("commit".to_owned()).spawn(move || {
            let mut ended: Option<Sent> = None;
            while let Ok(Request { points, list, sent }) = wanted.recv() {
                // One that has waited while the membership ended is about partitions that others may own.
                let is_over = ended.is_some_and(|ended| ended.membership == sent.membership)
                    || sent.membership != membership.load(Ordering::Relaxed);
                let (result, proof) = if is_over {
                    (Err(KafkaError::Canceled), Proof::Nothing)
                } else {
                    commit(&consumer, &list)
                };
                if proof == Proof::Out {
                    ended = Some(sent);
                }
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
            out: 0,
            thread,
        })
    }

    /// Whether the thread has died: nothing is committed any more.
    pub(super) fn has_died(&self) -> bool {
        self.thread.is_finished()
    }

    /// Whether it is on its way: not, if the thread has died.
    fn send(&mut self, request: Request) -> bool {
        let sent = self.requests.send(request).is_ok();
        self.out += usize::from(sent);
        sent
    }

    /// The next answer, if it has come.
    fn try_recv(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.out -= 1;
        Some(answer)
    }

    /// The next answer of those that are to come.
    fn recv(&mut self) -> Result<Answer, KafkaError> {
        let answer = self.answers.recv().map_err(|_| KafkaError::Canceled)?;
        self.out -= 1;
        Ok(answer)
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
        if self.committer.out > 0 {
            return;
        }
        let partitions: Vec<PartitionId> = self.dispatcher.partitions().keys().copied().collect();
        let mut points = self.points_to_commit(&partitions);
        if needs_proof {
            self.add_proofs(&mut points);
        }
        for (points, list) in self.requests(points) {
            self.send_commit(points, list);
        }
    }

    /// Commits that change nothing, for their answers: one partition is enough. But where a topic is gone, Kafka takes none for it. So each
    /// topic that has nothing to commit gets a commit of its own.
    fn add_proofs(&self, points: &mut Points) {
        for (input, _) in self.inputs.iter() {
            if points.iter().any(|(partition, ..)| partition.input() == input) {
                continue;
            }
            let partitions = self.dispatcher.partitions().iter();
            let mut ours = partitions.filter(|(partition, _)| partition.input() == input);
            let proof = ours.find_map(|(partition, state)| {
                Some((*partition, state.epoch, self.dispatcher.commit_point(*partition)?))
            });
            points.extend(proof);
        }
    }

    fn send_commit(&mut self, points: Points, list: TopicPartitionList) -> bool {
        let sent = self.membership.asks(self.clock.micros());
        self.committer.send(Request { points, list, sent })
    }

    /// Commits the settled prefix of these partitions, where the broker does not have it yet, and waits for the answer.
    pub(super) fn commit(&mut self, partitions: &[PartitionId]) -> Result<(), KafkaError> {
        let begun = self.commit_and_wait(partitions)?;
        self.ask_for(begun);
        Ok(())
    }

    /// Commits the settled prefix of partitions that are given up right after. The ends of other members are rebalances, in whose midst the
    /// group takes no commit; what it does not take is delivered again.
    pub(super) fn commit_at_last(&mut self, partitions: &[PartitionId]) {
        let mut refused = None;
        while !self.consumer.assignment_lost()
            && let Err(error) = self.commit(partitions)
            && is_worth_repeating(&error, &mut refused)
        {
            thread::sleep(RETRY_COMMIT);
        }
    }

    /// As [`Intake::commit`], for partitions that begin: what is not committed may not begin.
    pub(super) fn commit_starts(&mut self, partitions: &[PartitionId]) -> Result<(), KafkaError> {
        // Whoever calls this asks for their records next.
        self.commit_and_wait(partitions).map(drop)
    }

    /// Returns the partitions that begin by it. No commit is out when it returns: none comes after what is decided next.
    fn commit_and_wait(&mut self, partitions: &[PartitionId]) -> Result<Vec<PartitionId>, KafkaError> {
        let mut ours = 0;
        for (points, list) in self.requests(self.points_to_commit(partitions)) {
            if !self.send_commit(points, list) {
                return Err(KafkaError::Canceled);
            }
            ours += 1;
        }
        let (mut committed, mut failed) = (Vec::new(), None);
        while self.committer.out > 0 {
            let is_ours = self.committer.out <= ours;
            let answer = self.committer.recv()?;
            match self.note_answer(answer) {
                Ok(begun) if is_ours => committed.extend(begun),
                Err(error) if is_ours => failed = Some(error),
                Ok(begun) => self.ask_for(begun),
                Err(_) => {}
            }
        }
        match failed {
            None => Ok(committed),
            Some(error) => {
                // Those of another topic that begin all the same.
                self.ask_for(committed);
                Err(error)
            }
        }
    }

    fn points_to_commit(&self, partitions: &[PartitionId]) -> Points {
        let points = partitions.iter().filter_map(|partition| {
            let epoch = self.dispatcher.partitions().get(partition)?.epoch;
            Some((*partition, epoch, self.dispatcher.to_commit(*partition)?))
        });
        points.collect()
    }

    /// A request for each topic. Of one that names several topics, librdkafka says that it succeeded if any part of it did.
    fn requests(&self, mut points: Points) -> Vec<(Points, TopicPartitionList)> {
        points.sort_by_key(|(partition, ..)| partition.input());
        let input = |(partition, ..): &(PartitionId, u32, CommitPoint)| -> Input { partition.input() };
        let of_topics = points.chunk_by(|one, next| input(one) == input(next));
        let requests = of_topics.filter_map(|points| match self.commit_list(points) {
            Ok(list) => Some((points.to_vec(), list)),
            Err(error) => {
                warn!(%error, "failed to make a commit");
                None
            }
        });
        requests.collect()
    }

    /// Takes the answer of the commit that is out, if it has come.
    pub(super) fn take_commit_answer(&mut self) {
        self.membership.look(!self.dispatcher.partitions().is_empty());
        while let Some(answer) = self.committer.try_recv() {
            let begun = self.note_answer(answer).unwrap_or_default();
            self.ask_for(begun);
        }
    }

    /// Returns the partitions that begin by it.
    fn note_answer(&mut self, answer: Answer) -> Result<Vec<PartitionId>, KafkaError> {
        let Answer {
            points,
            sent,
            result,
            proof,
        } = answer;
        if self.membership.answered(sent, proof) == Proof::Out {
            self.stop_draining();
        }
        match result {
            Ok(()) => {
                self.metrics.commits.inc();
                self.last_commit_millis = Some(wall_millis());
                let committed = |(partition, epoch, point)| {
                    let begins = self.dispatcher.committed(partition, epoch, point);
                    begins.then_some(partition)
                };
                Ok(points.into_iter().filter_map(committed).collect())
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
                Err(error)
            }
        }
    }

    fn commit_list(&self, points: &[(PartitionId, u32, CommitPoint)]) -> Result<TopicPartitionList, KafkaError> {
        let mut list = TopicPartitionList::with_capacity(points.len());
        for (partition, _, point) in points {
            let CommitPoint {
                position,
                ring,
                members,
                ahead,
            } = point.clone();
            let metadata = Metadata {
                partitions: self.group_partitions.get(&partition.input()).copied().unwrap_or(0),
                ring,
                members: Some(members),
                ahead: ahead.filter(|_| !self.brief),
            };
            let mut element = list.add_partition(self.inputs.topic_of(*partition), partition.number());
            element.set_offset(Offset::Offset(position))?;
            element.set_metadata(text_of(&metadata, self.identity.id(partition.input())));
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

/// Whether a last commit that failed so is to be tried again. `refused`: when it was for the first time, which is noted here.
///
/// The refusal may take a while to come, for a broker reads nothing of a connection whose request to join the group it has not answered.
pub(super) fn is_worth_repeating(error: &KafkaError, refused: &mut Option<Instant>) -> bool {
    let refused = refused.get_or_insert_with(Instant::now);
    is_passing(error) && refused.elapsed() < LAST_COMMIT
}
