//! Kafka clients as the configuration declares them.

pub mod client_config;
pub mod told;

use std::path::PathBuf;

use forwarder_core::document::{Checked, DeadLetter, KafkaConnection, Sasl};
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::FutureProducer;
use tracing::{debug, error, info, warn};

use self::client_config::ClientConfigError;

/// A client could not be made. Brokers that do not answer are not such an error: librdkafka keeps trying.
#[derive(Debug, thiserror::Error)]
pub enum KafkaSetupError {
    /// A file that the configuration names cannot be used.
    #[error(transparent)]
    Config(#[from] ClientConfigError),
    /// librdkafka refuses the settings.
    #[error("failed to set up librdkafka")]
    Client(#[from] KafkaError),
    /// A producer was asked for and no topic is declared.
    #[error("no dead letter topic is declared")]
    NoTopic,
}

/// Where librdkafka's OAUTHBEARER tokens come from.
#[derive(Clone, Debug)]
pub struct OAuthTokenFile(PathBuf);

impl OAuthTokenFile {
    fn of(connection: &KafkaConnection) -> Option<Self> {
        match &connection.sasl {
            Some(Sasl::OAuthBearer { token_file }) => Some(Self(token_file.clone())),
            _ => None,
        }
    }

    /// The token that is in the file now.
    ///
    /// # Errors
    /// See [`client_config::oauth_token`].
    pub fn read(&self) -> Result<OAuthToken, ClientConfigError> {
        client_config::oauth_token(&self.0)
    }
}

/// The consumer of the source, with the context that `context` makes.
///
/// # Errors
/// See [`KafkaSetupError`].
pub fn create_consumer<C: ConsumerContext>(
    config: &Checked,
    context: impl FnOnce(Option<OAuthTokenFile>) -> C,
) -> Result<BaseConsumer<C>, KafkaSetupError> {
    let mut client = client_config::consumer(config)?;
    told::enable(&mut client);
    let token = OAuthTokenFile::of(&config.source.connection);
    Ok(BaseConsumer::from_config_and_context(&client, context(token))?)
}

/// A consumer for reading records again: of the same source, and never a member of the group.
///
/// # Errors
/// See [`KafkaSetupError`].
pub fn create_reader<C: ConsumerContext>(
    config: &Checked,
    context: impl FnOnce(Option<OAuthTokenFile>) -> C,
) -> Result<BaseConsumer<C>, KafkaSetupError> {
    let mut client = client_config::reader(config)?;
    told::enable(&mut client);
    let token = OAuthTokenFile::of(&config.source.connection);
    Ok(BaseConsumer::from_config_and_context(&client, context(token))?)
}

/// A consumer that looks for batches that cannot be read: of the same source, and never a member of the group.
///
/// # Errors
/// See [`KafkaSetupError`].
pub fn create_examiner<C: ConsumerContext>(
    config: &Checked,
    context: impl FnOnce(Option<OAuthTokenFile>) -> C,
) -> Result<BaseConsumer<C>, KafkaSetupError> {
    let mut client = client_config::examiner(config)?;
    told::enable(&mut client);
    let token = OAuthTokenFile::of(&config.source.connection);
    Ok(BaseConsumer::from_config_and_context(&client, context(token))?)
}

/// The producer of dead letters.
///
/// # Errors
/// See [`KafkaSetupError`].
pub fn create_producer(config: &Checked) -> Result<FutureProducer<ProducerContext>, KafkaSetupError> {
    let client = client_config::dead_letter_producer(config)?.ok_or(KafkaSetupError::NoTopic)?;
    let connection = match &config.dead_letter {
        Some(DeadLetter::Topic {
            connection: Some(connection),
            ..
        }) => connection,
        _ => &config.source.connection,
    };
    let context = ProducerContext {
        token: OAuthTokenFile::of(connection),
    };
    Ok(FutureProducer::from_config_and_context(&client, context)?)
}

/// What librdkafka reports to a producer.
#[derive(Clone, Debug)]
pub struct ProducerContext {
    token: Option<OAuthTokenFile>,
}

impl ClientContext for ProducerContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        warn!(%error, reason, "Kafka reports an error; librdkafka keeps trying");
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        refresh(self.token.as_ref())
    }
}

/// The answer when librdkafka asks for a token.
///
/// # Errors
/// There is no token file, or it cannot be used.
pub fn refresh(token: Option<&OAuthTokenFile>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
    Ok(token.ok_or("no token file is configured")?.read()?)
}

/// Passes a line of librdkafka's log on, at the level that it means here.
pub fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            error!(facility, "librdkafka: {message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => warn!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => info!(facility, "librdkafka: {message}"),
        RDKafkaLogLevel::Debug => debug!(facility, "librdkafka: {message}"),
    }
}
