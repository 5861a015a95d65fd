//! The thread that commits, and waits for the answers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use forwarder_core::delivery::commit::CommitPoint;
use forwarder_core::delivery::partition::PartitionId;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::context::{KafkaConsumer, OwnConsumer};
use super::membership::{Proof, Sent};

/// How long the commit that is out is awaited before the group is left.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Partition, epoch of its assignment, and what is committed for it.
pub(super) type Points = Vec<(PartitionId, u32, CommitPoint)>;

/// A commit on its way to the broker.
pub(super) struct Request {
    pub(super) points: Points,
    pub(super) list: TopicPartitionList,
    pub(super) sent: Sent,
}

/// What the broker said to it.
pub(super) struct Answer {
    pub(super) points: Points,
    pub(super) sent: Sent,
    pub(super) result: Result<(), KafkaError>,
    pub(super) proof: Proof,
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

    /// How many commits are out.
    pub(super) fn out(&self) -> usize {
        self.out
    }

    /// Whether it is on its way: not, if the thread has died.
    pub(super) fn send(&mut self, request: Request) -> bool {
        let sent = self.requests.send(request).is_ok();
        self.out += usize::from(sent);
        sent
    }

    /// The next answer, if it has come.
    pub(super) fn try_recv(&mut self) -> Option<Answer> {
        let answer = self.answers.try_recv().ok()?;
        self.out -= 1;
        Some(answer)
    }

    /// The next answer of those that are to come.
    pub(super) fn recv(&mut self) -> Result<Answer, KafkaError> {
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

/// Commits and waits for the answer, with what it says about our membership.
fn commit(consumer: &KafkaConsumer, list: &TopicPartitionList) -> (Result<(), KafkaError>, Proof) {
    let result = consumer.commit(list, CommitMode::Sync);
    let proof = Proof::of(&result, consumer.assignment_lost());
    (result, proof)
}
