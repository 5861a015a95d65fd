//! Requests that change where copies of streams are, as a client of the servers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use forwarder_core::document::{Cluster, NatsAuth};
use forwarder_nats::ServerAddress;
use forwarder_nats::client::Client;
use forwarder_nats::jetstream::Answer;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::names::{OPERATOR_USER, SYSTEM_USER, url};
use super::validate::Passwords;
use crate::controllers::nats_cluster::probe::NAME;
use crate::error::describe;

/// For a connection, and for an answer.
const WITHIN: Duration = Duration::from_secs(5);

/// What an answer may hold.
#[derive(Deserialize)]
struct Content {
    /// Of a list of names.
    #[serde(default)]
    streams: Option<Vec<String>>,
    /// How many there are on all pages.
    #[serde(default)]
    total: usize,
}

/// Gives a stream's copy on that server to another one. An error is for people.
pub(super) async fn move_stream(server: IpAddr, passwords: &Passwords, stream: &str, from: &str) -> Result<(), String> {
    let subject = format!("$JS.API.STREAM.PEER.REMOVE.{stream}");
    request(
        server,
        (OPERATOR_USER, &passwords.system),
        &subject,
        &json!({"peer": from}),
    )
    .await
    .map(drop)
}

/// The names of all streams, whether or not a server that has them is there: who places streams knows.
pub(super) async fn streams(server: IpAddr, passwords: &Passwords) -> Result<BTreeSet<String>, String> {
    let login = (OPERATOR_USER, passwords.system.as_str());
    let mut names = BTreeSet::new();
    // An answer has so many names at most; each page is asked for by where it begins.
    loop {
        let page = request(server, login, "$JS.API.STREAM.NAMES", &json!({"offset": names.len()})).await?;
        let before = names.len();
        names.extend(page.streams.unwrap_or_default());
        if names.len() >= page.total {
            return Ok(names);
        }
        if names.len() == before {
            return Err("$JS.API.STREAM.NAMES: the server did not name all streams".to_owned());
        }
    }
}

/// Takes a server that does not come back out of the servers' own list.
pub(super) async fn forget(server: IpAddr, passwords: &Passwords, gone: &str) -> Result<(), String> {
    request(
        server,
        (SYSTEM_USER, &passwords.system),
        "$JS.API.SERVER.REMOVE",
        &json!({"peer": gone}),
    )
    .await
    .map(drop)
}

async fn request(
    server: IpAddr,
    (user, password): (&str, &str),
    subject: &str,
    body: &Value,
) -> Result<Content, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("failed to create a private folder: {error}"))?;
    let file = folder.path().join("password");
    std::fs::write(&file, password).map_err(|error| format!("failed to write a password: {error}"))?;
    let url = url(server);
    let cluster = Cluster {
        name: "managed".to_owned(),
        servers: vec![url.clone()],
        weight: 1,
        auth: Some(NatsAuth::UserPassword {
            username: user.to_owned(),
            password_file: file,
        }),
        tls: None,
        discover_servers: None,
        jet_stream: None,
        inbox_prefix: None,
        client_servers: Vec::new(),
    };
    let address = ServerAddress::parse(&url).map_err(|error| error.to_string())?;
    let mut client = Client::connect(&cluster, &address, NAME, Instant::now() + WITHIN)
        .await
        .map_err(|error| describe(&error))?;
    let asked = client.request(subject.to_owned(), body.to_string().into(), Instant::now() + WITHIN);
    let answer = asked
        .await
        .map_err(|error| format!("{subject}: {}", describe(&error)))?;
    let answer: Answer<Content> = serde_json::from_slice(&answer).map_err(|error| format!("{subject}: {error}"))?;
    match answer.error {
        None => Ok(answer.content),
        Some(error) => Err(format!("{subject}: {}", error.description)),
    }
}
