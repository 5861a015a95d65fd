//! The NATS side.

use std::collections::HashMap;

use super::Origin;
use super::beacon::check_beacon;
use super::kafka::check_tls;
use super::mirror::check_mirror;
use super::subject::{check_literal, pattern_problem};
use crate::document::fault::Faults;
use crate::document::server::{ServerError, ServerUrl};
use crate::document::{
    Cluster, Headers, JetStreamApi, MAX_RING_NODES, NatsAuth, Publish, PublishMode, Retry, RingConfig, Stream,
};
use crate::subject::{Template, covers, is_reserved};

pub(super) fn check_ring(faults: &mut Faults<'_>, ring: &RingConfig, origin: Origin) {
    let RingConfig {
        epoch,
        replicas,
        handover_timeout_ms,
        clusters,
        beacon,
        mirror,
    } = ring;
    faults.at("epoch").range(*epoch, 1, i64::MAX.unsigned_abs());
    faults.at("replicas").range(*replicas, 1, 100_000);
    faults
        .at("handoverTimeoutMs")
        .range(*handover_timeout_ms, 100, 24 * 3_600_000);
    if let Some(beacon) = beacon {
        check_beacon(&mut faults.at("beacon"), beacon, *handover_timeout_ms);
    }
    if let Some(mirror) = mirror {
        check_mirror(&mut faults.at("mirror"), mirror);
    }
    let nodes: u64 = clusters
        .iter()
        .map(|cluster| u64::from(cluster.weight) * u64::from(*replicas))
        .fold(0, u64::saturating_add);
    if nodes > MAX_RING_NODES {
        faults.at("replicas").add(
            format!("multiplied by the clusters' weights, it gives {nodes} virtual nodes, more than {MAX_RING_NODES}"),
            "lower it, or lower the weights",
        );
    }
    let mut at = faults.at("clusters");
    if clusters.is_empty() {
        at.add("is empty: no cluster owns anything", "name at least one");
    }
    let path = at.path().to_owned();
    let mut names = HashMap::new();
    for (index, cluster) in clusters.iter().enumerate() {
        let mut at = at.item(index);
        check_cluster(&mut at, cluster, origin);
        if let Some(first) = names.insert(cluster.name.as_str(), index) {
            at.at("name").add(
                format!("{:?} is also the name of {path}[{first}]", cluster.name),
                "write another name",
            );
        }
    }
}

fn check_cluster(faults: &mut Faults<'_>, cluster: &Cluster, origin: Origin) {
    let Cluster {
        name,
        servers,
        weight,
        auth,
        tls,
        discover_servers: _,
        jet_stream,
        inbox_prefix,
        client_servers,
    } = cluster;
    let mut at = faults.at("name");
    if at.text(name) {
        if name.trim() != name {
            at.add(format!("{name:?} begins or ends with a blank"), "remove it");
        }
        if name.len() > 253 {
            at.add("is longer than 253 bytes", "write a shorter name");
        }
    }
    let mut at = faults.at("servers");
    if servers.is_empty() {
        at.add("is empty", "name at least one server as nats://host:port");
    }
    for (index, server) in servers.iter().enumerate() {
        check_server(&mut at.item(index), server, origin);
    }
    let mut at = faults.at("clientServers");
    if client_servers.len() > MAX_CLIENT_SERVERS {
        at.add(
            format!("has {} entries, more than {MAX_CLIENT_SERVERS}", client_servers.len()),
            "name fewer; a client learns the others from the server",
        );
    }
    for (index, server) in client_servers.iter().enumerate() {
        check_client_server(&mut at.item(index), server);
    }
    faults.at("weight").range(*weight, 1, 1_000);
    if let Some(auth) = auth {
        check_auth(&mut faults.at("auth"), auth);
    }
    if let Some(tls) = tls {
        check_tls(&mut faults.at("tls"), tls);
    }
    if let Some(api) = jet_stream {
        check_jet_stream(&mut faults.at("jetStream"), api);
    }
    if let Some(prefix) = inbox_prefix {
        let mut at = faults.at("inboxPrefix");
        check_literal(&mut at, prefix, "_INBOX_plant");
        if prefix.starts_with('$') {
            at.add(
                format!("{prefix:?} is reserved for the server"),
                "begin with another character",
            );
        }
    }
}

/// Most addresses of one cluster that subscribers are told.
const MAX_CLIENT_SERVERS: usize = 16;

/// What subscribers are told is no secret, so it holds no user. The text itself is never repeated.
fn check_client_server(faults: &mut Faults<'_>, server: &str) {
    let advice = "write nats://host:port, tls://host:port, ws://host:port or wss://host:port";
    let Ok(url) = url::Url::parse(server) else {
        faults.add("is no URL", advice);
        return;
    };
    if !matches!(url.scheme(), "nats" | "tls" | "ws" | "wss") || url.host_str().is_none_or(str::is_empty) {
        faults.add("is no URL of a NATS server", advice);
    }
    if !url.username().is_empty() || url.password().is_some() {
        faults.add(
            "holds a user or a password",
            "remove it: every subscriber reads this, and has a login of its own",
        );
    }
}

fn check_jet_stream(faults: &mut Faults<'_>, api: &JetStreamApi) {
    let JetStreamApi { domain, api_prefix } = api;
    match (domain, api_prefix) {
        (None, None) => faults.add("is empty", "write domain or apiPrefix, or leave it out"),
        (Some(_), Some(_)) => faults.add(
            "has both domain and apiPrefix",
            "write one: a domain stands for the prefix $JS.<domain>.API",
        ),
        (Some(domain), None) => {
            let mut at = faults.at("domain");
            check_literal(&mut at, domain, "plant-a");
            if domain.contains('.') {
                at.add(format!("{domain:?} has a dot"), "write the domain's name alone");
            }
        }
        (None, Some(prefix)) => check_literal(&mut faults.at("apiPrefix"), prefix, "JS.plant.API"),
    }
}

/// The text itself is never repeated: it may hold a password.
fn check_server(faults: &mut Faults<'_>, server: &str, origin: Origin) {
    match ServerUrl::parse(server) {
        Ok(ServerUrl { userinfo: Some(_), .. }) | Err(ServerError::Userinfo) if origin == Origin::Document => {
            faults.add(
                "holds a user or a password",
                "name files in auth instead; a document must not contain secrets",
            );
        }
        Ok(_) => {}
        Err(error @ ServerError::Userinfo) => {
            faults.add(
                error.to_string(),
                "percent-encode special characters: %40 for @, %2F for /, %25 for %",
            );
        }
        Err(error @ ServerError::NotOne) => faults.add(error.to_string(), "write one server per entry"),
        Err(error) => faults.add(error.to_string(), "write nats://host:port or tls://host:port"),
    }
}

fn check_auth(faults: &mut Faults<'_>, auth: &NatsAuth) {
    match auth {
        NatsAuth::Creds { file } | NatsAuth::Token { file } => faults.at("file").file(file),
        NatsAuth::NKey { seed_file } => faults.at("seedFile").file(seed_file),
        NatsAuth::UserPassword {
            username,
            password_file,
        } => {
            faults.at("username").text(username);
            faults.at("passwordFile").file(password_file);
        }
    }
}

pub(super) fn check_publish(faults: &mut Faults<'_>, publish: &Publish, has_dead_letter: bool) {
    let Publish {
        mode,
        subject,
        stream,
        headers: Headers { origin: _ },
        retry,
    } = publish;
    let prefix = check_subject(&mut faults.at("subject"), subject, *mode);
    match (mode, stream) {
        (PublishMode::Core, None) => {}
        (PublishMode::Core, Some(_)) => {
            faults
                .at("stream")
                .add("is not used in mode Core", "remove it, or write mode: JetStream");
        }
        (PublishMode::JetStream, None) => {
            faults
                .at("stream")
                .add("is missing; mode JetStream needs it", "name the stream");
        }
        (PublishMode::JetStream, Some(stream)) => check_stream(&mut faults.at("stream"), stream, prefix.as_deref()),
    }
    check_retry(&mut faults.at("retry"), retry, has_dead_letter);
}

/// The template's literal prefix, if there is one.
fn check_subject(faults: &mut Faults<'_>, template: &str, mode: PublishMode) -> Option<String> {
    let template = match Template::parse(template) {
        Ok(template) => template,
        Err(error) => {
            faults.add(
                error.to_string(),
                "write {key}, {id} and literal tokens, such as assets.{key}.{id}",
            );
            return None;
        }
    };
    let prefix = template.literal_prefix();
    if !prefix.is_empty() {
        return Some(prefix.to_owned());
    }
    if mode == PublishMode::JetStream {
        faults.add(
            "has no literal first token: a stream of all subjects would capture the server's own subjects",
            "begin with one, such as assets.{key}.{id}",
        );
    }
    None
}

fn check_stream(faults: &mut Faults<'_>, stream: &Stream, prefix: Option<&str>) {
    let Stream {
        name,
        manage,
        subjects,
        replicas,
        storage: _,
        max_age_seconds,
        max_bytes,
        duplicate_window_seconds,
    } = stream;
    let mut at = faults.at("name");
    if at.text(name)
        && (name.len() > 255 || name.contains(['.', '*', '>', '/', '\\']) || name.contains(char::is_whitespace))
    {
        at.add(
            format!("{name:?} is not a valid stream name"),
            "use letters, digits, underscores and dashes",
        );
    }
    if !manage {
        let set = [
            ("subjects", !subjects.is_empty()),
            ("maxAgeSeconds", max_age_seconds.is_some()),
            ("maxBytes", max_bytes.is_some()),
        ];
        for (field, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
            faults.at(field).add(
                "is not used for a stream that is not managed",
                "remove it, or write manage: true",
            );
        }
    }
    check_stream_subjects(&mut faults.at("subjects"), subjects, prefix);
    faults.at("replicas").range(*replicas, 1, 5);
    if *max_age_seconds == Some(0) {
        faults
            .at("maxAgeSeconds")
            .add("0 would keep nothing", "write 1 or more, or leave it out for no limit");
    }
    if max_bytes.is_some_and(|bytes| bytes <= 0) {
        faults
            .at("maxBytes")
            .add("would keep nothing", "write 1 or more, or leave it out for no limit");
    }
    let mut at = faults.at("duplicateWindowSeconds");
    at.range(*duplicate_window_seconds, 1, 7 * 24 * 3_600);
    if max_age_seconds.is_some_and(|age| age > 0 && *duplicate_window_seconds > age) {
        at.add(
            "is longer than maxAgeSeconds, which the server refuses",
            "lower it to at most maxAgeSeconds",
        );
    }
}

fn check_stream_subjects(faults: &mut Faults<'_>, subjects: &[String], prefix: Option<&str>) {
    let mut sound = true;
    for (index, pattern) in subjects.iter().enumerate() {
        let mut at = faults.item(index);
        if let Some(problem) = pattern_problem(pattern) {
            sound = false;
            at.add(format!("{pattern:?} {problem}"), "write a pattern such as assets.>");
        } else if pattern.starts_with(['*', '>']) || is_reserved(pattern.as_bytes()) {
            sound = false;
            at.add(
                format!("{pattern:?} would capture the server's own subjects"),
                "begin with a literal token",
            );
        }
    }
    if let Some(prefix) = prefix
        && sound
        && !subjects.is_empty()
        && !subjects.iter().any(|pattern| covers(pattern, prefix))
    {
        faults.add(
            format!("do not cover the subjects of publish.subject, which begin with {prefix:?}"),
            format!("write {prefix}.> in place of those that it covers"),
        );
    }
}

fn check_retry(faults: &mut Faults<'_>, retry: &Retry, has_dead_letter: bool) {
    let Retry {
        initial_backoff_ms,
        max_backoff_ms,
        max_attempts,
        confirm_timeout_ms,
    } = retry;
    faults.at("initialBackoffMs").range(*initial_backoff_ms, 1, 3_600_000);
    let mut at = faults.at("maxBackoffMs");
    at.range(*max_backoff_ms, 1, 3_600_000);
    if max_backoff_ms < initial_backoff_ms {
        at.add(
            format!("{max_backoff_ms} is less than initialBackoffMs, {initial_backoff_ms}"),
            "write at least as much",
        );
    }
    faults.at("confirmTimeoutMs").range(*confirm_timeout_ms, 10, 600_000);
    let mut at = faults.at("maxAttempts");
    match max_attempts {
        Some(0) => at.add(
            "0 would give up every record",
            "write 1 or more, or leave it out to retry for ever",
        ),
        Some(_) if !has_dead_letter => at.add(
            "needs deadLetter: a record that is given up must not be lost",
            "declare deadLetter, or remove maxAttempts",
        ),
        Some(_) | None => {}
    }
}
