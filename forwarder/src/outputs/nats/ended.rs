//! Why a connection ends.

use std::time::Duration;

use forwarder_nats::protocol::ProtocolError;
use forwarder_nats::server::ForeignServer;
use forwarder_nats::stream::StreamError;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the server closed the connection")]
    Closed,
    #[error("failed to read or write")]
    Io(#[from] std::io::Error),
    #[error("failed to understand the server")]
    Protocol(#[from] ProtocolError),
    #[error("the server said: {0}")]
    Server(String),
    #[error("the server refused a record and did not say which: {text}; each of {suspects} is sent alone now")]
    Unattributed { text: String, suspects: usize },
    #[error(
        "the user may not subscribe to {inbox}, where JetStream's acks arrive: allow `{prefix}.>`, or declare the cluster's inboxPrefix"
    )]
    InboxDenied { inbox: String, prefix: String },
    #[error("no answer for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Foreign(#[from] ForeignServer),
    #[error("the server is going to shut down and asks its clients to leave")]
    LameDuck,
    #[error("no stream takes `{0}`")]
    NoStream(String),
    #[error("acks do not come")]
    Stream(#[source] Box<StreamError>),
    #[error("acks did not come, because stream `{0}` was missing or changed; it is as declared again")]
    StreamMended(String),
    #[error("partitions were given up while records of theirs were being written")]
    GivenUp,
    #[error("the cluster is declared otherwise now")]
    Moved,
    #[error(
        "our membership of the consumer group is not proved any more, and records were being written: others may own them"
    )]
    Unproven,
}
