//! Which librdkafka properties a document may set.
//!
//! An allowlist: librdkafka has properties that load libraries, run commands or read files. The engine's promises depend on
//! others. A new property of a later librdkafka is refused until somebody has reviewed it.
//! Names and ranges are those of librdkafka 2.12's CONFIGURATION.md, ranges narrower where a comment says why.

mod allowed;

use std::collections::BTreeMap;

use super::fault::Faults;
use super::kafka::GroupProtocol;

/// Which client a property is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every client.
    Both,
    /// The consumer of the source.
    Consumer,
    /// The producer of dead letters.
    Producer,
}

/// What a property's value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number of this range.
    Number(i64, i64),
    /// `true` or `false`.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words, joined by commas.
    SomeOf(&'static [&'static str]),
    /// A list of OpenSSL's cipher suites, each with encryption and with server authentication.
    CipherSuites,
    /// Any text.
    Text,
}

/// A property that a document may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name. Other names of the same property are not allowed.
    pub name: &'static str,
    /// Which client has it.
    pub scope: Scope,
    /// The values that it may have.
    pub kind: Kind,
}

/// The property of this name, if a document may set it.
#[must_use]
pub fn find(name: &str) -> Option<&'static Property> {
    allowed::ALLOWED.iter().find(|property| property.name == name)
}

/// Every property that a document may set.
#[must_use]
pub const fn all() -> &'static [Property] {
    allowed::ALLOWED
}

/// The consumer's session timeout where the document sets none. The broker's default lets a killed member's
/// partitions lie idle for 45 seconds.
pub const DEFAULT_SESSION_TIMEOUT_MS: i64 = 10_000;

/// The consumer's heartbeat interval where the document sets none: librdkafka's own.
pub const DEFAULT_HEARTBEAT_INTERVAL_MS: i64 = 3_000;

/// The consumer's poll interval where the document sets none: librdkafka's own.
pub const DEFAULT_MAX_POLL_INTERVAL_MS: i64 = 300_000;

/// The number that a property is set to, or its default.
#[must_use]
pub fn number(properties: &BTreeMap<String, String>, name: &str, default: i64) -> i64 {
    properties
        .get(name)
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

/// Every property alone: is it allowed, for this client, with this value?
pub(super) fn check(faults: &mut Faults<'_>, properties: &BTreeMap<String, String>, client: Scope) {
    for (name, value) in properties {
        let mut faults = faults.key(name);
        let Some(property) = find(name) else {
            let (problem, remedy) = allowed::refusal(name);
            faults.add(problem, remedy);
            continue;
        };
        match (client, property.scope) {
            (Scope::Consumer, Scope::Producer) => {
                faults.add(
                    "is a property of producers",
                    "set it on the connection of the dead letter",
                );
            }
            (Scope::Producer, Scope::Consumer) => {
                faults.add("is a property of consumers", "set it on the connection of the source");
            }
            _ => match allowed::unsafe_value(name, value) {
                Some((problem, remedy)) => faults.add(problem, remedy),
                None => check_value(&mut faults, property.kind, value),
            },
        }
    }
}

fn check_value(faults: &mut Faults<'_>, kind: Kind, value: &str) {
    match kind {
        Kind::Number(least, most) => match value.parse::<i64>() {
            Ok(number) => faults.range(number, least, most),
            Err(_) => faults.add(
                format!("{value:?} is not a number"),
                format!("write one from {least} to {most}"),
            ),
        },
        Kind::Switch if matches!(value, "true" | "false") => {}
        Kind::Switch => faults.add(format!("{value:?} is not a boolean"), "write true or false"),
        Kind::OneOf(words) if words.contains(&value) => {}
        Kind::OneOf(words) => {
            faults.add(
                format!("{value:?} is not known"),
                format!("write one of {}", words.join(", ")),
            );
        }
        Kind::SomeOf(words) if value.split(',').all(|part| words.contains(&part)) => {}
        Kind::SomeOf(words) => {
            faults.add(
                format!("{value:?} is not known"),
                format!("write some of {}", words.join(",")),
            );
        }
        Kind::CipherSuites => {
            if faults.text(value)
                && let Some(suite) = allowed::unsafe_suite(value)
            {
                faults.add(
                    format!("{suite:?} allows connections without encryption or without server authentication"),
                    "remove that part",
                );
            }
        }
        Kind::Text => {
            faults.text(value);
        }
    }
}

/// What properties of the consumer must keep among themselves, or towards what the engine promises.
pub(super) fn check_consumer(
    faults: &mut Faults<'_>,
    properties: &BTreeMap<String, String>,
    protocol: GroupProtocol,
    drain_timeout_ms: u64,
    commit_interval_ms: u64,
) {
    let poll = number(properties, "max.poll.interval.ms", DEFAULT_MAX_POLL_INTERVAL_MS);
    if u64::try_from(poll).is_ok_and(|poll| drain_timeout_ms >= poll) {
        faults.key("max.poll.interval.ms").add(
            format!("{poll} is not longer than engine.drainTimeoutMs, {drain_timeout_ms}: the broker would reassign the partitions during a drain"),
            "raise it, or lower engine.drainTimeoutMs",
        );
    }
    match protocol {
        GroupProtocol::Consumer => {
            for name in ["session.timeout.ms", "heartbeat.interval.ms"] {
                if properties.contains_key(name) {
                    faults.key(name).add(
                        "with protocol Consumer the broker sets it, and librdkafka rejects it",
                        "remove it, and set the group's configuration at the broker",
                    );
                }
            }
        }
        GroupProtocol::Classic => {
            let session = number(properties, "session.timeout.ms", DEFAULT_SESSION_TIMEOUT_MS);
            let heartbeat = number(properties, "heartbeat.interval.ms", DEFAULT_HEARTBEAT_INTERVAL_MS);
            if heartbeat.saturating_mul(3) > session {
                faults.key("heartbeat.interval.ms").add(
                    format!("{heartbeat} leaves fewer than three heartbeats to a session of {session}"),
                    "write at most a third of session.timeout.ms",
                );
            }
            if poll < session {
                faults.key("max.poll.interval.ms").add(
                    format!("{poll} is shorter than session.timeout.ms, {session}, which librdkafka refuses"),
                    "write at least as much",
                );
            }
            // The answer to a commit is the proof of membership: a session must hold several.
            if u64::try_from(session).is_ok_and(|session| commit_interval_ms.saturating_mul(3) > session) {
                faults.key("session.timeout.ms").add(
                    format!("{session} is less than three times engine.commitIntervalMs, {commit_interval_ms}"),
                    "raise it, or lower engine.commitIntervalMs",
                );
            }
        }
    }
    ordered(
        faults,
        properties,
        ("reconnect.backoff.ms", 100),
        ("reconnect.backoff.max.ms", 10_000),
    );
    ordered(
        faults,
        properties,
        ("fetch.wait.max.ms", 500),
        ("socket.timeout.ms", 60_000),
    );
    ordered(
        faults,
        properties,
        ("fetch.min.bytes", 1),
        ("fetch.max.bytes", 52_428_800),
    );
}

/// What properties of the producer must keep among themselves.
pub(super) fn check_producer(faults: &mut Faults<'_>, properties: &BTreeMap<String, String>) {
    ordered(
        faults,
        properties,
        ("reconnect.backoff.ms", 100),
        ("reconnect.backoff.max.ms", 10_000),
    );
    ordered(faults, properties, ("linger.ms", 5), ("delivery.timeout.ms", 300_000));
}

/// A fault at the second, if it is smaller than the first.
fn ordered(
    faults: &mut Faults<'_>,
    properties: &BTreeMap<String, String>,
    (small, small_default): (&str, i64),
    (large, large_default): (&str, i64),
) {
    let least = number(properties, small, small_default);
    let value = number(properties, large, large_default);
    if value < least {
        // At the one that is written, so that the path is one of the document.
        let at = if properties.contains_key(large) { large } else { small };
        faults.key(at).add(
            format!("{large}, {value}, is less than {small}, {least}"),
            "swap the two values",
        );
    }
}
