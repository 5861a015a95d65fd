//! The table of what may be set, and the sentences for what may not.

use super::Kind::{CipherSuites, Number, OneOf, SomeOf, Switch, Text};
use super::Scope::{Both, Consumer, Producer};
use super::{Kind, Property, Scope};

const fn property(name: &'static str, scope: Scope, kind: Kind) -> Property {
    Property { name, scope, kind }
}

const INT_MAX: i64 = i32::MAX as i64;

pub(super) const ALLOWED: &[Property] = &[
    property("client.id", Both, Text),
    property("client.rack", Both, Text),
    property(
        "client.dns.lookup",
        Both,
        OneOf(&["use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"]),
    ),
    property("broker.address.family", Both, OneOf(&["any", "v4", "v6"])),
    property("broker.address.ttl", Both, Number(0, 86_400_000)),
    property("socket.timeout.ms", Both, Number(1_000, 300_000)),
    property("socket.connection.setup.timeout.ms", Both, Number(1_000, 300_000)),
    property("socket.send.buffer.bytes", Both, Number(0, 100_000_000)),
    property("socket.receive.buffer.bytes", Both, Number(0, 100_000_000)),
    property("socket.keepalive.enable", Both, Switch),
    property("socket.nagle.disable", Both, Switch),
    property("connections.max.idle.ms", Both, Number(0, INT_MAX)),
    property("reconnect.backoff.ms", Both, Number(0, 3_600_000)),
    property("reconnect.backoff.max.ms", Both, Number(0, 3_600_000)),
    property("retry.backoff.ms", Both, Number(1, 300_000)),
    property("retry.backoff.max.ms", Both, Number(1, 300_000)),
    property("api.version.request.timeout.ms", Both, Number(1, 300_000)),
    property("metadata.max.age.ms", Both, Number(1_000, 86_400_000)),
    property("metadata.recovery.strategy", Both, OneOf(&["none", "rebootstrap"])),
    property("metadata.recovery.rebootstrap.trigger.ms", Both, Number(0, INT_MAX)),
    // librdkafka takes -1 for never, and then never sees a partition that is added.
    property("topic.metadata.refresh.interval.ms", Both, Number(1_000, 3_600_000)),
    property("topic.metadata.refresh.fast.interval.ms", Both, Number(1, 60_000)),
    property("topic.metadata.refresh.sparse", Both, Switch),
    property("topic.metadata.propagation.max.ms", Both, Number(0, 3_600_000)),
    property("enable.metrics.push", Both, Switch),
    property("log.connection.close", Both, Switch),
    // The other contexts write several lines per record or request.
    property(
        "debug",
        Both,
        SomeOf(&[
            "generic", "broker", "topic", "metadata", "feature", "cgrp", "consumer", "admin", "eos", "assignor", "conf",
        ]),
    ),
    property("ssl.cipher.suites", Both, CipherSuites),
    property("ssl.curves.list", Both, Text),
    property("ssl.sigalgs.list", Both, Text),
    // librdkafka's other word is `none`, which is told apart below.
    property("ssl.endpoint.identification.algorithm", Both, OneOf(&["https"])),
    property("message.max.bytes", Both, Number(1_000, 1_000_000_000)),
    // A broker takes 6 s to 30 min where nobody has told it otherwise.
    property("session.timeout.ms", Consumer, Number(6_000, 1_800_000)),
    property("heartbeat.interval.ms", Consumer, Number(100, 600_000)),
    property("max.poll.interval.ms", Consumer, Number(10_000, 86_400_000)),
    property("coordinator.query.interval.ms", Consumer, Number(1_000, 3_600_000)),
    property("fetch.wait.max.ms", Consumer, Number(0, 300_000)),
    property("fetch.min.bytes", Consumer, Number(1, 100_000_000)),
    property("fetch.max.bytes", Consumer, Number(1_000, 2_147_483_135)),
    property("fetch.message.max.bytes", Consumer, Number(1, 1_000_000_000)),
    property("fetch.queue.backoff.ms", Consumer, Number(0, 300_000)),
    property("fetch.error.backoff.ms", Consumer, Number(0, 300_000)),
    property("queued.min.messages", Consumer, Number(1, 10_000_000)),
    // Memory stays bounded: what librdkafka reads ahead is no exception.
    property("queued.max.messages.kbytes", Consumer, Number(1, 262_144)),
    property(
        "isolation.level",
        Consumer,
        OneOf(&["read_uncommitted", "read_committed"]),
    ),
    property("linger.ms", Producer, Number(0, 900_000)),
    property("batch.size", Producer, Number(1, INT_MAX)),
    property("batch.num.messages", Producer, Number(1, 1_000_000)),
    property("queue.buffering.max.messages", Producer, Number(1, 10_000_000)),
    property("queue.buffering.max.kbytes", Producer, Number(1, 1_048_576)),
    // What this build of librdkafka has; the others end the process at the first write.
    property(
        "compression.type",
        Producer,
        OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]),
    ),
    property("compression.level", Producer, Number(-1, 12)),
    property("request.timeout.ms", Producer, Number(1, 900_000)),
    property("delivery.timeout.ms", Producer, Number(1_000, INT_MAX)),
];

/// Other names of what may be set. One name each, so that two cannot contradict.
const ALIASES: &[(&str, &str)] = &[
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("compression.codec", "compression.type"),
    ("message.timeout.ms", "delivery.timeout.ms"),
];

/// What is declared by a field of the document.
const DECLARED: &[(&str, &str)] = &[
    ("bootstrap.servers", "bootstrapServers"),
    ("metadata.broker.list", "bootstrapServers"),
    ("security.protocol", "tls and sasl"),
    ("group.id", "source.group"),
    ("group.protocol", "source.protocol"),
    ("auto.offset.reset", "source.startFrom and source.missingOffset"),
    ("auto.commit.interval.ms", "engine.commitIntervalMs"),
    ("ssl.ca.location", "tls.caFile"),
    ("ssl.certificate.location", "tls.certFile"),
    ("ssl.key.location", "tls.keyFile"),
    ("sasl.mechanism", "sasl.mechanism"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.username", "sasl.username"),
    ("sasl.password", "sasl.passwordFile"),
];

/// What the engine's promises rest on.
const OWNED: &[&str] = &[
    "acks",
    "auto.commit.enable",
    "check.crcs",
    "delivery.report.only.error",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "enabled_events",
    "group.instance.id",
    "group.protocol.type",
    "group.remote.assignor",
    "log.queue",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "message.send.max.retries",
    "partition.assignment.strategy",
    "request.required.acks",
    "retries",
    "statistics.interval.ms",
    "transaction.timeout.ms",
    "transactional.id",
];

/// Why this value of a property that may be set is refused, where it switches off what TLS is for.
pub(super) fn unsafe_value(name: &str, value: &str) -> Option<(&'static str, &'static str)> {
    (name == "ssl.endpoint.identification.algorithm" && value.eq_ignore_ascii_case("none")).then_some((
        "\"none\" accepts any server's certificate as the broker's: anyone on the network path could read and change records",
        "remove it, and give the brokers certificates with the host names of bootstrapServers and advertised.listeners",
    ))
}

/// The part of a list of OpenSSL's cipher suites that has no encryption, or a server that proves nothing, if there is one.
pub(super) fn unsafe_suite(list: &str) -> Option<&str> {
    const WORDS: [&str; 7] = [
        "NULL",
        "ENULL",
        "ANULL",
        "ADH",
        "AECDH",
        "COMPLEMENTOFALL",
        "COMPLEMENTOFDEFAULT",
    ];
    list.split([':', ',', ';', ' ']).find(|part| {
        let upper = part.to_ascii_uppercase();
        // Security level 0 lets all of them in, also by words such as ALL.
        let (words, level) = upper.split_once('@').unwrap_or((&upper, ""));
        let adds = !words.starts_with(['!', '-']);
        let mut words = words.split(['+', '-', '_']);
        level.replace(' ', "").starts_with("SECLEVEL=0") || adds && words.any(|word| WORDS.contains(&word))
    })
}

/// Why a property that is not in the table may not be set, and what to do.
pub(super) fn refusal(name: &str) -> (&'static str, String) {
    let lookup = |table: &[(&str, &'static str)]| table.iter().find(|(key, _)| *key == name).map(|(_, field)| *field);
    if let Some(canonical) = lookup(ALIASES) {
        return ("is another name of a property", format!("write {canonical}"));
    }
    if let Some(field) = lookup(DECLARED) {
        return ("is set by the engine", format!("declare {field} instead"));
    }
    if OWNED.contains(&name) || name.starts_with("enable.auto.") || name.starts_with("offset.store.") {
        return (
            "is set by the engine, whose guarantees depend on it",
            "remove it".to_owned(),
        );
    }
    if name == "enable.ssl.certificate.verification" {
        return (
            "is not in the allowlist: TLS that accepts any certificate protects nothing",
            "declare tls.caFile instead".to_owned(),
        );
    }
    let known = super::all()
        .iter()
        .any(|property| property.name.eq_ignore_ascii_case(name.trim()));
    if known {
        return (
            "is a misspelt property",
            format!("write {}", name.trim().to_ascii_lowercase()),
        );
    }
    (
        "is not in the allowlist of librdkafka properties",
        "remove it; the documentation lists what may be set".to_owned(),
    )
}
