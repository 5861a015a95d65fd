//! Reads parked records again, with a consumer of its own that is no member of the group.

use std::time::Duration;

use forwarder_core::fanout::dispatch::{Again, Dispatcher, Job};
use forwarder_core::program::Program;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, error, warn};

use super::client::{Client, partition_of};
use super::context::Context;
use super::identity::Identity;
use super::questions::ASK_TIMEOUT;
use super::records::Records;
use crate::message::Message;
use crate::metrics::Metrics;
use forwarder_kafka::{self as kafka, KafkaSetupError};

/// Records looked at per turn of the intake's loop: what comes in from the group must not wait long.
const TURN: usize = 1_000;

/// The consumer, made when it is first needed.
#[derive(Default)]
pub(super) struct ReplayReader {
    consumer: Option<BaseConsumer<Context>>,
    /// What it is reading.
    job: Option<Job>,
    /// A record that was read and that has to wait for room.
    waiting: Option<OwnedMessage>,
}

/// What came of a turn.
pub(super) enum Turn {
    /// There is more to do at once.
    More,
    /// Nothing more can be done now.
    Waits,
    /// The consumer could not be made, or not assigned what it is to read.
    NotBegun(Job, KafkaSetupError),
    /// Kafka answered with an error.
    Failed(Job, KafkaError),
}

/// What a look at the reader brought.
enum Read {
    Nothing,
    Message(OwnedMessage),
    Handled(Again),
    End,
    Failed(KafkaError),
}

impl ReplayReader {
    /// Goes on reading parked records again.
    pub(super) fn go_on<P: Program>(
        &mut self,
        client: &Client,
        records: &mut Records<P>,
        dispatcher: &mut Dispatcher<Message>,
        identity: &Identity,
    ) -> Turn {
        let Some(job) = dispatcher.job() else {
            self.rest();
            return Turn::Waits;
        };
        if self.job != Some(job)
            && let Err(error) = self.begin(job, client)
        {
            return Turn::NotBegun(job, error);
        }
        records.read_clocks();
        for _ in 0..TURN {
            let read = match self.waiting.take() {
                Some(record) => Read::Message(record),
                None => self.read_one(job, client, records, dispatcher, identity),
            };
            let again = match read {
                Read::Nothing => return Turn::Waits,
                Read::Handled(again) => again,
                Read::Message(record) => {
                    let again = records.replay(job, &record, dispatcher, identity);
                    if again == Again::Wait {
                        self.waiting = Some(record);
                    }
                    again
                }
                Read::End => {
                    dispatcher.saw_end(job.number, self.read_up_to(job, client));
                    return Turn::Waits;
                }
                Read::Failed(error) => return Turn::Failed(job, error),
            };
            match again {
                Again::Take(_) | Again::Skip => {}
                Again::Wait => return Turn::Waits,
                Again::Done => break,
            }
        }
        Turn::More
    }

    fn read_one<P: Program>(
        &self,
        job: Job,
        client: &Client,
        records: &mut Records<P>,
        dispatcher: &mut Dispatcher<Message>,
        identity: &Identity,
    ) -> Read {
        let Some(consumer) = &self.consumer else {
            return Read::Nothing;
        };
        let input = job.partition.input();
        match consumer.poll(Duration::ZERO) {
            None => Read::Nothing,
            // Of another topic than the one that is parked. The intake is about to learn that, and wants no more of it then.
            Some(_) if consumer.context().is_of_another(input, identity.id(input)) => Read::Nothing,
            Some(Err(KafkaError::PartitionEOF(_))) => Read::End,
            Some(Err(error)) => Read::Failed(error),
            // What was fetched for an earlier replay may still come.
            Some(Ok(record))
                if partition_of(&client.inputs, &record) != Some(job.partition) || record.offset() < job.from =>
            {
                Read::Handled(Again::Skip)
            }
            Some(Ok(record)) => match records.replay(job, &record, dispatcher, identity) {
                Again::Wait => Read::Message(record.detach()),
                again => Read::Handled(again),
            },
        }
    }

    /// All before this was read: records, and what is none, such as the marks of transactions.
    fn read_up_to(&self, job: Job, client: &Client) -> i64 {
        let positions = self.consumer.as_ref().map(Consumer::position);
        let found = positions.and_then(Result::ok).and_then(|positions| {
            let place = positions.find_partition(client.inputs.topic_of(job.partition), job.partition.number())?;
            match place.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            }
        });
        found.unwrap_or(job.from)
    }

    fn begin(&mut self, job: Job, client: &Client) -> Result<(), KafkaSetupError> {
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            none => none.insert(kafka::create_reader(&client.config, |token| client.context(token))?),
        };
        self.waiting = None;
        self.job = None;
        let mut list = TopicPartitionList::new();
        let topic = client.inputs.topic_of(job.partition);
        list.add_partition_offset(topic, job.partition.number(), Offset::Offset(job.from))?;
        consumer.assign(&list)?;
        self.job = Some(job);
        debug!(
            topic = client.inputs.topic_to_log(job.partition),
            partition = job.partition.number(),
            from = job.from,
            "reading parked records again"
        );
        Ok(())
    }

    /// The next turn asks for its records anew.
    pub(super) fn stop(&mut self) {
        self.job = None;
    }

    /// Nothing is to be read again.
    fn rest(&mut self) {
        self.waiting = None;
        if self.job.take().is_some()
            && let Some(consumer) = &self.consumer
        {
            if let Err(error) = consumer.unassign() {
                debug!(%error, "failed to unassign the reader's partition");
            }
            debug!("read all parked records that can be delivered now");
        }
        // Events of a consumer at rest: tokens, statistics.
        if let Some(consumer) = &self.consumer {
            drop(consumer.poll(Duration::ZERO));
            drop(consumer.context().take_events());
        }
    }

    /// Kafka no longer has the first parked records: that is counted and said, and the others go on.
    pub(super) fn note_expired(
        &self,
        job: Job,
        client: &Client,
        dispatcher: &mut Dispatcher<Message>,
        metrics: &Metrics,
    ) {
        let (topic, number) = (client.inputs.topic_of(job.partition), job.partition.number());
        let Some(consumer) = &self.consumer else {
            return;
        };
        match consumer.fetch_watermarks(topic, number, ASK_TIMEOUT) {
            Ok((low, _)) => {
                let gone = dispatcher.expired(job.partition, low);
                if gone > 0 {
                    metrics.missing_offset(topic, number);
                    error!(
                        topic = client.inputs.topic_to_log(job.partition),
                        partition = number,
                        from = job.from,
                        low,
                        gone,
                        "Kafka deleted parked records before their cluster was back; these offsets are lost"
                    );
                }
            }
            Err(error) => {
                warn!(%error, topic = client.inputs.topic_to_log(job.partition), partition = number, "failed to ask Kafka where the log of the partition begins; trying again")
            }
        }
    }
}
