//! What the brokers say about a topic.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::kafka_channel::Topic;
use forwarder_core::document::{KafkaConnection, Sasl};
use forwarder_kafka::client_config;
use forwarder_kafka::told::{self, Told};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use tracing::debug;

use super::apply;
use super::seen::{Failure, Kind, Seen, SeenTopic, TopicId};

/// For a first answer of any broker. Who is slower is no help to a forwarder either.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// How long one call waits; errors of the connection are told between two calls.
const CALL: Duration = Duration::from_millis(500);

/// For librdkafka to tell a topic's ID; one that the brokers do not tell is not waited for any longer.
const ID_WITHIN: Duration = Duration::from_secs(2);
const ID_POLL: Duration = Duration::from_millis(20);

/// For a change to be seen: metadata spread from the controller to the brokers within moments.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// What the brokers say about the topic now. Blocks.
pub(super) fn inspect(connection: &KafkaConnection, topic: &Topic, asks_for_id: bool) -> Result<Seen, Failure> {
    let client = Client::new(connection, Listens::Topics)?;
    client.seen(connection, topic, asks_for_id)
}

/// Looks until `enough` says so, or for a bounded time; what was seen last. Blocks.
pub(super) fn inspect_until(
    connection: &KafkaConnection,
    topic: &Topic,
    asks_for_id: bool,
    mut enough: impl FnMut(&Seen) -> bool,
) -> Result<Seen, Failure> {
    let client = Client::new(connection, Listens::Topics)?;
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let seen = client.seen(connection, topic, asks_for_id)?;
        if enough(&seen) || Instant::now() >= deadline {
            return Ok(seen);
        }
        std::thread::sleep(CALL);
    }
}

/// Whether no record was ever written to a topic. Blocks.
pub(super) fn is_untouched(connection: &KafkaConnection, topic: &str, partitions: i32) -> Result<bool, Failure> {
    let client = Client::new(connection, Listens::Topics)?;
    let deadline = Instant::now() + SEEN_WITHIN;
    for partition in 0..partitions {
        // Who cannot tell in time does not know.
        if Instant::now() >= deadline {
            return Ok(false);
        }
        let offsets = client.consumer.fetch_watermarks(topic, partition, SEEN_WITHIN);
        let offsets = offsets.map_err(|error| apply::failed("read the offsets of", topic, &error))?;
        if offsets != (0, 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the brokers can tell the IDs of topics at all; none: they have not told that either. Blocks.
fn tells_ids(connection: &KafkaConnection, topic: &str) -> Option<bool> {
    // A client of its own: there are some eighty lines for each broker, behind which the others would not hear in time why a connection
    // fails.
    let client = Client::new(connection, Listens::Versions).ok()?;
    let asked = client.metadata(topic);
    debug!(
        failed = asked.is_err(),
        "asked the brokers whether they return IDs of topics"
    );
    let deadline = Instant::now() + ID_WITHIN;
    while client.consumer.context().tells_ids().is_none() && Instant::now() < deadline {
        drop(client.consumer.poll(ID_POLL));
    }
    client.consumer.context().tells_ids()
}

/// What a client hears beside what its calls return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listens {
    /// Which IDs topics have.
    Topics,
    /// Which requests the brokers know.
    Versions,
}

/// A consumer of no group: unlike a producer it does not make the brokers create a topic that it only asks about.
struct Client {
    consumer: BaseConsumer<Listener>,
    servers: String,
}

impl Client {
    fn new(connection: &KafkaConnection, listens: Listens) -> Result<Self, Failure> {
        let mut config = client_config::admin(connection)?;
        config.set("client.id", "fanout-operator");
        config.set("allow.auto.create.topics", "false");
        // Without one nothing can be assigned. Nobody joins it, and nothing is committed.
        config.set("group.id", "fanout-operator");
        config.set("enable.auto.commit", "false");
        match listens {
            Listens::Topics => told::enable(&mut config),
            Listens::Versions => {
                config.set("debug", "feature");
                config.set_log_level(RDKafkaLogLevel::Debug);
            }
        }
        let token = match &connection.sasl {
            Some(Sasl::OAuthBearer { token_file }) => Some(token_file.clone()),
            _ => None,
        };
        let listener = Listener {
            token,
            errors: Mutex::default(),
            topic_id: Mutex::default(),
            tells_ids: Mutex::default(),
        };
        let consumer =
            BaseConsumer::from_config_and_context(&config, listener).map_err(|error| Failure::client(&error))?;
        Ok(Self {
            consumer,
            servers: connection.bootstrap_servers.join(", "),
        })
    }

    fn seen(&self, connection: &KafkaConnection, topic: &Topic, asks_for_id: bool) -> Result<Seen, Failure> {
        let metadata = self.metadata(&topic.name)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic.name);
        let partitions = match found.map(|found| (found.error(), found.partitions())) {
            None => None,
            Some((None, partitions)) => Some(partitions),
            Some((Some(error), _)) => match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => None,
                code => return Err(apply::refused("describe", &topic.name, code)),
            },
        };
        let topic = match partitions {
            None => None,
            Some(partitions) => {
                let id = if asks_for_id {
                    self.learn_id(connection, &topic.name)
                } else {
                    TopicId::NotYet
                };
                let copies = partitions.iter().map(|partition| partition.replicas().len()).min();
                let config = if topic.managed && !topic.config.is_empty() {
                    apply::describe(connection, &topic.name)?
                } else {
                    BTreeMap::new()
                };
                Some(SeenTopic {
                    id,
                    partitions: i32::try_from(partitions.len()).unwrap_or(i32::MAX),
                    replication_factor: copies.and_then(|copies| i32::try_from(copies).ok()).unwrap_or(0),
                    config,
                })
            }
        };
        Ok(Seen {
            cluster_id: self.consumer.client().fetch_cluster_id(CALL),
            topic,
        })
    }

    /// Has librdkafka tell the topic's ID, for a bounded time. It does so for a topic that it is to read, and nothing is read.
    fn learn_id(&self, connection: &KafkaConnection, topic: &str) -> TopicId {
        let mut list = TopicPartitionList::new();
        if list.add_partition_offset(topic, 0, Offset::End).is_err() || self.consumer.assign(&list).is_err() {
            return TopicId::NotYet;
        }
        let deadline = Instant::now() + ID_WITHIN;
        while self.consumer.context().topic_id().is_none() && Instant::now() < deadline {
            drop(self.consumer.poll(ID_POLL));
        }
        if let Err(error) = self.consumer.unassign() {
            debug!(%error, "failed to unassign the topic");
        }
        match self.consumer.context().topic_id() {
            Some(id) => TopicId::Told(id),
            None if tells_ids(connection, topic) == Some(false) => TopicId::Never,
            None => TopicId::NotYet,
        }
    }

    fn metadata(&self, topic: &str) -> Result<Metadata, Failure> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        loop {
            // Serves the wish for a token, and brings the connection's errors.
            drop(self.consumer.poll(Duration::ZERO));
            if let Some(failure) = self.consumer.context().decisive() {
                return Err(failure);
            }
            match self.consumer.fetch_metadata(Some(topic), CALL) {
                Ok(metadata) if is_settled(&metadata, topic) => return Ok(metadata),
                Ok(metadata) if Instant::now() >= deadline => return Ok(metadata),
                Ok(_) => {}
                Err(error) if Instant::now() >= deadline => {
                    debug!(%error, servers = self.servers, "no broker answers");
                    let message = format!(
                        "no broker of {} answers; check the addresses and the network, and whether the listener requires TLS or \
                         SASL",
                        self.servers
                    );
                    return Err(Failure::new(Kind::Unreachable, message));
                }
                Err(_) => {}
            }
        }
    }
}

/// The first version of the request for metadata whose answer has the IDs of topics.
const METADATA_WITH_IDS: i16 = 10;

/// The newest version of the request for metadata that a broker knows, by the words of the librdkafka that is built in.
pub(super) fn metadata_version(line: &str) -> Option<i16> {
    let (_, versions) = line.split_once("ApiKey Metadata (3) Versions ")?;
    let (_, newest) = versions.split_once("..")?;
    newest.trim().parse().ok()
}

/// A topic that was just made has no leader for a moment.
fn is_settled(metadata: &Metadata, topic: &str) -> bool {
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    found.and_then(|found| found.error()) != Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE)
}

/// Hears what a call does not return: why connections fail.
struct Listener {
    token: Option<PathBuf>,
    /// Short: what decides ends the wait, and what does not is not kept.
    errors: Mutex<Option<Failure>>,
    /// Of the one topic that a client asks about. librdkafka writes it to its log before it answers.
    topic_id: Mutex<Option<String>>,
    /// Whether any broker knows a request that tells IDs. While a cluster is upgraded, some do and some do not.
    tells_ids: Mutex<Option<bool>>,
}

impl Listener {
    fn decisive(&self) -> Option<Failure> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn topic_id(&self) -> Option<String> {
        self.topic_id.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tells_ids(&self) -> Option<bool> {
        *self.tells_ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// What matters of it is in the status; every look at a Kafka that is away would be lines of warnings.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        if let Some(Told::Topic { id, .. }) = told::read(message) {
            *self.topic_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
        }
        if let Some(newest) = metadata_version(message) {
            let mut tells = self.tells_ids.lock().unwrap_or_else(PoisonError::into_inner);
            *tells = Some(*tells == Some(true) || newest >= METADATA_WITH_IDS);
        }
        debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        debug!(%error, reason, "Kafka reports an error");
        if let Some(failure) = decisive(&error, reason) {
            *self.errors.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        let path = self.token.as_ref().ok_or("no token is declared")?;
        Ok(client_config::oauth_token(path)?)
    }
}

impl ConsumerContext for Listener {}

/// An error that waiting does not fix. For other errors the caller waits.
pub(super) fn decisive(error: &KafkaError, reason: &str) -> Option<Failure> {
    let kind = match error.rdkafka_error_code()? {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => Kind::Authentication,
        RDKafkaErrorCode::SSL => Kind::Tls,
        _ => return None,
    };
    Some(Failure::new(kind, lasting(reason)))
}

/// The reason without the broker's name, which is another one each time, and without how long it took.
pub(super) fn lasting(reason: &str) -> String {
    let reason = match reason.split_once("://") {
        // `sasl_ssl://broker:9093/bootstrap: what has happened`
        Some((_, rest)) => rest.split_once(": ").map_or(rest, |(_, reason)| reason),
        None => reason,
    };
    reason.split(" (after ").next().unwrap_or(reason).trim().to_owned()
}
