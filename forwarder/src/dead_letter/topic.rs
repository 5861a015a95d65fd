//! Dead letters as Kafka records: key, value and headers as they came, and headers of ours behind them.

use forwarder_core::document::Checked;
use futures::future::join_all;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::util::Timeout;

use super::{Letter, Place, WriteFailed};
use crate::parcel::Original;
use forwarder_kafka::{self as kafka, KafkaSetupError, ProducerContext};

pub(super) struct TopicTarget {
    topic: String,
    producer: FutureProducer<ProducerContext>,
    config: Checked,
    place: Place,
}

impl TopicTarget {
    pub(super) fn open(topic: &str, config: &Checked, place: Place) -> Result<Self, KafkaSetupError> {
        Ok(Self {
            topic: topic.to_owned(),
            producer: kafka::create_producer(config)?,
            config: config.clone(),
            place,
        })
    }

    #[cfg(test)]
    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Writes the batch; what Kafka has acknowledged leaves it.
    pub(super) async fn write(&mut self, batch: &mut Vec<Letter>) -> Result<Vec<Letter>, WriteFailed> {
        let mut results = join_all(batch.iter().map(|letter| self.send(letter))).await.into_iter();
        let mut reason = None;
        let mut written = Vec::with_capacity(batch.len());
        let mut left = Vec::new();
        for letter in batch.drain(..) {
            match results.next() {
                Some(Ok(_)) => written.push(letter),
                Some(Err(error)) => {
                    reason = Some(error);
                    left.push(letter);
                }
                None => left.push(letter),
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

    /// What the topic does not take it takes neither now nor ever, and an offset must not wait for that: so less is tried, and at last
    /// what always fits. The letter's origin still tells where the record is.
    async fn send(&self, letter: &Letter) -> Result<(), String> {
        let whole = letter.original();
        let length = letter.truncated.or(whole.value.map(<[u8]>::len));
        let headless = Original {
            value: None,
            ..whole.clone()
        };
        let shapes = [
            (whole, letter.truncated),
            (headless, length),
            (Original::default(), Some(length.unwrap_or_default())),
        ];
        let mut last = None;
        for (original, truncated) in shapes {
            match self.send_as(letter, &original, truncated).await {
                Ok(()) => return Ok(()),
                Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    last = Some(error);
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(last.map_or_else(String::new, |error| error.to_string()))
    }

    async fn send_as(
        &self,
        letter: &Letter,
        original: &Original<'_>,
        truncated: Option<usize>,
    ) -> Result<(), KafkaError> {
        let mut headers = self.headers(letter, original);
        if let Some(size) = truncated {
            headers = headers.insert(Header {
                key: "dead-letter-truncated",
                value: Some(&size.to_string()),
            });
        }
        let mut record = FutureRecord::<[u8], [u8]>::to(&self.topic).headers(headers);
        record.key = original.key;
        record.payload = original.value;
        // Waits as long as the producer's queue is full; the delivery itself is bounded by librdkafka.
        match self.producer.send(record, Timeout::Never).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error),
        }
    }

    fn headers(&self, letter: &Letter, original: &Original<'_>) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(original.headers.len() + 7);
        for (name, value) in &original.headers {
            headers = headers.insert(Header {
                key: &String::from_utf8_lossy(name),
                value: *value,
            });
        }
        let origin = &letter.origin;
        let timestamp = origin.timestamp.map(|timestamp| timestamp.millis.to_string());
        for (name, value) in [
            ("dead-letter-reason", Some(letter.reason.reason().to_owned())),
            ("dead-letter-description", Some(letter.reason.to_string())),
            (
                "dead-letter-topic",
                Some(self.place.inputs.topic_of(origin.partition).to_owned()),
            ),
            ("dead-letter-partition", Some(origin.partition.number().to_string())),
            ("dead-letter-offset", Some(origin.offset.to_string())),
            ("dead-letter-timestamp", timestamp),
            ("dead-letter-group", Some(self.place.group.clone())),
        ] {
            headers = headers.insert(Header {
                key: name,
                value: value.as_deref(),
            });
        }
        headers
    }
}
