//! One short connection, made as a forwarder makes it: the same code, credentials and TLS.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::BytesMut;
use forwarder_core::document::Cluster;
use forwarder_core::document::server::ServerUrl;
use forwarder_nats::protocol::{Op, Parser, encode_ping, encode_pong, encode_pub, encode_sub};
use forwarder_nats::{ConnectError, Connection, Login, ServerAddress, connect};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout_at};

use crate::controller::describe;

/// For all servers together. Who answers later is no help to a forwarder either.
const WITHIN: Duration = Duration::from_secs(5);

/// For JetStream's answer, once connected.
const JET_STREAM_WITHIN: Duration = Duration::from_secs(2);

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its version.
    pub(super) version: String,
    /// Its cluster's name for itself; none for a server that is alone.
    pub(super) cluster_name: Option<String>,
    /// Whether JetStream is on for these credentials; none: they may not ask.
    pub(super) jet_stream: Option<bool>,
    /// All servers, as URLs, sorted: the declared ones and those that the cluster names.
    pub(super) servers: Vec<String>,
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
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Unreachable => "Unreachable",
            Self::Unsupported => "Unsupported",
            Self::Tls => "TlsFailed",
            Self::Authorization => "AuthorizationFailed",
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
        match connect(&address, Login::of(cluster, "fanout-operator"), share).await {
            Ok(connection) => return Ok(seen(cluster, &address, connection).await),
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

async fn seen(cluster: &Cluster, address: &ServerAddress, mut connection: Connection) -> Seen {
    let jet_stream = timeout_at(Instant::now() + JET_STREAM_WITHIN, jet_stream(cluster, &mut connection)).await;
    let info = &connection.info;
    Seen {
        version: info.version.clone(),
        cluster_name: Some(info.cluster.clone()).filter(|name| !name.is_empty()),
        jet_stream: jet_stream.ok().flatten(),
        servers: servers(&cluster.servers, &info.connect_urls, address.url.tls),
    }
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

/// The part of the API's answer that tells whether there is JetStream.
#[derive(Deserialize)]
struct AccountInfo {
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
}

/// Not enabled on the server, not enabled for the account.
const NOT_ENABLED: [u64; 2] = [10076, 10039];

/// Asks for the account's JetStream; none: there is no telling.
async fn jet_stream(cluster: &Cluster, connection: &mut Connection) -> Option<bool> {
    let subject = format!("{}.INFO", cluster.jet_stream_api());
    let answer = request(cluster, connection, &subject, b"").await?;
    // No body: nobody listens to JetStream's API.
    if answer.is_empty() {
        return Some(false);
    }
    let info: AccountInfo = serde_json::from_slice(&answer).ok()?;
    match info.error {
        None => Some(true),
        Some(Refusal { err_code }) if NOT_ENABLED.contains(&err_code) => Some(false),
        Some(_) => None,
    }
}

/// Asks, and yields the answer's body; none: we may not ask, or not hear the answer.
pub(super) async fn request(
    cluster: &Cluster,
    connection: &mut Connection,
    subject: &str,
    body: &[u8],
) -> Option<Vec<u8>> {
    let (info, prefix) = (&connection.info, cluster.inbox_prefix());
    let inbox = format!("{prefix}.{}.{}", info.server_id, info.client_id);
    let mut out = Vec::new();
    encode_sub(&mut out, inbox.as_bytes(), 1);
    encode_pub(&mut out, subject.as_bytes(), Some(inbox.as_bytes()), b"", body);
    encode_ping(&mut out);
    write(connection, &out).await?;
    let mut parser = Parser::default();
    loop {
        match next_op(connection, &mut parser).await? {
            Op::Message(message) => return Some(message.payload.to_vec()),
            Op::Ping => {
                out.clear();
                encode_pong(&mut out);
                write(connection, &out).await?;
            }
            Op::Error(_) => return None,
            Op::Info(_) | Op::Pong | Op::Ok => {}
        }
    }
}

async fn write(connection: &mut Connection, bytes: &[u8]) -> Option<()> {
    connection.io.write_all(bytes).await.ok()?;
    connection.io.flush().await.ok()
}

async fn next_op(connection: &mut Connection, parser: &mut Parser) -> Option<Op> {
    let Connection { info: _, io, leftover } = connection;
    let buffer: &mut BytesMut = leftover;
    loop {
        if let Some(op) = parser.next_op(buffer).ok()? {
            return Some(op);
        }
        if io.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
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
