//! A Kafka topic that records are written to, each of them acknowledged.

use forwarder_core::document::Checked;
use futures::future::join_all;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

use super::batches::WriteFailed;
use forwarder_kafka::{self as kafka, KafkaSetupError, ProducerContext};

/// A record as Kafka takes it.
pub struct Encoded<'a> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: OwnedHeaders,
}

/// How records become Kafka records.
pub trait Encode<T> {
    /// The record for a try of this number. The first one, number 0, is whole.
    ///
    /// The topic may refuse a record for its size. Then the next try is smaller, until there is none.
    fn encode<'a>(&self, record: &'a T, number: usize) -> Option<Encoded<'a>>;
}

/// See the module.
pub struct KafkaOutput<E> {
    topic: String,
    producer: FutureProducer<ProducerContext>,
    config: Checked,
    encode: E,
}

impl<E> KafkaOutput<E> {
    /// Nothing is asked of Kafka yet.
    ///
    /// # Errors
    /// The producer cannot be made.
    pub fn open(topic: &str, config: &Checked, encode: E) -> Result<Self, KafkaSetupError> {
        Ok(Self {
            topic: topic.to_owned(),
            producer: kafka::create_producer(config)?,
            config: config.clone(),
            encode,
        })
    }

    /// Where records go.
    #[must_use]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Writes the batch. What Kafka has acknowledged leaves it.
    ///
    /// # Errors
    /// Records that Kafka has not acknowledged are left.
    pub async fn write<T>(&mut self, batch: &mut Vec<T>) -> Result<Vec<T>, WriteFailed<T>>
    where
        E: Encode<T>,
    {
        let mut results = join_all(batch.iter().map(|record| self.send(record))).await.into_iter();
        let mut reason = None;
        let mut written = Vec::with_capacity(batch.len());
        let mut left = Vec::new();
        for record in batch.drain(..) {
            match results.next() {
                Some(Ok(())) => written.push(record),
                Some(Err(error)) => {
                    reason = Some(error);
                    left.push(record);
                }
                None => left.push(record),
            }
        }
        *batch = left;
        if self.producer.client().fatal_error().is_some() {
            // An idempotent producer may end up in a state that it never leaves; another one may do better.
            match kafka::create_producer(&self.config) {
                Ok(producer) => self.producer = producer,
                Err(error) => reason = Some(error.to_string()),
            }
        }
        match reason {
            None => Ok(written),
            Some(reason) => Err(WriteFailed {
                written,
                reason: format!("topic `{}`: {reason}", self.topic),
            }),
        }
    }

    /// What the topic does not take for its size it takes neither now nor ever, and an offset must not wait for that.
    async fn send<T>(&self, record: &T) -> Result<(), String>
    where
        E: Encode<T>,
    {
        let mut too_large = String::new();
        for number in 0_usize.. {
            let Some(encoded) = self.encode.encode(record, number) else {
                break;
            };
            match self.send_encoded(encoded).await {
                Ok(()) => return Ok(()),
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    too_large = error.to_string();
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(too_large)
    }

    async fn send_encoded(&self, encoded: Encoded<'_>) -> Result<(), KafkaError> {
        let Encoded { key, value, headers } = encoded;
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = key;
        record.payload = value;
        // Waits as long as the producer's queue is full; the delivery itself is bounded by librdkafka.
        match self.producer.send(record, Timeout::Never).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error),
        }
    }
}
