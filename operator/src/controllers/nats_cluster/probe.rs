//! One short connection, made as a forwarder makes it: the same code, credentials and TLS. Then one question to JetStream's API.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use forwarder_core::document::Cluster;
use forwarder_core::document::server::ServerUrl;
use forwarder_nats::client::{Client, ClientError};
use forwarder_nats::jetstream::Answer;
use forwarder_nats::{ConnectError, Login, ServerAddress, connect};
use serde::de::IgnoredAny;
use tokio::time::Instant;

use crate::error::describe;
use crate::reconcile::reason::Reason;

/// What a server is told about who asks.
pub(super) const NAME: &str = "fanout-operator";

/// For all servers together. Who answers later is no help to a forwarder either.
const WITHIN: Duration = Duration::from_secs(5);

/// For JetStream's answer, once a server has let us in. It takes a log-in of its own.
const JET_STREAM_WITHIN: Duration = Duration::from_secs(3);

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its version.
    pub(super) version: String,
    /// Its cluster's name for itself; none for a server that is alone.
    pub(super) cluster_name: Option<String>,
    /// What JetStream's API says.
    pub(super) jet_stream: JetStream,
    /// All servers, as URLs, sorted: the declared ones and those that the cluster names.
    pub(super) servers: Vec<String>,
}

/// What JetStream's API says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JetStream {
    /// Whether it is on for these credentials; none: they may not ask.
    Told(Option<bool>),
    /// Nothing in time. So what was told before may hold as well.
    Silent,
}

impl JetStream {
    /// What is known of it now; `before`: what was told before.
    pub(super) fn or(self, before: Option<bool>) -> Option<bool> {
        match self {
            Self::Told(told) => told,
            Self::Silent => before,
        }
    }
}

/// No server let us in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// The kind that a person should look at first.
    pub(super) kind: Kind,
    /// What happened at each server, in the declared order. The same outage gives the same words.
    pub(super) message: String,
}

/// The kind of a failure, in the order in which they matter: a server that refuses us tells more than one that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Nobody answers.
    Unreachable,
    /// What answers cannot be used.
    Unsupported,
    /// TLS does not come about.
    Tls,
    /// It does not accept our credentials.
    Authorization,
}

impl Kind {
    pub(super) const fn reason(self) -> Reason {
        match self {
            Self::Unreachable => Reason::Unreachable,
            Self::Unsupported => Reason::Unsupported,
            Self::Tls => Reason::TlsFailed,
            Self::Authorization => Reason::AuthorizationFailed,
        }
    }

    fn of(error: &ConnectError) -> Self {
        match error {
            ConnectError::Resolve { .. }
            | ConnectError::Io { .. }
            | ConnectError::Closed { .. }
            | ConnectError::Timeout { .. } => Self::Unreachable,
            ConnectError::Refused { .. } | ConnectError::Protocol { .. } | ConnectError::Unsupported { .. } => {
                Self::Unsupported
            }
            ConnectError::Tls { .. } | ConnectError::TlsUnavailable { .. } | ConnectError::TlsFiles { .. } => Self::Tls,
            ConnectError::Authorization { .. } | ConnectError::Credentials { .. } => Self::Authorization,
        }
    }
}

/// Connects to the first server that lets us in, in the declared order, with the files of `folder`.
pub(super) async fn probe(cluster: &Cluster, folder: &Path) -> Result<Seen, Failure> {
    let deadline = Instant::now() + WITHIN;
    let mut kind = Kind::Unreachable;
    let mut messages = Vec::new();
    for (at, server) in cluster.servers.iter().enumerate() {
        // The spec is checked: a server that cannot be read is not here.
        let Ok(address) = ServerAddress::parse(server) else {
            continue;
        };
        // A silent server leaves time for the others.
        let left = u32::try_from(cluster.servers.len() - at).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(Instant::now()) / left;
        let info = connect(&address, Login::of(cluster, NAME), share).await;
        match info.map(|connection| connection.info) {
            Ok(info) => {
                return Ok(Seen {
                    version: info.version,
                    cluster_name: Some(info.cluster).filter(|name| !name.is_empty()),
                    jet_stream: jet_stream(cluster, &address).await,
                    servers: servers(&cluster.servers, &info.connect_urls, address.url.tls),
                });
            }
            Err(error) => {
                kind = kind.max(Kind::of(&error));
                messages.push(lasting(&describe(&error), folder));
            }
        }
    }
    messages.dedup();
    Err(Failure {
        kind,
        message: messages.join("; "),
    })
}

/// Declared and announced servers as URLs, sorted. Announced ones have no scheme: they inherit that of the server that told.
pub(super) fn servers(declared: &[String], announced: &[String], tls: bool) -> Vec<String> {
    let declared = declared.iter().filter_map(|text| ServerUrl::parse(text).ok());
    let announced = announced.iter().filter_map(|text| {
        let mut url = ServerUrl::parse(text).ok()?;
        url.tls |= tls;
        Some(url)
    });
    let all: BTreeSet<String> = declared.chain(announced).map(|url| url.to_string()).collect();
    all.into_iter().collect()
}

/// Asks for the account's JetStream.
async fn jet_stream(cluster: &Cluster, server: &ServerAddress) -> JetStream {
    let deadline = Instant::now() + JET_STREAM_WITHIN;
    let subject = format!("{}.INFO", cluster.jet_stream_api());
    let answer = match Client::connect(cluster, server, NAME, deadline).await {
        Ok(mut client) => client.request(subject, Bytes::new(), deadline).await,
        Err(error) => Err(error),
    };
    said(answer.as_deref())
}

/// What an answer of JetStream's API says.
fn said(answer: Result<&[u8], &ClientError>) -> JetStream {
    let answer = match answer {
        Ok(answer) => answer,
        Err(ClientError::NoResponders) => return JetStream::Told(Some(false)),
        Err(ClientError::Denied(_)) => return JetStream::Told(None),
        Err(_) => return JetStream::Silent,
    };
    let answer = serde_json::from_slice::<Answer<IgnoredAny>>(answer);
    JetStream::Told(match answer.map(|answer| answer.error) {
        Ok(None) => Some(true),
        Ok(Some(error)) if error.is_not_enabled() => Some(false),
        Ok(Some(_)) | Err(_) => None,
    })
}

/// The message without what changes although nothing has: our private folder has another name each time, and rustls tells
/// for how many seconds a certificate has been out of date.
fn lasting(message: &str, folder: &Path) -> String {
    let message = message.replace(&format!("{}/", folder.display()), "");
    let end = message.find(": verification time").unwrap_or(message.len());
    message[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_in_time_has_said_nothing() {
        let on = br#"{"memory": 0}"#;
        let off = br#"{"error": {"code": 503, "err_code": 10039, "description": "JetStream not enabled for account"}}"#;
        assert_eq!(said(Ok(on)), JetStream::Told(Some(true)));
        assert_eq!(said(Ok(off)), JetStream::Told(Some(false)));
        assert_eq!(said(Err(&ClientError::NoResponders)), JetStream::Told(Some(false)));
        for error in [ClientError::Silent, ClientError::Lost] {
            assert_eq!(said(Err(&error)), JetStream::Silent, "{error}");
        }
    }

    #[test]
    fn servers_are_told_once_and_sorted() {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            servers(
                &list(&["tls://c1:4222", "c0"]),
                &list(&["10.0.0.2:4222", "c1:4222", "nonsense here"]),
                true
            ),
            ["nats://c0:4222", "tls://10.0.0.2:4222", "tls://c1:4222"]
        );
    }

    #[test]
    fn a_message_lasts_as_long_as_its_cause() {
        let folder = Path::new("/tmp/.tmpA1");
        assert_eq!(
            lasting("failed to read /tmp/.tmpA1/nats_a_b_ca.crt: no such file", folder),
            "failed to read nats_a_b_ca.crt: no such file"
        );
        assert_eq!(
            lasting(
                "invalid peer certificate: certificate expired: verification time 5 (UNIX), but …",
                folder
            ),
            "invalid peer certificate: certificate expired"
        );
    }
}
