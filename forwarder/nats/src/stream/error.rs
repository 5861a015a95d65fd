//! Why a stream cannot be used.

use forwarder_core::subject::TemplateError;

use crate::connection::ConnectError;
use crate::protocol::ServerError;

/// Why the stream cannot be used. Messages say what to do.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// `JetStream` mode without a stream.
    #[error("publish.stream is not declared; JetStream mode needs it")]
    NotDeclared,
    /// The subject's template cannot be used.
    #[error("failed to read publish.subject")]
    Template(#[from] TemplateError),
    /// The subject starts with a placeholder: no stream could be bound to it alone.
    #[error(
        "publish.subject {subject:?} has no literal prefix; start it with a word of its own, such as assets.{subject}"
    )]
    NoPrefix {
        /// The subject's template.
        subject: String,
    },
    /// Our own files or the server's address cannot be used.
    #[error("failed to prepare a check of the stream in cluster {cluster:?}")]
    Connect {
        /// The cluster.
        cluster: String,
        /// Why.
        source: Box<ConnectError>,
    },
    /// The login failed.
    #[error("failed to log in to {server} of cluster {cluster:?} to check its stream: {problem}")]
    Client {
        /// The cluster.
        cluster: String,
        /// The server, without credentials.
        server: String,
        /// Why; not a source, as its words have their own sources in them.
        problem: async_nats::ConnectError,
    },
    /// The connection was lost between request and answer.
    #[error("cluster {cluster:?} closed the connection during a check of its stream")]
    Lost {
        /// The cluster.
        cluster: String,
    },
    /// The server closed the connection and said why.
    #[error("cluster {cluster:?} ended a check of its stream")]
    Said {
        /// The cluster.
        cluster: String,
        /// The server's words.
        source: ServerError,
    },
    /// The request could not be sent.
    #[error("failed to send a request to JetStream of cluster {cluster:?}: {problem}")]
    Request {
        /// The cluster.
        cluster: String,
        /// Why; not a source, as its words have their own sources in them.
        problem: async_nats::RequestError,
    },
    /// An answer of JetStream cannot be read.
    #[error("failed to read JetStream's answer in cluster {cluster:?}")]
    Answer {
        /// The cluster.
        cluster: String,
        /// Why.
        source: serde_json::Error,
    },
    /// No answer in time.
    #[error(
        "JetStream's API of cluster {cluster:?} did not answer about stream {stream:?}. Either JetStream has no leader, or a server on the \
         path drops the request or the answer. The user must be allowed to {needed}"
    )]
    Timeout {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// The permissions that it takes.
        needed: String,
    },
    /// Nobody listens where the API should be, or it says that it is off.
    #[error(
        "JetStream is not enabled in cluster {cluster:?}, or not for this account, or its API is not at `{api}`. Enable it there, declare \
         where its API is (the cluster's jetStream), or publish in Core mode"
    )]
    NotEnabled {
        /// The cluster.
        cluster: String,
        /// Where the API should be.
        api: String,
    },
    /// We may not send the request.
    #[error(
        "cluster {cluster:?} denies requests to JetStream about stream {stream:?}. Allow the user to {needed}. Or declare the cluster's \
         jetStream and inboxPrefix, if it uses others"
    )]
    Permission {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// The permissions that it takes.
        needed: String,
        /// The server's words, which name the subject.
        source: ServerError,
    },
    /// Nobody can confirm anything at the moment.
    #[error(
        "stream {stream:?} of cluster {cluster:?} has no leader, so it confirms nothing: {description}. Check the cluster's servers"
    )]
    NoLeader {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// JetStream's words.
        description: String,
    },
    /// It does not exist, and it is not managed.
    #[error("stream {stream:?} does not exist in cluster {cluster:?}; create it there, or set publish.stream.manage")]
    Missing {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
    },
    /// It does not take all that we publish.
    #[error(
        "stream {stream:?} of cluster {cluster:?} has the subjects {subjects:?}, which do not cover {wanted:?}; add that subject there"
    )]
    NotCovered {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// Its subjects.
        subjects: Vec<String>,
        /// What it has to take.
        wanted: String,
    },
    /// It confirms nothing, or nothing new.
    #[error("stream {stream:?} of cluster {cluster:?} {problem}")]
    Unfit {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// It is as it should be, and no record is confirmed.
    #[error(
        "stream {stream:?} of cluster {cluster:?} is configured correctly but confirms nothing. Its acks are lost on their way to `{inbox}`, or \
         its servers are overloaded"
    )]
    Unconfirmed {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// Where acks should arrive.
        inbox: String,
    },
    /// JetStream says no.
    #[error("JetStream of cluster {cluster:?} refused stream {stream:?}: {description} (error {err_code})")]
    Refused {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// JetStream's words.
        description: String,
        /// JetStream's number.
        err_code: u16,
    },
}

/// What is wrong with a stream, as a fixed label for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamFault {
    /// Our own configuration.
    Configuration,
    /// The server could not be reached, or was lost during the check.
    Unreachable,
    /// We may not check it.
    Permission,
    /// JetStream's API does not answer.
    Silent,
    /// JetStream is off, or its API is elsewhere.
    NotEnabled,
    /// There is no such stream.
    Missing,
    /// A managed stream was not as declared any more.
    Changed,
    /// It does not take all that we publish.
    NotCovered,
    /// It confirms nothing, or nothing new.
    Unfit,
    /// It has no leader.
    NoLeader,
    /// JetStream says no.
    Refused,
    /// JetStream says what we do not understand.
    Protocol,
    /// The stream is as it should be, and no ack comes.
    Unconfirmed,
}

impl StreamFault {
    /// Each of them.
    pub const ALL: [Self; 13] = [
        Self::Configuration,
        Self::Unreachable,
        Self::Permission,
        Self::Silent,
        Self::NotEnabled,
        Self::Missing,
        Self::Changed,
        Self::NotCovered,
        Self::Unfit,
        Self::NoLeader,
        Self::Refused,
        Self::Protocol,
        Self::Unconfirmed,
    ];

    /// The label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Unreachable => "unreachable",
            Self::Permission => "permission",
            Self::Silent => "silent",
            Self::NotEnabled => "not_enabled",
            Self::Missing => "missing",
            Self::Changed => "changed",
            Self::NotCovered => "not_covered",
            Self::Unfit => "unfit",
            Self::NoLeader => "no_leader",
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Unconfirmed => "unconfirmed",
        }
    }

    /// Whether nothing is confirmed while it lasts, as far as the check can tell. Then every record that is sent must be sent again.
    #[must_use]
    pub const fn stops_all(self) -> bool {
        matches!(self, Self::Missing | Self::NotEnabled | Self::Unfit)
    }

    /// Whether acks prove that it is over, because it is a fault of the check or of the acks rather than of the stream.
    #[must_use]
    pub const fn is_over_with_acks(self) -> bool {
        !matches!(self, Self::NotCovered)
    }
}

impl StreamError {
    /// Whether it can pass without a new configuration of ours: all that lies in the cluster may.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        self.fault() != StreamFault::Configuration
    }

    /// What it counts as.
    #[must_use]
    pub const fn fault(&self) -> StreamFault {
        match self {
            Self::NotDeclared | Self::Template(_) | Self::NoPrefix { .. } => StreamFault::Configuration,
            Self::Connect { .. } | Self::Client { .. } | Self::Lost { .. } | Self::Said { .. } => {
                StreamFault::Unreachable
            }
            Self::Answer { .. } | Self::Request { .. } => StreamFault::Protocol,
            Self::Timeout { .. } => StreamFault::Silent,
            Self::NotEnabled { .. } => StreamFault::NotEnabled,
            Self::Permission { .. } => StreamFault::Permission,
            Self::NoLeader { .. } => StreamFault::NoLeader,
            Self::Missing { .. } => StreamFault::Missing,
            Self::NotCovered { .. } => StreamFault::NotCovered,
            Self::Unfit { .. } => StreamFault::Unfit,
            Self::Refused { .. } => StreamFault::Refused,
            Self::Unconfirmed { .. } => StreamFault::Unconfirmed,
        }
    }

    /// A fixed label for metrics.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.fault().label()
    }
}
