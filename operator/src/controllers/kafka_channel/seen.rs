//! What the brokers say about a topic, and why they may say nothing, in words of our own.

use std::collections::BTreeMap;

use forwarder_kafka::client_config::ClientConfigError;

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
    pub(super) id: TopicId,
    pub(super) partitions: i32,
    /// Of the partition that has the fewest.
    pub(super) replication_factor: i32,
    /// Its settings by name; read only where settings are declared.
    pub(super) config: BTreeMap<String, Setting>,
}

/// The ID of a topic. A later topic of the same name has another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum TopicId {
    /// As Kafka's own tools write it.
    Told(String),
    /// The brokers were not asked, or have not told it in time.
    #[default]
    NotYet,
    /// The brokers are too old to tell any (before 2.8).
    Never,
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
    /// They refuse settings of the topic, for good.
    Settings,
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
        Self::new(Kind::Client, crate::error::describe(error))
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
