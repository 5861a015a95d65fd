//! Why a stream is not to be used.

use forwarder_core::subject::TemplateError;

use crate::nats::connection::ConnectError;
use crate::nats::protocol::{ProtocolError, ServerError};
use crate::nats::server::AddressError;

/// Why the stream is not to be used. Messages say what to do.
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
    /// A server's address cannot be read.
    #[error("failed to read the addresses of cluster {cluster:?}")]
    Address {
        /// The cluster.
        cluster: String,
        /// Why.
        source: AddressError,
    },
    /// No server could be reached; this is the last one's error.
    #[error("failed to connect to cluster {cluster:?} for its stream")]
    Connect {
        /// The cluster.
        cluster: String,
        /// Why.
        source: Box<ConnectError>,
    },
    /// The connection was lost between request and answer.
    #[error("failed to speak to JetStream of cluster {cluster:?}")]
    Io {
        /// The cluster.
        cluster: String,
        /// Why.
        source: std::io::Error,
    },
    /// The server sent what is no NATS protocol.
    #[error("failed to understand cluster {cluster:?}")]
    Protocol {
        /// The cluster.
        cluster: String,
        /// Why.
        source: ProtocolError,
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
    #[error("JetStream of cluster {cluster:?} did not answer about stream {stream:?} in time; does it have a leader?")]
    Timeout {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
    },
    /// JetStream is off.
    #[error(
        "JetStream is not enabled in cluster {cluster:?}, or not for our account; enable it there, or publish in Core mode"
    )]
    NotEnabled {
        /// The cluster.
        cluster: String,
    },
    /// We may not ask.
    #[error("cluster {cluster:?} does not let us manage or look at stream {stream:?}; allow the subject that it names")]
    Permission {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
        /// The server's words.
        source: ServerError,
    },
    /// It does not exist, and is not ours to make.
    #[error("stream {stream:?} does not exist in cluster {cluster:?}; create it there, or set publish.stream.manage")]
    Missing {
        /// The cluster.
        cluster: String,
        /// The stream.
        stream: String,
    },
    /// It does not take all that we publish.
    #[error(
        "stream {stream:?} of cluster {cluster:?} has the subjects {subjects:?}, which do not cover {wanted:?}; add it there"
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
        err_code: u64,
    },
}

impl StreamError {
    /// Whether it can pass without a new configuration of ours: all that lies in the cluster may.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        !matches!(
            self,
            Self::NotDeclared | Self::Template(_) | Self::NoPrefix { .. } | Self::Address { .. }
        )
    }

    /// A fixed label for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotDeclared | Self::Template(_) | Self::NoPrefix { .. } | Self::Address { .. } => "configuration",
            Self::Connect { source, .. } => source.kind(),
            Self::Io { .. } => "io",
            Self::Protocol { .. } | Self::Answer { .. } => "protocol",
            Self::Timeout { .. } => "timeout",
            Self::NotEnabled { .. } => "not_enabled",
            Self::Permission { .. } => "permission",
            Self::Missing { .. } => "missing",
            Self::NotCovered { .. } => "not_covered",
            Self::Unfit { .. } => "unfit",
            Self::Refused { .. } => "refused",
        }
    }
}
