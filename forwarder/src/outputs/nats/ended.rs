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
    #[error("the server violated the NATS protocol")]
    Protocol(#[from] ProtocolError),
    #[error("the server said: {0}")]
    Server(String),
    #[error(
        "the server refused a record and did not say which: {text}. The publisher sends each of {suspects} records alone now"
    )]
    Unattributed { text: String, suspects: usize },
    #[error(
        "the user may not subscribe to {inbox}, where JetStream's acks arrive: allow `{prefix}.>`, or declare the cluster's inboxPrefix"
    )]
    InboxDenied { inbox: String, prefix: String },
    #[error("the server did not answer for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Foreign(#[from] ForeignServer),
    #[error("the server is going to shut down and asks its clients to leave")]
    LameDuck,
    #[error("no stream accepts `{0}`")]
    NoStream(String),
    #[error("acks are missing")]
    Stream(#[source] Box<StreamError>),
    #[error(
        "acks were missing, because stream `{0}` was missing or changed. The publisher has restored it as declared"
    )]
    StreamMended(String),
    #[error("partitions were given up while their records were being written")]
    GivenUp,
    #[error("the configuration of the cluster has changed")]
    Moved,
    #[error("the lease was lost while records were being written, and other members may own them")]
    Unproven,
}
