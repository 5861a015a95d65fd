//! Reads parked records again, with a consumer of its own that is no member of the group.

use std::time::Duration;

use forwarder_core::fanout::dispatch::{Again, Job};
use forwarder_core::fanout::route::Router;
use forwarder_core::program::Program as _;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, error, warn};

use super::context::Context;
use super::{Intake, damage, headers};
use crate::message::record_bytes;
use forwarder_kafka::{self as kafka, KafkaSetupError};

/// Records looked at per turn of the intake's loop: what comes in from the group must not wait long.
const TURN: usize = 1_000;

/// How long the question where a partition begins may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The consumer, made when it is first needed.
#[derive(Default)]
pub(super) struct Rereader {
    consumer: Option<BaseConsumer<Context>>,
    /// What it is reading.
    job: Option<Job>,
    /// A record that was read and that has to wait for room.
    waiting: Option<OwnedMessage>,
}

/// What a look at the reader brought.
enum Read {
    Nothing,
    Message(OwnedMessage),
    Handled(Again),
    End,
    Failed(KafkaError),
}

impl Intake {
    /// Goes on reading parked records again. Returns whether there is more to do at once.
    pub(super) fn reread(&mut self) -> bool {
        let Some(job) = self.dispatcher.job() else {
            self.rest();
            return false;
        };
        if self.rereader.job != Some(job)
            && let Err(error) = self.begin_pass(job)
        {
            if self.rejects.may_log_kafka_error() {
                warn!(%error, topic = self.inputs.told(job.partition), partition = job.partition.number(), "failed to read parked records again; trying again");
            }
            return false;
        }
        self.read_clocks();
        for _ in 0..TURN {
            let read = match self.rereader.waiting.take() {
                Some(message) => Read::Message(message),
                None => self.read_one(job),
            };
            let again = match read {
                Read::Nothing => return false,
                Read::Handled(again) => again,
                Read::Message(message) => {
                    let again = self.ask_again(job, &message);
                    if again == Again::Wait {
                        self.rereader.waiting = Some(message);
                    }
                    again
                }
                Read::End => {
                    let position = self.read_up_to(job);
                    self.dispatcher.saw_end(job.number, position);
                    return false;
                }
                Read::Failed(error) => {
                    self.reader_failed(job, &error);
                    return false;
                }
            };
            match again {
                Again::Take(_) | Again::Skip => {}
                Again::Wait => return false,
                Again::Done => break,
            }
        }
        true
    }

    fn read_one(&mut self, job: Job) -> Read {
        let Some(consumer) = self.rereader.consumer.take() else {
            return Read::Nothing;
        };
        let input = job.partition.input();
        let polled = consumer.poll(Duration::ZERO);
        let read = match polled {
            None => Read::Nothing,
            // Of another topic than the one that is parked. The intake is about to learn that, and wants no more of it then.
            Some(_) if consumer.context().is_of_another(input, self.identity.id(input)) => Read::Nothing,
            Some(Err(KafkaError::PartitionEOF(_))) => Read::End,
            Some(Err(error)) => Read::Failed(error),
            // What was fetched for an earlier pass may still come.
            Some(Ok(message)) if self.partition_of(&message) != Some(job.partition) || message.offset() < job.from => {
                Read::Handled(Again::Skip)
            }
            Some(Ok(message)) => match self.ask_again(job, &message) {
                Again::Wait => Read::Message(message.detach()),
                again => Read::Handled(again),
            },
        };
        self.rereader.consumer = Some(consumer);
        read
    }

    /// All before this was read: records, and what is none, such as the marks of transactions.
    fn read_up_to(&self, job: Job) -> i64 {
        let positions = self.rereader.consumer.as_ref().map(Consumer::position);
        let found = positions.and_then(Result::ok).and_then(|positions| {
            let place = positions.find_partition(self.inputs.topic_of(job.partition), job.partition.number())?;
            match place.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        });
        found.unwrap_or(job.from)
    }

    fn ask_again(&mut self, job: Job, message: &impl Message) -> Again {
        let key = Router::asset(message.key()).ok();
        let mut again = self.dispatcher.read_again(job.number, message.offset(), key);
        // To wait it would be copied; and no cluster needs room for it.
        if again == Again::Wait && self.is_too_large(message) {
            again = self.dispatcher.read_again_for_nobody(job.number, message.offset(), key);
        }
        if let (Again::Take(tag), Some(key)) = (again, key) {
            let place = self.router.place(key);
            self.forward(tag, Some(place), message);
        }
        again
    }

    fn is_too_large(&self, message: &impl Message) -> bool {
        let headers = headers::read(message).unwrap_or_default();
        record_bytes(message.key(), message.payload(), &headers) > self.config.engine.max_record_bytes()
    }

    fn begin_pass(&mut self, job: Job) -> Result<(), KafkaSetupError> {
        let consumer = match &mut self.rereader.consumer {
            Some(consumer) => consumer,
            none => none.insert(kafka::create_reader(&self.config, |token| {
                Context::new(&self.config.source, &self.inputs, token)
            })?),
        };
        self.rereader.waiting = None;
        self.rereader.job = None;
        let mut list = TopicPartitionList::new();
        let topic = self.inputs.topic_of(job.partition);
        list.add_partition_offset(topic, job.partition.number(), Offset::Offset(job.from))?;
        consumer.assign(&list)?;
        self.rereader.job = Some(job);
        debug!(
            topic = self.inputs.told(job.partition),
            partition = job.partition.number(),
            from = job.from,
            "reading parked records again"
        );
        Ok(())
    }

    /// Nothing is to be read again.
    fn rest(&mut self) {
        self.rereader.waiting = None;
        if self.rereader.job.take().is_some()
            && let Some(consumer) = &self.rereader.consumer
        {
            if let Err(error) = consumer.unassign() {
                debug!(%error, "failed to let the reader rest");
            }
            debug!("all parked records that can be delivered are read again");
        }
        // Events of a consumer at rest: tokens, statistics.
        if let Some(consumer) = &self.rereader.consumer {
            drop(consumer.poll(Duration::ZERO));
            drop(consumer.context().take_events());
        }
    }

    fn reader_failed(&mut self, job: Job, error: &KafkaError) {
        self.metrics.kafka_errors.inc();
        let gone = matches!(
            error,
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange)
        );
        if damage::is_damage(error) {
            // Not a hole: what comes behind it is not taken before it is known what is missing.
            self.suspect_parked(error);
        } else if gone {
            self.look_what_expired(job);
        } else if self.rejects.may_log_kafka_error() {
            warn!(%error, "Kafka answers with an error while parked records are read again; trying again");
        }
        self.dispatcher.stop_reading();
        self.rereader.job = None;
    }

    /// Kafka no longer has the first parked records: that is counted and said, and the others go on.
    fn look_what_expired(&mut self, job: Job) {
        let (topic, number) = (self.inputs.topic_of(job.partition), job.partition.number());
        let Some(consumer) = &self.rereader.consumer else {
            return;
        };
        match consumer.fetch_watermarks(topic, number, ASK_TIMEOUT) {
            Ok((low, _)) => {
                let gone = self.dispatcher.expired(job.partition, low);
                if gone > 0 {
                    self.metrics.missing_offset(topic, number);
                    error!(
                        topic = self.inputs.told(job.partition),
                        partition = number,
                        from = job.from,
                        low,
                        gone,
                        "records have expired in Kafka before their cluster was back; so many offsets are gone"
                    );
                }
            }
            Err(error) => {
                warn!(%error, topic = self.inputs.told(job.partition), partition = number, "failed to ask where the partition begins; trying again")
            }
        }
    }
}
