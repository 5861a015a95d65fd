//! What the brokers say about a topic.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::kafka_channel::Topic;
use forwarder::kafka::client_config::{self, ClientConfigError};
use forwarder_core::config::{KafkaConnection, Sasl};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::types::RDKafkaRespErr;
use tracing::debug;

use super::admin;

/// For a first answer of any broker. Who is slower is no help to a forwarder either.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// How long one call waits; errors of the connection are told between two calls.
const CALL: Duration = Duration::from_millis(500);

/// For a change to be seen: metadata spread from the controller to the brokers within moments.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

/// What the brokers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// The cluster's own ID.
    pub(super) cluster_id: Option<String>,
    /// The topic; none: there is none.
    pub(super) topic: Option<SeenTopic>,
}

/// A topic as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenTopic {
    pub(super) partitions: i32,
    /// Of the partition that has the fewest.
    pub(super) replication_factor: i32,
    /// Its settings by name; read only where settings are declared.
    pub(super) config: BTreeMap<String, Setting>,
}

/// A setting of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// None: the brokers do not tell.
    pub(super) value: Option<String>,
    /// Whether it was set on the topic itself, and is no default of the brokers.
    pub(super) own: bool,
}

/// Why the brokers say nothing, or refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// For people; the same failure has the same words.
    pub(super) message: String,
}

/// The kind of a failure, in the order in which they matter: a broker that refuses us tells more than one that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Nobody answers.
    Unreachable,
    /// TLS does not come about.
    Tls,
    /// They do not accept our credentials.
    Authentication,
    /// They know us and do not let us.
    Authorization,
    /// The files or settings of the connection cannot be used.
    Client,
    /// They refuse what is declared, at the moment.
    Refused,
    /// They refuse what is declared, for good.
    Invalid,
}

impl Failure {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// librdkafka, or a file of the connection, cannot be used.
    pub(super) fn client(error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(Kind::Client, crate::controller::describe(error))
    }
}

impl From<ClientConfigError> for Failure {
    fn from(error: ClientConfigError) -> Self {
        // The path is that of a private folder, which has another name each time.
        let message = match &error {
            ClientConfigError::Unreadable { path, source } => {
                format!(
                    "failed to read {}: {source}",
                    path.file_name().unwrap_or_default().display()
                )
            }
            ClientConfigError::Unusable { path, problem } => {
                format!("{} {problem}", path.file_name().unwrap_or_default().display())
            }
        };
        Self::new(Kind::Client, message)
    }
}

/// What the brokers say about the topic now. Blocks.
pub(super) fn inspect(connection: &KafkaConnection, topic: &Topic) -> Result<Seen, Failure> {
    let client = Client::new(connection)?;
    client.seen(connection, topic)
}

/// Looks until `enough` says so, or for a bounded time; what was seen last. Blocks.
pub(super) fn inspect_until(
    connection: &KafkaConnection,
    topic: &Topic,
    mut enough: impl FnMut(&Seen) -> bool,
) -> Result<Seen, Failure> {
    let client = Client::new(connection)?;
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let seen = client.seen(connection, topic)?;
        if enough(&seen) || Instant::now() >= deadline {
            return Ok(seen);
        }
        std::thread::sleep(CALL);
    }
}

/// A consumer of no group: unlike a producer it does not make the brokers create a topic that it only asks about.
struct Client {
    consumer: BaseConsumer<Listener>,
    servers: String,
}

impl Client {
    fn new(connection: &KafkaConnection) -> Result<Self, Failure> {
        let mut config = client_config::admin(connection)?;
        config.set("client.id", "fanout-operator");
        config.set("allow.auto.create.topics", "false");
        let token = match &connection.sasl {
            Some(Sasl::OAuthBearer { token_file }) => Some(token_file.clone()),
            _ => None,
        };
        let listener = Listener {
            token,
            errors: Mutex::default(),
        };
        let consumer =
            BaseConsumer::from_config_and_context(&config, listener).map_err(|error| Failure::client(&error))?;
        Ok(Self {
            consumer,
            servers: connection.bootstrap_servers.join(", "),
        })
    }

    fn seen(&self, connection: &KafkaConnection, topic: &Topic) -> Result<Seen, Failure> {
        let metadata = self.metadata(&topic.name)?;
        let found = metadata.topics().iter().find(|found| found.name() == topic.name);
        let partitions = match found.map(|found| (found.error(), found.partitions())) {
            None => None,
            Some((None, partitions)) => Some(partitions),
            Some((Some(error), _)) => match RDKafkaErrorCode::from(error) {
                RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => None,
                code => return Err(admin::refused("describe", &topic.name, code)),
            },
        };
        let topic = match partitions {
            None => None,
            Some(partitions) => {
                let copies = partitions.iter().map(|partition| partition.replicas().len()).min();
                let config = if topic.managed && !topic.config.is_empty() {
                    admin::describe(connection, &topic.name)?
                } else {
                    BTreeMap::new()
                };
                Some(SeenTopic {
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
                        "no broker of {} answers; check the addresses and the network, and whether the listener wants TLS or SASL",
                        self.servers
                    );
                    return Err(Failure::new(Kind::Unreachable, message));
                }
                Err(_) => {}
            }
        }
    }
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
}

impl Listener {
    fn decisive(&self) -> Option<Failure> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Listener {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    /// What matters of it is in the status; every look at a Kafka that is away would be lines of warnings.
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
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

/// An error that waiting does not mend; others are waited for.
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
