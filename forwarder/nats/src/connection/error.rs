//! Why there is no connection.

use std::io;

use crate::credentials::CredentialsError;
use crate::protocol::{ProtocolError, ServerError};
use crate::server::ServerAddress;
use crate::tls::{self, TlsError};

/// What a connect was doing when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Looking the host name up.
    Resolve,
    /// Opening the TCP connection.
    Connect,
    /// Waiting for the server's INFO.
    Info,
    /// The TLS handshake, with reading its files.
    Tls,
    /// Reading credentials, sending CONNECT and waiting for the PONG.
    Login,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Resolve => "looking up its name",
            Self::Connect => "opening the TCP connection",
            Self::Info => "waiting for its INFO (is it a NATS server, without TLS handshake_first?)",
            Self::Tls => "the TLS handshake",
            Self::Login => "waiting for the answer to CONNECT",
        })
    }
}

/// Why there is no connection. Messages name the server without credentials.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host name has no address.
    #[error("failed to look up the NATS server {server}")]
    Resolve {
        /// The server.
        server: ServerAddress,
        /// Why.
        source: io::Error,
    },
    /// The socket failed: nobody listens, or the network is down.
    #[error("failed to reach the NATS server {server} ({stage})")]
    Io {
        /// The server.
        server: ServerAddress,
        /// What was going on.
        stage: Stage,
        /// Why.
        source: io::Error,
    },
    /// The server closed the connection without an error.
    #[error("the NATS server {server} closed the connection ({stage})")]
    Closed {
        /// The server.
        server: ServerAddress,
        /// What was going on.
        stage: Stage,
    },
    /// The time was up.
    #[error("the NATS server {server} took too long: {stage}")]
    Timeout {
        /// The server.
        server: ServerAddress,
        /// What was going on.
        stage: Stage,
    },
    /// The certificates or keys that are configured cannot be used.
    #[error("failed to prepare TLS for the NATS server {server}")]
    TlsFiles {
        /// The server.
        server: ServerAddress,
        /// Why.
        source: TlsError,
    },
    /// The TLS handshake failed, mostly because one side does not accept the other's certificate.
    #[error("the TLS handshake with the NATS server {server} failed; {advice}")]
    Tls {
        /// The server.
        server: ServerAddress,
        /// What to check, or to do.
        advice: &'static str,
        /// Why.
        source: io::Error,
    },
    /// TLS is wanted, and the server has none.
    #[error("the NATS server {server} offers no TLS; configure it there, or remove tls here")]
    TlsUnavailable {
        /// The server.
        server: ServerAddress,
    },
    /// A credentials file cannot be used.
    #[error("failed to log in to the NATS server {server}")]
    Credentials {
        /// The server.
        server: ServerAddress,
        /// Why.
        source: CredentialsError,
    },
    /// The server does not accept who we are.
    #[error("the NATS server {server} does not accept our credentials: {text}")]
    Authorization {
        /// The server.
        server: ServerAddress,
        /// Its words.
        text: String,
    },
    /// The server refuses for another reason.
    #[error("the NATS server {server} refused the connection")]
    Refused {
        /// The server.
        server: ServerAddress,
        /// Its words.
        source: ServerError,
    },
    /// What answers is no NATS server.
    #[error("{server} does not speak the NATS protocol")]
    Protocol {
        /// The server.
        server: ServerAddress,
        /// Why.
        source: ProtocolError,
    },
    /// A NATS server that cannot do, or did, what it should.
    #[error("the NATS server {server} (version {version:?}) {problem}")]
    Unsupported {
        /// The server.
        server: ServerAddress,
        /// Its version.
        version: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl ConnectError {
    /// Always: a person may mend a server, a file or a firewall at any time, without a word to us.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        true
    }

    /// For a TLS connection that failed.
    pub(super) fn tls(server: ServerAddress, source: io::Error) -> Self {
        Self::Tls {
            server,
            advice: tls::advice(&source),
            source,
        }
    }

    /// A fixed label for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Resolve { .. } => "resolve",
            Self::Io { .. } => "io",
            Self::Closed { .. } => "closed",
            Self::Timeout { .. } => "timeout",
            Self::TlsFiles { .. } => "tls_files",
            Self::Tls { .. } | Self::TlsUnavailable { .. } => "tls",
            Self::Credentials { .. } => "credentials",
            Self::Authorization { .. } => "authorization",
            Self::Refused { .. } => "refused",
            Self::Protocol { .. } => "protocol",
            Self::Unsupported { .. } => "unsupported",
        }
    }
}
