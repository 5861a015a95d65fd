//! The Kafka side.

use std::collections::BTreeSet;

use crate::document::fault::Faults;
use crate::document::properties::{self, Scope};
use crate::document::{DeadLetter, Engine, KafkaConnection, MAX_FURTHER_TOPICS, Sasl, Source, StartFrom, Tls};

pub(super) fn check_source(faults: &mut Faults<'_>, source: &Source, engine: &Engine) {
    let Source {
        connection,
        topic,
        further_topics,
        group,
        start_from,
        missing_offset: _,
        protocol,
    } = source;
    let mut at = faults.at("connection");
    check_connection(&mut at, connection, Scope::Consumer);
    properties::check_consumer(
        &mut at.at("properties"),
        &connection.properties,
        *protocol,
        engine.drain_timeout_ms,
        engine.commit_interval_ms,
    );
    check_topic(&mut faults.at("topic"), topic);
    check_further_topics(&mut faults.at("furtherTopics"), topic, further_topics);
    let mut at = faults.at("group");
    if at.text(group) && group.len() > 255 {
        at.add("is longer than 255 bytes", "write a shorter name");
    }
    if let StartFrom::Timestamp { millis } = *start_from
        && millis < 0
    {
        faults
            .at("startFrom")
            .at("millis")
            .add(format!("{millis} is before 1970"), "write 0 or more");
    }
}

pub(super) fn check_dead_letter(faults: &mut Faults<'_>, dead_letter: &DeadLetter, source: &Source) {
    match dead_letter {
        DeadLetter::File { path } => faults.at("path").file(path),
        DeadLetter::Topic { topic, connection } => {
            check_topic(&mut faults.at("topic"), topic);
            if source.topics().any(|read| read == topic)
                && connection
                    .as_ref()
                    .is_none_or(|other| overlaps(other, &source.connection))
            {
                faults.at("topic").add(
                    "is the topic of the source: dead letters would be read again",
                    "write another topic",
                );
            }
            if let Some(connection) = connection {
                let mut at = faults.at("connection");
                check_connection(&mut at, connection, Scope::Producer);
                properties::check_producer(&mut at.at("properties"), &connection.properties);
            }
        }
    }
}

/// Whether the two name a bootstrap server in common, and so surely the same Kafka.
fn overlaps(a: &KafkaConnection, b: &KafkaConnection) -> bool {
    let same = |a: &String| {
        b.bootstrap_servers
            .iter()
            .any(|b| a.trim().eq_ignore_ascii_case(b.trim()))
    };
    a.bootstrap_servers.iter().any(same)
}

fn check_connection(faults: &mut Faults<'_>, connection: &KafkaConnection, client: Scope) {
    let KafkaConnection {
        bootstrap_servers,
        tls,
        sasl,
        properties,
    } = connection;
    let mut at = faults.at("bootstrapServers");
    if bootstrap_servers.is_empty() {
        at.add("is empty", "name at least one server as host:port");
    }
    for (index, server) in bootstrap_servers.iter().enumerate() {
        if let Some(problem) = server_problem(server) {
            at.item(index).add(problem, "write host:port");
        }
    }
    if let Some(tls) = tls {
        check_tls(&mut faults.at("tls"), tls);
    }
    if let Some(sasl) = sasl {
        check_sasl(&mut faults.at("sasl"), sasl);
    }
    properties::check(&mut faults.at("properties"), properties, client);
}

fn server_problem(server: &str) -> Option<&'static str> {
    if server.is_empty() {
        return Some("is empty");
    }
    if server.contains("://") {
        return Some("has a scheme");
    }
    let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%');
    if !server.chars().all(sound) {
        return Some("has a character that host:port does not allow");
    }
    let (host, port) = match server.rsplit_once(']') {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("x"))),
        None => server
            .rsplit_once(':')
            .map_or((server, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || (host.contains(':') && !host.starts_with('[')) {
        return Some("names no valid host");
    }
    match port.map(str::parse::<u16>) {
        Some(Ok(0) | Err(_)) => Some("names no valid port"),
        Some(Ok(_)) | None => None,
    }
}

pub(super) fn check_tls(faults: &mut Faults<'_>, tls: &Tls) {
    let Tls {
        ca_file,
        cert_file,
        key_file,
    } = tls;
    for (field, file) in [("caFile", ca_file), ("certFile", cert_file), ("keyFile", key_file)] {
        if let Some(file) = file {
            faults.at(field).file(file);
        }
    }
    match (cert_file, key_file) {
        (Some(_), None) => faults.at("certFile").add("has no key", "add keyFile"),
        (None, Some(_)) => faults.at("keyFile").add("has no certificate", "add certFile"),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

fn check_sasl(faults: &mut Faults<'_>, sasl: &Sasl) {
    match sasl {
        Sasl::Plain {
            username,
            password_file,
        }
        | Sasl::ScramSha256 {
            username,
            password_file,
        }
        | Sasl::ScramSha512 {
            username,
            password_file,
        } => {
            faults.at("username").text(username);
            faults.at("passwordFile").file(password_file);
        }
        Sasl::OAuthBearer { token_file } => faults.at("tokenFile").file(token_file),
    }
}

fn check_further_topics(faults: &mut Faults<'_>, first: &str, further: &[String]) {
    if further.len() > MAX_FURTHER_TOPICS {
        faults.add(
            format!("names {} topics", further.len()),
            format!("name {MAX_FURTHER_TOPICS} at most; other forwarders can read the rest"),
        );
    }
    let mut named = BTreeSet::from([first]);
    for (index, topic) in further.iter().enumerate() {
        let mut at = faults.item(index);
        check_topic(&mut at, topic);
        if !named.insert(topic) {
            at.add(format!("{topic:?} is named twice"), "name each topic once");
        }
    }
}

/// Kafka's own rules. They also keep out a leading `^`, which librdkafka would take for a pattern of topics.
fn check_topic(faults: &mut Faults<'_>, topic: &str) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() {
        faults.add("is empty", "name a topic");
    } else if topic.len() > 249 {
        faults.add("is longer than 249 characters", "use a shorter name");
    } else if matches!(topic, "." | "..") || !topic.chars().all(legal) {
        faults.add(
            format!("{topic:?} is not a valid topic name"),
            "use letters, digits, dots, underscores and dashes",
        );
    }
}
