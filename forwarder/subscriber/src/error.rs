//! Why a call fails.

use forwarder_beacon::KeyError;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No URL was given.
    #[error("failed to connect: at least one server's URL is needed")]
    NoServer,
    /// A URL, or a host to allow, cannot be read.
    #[error("failed to read {text:?}: {reason}")]
    Address {
        /// What was given, without user and password.
        text: String,
        /// What is wrong.
        reason: String,
    },
    /// The pinned key is none.
    #[error("failed to read the pinned public key")]
    Key(#[from] KeyError),
    /// No forwarder has answered in time.
    #[error("failed to learn the ring: {0}")]
    NoAnswer(String),
    /// See [`JetStreamError`].
    #[error(transparent)]
    JetStream(#[from] JetStreamError),
}

/// The forwarder publishes into a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the forwarder publishes into the stream {stream:?}; this version of the client reads core NATS only, so read the stream directly"
)]
pub struct JetStreamError {
    /// The stream's name.
    pub stream: String,
}

/// Why there is no subscription.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// No subject can be made.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// All servers of a cluster are at hosts that the client does not allow.
    #[error("failed to subscribe: the cluster {cluster:?} may not be used: {reason}")]
    HostRefused {
        /// The cluster.
        cluster: String,
        /// Why, server by server.
        reason: String,
    },
    /// See [`JetStreamError`].
    #[error(transparent)]
    JetStream(#[from] JetStreamError),
    /// The client's task has ended, with the runtime that it was on.
    #[error("failed to subscribe: the client has ended")]
    Closed,
}

/// Why no subject can be made of an asset.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It has an empty token, a wildcard, a space or a control character.
    #[error(
        "no subject can be made of the asset {0:?}: it has an empty token, a wildcard, a space or a control character"
    )]
    Asset(String),
    /// The ID does not fit the template.
    #[error(
        "no subject can be made of the ID {id:?} in {template:?}: `*` needs an {{id}} that is a token, and `>` one at the end"
    )]
    Id {
        /// The ID.
        id: String,
        /// The forwarder's template.
        template: String,
    },
    /// It is longer than a server takes.
    #[error("the subject is too long")]
    TooLong,
}
