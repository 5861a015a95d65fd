//! From the checked document to librdkafka's configuration.
//!
//! Three layers, each over the one before: what runs well unless somebody knows better, what the document tunes
//! through its allowlist, and what the engine's promises rest on, which nothing overrides.

#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use forwarder_core::document::properties::{
    self, DEFAULT_HEARTBEAT_INTERVAL_MS, DEFAULT_MAX_POLL_INTERVAL_MS, DEFAULT_SESSION_TIMEOUT_MS, Scope,
};
use forwarder_core::document::{Checked, DeadLetter, GroupProtocol, KafkaConnection, Sasl, Tls};
use rdkafka::ClientConfig;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;

/// How librdkafka names us to the broker, where the document does not.
const CLIENT_ID: &str = "fanout-forwarder";

/// Runs well for both clients. A connection that a firewall has forgotten is noticed; an idle one that the broker
/// closes is no news; a partition that is added is seen within a minute.
const TUNED: &[(&str, &str)] = &[
    ("client.id", CLIENT_ID),
    ("socket.keepalive.enable", "true"),
    ("log.connection.close", "false"),
    ("topic.metadata.refresh.interval.ms", "60000"),
];

/// Runs well for the consumer. The default backoff of a second halves the throughput once the queue has been full,
/// and the queue is what memory is bounded by while nothing can be delivered.
const CONSUMER_TUNED: &[(&str, &str)] = &[
    ("fetch.queue.backoff.ms", "5"),
    ("queued.max.messages.kbytes", "16384"),
    ("isolation.level", "read_committed"),
];

/// What delivery rests on: offsets are committed by us alone, and a missing one is a fault to decide on, never a
/// jump. The statistics tell the state of the membership. Damage is told by checksums alone, and librdkafka checks none by itself.
const CONSUMER_OWNED: &[(&str, &str)] = &[
    ("check.crcs", "true"),
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("enable.partition.eof", "false"),
    ("allow.auto.create.topics", "false"),
    ("statistics.interval.ms", "1000"),
];

/// The end of a partition ends a pass over it; and what is read again must not take as much memory as what comes in.
const READER_OWNED: &[(&str, &str)] = &[
    ("enable.partition.eof", "true"),
    ("statistics.interval.ms", "0"),
    ("queued.max.messages.kbytes", "4096"),
];

/// Looks at one batch at a time, and at the end of a partition waits for nothing.
const EXAMINER_OWNED: &[(&str, &str)] = &[
    ("fetch.message.max.bytes", "1024"),
    ("fetch.min.bytes", "1"),
    ("fetch.wait.max.ms", "10"),
    ("fetch.error.backoff.ms", "50"),
];

/// What the source's brokers took can be written again, and only the target's brokers say what is too large: librdkafka's
/// own bound of 1,000,000 bytes is lower than theirs, and an offset would wait for ever for what it refuses.
const PRODUCER_TUNED: &[(&str, &str)] = &[("message.max.bytes", "1000000000")];

/// A dead letter is settled once every in-sync replica has it, and then once.
const PRODUCER_OWNED: &[(&str, &str)] = &[("acks", "all"), ("enable.idempotence", "true")];

/// Why a client cannot be configured.
#[derive(Debug, thiserror::Error)]
pub enum ClientConfigError {
    /// A file that the document names cannot be read.
    #[error("failed to read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it; never what it holds.
        problem: &'static str,
    },
}

/// The consumer of the source.
///
/// # Errors
/// A file of the connection that cannot be read or used.
pub fn consumer(config: &Checked) -> Result<ClientConfig, ClientConfigError> {
    let source = &config.source;
    let mut client = ClientConfig::new();
    set_all(&mut client, TUNED);
    set_all(&mut client, CONSUMER_TUNED);
    client.set("max.poll.interval.ms", DEFAULT_MAX_POLL_INTERVAL_MS.to_string());
    if source.protocol == GroupProtocol::Classic {
        client.set("session.timeout.ms", DEFAULT_SESSION_TIMEOUT_MS.to_string());
        client.set("heartbeat.interval.ms", DEFAULT_HEARTBEAT_INTERVAL_MS.to_string());
    }
    set_properties(&mut client, &source.connection, Scope::Consumer);
    set_all(&mut client, CONSUMER_OWNED);
    client.set("group.id", source.group.as_str());
    match source.protocol {
        GroupProtocol::Classic => {
            client.set("group.protocol", "classic");
            client.set("partition.assignment.strategy", "cooperative-sticky");
        }
        // The broker assigns and sets the session; librdkafka refuses a strategy, a session and a heartbeat here.
        GroupProtocol::Consumer => {
            client.set("group.protocol", "consumer");
        }
    }
    set_connection(&mut client, &source.connection)?;
    Ok(client)
}

/// The consumer that reads parked records again: it is told what to read, so it never joins the group.
///
/// # Errors
/// A file of the connection that cannot be read or used.
pub fn reader(config: &Checked) -> Result<ClientConfig, ClientConfigError> {
    let mut client = consumer(config)?;
    set_all(&mut client, READER_OWNED);
    Ok(client)
}

/// The consumer that looks for batches that cannot be read: as [`reader`], and a batch at a time.
///
/// # Errors
/// A file of the connection that cannot be read or used.
pub fn examiner(config: &Checked) -> Result<ClientConfig, ClientConfigError> {
    let mut client = reader(config)?;
    set_all(&mut client, EXAMINER_OWNED);
    Ok(client)
}

/// The producer of dead letters; none, if they do not go to a topic.
///
/// # Errors
/// A file of the connection that cannot be read or used.
pub fn dead_letter_producer(config: &Checked) -> Result<Option<ClientConfig>, ClientConfigError> {
    let Some(DeadLetter::Topic { topic: _, connection }) = &config.dead_letter else {
        return Ok(None);
    };
    let connection = connection.as_ref().unwrap_or(&config.source.connection);
    let mut client = ClientConfig::new();
    set_all(&mut client, TUNED);
    set_all(&mut client, PRODUCER_TUNED);
    set_properties(&mut client, connection, Scope::Producer);
    set_all(&mut client, PRODUCER_OWNED);
    set_connection(&mut client, connection)?;
    Ok(Some(client))
}

/// An admin client over a connection: of no group, and of no topic. With OAUTHBEARER its context must answer librdkafka's
/// requests for a token by [`oauth_token`].
///
/// # Errors
/// A file of the connection that cannot be read or used.
pub fn admin(connection: &KafkaConnection) -> Result<ClientConfig, ClientConfigError> {
    let mut client = ClientConfig::new();
    set_all(&mut client, TUNED);
    set_properties(&mut client, connection, Scope::Both);
    set_connection(&mut client, connection)?;
    Ok(client)
}

/// The token that librdkafka asks for with OAUTHBEARER. It is read each time, because something else keeps it fresh.
///
/// # Errors
/// The file cannot be read, or holds no JWT with `exp`.
pub fn oauth_token(path: &Path) -> Result<OAuthToken, ClientConfigError> {
    let token = read_secret(path)?;
    let unusable = |problem| ClientConfigError::Unusable {
        path: path.to_owned(),
        problem,
    };
    let claims = token.split('.').nth(1).ok_or_else(|| unusable("holds no JWT"))?;
    let claims = BASE64_URL_SAFE_NO_PAD
        .decode(claims)
        .map_err(|_| unusable("holds no JWT"))?;
    let claims: Claims = serde_json::from_slice(&claims).map_err(|_| unusable("holds a JWT without `exp`"))?;
    // Whole seconds since 1970, if need be with decimals; far below what an f64 keeps exactly.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a float becomes the nearest bound, which is as good as never"
    )]
    let lifetime_ms = (claims.exp * 1_000.0) as i64;
    Ok(OAuthToken {
        token,
        principal_name: claims.sub.unwrap_or_default(),
        lifetime_ms,
    })
}

#[derive(serde::Deserialize)]
struct Claims {
    exp: f64,
    sub: Option<String>,
}

fn set_all(client: &mut ClientConfig, settings: &[(&str, &str)]) {
    for (name, value) in settings {
        client.set(*name, *value);
    }
}

/// What the document tunes, as far as it is for this client: dead letters may go over the source's connection.
fn set_properties(client: &mut ClientConfig, connection: &KafkaConnection, scope: Scope) {
    for (name, value) in &connection.properties {
        let applies = properties::find(name).is_some_and(|found| found.scope == Scope::Both || found.scope == scope);
        if applies {
            client.set(name.as_str(), value.as_str());
        }
        if applies && name == "debug" {
            // rdkafka lets no such line through by itself, and ours are not written unless that level is declared.
            client.set_log_level(RDKafkaLogLevel::Debug);
        }
    }
}

fn set_connection(client: &mut ClientConfig, connection: &KafkaConnection) -> Result<(), ClientConfigError> {
    let KafkaConnection {
        bootstrap_servers,
        tls,
        sasl,
        properties: _,
    } = connection;
    client.set("bootstrap.servers", bootstrap_servers.join(","));
    client.set(
        "security.protocol",
        match (tls, sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        },
    );
    if let Some(Tls {
        ca_file,
        cert_file,
        key_file,
    }) = tls
    {
        let files = [
            ("ssl.ca.location", ca_file),
            ("ssl.certificate.location", cert_file),
            ("ssl.key.location", key_file),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                client.set(name, readable(file)?);
            }
        }
    }
    match sasl {
        None => {}
        Some(Sasl::Plain {
            username,
            password_file,
        }) => set_password(client, "PLAIN", username, password_file)?,
        Some(Sasl::ScramSha256 {
            username,
            password_file,
        }) => {
            set_password(client, "SCRAM-SHA-256", username, password_file)?;
        }
        Some(Sasl::ScramSha512 {
            username,
            password_file,
        }) => {
            set_password(client, "SCRAM-SHA-512", username, password_file)?;
        }
        Some(Sasl::OAuthBearer { token_file }) => {
            // Read once now, so that a wrong path is told at the start; the client's context reads it again.
            oauth_token(token_file)?;
            client.set("sasl.mechanism", "OAUTHBEARER");
        }
    }
    Ok(())
}

fn set_password(
    client: &mut ClientConfig,
    mechanism: &str,
    username: &str,
    password_file: &Path,
) -> Result<(), ClientConfigError> {
    client.set("sasl.mechanism", mechanism);
    client.set("sasl.username", username);
    client.set("sasl.password", read_secret(password_file)?);
    Ok(())
}

/// The path of a file that can be opened: librdkafka's own message would not say which one cannot.
fn readable(path: &Path) -> Result<&str, ClientConfigError> {
    File::open(path).map_err(|source| ClientConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    path.to_str().ok_or_else(|| ClientConfigError::Unusable {
        path: path.to_owned(),
        problem: "is not a UTF-8 path",
    })
}

/// What a file holds, without the blanks and line ends around it that editors and `echo` leave.
fn read_secret(path: &Path) -> Result<String, ClientConfigError> {
    let unusable = |problem| ClientConfigError::Unusable {
        path: path.to_owned(),
        problem,
    };
    let bytes = fs::read(path).map_err(|source| ClientConfigError::Unreadable {
        path: path.to_owned(),
        source,
    })?;
    let text = String::from_utf8(bytes).map_err(|_| unusable("is not UTF-8"))?;
    match text.trim() {
        "" => Err(unusable("is empty")),
        secret if secret.contains('\0') => Err(unusable("holds a zero byte")),
        secret => Ok(secret.to_owned()),
    }
}
