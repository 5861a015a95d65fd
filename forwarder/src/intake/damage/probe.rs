//! The consumer that looks at one partition at a time, and what it sees there.

use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::debug;

use super::is_damage;
use crate::intake::client::Client;
use crate::intake::context::{Context, Event};
use forwarder_kafka::{self as kafka, KafkaSetupError};

/// How long the loop waits for one look. Most take less.
const GLANCE: Duration = Duration::from_millis(2);

/// A partition of which nothing is heard for so long is left to the group's consumer: its leader may be away.
const SILENCE: Duration = Duration::from_secs(2);

/// So often in a row the broker may not have an offset that is asked for, before that is believed.
const MISSING: u32 = 3;

/// How long an answer is awaited after one that said so. Asked again at once, librdkafka would drop the answer that is on its way.
const DOUBT: Duration = Duration::from_millis(250);

/// Until then the consumer has connected.
const FIRST_SILENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(super) struct Probe {
    consumer: Option<BaseConsumer<Context>>,
    /// Whether the consumer has heard anything: then it is connected.
    is_connected: bool,
    /// What it is looking at: partition and offset.
    asked: Option<Question>,
    /// How often in a row the broker did not have the offset that was asked for.
    missing: u32,
}

struct Question {
    partition: PartitionId,
    offset: i64,
    until: Instant,
    /// When the broker was said not to have an offset.
    missing: Option<Instant>,
    /// Which one that was. It is told before or after it.
    missed: Option<i64>,
}

/// What the examiner's context tells beside its answers.
#[derive(Default)]
struct Aside {
    /// Where the batch begins that cannot be read.
    begin: Option<i64>,
    /// An offset that the broker does not have, of this partition.
    out_of_range: Option<(PartitionId, i64)>,
}

/// What a look at a partition brought.
pub(super) enum Seen {
    Nothing,
    /// The first record, or the end of the partition.
    Readable(i64),
    /// Where the batch begins, if that is told.
    Unreadable(Option<i64>),
    /// The broker does not have that offset.
    Missing,
}

/// Whether a record is of this partition. The examiner reads one after the other.
fn is_of(message: &impl Message, topic: &str, partition: PartitionId) -> bool {
    message.partition() == partition.number() && message.topic() == topic
}

impl Probe {
    /// Makes the consumer, if there is none.
    pub(super) fn connect(&mut self, client: &Client) -> Result<(), KafkaSetupError> {
        if self.consumer.is_none() {
            let consumer = kafka::create_examiner(&client.config, |token| client.context(token))?;
            self.consumer = Some(consumer);
            self.is_connected = false;
            self.asked = None;
        }
        Ok(())
    }

    /// Nothing is to be looked at now. What was asked for is not fetched again and again meanwhile.
    pub(super) fn rest(&mut self) {
        if self.asked.take().is_some()
            && let Some(consumer) = &self.consumer
            && let Err(error) = consumer.unassign()
        {
            debug!(%error, "failed to unassign the examiner's partition");
        }
    }

    /// Nothing is to be looked at any more.
    pub(super) fn end(&mut self) {
        self.asked = None;
        self.consumer = None;
    }

    /// Whether nothing was heard of what it looks at for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.until <= now)
    }

    /// The next look asks anew.
    pub(super) fn ask_anew(&mut self) {
        self.asked = None;
    }

    /// Looks whether `partition` can be read from `offset` on; waits for a moment only.
    pub(super) fn observe(&mut self, topic: &str, partition: PartitionId, offset: i64) -> Result<Seen, KafkaError> {
        let Some(consumer) = &self.consumer else {
            return Ok(Seen::Nothing);
        };
        let is_asked = self
            .asked
            .as_ref()
            .is_some_and(|asked| (asked.partition, asked.offset) == (partition, offset));
        if !is_asked {
            let patience = if self.is_connected { SILENCE } else { FIRST_SILENCE };
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition.number(), Offset::Offset(offset))?;
            consumer.assign(&list)?;
            self.asked = Some(Question {
                partition,
                offset,
                until: Instant::now() + patience,
                missing: None,
                missed: None,
            });
        }
        let answer = consumer.poll(GLANCE);
        self.is_connected |= answer.is_some();
        let aside = aside(consumer.context().take_events());
        if let (Some(asked), Some((of, at))) = (&mut self.asked, aside.out_of_range)
            && of == partition
        {
            asked.missed = Some(at);
        }
        let seen = match answer {
            Some(Ok(message)) if is_of(&message, topic, partition) && message.offset() >= offset => {
                Seen::Readable(message.offset())
            }
            Some(Err(KafkaError::PartitionEOF(of))) if of == partition.number() => Seen::Readable(offset),
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ))) => Seen::Missing,
            Some(Err(error)) if is_damage(&error) => Seen::Unreadable(aside.begin),
            Some(Err(error)) => {
                debug!(%error, topic, partition = partition.number(), offset, "Kafka returned an error while a partition was examined");
                Seen::Nothing
            }
            _ => Seen::Nothing,
        };
        Ok(self.judge(seen))
    }

    /// That the broker does not have an offset counts only if nothing else is heard.
    fn judge(&mut self, seen: Seen) -> Seen {
        let Some(asked) = &mut self.asked else { return seen };
        match seen {
            Seen::Readable(_) | Seen::Unreadable(_) => {
                self.missing = 0;
                return seen;
            }
            Seen::Missing => {
                asked.missing.get_or_insert_with(Instant::now);
            }
            Seen::Nothing => {}
        }
        let Some(missing) = asked.missing else {
            return Seen::Nothing;
        };
        if missing.elapsed() < DOUBT {
            return Seen::Nothing;
        }
        let is_of_another = asked.missed.is_some_and(|missed| missed != asked.offset);
        self.asked = None;
        if is_of_another {
            // Of an earlier question: behind what it could not read, librdkafka has gone on at a random offset. It has stopped there, whatever
            // was asked for since.
            return Seen::Nothing;
        }
        self.missing += 1;
        if self.missing < MISSING {
            return Seen::Nothing;
        }
        self.missing = 0;
        Seen::Missing
    }
}

fn aside(events: Vec<Event>) -> Aside {
    let mut aside = Aside::default();
    for event in events {
        match event {
            Event::OutOfRange { partition, at } => aside.out_of_range = Some((partition, at)),
            Event::Unreadable { begin } => aside.begin = Some(begin),
            Event::Assign(_) | Event::Revoke { .. } | Event::Statistics(_) | Event::Topic(..) | Event::Cut { .. } => {}
        }
    }
    aside
}
