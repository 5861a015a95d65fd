//! The client that is a member of the group, and the topics that it reads.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
use forwarder_core::document::Checked;
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{info, warn};

use super::IntakeError;
use super::context::{Context, OwnConsumer};
use super::questions::Shares;
use super::starts;
use forwarder_kafka::{self as kafka, KafkaSetupError};

/// How long it may take to find out which topics are missing: all else stands still meanwhile.
const MISSING_TIMEOUT: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Client {
    /// What is declared.
    pub(super) config: Arc<Checked>,
    /// The topics, by number.
    pub(super) inputs: Inputs,
    /// Shared with the thread that commits.
    pub(super) consumer: Arc<OwnConsumer>,
    /// Whether Kafka has refused a topic without saying which.
    misses_topic: bool,
}

impl Client {
    /// Makes the consumer; nothing is asked of Kafka yet.
    pub(super) fn new(config: Arc<Checked>) -> Result<Self, KafkaSetupError> {
        let inputs = Inputs::new(config.source.topics());
        let consumer = create(&config, &inputs)?;
        Ok(Self {
            config,
            inputs,
            consumer,
            misses_topic: false,
        })
    }

    /// Another consumer for the same topics, which takes the place of this one's.
    pub(super) fn successor(&self) -> Result<Arc<OwnConsumer>, KafkaSetupError> {
        create(&self.config, &self.inputs)
    }

    /// Makes the context of one more consumer.
    pub(super) fn context(&self, token: Option<kafka::OAuthTokenFile>) -> Context {
        Context::new(&self.config.source, &self.inputs, token)
    }

    /// Joins the group.
    pub(super) fn subscribe(&self) -> Result<(), IntakeError> {
        let names: Vec<&str> = self.inputs.names().collect();
        let topic = names.join(", ");
        let subscribed = self.consumer.subscribe(&names);
        subscribed.map_err(|source| IntakeError::Subscribe {
            topic: topic.clone(),
            source,
        })?;
        info!(topic, group = self.config.source.group, "subscribed");
        Ok(())
    }

    /// As librdkafka wants them named.
    pub(super) fn list_of(&self, partitions: &[PartitionId]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(self.inputs.topic_of(*partition), partition.number());
        }
        list
    }

    /// Answers an assignment without beginning anything.
    pub(super) fn answer(&self, partitions: &[PartitionId]) {
        if let Err(error) = self.consumer.incremental_assign(&self.list_of(partitions)) {
            warn!(%error, partitions = ?self.inputs.show(partitions), "failed to accept an assignment");
        }
    }

    /// Takes note of an error that may be about one of several topics. Kafka is not asked here: the caller is amid a poll.
    pub(super) fn note_error(&mut self, error: &KafkaError) {
        self.misses_topic |= self.inputs.len() > 1 && starts::is_of_the_topic(error);
    }

    /// Says which topics Kafka does not have, if it has refused one: librdkafka's error does not name it.
    pub(super) fn report_missing_topics(&mut self) {
        if !std::mem::take(&mut self.misses_topic) {
            return;
        }
        let mut shares = Shares::within(MISSING_TIMEOUT, self.inputs.len());
        for (_, topic) in self.inputs.iter() {
            let Some(patience) = shares.next() else {
                return;
            };
            match starts::ask_for_topic(&self.consumer, topic, patience) {
                Err(error) if starts::is_of_the_topic(&error) => {
                    warn!(%error, topic, "the topic does not exist in Kafka; the other topics go on");
                }
                // The next error tells of it.
                Err(_) => return,
                Ok(()) => {}
            }
        }
    }
}

fn create(config: &Checked, inputs: &Inputs) -> Result<Arc<OwnConsumer>, KafkaSetupError> {
    let context = |token| Context::new(&config.source, inputs, token);
    Ok(Arc::new(OwnConsumer::new(kafka::create_consumer(config, context)?)))
}

/// Whose record it is. A single topic's name need not be looked at.
pub(super) fn partition_of(inputs: &Inputs, record: &impl Message) -> Option<PartitionId> {
    let input = match inputs.len() {
        1 => Input::FIRST,
        _ => inputs.find(record.topic())?,
    };
    PartitionId::new(input, record.partition())
}
