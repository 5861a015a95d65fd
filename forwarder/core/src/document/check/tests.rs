use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::document::{
    Admin, Checked, Config, ConfigError, DeadLetter, Document, MAX_FURTHER_TOPICS, RingConfig, Source, Tls, properties,
};

const CORE: &str = "
source:
  connection: {bootstrapServers: [kafka:9092]}
ring:
  clusters:
  - {name: C1, servers: [nats://c1:4222]}
  - {name: C2, servers: [nats://c2:4222, tls://c3]}
";

const ALL: &str = "
source:
  connection:
    bootstrapServers: ['a:1', 'b:2']
    tls: {caFile: /tls/ca.pem, certFile: /tls/tls.crt, keyFile: /tls/tls.key}
    sasl: {mechanism: SCRAM-SHA-512, username: '5', passwordFile: /secret/password}
    properties: {fetch.min.bytes: 10, client.id: 'yes', debug: 'cgrp,consumer'}
  topic: assets
  group: 'null'
  startFrom: {type: Timestamp, millis: 17}
  missingOffset: Stop
  protocol: Consumer
ring:
  epoch: 7
  replicas: 64
  beacon: {subject: _FANOUT.plant, ring: 2f6c, keyFile: /beacon.seed, graceMs: 30000}
  clusters:
  - {name: '01', servers: [nats://c1], weight: 3, discoverServers: false, jetStream: {domain: d}, inboxPrefix: _IN.a, auth: {type: Creds, file: /creds}, tls: {}}
  - {name: ': #', servers: [nats://c2], auth: {type: UserPassword, username: u, passwordFile: /p}}
  - {name: k, servers: [nats://c3], auth: {type: NKey, seedFile: /seed}}
  - {name: t, servers: [nats://c4], clientServers: ['wss://c4.example:443'], auth: {type: Token, file: /token}}
publish:
  mode: JetStream
  subject: assets.{key}.{id}
  stream: {name: ASSETS, manage: true, subjects: [assets.>], replicas: 3, storage: Memory, maxAgeSeconds: 600, maxBytes: 5}
  headers: {origin: true}
  retry: {maxAttempts: 5}
deadLetter: {type: Topic, topic: dead, connection: {bootstrapServers: ['c:3'], properties: {linger.ms: 50}}}
engine: {batchSize: 10, queueSize: 20}
admin: {address: '::', port: 1, forwarder: f, version: '1.0', node: n}
logging: {level: Debug, format: Json, httpRequests: true}
";

/// Each fault of a document as one line, in order.
fn faults(text: &str) -> Vec<String> {
    match Checked::from_yaml(text) {
        Ok(_) => Vec::new(),
        Err(ConfigError::Wrong(errors)) => errors.faults().iter().map(ToString::to_string).collect(),
        Err(error @ ConfigError::Unreadable(_)) => error.to_string().lines().map(str::to_owned).collect(),
    }
}

/// The faults of the core document with one more section, or with one in place of another.
fn faults_with(more: &str) -> Vec<String> {
    faults(&format!("{CORE}{more}"))
}

fn assert_faults(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found:?} should start with {expected:?}");
    }
}

#[test]
fn a_sound_document_passes() {
    assert_eq!(faults(CORE), Vec::<String>::new());
    assert_eq!(faults(ALL), Vec::<String>::new());
}

#[test]
fn what_is_written_is_read_back() {
    for text in [CORE, ALL] {
        let config = Config::from_yaml(text).unwrap();
        let written = config.to_yaml().unwrap();
        assert_eq!(Config::from_yaml(&written).unwrap(), config, "{written}");
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
        // JSON is YAML.
        assert_eq!(Config::from_yaml(&json).unwrap(), config);
    }
}

#[test]
fn what_cannot_be_read_is_named_by_its_path() {
    for (from, to, expected) in [
        (
            "servers: [nats://c1:4222]",
            "server: [nats://c1:4222]",
            "ring.clusters[0].server: unknown field `server`",
        ),
        (
            "servers: [nats://c1:4222]",
            "servers: nats://c1",
            "ring.clusters[0].servers: ",
        ),
        (
            "servers: [nats://c1:4222]",
            "servers: [[x]]",
            "ring.clusters[0].servers[0]: ",
        ),
        ("{name: C1, ", "{", "ring.clusters[0]: missing field `name`"),
        (
            "name: C1,",
            "name: C1, name: C3,",
            "ring.clusters[0].name: appears twice",
        ),
        ("name: C1,", "name: C1, weight: x,", "ring.clusters[0].weight: "),
        ("name: C1,", "name: C1, weight: -1,", "ring.clusters[0].weight: "),
        (
            "name: C1,",
            "name: C1, auth: {type: Tokn},",
            "ring.clusters[0].auth.type: unknown variant `Tokn`",
        ),
        (
            "name: C1,",
            "name: C1, auth: {type: Token, fil: x},",
            "ring.clusters[0].auth.fil: unknown field `fil`",
        ),
        (
            "name: C1,",
            "name: C1, auth: {type: Token, file: [x]},",
            "ring.clusters[0].auth.file: ",
        ),
        (
            "name: C1,",
            "name: C1, auth: {type: Token},",
            "ring.clusters[0].auth: `file` is missing; type Token needs it",
        ),
        (
            "name: C1,",
            "name: C1, auth: {type: Token, file: x, seedFile: y},",
            "ring.clusters[0].auth: `seedFile` is not used with type Token; remove it",
        ),
        (
            "[kafka:9092]",
            "[kafka:9092], sasl: {mechanism: GSSAPI}",
            "source.connection.sasl.mechanism: unknown variant",
        ),
        (
            "[kafka:9092]",
            "[kafka:9092], bootstrap: x",
            "source.connection.bootstrap: unknown field `bootstrap`",
        ),
        (
            "[kafka:9092]",
            "[kafka:9092], properties: {a: {b: c}}",
            "source.connection.properties.a: ",
        ),
        (
            "[kafka:9092]",
            "[kafka:9092], properties: {a: b, a: c}",
            "source.connection.properties.a: appears twice",
        ),
        ("\nring:", "\nrung:", "rung: unknown field `rung`"),
    ] {
        let text = CORE.replacen(from, to, 1);
        assert_ne!(text, CORE, "{from}");
        let found = faults(&text);
        assert_faults(&found, &[expected]);
        assert!(found[0].contains("(line "), "{found:?}");
    }
}

/// What is wrong in the form of a document does not hide anything else, and what it causes is not told as a fault of its own.
#[test]
fn faults_of_form_and_of_meaning_are_told_at_once() {
    let found = faults(
        "
source:
  conection: {}
  connection:
    tls: {certFile: [x], keyFile: /key}
    sasl: {mechanism: GSSAPI, username: u}
    properties: {client.id: a, client.id: b, fetch.min.bytes: 0}
  startFrom: {type: Timestamp}
  group: ''
ring:
  clusters:
  - {servers: [nats://c1], weight: many, auth: {type: Token, file: x, seedFile: y}}
  - {name: C2, server: [nats://c2]}
  - C3
  - {name: C4, servers: [nats://c4, ftp://c4], nme: C4}
publish:
  mode: Jetstream
  stream: {name: S, manage: perhaps, replicas: 9}
  retry: {maxAttempts: 3}
engine: 5
admin: {port: 70000, address: localhost}
logging: {level: [Info]}
colour: red
",
    );
    assert_faults(
        &found,
        &[
            "source.conection: unknown field `conection`, expected one of connection, ",
            "source.connection.tls.certFile: ",
            "source.connection.sasl.mechanism: unknown variant `GSSAPI`",
            "source.connection: missing field `bootstrapServers` (line ",
            "source.connection.properties.client.id: appears twice (line 7, column 32)",
            "source.startFrom: `millis` is missing; type Timestamp needs it (line 8, ",
            "ring.clusters[0].weight: ",
            "ring.clusters[0]: missing field `name` (line ",
            "ring.clusters[0].auth: `seedFile` is not used with type Token; remove it",
            "ring.clusters[1].server: unknown field `server`",
            "ring.clusters[2]: ",
            "ring.clusters[3].nme: unknown field `nme`",
            "publish.mode: unknown variant `Jetstream`",
            "publish.stream.manage: ",
            "engine: ",
            "admin.port: ",
            "logging.level: ",
            "colour: unknown field `colour`",
            "source.connection.properties[\"fetch.min.bytes\"]: 0 is out of range",
            "source.group: is empty",
            "ring.clusters[3].servers[1]: has a scheme other than",
            "publish.retry.maxAttempts: needs deadLetter",
            "admin.address: \"localhost\" is not an IP address",
        ],
    );
    let positions = found.iter().take(18).all(|fault| fault.contains("(line "));
    assert!(positions, "{found:#?}");
}

#[test]
fn keys_that_stand_there_twice_are_all_told() {
    let text = CORE.replace("[kafka:9092]", "[kafka:9092], properties: {client.id: a, client.id: b}");
    let found = faults(&format!("{text}engine: {{batchSize: 1}}\nengine: {{}}\n"));
    assert_faults(
        &found,
        &[
            "source.connection.properties.client.id: appears twice (line ",
            "engine: appears twice (line ",
        ],
    );
    // Of a map with numbers for keys, which none of ours has, the parser tells the first.
    let numbers = CORE.replace("[kafka:9092]", "[kafka:9092], properties: {1: a, 1: b}");
    assert_faults(
        &faults(&numbers),
        &["source.connection.properties.1: appears twice (line "],
    );
}

#[test]
fn the_address_that_operators_have_always_written_is_every_address() {
    let address = |address: &str| Admin {
        address: address.to_owned(),
        ..Admin::default()
    };
    assert_eq!(
        Admin::default().address,
        "0.0.0.0",
        "it is in every document that an operator wrote"
    );
    for (written, listens_on) in [
        ("0.0.0.0", "::"),
        ("::", "::"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
    ] {
        assert_eq!(address(written).listens_on(), listens_on);
    }
}

/// However many faults a text has, and however large it is, the work is bounded, and it is said that there may be more.
#[test]
fn a_text_of_nothing_but_faults_is_read_a_bounded_number_of_times() {
    let fields: String = (0..5_000).map(|number| format!("wrong{number}: [x]\n")).collect();
    let found = faults(&format!("{CORE}{fields}"));
    assert!((5..20).contains(&found.len()), "{}", found.len());
    assert_eq!(
        found.last().map(String::as_str),
        Some("There may be more faults: fix these and check again.")
    );
    let few: String = fields.lines().take(100).map(|line| format!("{line}\n")).collect();
    assert_eq!(faults(&format!("{CORE}{few}")).len(), 64 + 1);
    let fewer: String = fields.lines().take(50).map(|line| format!("{line}\n")).collect();
    assert_eq!(faults(&format!("{CORE}{fewer}")).len(), 50);
    let twice = "epoch: 1\n".repeat(5_000);
    assert!(RingConfig::from_yaml(&twice).unwrap_err().to_string().lines().count() <= 64 + 2);
}

#[test]
fn a_rings_own_document_names_all_its_faults_too() {
    let error =
        RingConfig::from_yaml("{epoch: 0, replica: 3, clusters: [{name: C, server: []}, {nam: D}]}").unwrap_err();
    let found: Vec<_> = error.to_string().lines().map(str::to_owned).collect();
    assert_faults(
        &found,
        &[
            "replica: unknown field `replica`",
            "clusters[0].server: unknown field `server`",
            "clusters[1].nam: unknown field `nam`",
            "clusters[1]: missing field `servers`",
            "epoch: 0 is out of range",
        ],
    );
}

#[test]
fn texts_that_are_no_document_are_refused() {
    let bomb: String = (1..30)
        .map(|n| format!("a{n}: &a{n} [*a{0}, *a{0}, *a{0}, *a{0}]\n", n - 1))
        .collect();
    for text in [
        String::new(),
        "[]".to_owned(),
        "x".to_owned(),
        "\t".to_owned(),
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        format!("a0: &a0 [x]\n{bomb}"),
        format!("{CORE}---{CORE}"),
        format!("{CORE}---\nx: y\n"),
        format!("{CORE}# {}", "x".repeat(2 << 20)),
        "a: *b".to_owned(),
        "a: &a [*a]".to_owned(),
    ] {
        let found = faults(&text);
        assert_eq!(found.len(), 1, "{:?}", &text[..text.len().min(80)]);
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let found = faults(
        "
source:
  connection:
    bootstrapServers: ['http://x', '', 'a:0', '::1', '[::1]:9092', 'host']
    tls: {certFile: /x}
    sasl: {mechanism: PLAIN, username: '', passwordFile: ''}
  topic: '^a'
  group: \"a\\nb\"
  startFrom: {type: Timestamp, millis: -1}
ring:
  epoch: 0
  replicas: 0
  clusters:
  - {name: A, servers: []}
  - {name: A, servers: ['nats://u:hush-hush@x', 'ws://x', 'a,b', 'u%2:hush-hush@x'], weight: 0}
  - {name: ' ', servers: [x], tls: {keyFile: /x}, auth: {type: Token, file: ''}}
publish:
  subject: '{key}'
  stream: {name: x}
  retry: {initialBackoffMs: 50, maxBackoffMs: 10, maxAttempts: 3, confirmTimeoutMs: 0}
engine:
  {batchSize: 0, pollTimeoutMs: 0, queueSize: 0, commitIntervalMs: 0, maxPendingRecordsPerCluster: 2, maxPendingRecords: 1,
   maxPendingBytes: 0, maxRecordBytes: 0, drainTimeoutMs: 20, watchdogIntervalMs: 30, watchdogTimeoutMs: 20}
admin: {address: localhost, version: ''}
",
    );
    assert_faults(
        &found,
        &[
            "source.connection.bootstrapServers[0]: has a scheme; write host:port",
            "source.connection.bootstrapServers[1]: is empty",
            "source.connection.bootstrapServers[2]: names no valid port",
            "source.connection.bootstrapServers[3]: names no valid host",
            "source.connection.tls.certFile: has no key; add keyFile",
            "source.connection.sasl.username: is empty",
            "source.connection.sasl.passwordFile: is empty",
            "source.topic: \"^a\" is not a valid topic name",
            "source.group: holds a control character",
            "source.startFrom.millis: -1 is before 1970",
            "ring.epoch: 0 is out of range",
            "ring.replicas: 0 is out of range",
            "ring.clusters[0].servers: is empty",
            "ring.clusters[1].servers[0]: holds a user or a password",
            "ring.clusters[1].servers[1]: has a scheme other than nats:// and tls://",
            "ring.clusters[1].servers[2]: holds a comma",
            "ring.clusters[1].servers[3]: holds a user or a password",
            "ring.clusters[1].weight: 0 is out of range",
            "ring.clusters[1].name: \"A\" is also the name of ring.clusters[0]",
            "ring.clusters[2].name: is empty",
            "ring.clusters[2].auth.file: is empty",
            "ring.clusters[2].tls.keyFile: has no certificate",
            "publish.subject: the subject template \"{key}\" lacks {id}; write",
            "publish.stream: is not used in mode Core",
            "publish.retry.maxBackoffMs: 10 is less than",
            "publish.retry.confirmTimeoutMs: 0 is out of range",
            "publish.retry.maxAttempts: needs deadLetter",
            "engine.batchSize: 0",
            "engine.pollTimeoutMs: 0",
            "engine.queueSize: 0",
            "engine.commitIntervalMs: 0",
            "engine.maxPendingRecordsPerCluster: 2 is more than maxPendingRecords, 1",
            "engine.maxPendingBytes: 0 would block every record",
            "engine.maxPendingBytesPerCluster: 16777216 is more than maxPendingBytes, 0",
            "engine.maxRecordBytes: 0 is out of range",
            "engine.drainTimeoutMs: 20 is not shorter",
            "engine.watchdogIntervalMs: 30 is longer",
            "admin.address: \"localhost\" is not an IP address",
            "admin.version: is empty",
        ],
    );
    assert!(!found.concat().contains("hush-hush"));
}

#[test]
fn a_ring_has_members_and_bounds() {
    assert_faults(
        &faults(&CORE.replace("clusters:\n", "clusters: []\nx:\n")),
        &["x: unknown field", "ring.clusters: is empty"],
    );
    let none = "source: {connection: {bootstrapServers: [a]}}\nring: {clusters: []}";
    assert_faults(&faults(none), &["ring.clusters: is empty"]);
    let most = CORE
        .replace("clusters:", "replicas: 1024\n  clusters:")
        .replace("name: C1,", "name: C1, weight: 1000,")
        .replace("name: C2,", "name: C2, weight: 24,");
    assert_faults(&faults(&most), &[]);
    let huge = CORE
        .replace("clusters:", "replicas: 4294967295\n  clusters:")
        .replace("{name:", "{weight: 4294967295, name:");
    assert_eq!(faults(&huge).len(), 4, "products that overflow are faults, not panics");
    let many = CORE
        .replace("clusters:", "replicas: 100000\n  clusters:")
        .replace("name: C1,", "name: C1, weight: 1000,");
    assert_faults(
        &faults(&many),
        &[
            "ring.replicas: multiplied by the clusters' weights, it gives 100100000 virtual nodes, more than 1048576; lower it",
        ],
    );
}

#[test]
fn jetstream_needs_a_stream_and_a_literal_prefix() {
    assert_faults(
        &faults_with("publish: {mode: JetStream}"),
        &[
            "publish.subject: has no literal first token",
            "publish.stream: is missing",
        ],
    );
    let stream = |more: &str| {
        faults_with(&format!(
            "publish: {{mode: JetStream, subject: 'a.b.{{key}}.{{id}}', stream: {{name: S, {more}}}}}"
        ))
    };
    for sound in [
        "",
        "manage: true",
        "manage: true, subjects: ['a.*.>']",
        "manage: true, subjects: ['x', 'a.b.>']",
    ] {
        assert_faults(&stream(sound), &[]);
    }
    assert_faults(
        &stream("subjects: [a.>]"),
        &["publish.stream.subjects: is not used for a stream that is not managed"],
    );
    for (wrong, expected) in [
        (
            "subjects: ['*.*']",
            "publish.stream.subjects[0]: \"*.*\" would capture the server's own subjects",
        ),
        ("subjects: ['>']", "publish.stream.subjects[0]: \">\" would capture"),
        (
            "subjects: ['$JS.>']",
            "publish.stream.subjects[0]: \"$JS.>\" would capture",
        ),
        (
            "subjects: ['a..b']",
            "publish.stream.subjects[0]: \"a..b\" has an empty token",
        ),
        (
            "subjects: ['a.>.b']",
            "publish.stream.subjects[0]: \"a.>.b\" has a wildcard",
        ),
        (
            "subjects: ['a.b']",
            "publish.stream.subjects: do not cover the subjects",
        ),
        (
            "subjects: ['c.>']",
            "publish.stream.subjects: do not cover the subjects",
        ),
        // A dot in a key or an ID makes one token more.
        (
            "subjects: ['a.b.*.*']",
            "publish.stream.subjects: do not cover the subjects",
        ),
        ("replicas: 6", "publish.stream.replicas: 6"),
        ("maxAgeSeconds: 0", "publish.stream.maxAgeSeconds: 0"),
        ("maxAgeSeconds: 10", "publish.stream.duplicateWindowSeconds: is longer"),
        ("maxBytes: -1", "publish.stream.maxBytes: would keep nothing"),
    ] {
        assert_faults(&stream(&format!("manage: true, {wrong}")), &[expected]);
    }
}

#[test]
fn a_template_that_makes_no_subjects_is_told() {
    for (subject, problem) in [
        ("$JS.{key}.{id}", "begins with a token that NATS reserves"),
        ("_INBOX.{key}.{id}", "begins with a token that NATS reserves"),
        (
            "a..{key}.{id}",
            "has an empty token, a wildcard, a space or a control character",
        ),
        (
            "a.*.{key}.{id}",
            "has an empty token, a wildcard, a space or a control character",
        ),
        ("{key}.{id}.{x}", "has a brace that belongs to neither {key} nor {id}"),
        ("a.{id}", "lacks {key}"),
    ] {
        assert_faults(
            &faults_with(&format!("publish: {{subject: '{subject}'}}")),
            &[&format!(
                "publish.subject: the subject template {subject:?} {problem}; write"
            )],
        );
    }
    for sound in ["plant-{key}.{id}", "{id}.{key}.raw"] {
        assert_faults(&faults_with(&format!("publish: {{subject: '{sound}'}}")), &[]);
    }
}

#[test]
fn dead_letters_do_not_go_where_they_came_from() {
    for (dead_letter, expected) in [
        (
            "{type: Topic, topic: ofa_assets}",
            &["deadLetter.topic: is the topic of the source"][..],
        ),
        (
            "{type: Topic, topic: ofa_assets, connection: {bootstrapServers: ['Kafka:9092', other]}}",
            &["deadLetter.topic: is the topic of the source"],
        ),
        (
            "{type: Topic, topic: ofa_assets, connection: {bootstrapServers: [other]}}",
            &[],
        ),
        ("{type: Topic, topic: dead}", &[]),
        (
            "{type: Topic, topic: 'a/b'}",
            &["deadLetter.topic: \"a/b\" is not a valid topic name"],
        ),
        ("{type: File, path: ''}", &["deadLetter.path: is empty"]),
        (
            "{type: File, path: /x, topic: y}",
            &["deadLetter: `topic` is not used with type File"],
        ),
        (
            "{type: Topic, topic: dead, connection: {bootstrapServers: [x], properties: {fetch.min.bytes: 1}}}",
            &["deadLetter.connection.properties[\"fetch.min.bytes\"]: is a property of consumers"],
        ),
    ] {
        assert_faults(&faults_with(&format!("deadLetter: {dead_letter}")), expected);
    }
}

/// The faults of these properties on the source.
fn property_faults(properties: &str) -> Vec<String> {
    faults(&CORE.replace("[kafka:9092]", &format!("[kafka:9092], properties: {{{properties}}}")))
}

#[test]
fn properties_outside_of_the_allowlist_are_refused_with_the_reason() {
    for (name, expected) in [
        ("enable.auto.commit", "is set by the engine"),
        ("enable.auto.offset.store", "is set by the engine"),
        ("enable.auto.whatever", "is set by the engine"),
        ("auto.offset.reset", "is set by the engine; declare source.startFrom"),
        ("group.id", "is set by the engine; declare source.group"),
        ("group.instance.id", "is set by the engine"),
        ("check.crcs", "is set by the engine"),
        ("group.protocol", "is set by the engine; declare source.protocol"),
        ("bootstrap.servers", "is set by the engine; declare bootstrapServers"),
        ("partition.assignment.strategy", "is set by the engine"),
        ("statistics.interval.ms", "is set by the engine"),
        ("sasl.password", "is set by the engine; declare sasl.passwordFile"),
        ("ssl.ca.location", "is set by the engine; declare tls.caFile"),
        ("plugin.library.paths", "is not in the allowlist"),
        ("sasl.kerberos.kinit.cmd", "is not in the allowlist"),
        ("ssl.engine.location", "is not in the allowlist"),
        ("ssl.providers", "is not in the allowlist"),
        ("enable.ssl.certificate.verification", "is not in the allowlist"),
        ("sasl.oauthbearer.assertion.file", "is not in the allowlist"),
        ("topic.blacklist", "is not in the allowlist"),
        (
            "max.partition.fetch.bytes",
            "is another name of a property; write fetch.message.max.bytes",
        ),
        ("Fetch.Min.Bytes", "is a misspelt property; write fetch.min.bytes"),
        ("linger.ms", "is a property of producers"),
        ("", "is not in the allowlist"),
    ] {
        let expected = format!("source.connection.properties[{name:?}]: {expected}");
        assert_faults(&property_faults(&format!("'{name}': '1'")), &[&expected]);
    }
}

#[test]
fn no_property_switches_off_what_tls_is_for() {
    let fault = |name: &str, value: &str| property_faults(&format!("{name}: '{value}'"));
    for none in ["none", "None"] {
        let name = "ssl.endpoint.identification.algorithm";
        assert_faults(
            &fault(name, none),
            &[
                "source.connection.properties[\"ssl.endpoint.identification.algorithm\"]: \"none\" accepts any server's certificate as the broker's",
            ],
        );
    }
    for suites in [
        "NULL",
        "eNULL:DEFAULT",
        "HIGH:aNULL",
        "ADH-AES256-GCM-SHA384",
        "AECDH",
        "ECDHE-RSA-NULL-SHA",
        "ALL:kEDH+aNULL",
        "COMPLEMENTOFDEFAULT",
        "DEFAULT@SECLEVEL=0",
        "ALL:@SECLEVEL=0",
        "TLS_RSA_WITH_NULL_SHA",
    ] {
        assert_faults(
            &fault("ssl.cipher.suites", suites),
            &["source.connection.properties[\"ssl.cipher.suites\"]: "],
        );
    }
    for sound in [
        "ECDHE-RSA-AES256-GCM-SHA384",
        "HIGH:!aNULL:!eNULL:-ADH",
        "DEFAULT:@SECLEVEL=2",
        "TLS_AES_256_GCM_SHA384",
    ] {
        assert_faults(&fault("ssl.cipher.suites", sound), &[]);
    }
    assert_faults(&fault("ssl.endpoint.identification.algorithm", "https"), &[]);
}

#[test]
fn nothing_that_loads_runs_or_reads_is_in_the_allowlist() {
    for property in properties::all() {
        let name = property.name;
        let forbidden = [
            "enable.auto",
            "location",
            "library",
            "kerberos",
            "password",
            "file",
            "pem",
            "keystore",
            "_cb",
        ];
        assert!(!forbidden.iter().any(|part| name.contains(part)), "{name}");
        assert_eq!(
            properties::all().iter().filter(|other| other.name == name).count(),
            1,
            "{name}"
        );
    }
}

#[test]
fn values_of_properties_are_checked() {
    for (property, expected) in [
        (
            "fetch.min.bytes: 0",
            "[\"fetch.min.bytes\"]: 0 is out of range; write a number from 1 to 100000000",
        ),
        (
            "fetch.min.bytes: many",
            "[\"fetch.min.bytes\"]: \"many\" is not a number",
        ),
        (
            "socket.keepalive.enable: 'yes'",
            "[\"socket.keepalive.enable\"]: \"yes\" is not a boolean",
        ),
        (
            "isolation.level: x",
            "[\"isolation.level\"]: \"x\" is not known; write one of read_uncommitted, read_committed",
        ),
        ("debug: 'cgrp,all'", "[\"debug\"]: \"cgrp,all\" is not known"),
        ("client.id: \"a\\0b\"", "[\"client.id\"]: holds a control character"),
        (
            "session.timeout.ms: 1000",
            "[\"session.timeout.ms\"]: 1000 is out of range",
        ),
        (
            "heartbeat.interval.ms: 4000",
            "[\"heartbeat.interval.ms\"]: 4000 leaves fewer than three",
        ),
        (
            "max.poll.interval.ms: 10000",
            "[\"max.poll.interval.ms\"]: 10000 is not longer than engine.drainTimeoutMs",
        ),
        (
            "session.timeout.ms: 400000",
            "[\"max.poll.interval.ms\"]: 300000 is shorter than session.timeout.ms",
        ),
        (
            "reconnect.backoff.ms: 20000",
            "[\"reconnect.backoff.ms\"]: reconnect.backoff.max.ms, 10000, is less",
        ),
        (
            "fetch.max.bytes: 2000000, fetch.min.bytes: 3000000",
            "[\"fetch.max.bytes\"]: fetch.max.bytes, 2000000, is less",
        ),
    ] {
        let expected = format!("source.connection.properties{expected}");
        let found = property_faults(property);
        assert!(
            found.iter().any(|found| found.starts_with(&expected)),
            "{property}: {found:?}"
        );
        assert!(found.len() < 3, "{found:?}");
    }
    assert_faults(
        &faults_with("engine: {commitIntervalMs: 5000}"),
        &[
            "source.connection.properties[\"session.timeout.ms\"]: 10000 is less than three times engine.commitIntervalMs, 5000",
        ],
    );
    let with = CORE.replace(
        "[kafka:9092]}",
        "[kafka:9092], properties: {session.timeout.ms: 9000}}\n  protocol: Consumer",
    );
    assert_faults(
        &faults(&with),
        &["source.connection.properties[\"session.timeout.ms\"]: with protocol Consumer the broker sets it"],
    );
}

#[test]
fn records_are_fenced_before_the_session_ends() {
    let fence = |with: &str, more: &str| {
        let text = CORE.replace("[kafka:9092]}", &format!("[kafka:9092]{with}"));
        Checked::from_yaml(&format!("{text}{more}"))
            .unwrap()
            .fence_timeout()
            .as_millis()
    };
    for (with, more, expected) in [
        ("}", "", 6_666),
        (
            ", properties: {session.timeout.ms: 6000, heartbeat.interval.ms: 500}}",
            "",
            4_000,
        ),
        ("}", "engine: {fenceTimeoutMs: 9999}", 9_999),
        ("}\n  protocol: Consumer", "", 30_000),
        (
            ", properties: {max.poll.interval.ms: 15000}}\n  protocol: Consumer",
            "",
            10_000,
        ),
        ("}\n  protocol: Consumer", "engine: {fenceTimeoutMs: 5}", 5),
    ] {
        assert_eq!(fence(with, more), expected, "{with} {more}");
    }
    assert_faults(
        &faults_with("engine: {fenceTimeoutMs: 0}"),
        &["engine.fenceTimeoutMs: 0 is out of range"],
    );
    assert_faults(
        &faults_with("engine: {fenceTimeoutMs: 10000}"),
        &["engine.fenceTimeoutMs: 10000 is not shorter than session.timeout.ms, 10000"],
    );
}

#[test]
fn debug_output_keeps_a_secret() {
    let mut config = Config::from_yaml(CORE).unwrap();
    config.ring.clusters[0].servers[0] = "nats://user:hush-hush@c1".to_owned();
    assert!(!format!("{config:?}").contains("hush-hush"));
    assert!(!config.check().unwrap_err().to_string().contains("hush-hush"));
}

/// The ring of [`ALL`] as a document of its own.
fn ring() -> RingConfig {
    Config::from_yaml(ALL).unwrap().ring
}

#[test]
fn a_ring_may_be_a_document_of_its_own() {
    let (document, ring) = Checked::from_yaml(ALL).unwrap().split();
    let rest = document.to_yaml().unwrap();
    assert!(!rest.contains("clusters"), "{rest}");
    let text = ring.to_yaml().unwrap();
    assert!(text.starts_with("epoch: 7\n"), "{text}");
    let document = Document::from_yaml(&rest).unwrap().checked().unwrap();
    let ring = RingConfig::from_yaml(&text).unwrap().checked().unwrap();
    assert_eq!(document.with_ring(ring), Checked::from_yaml(ALL).unwrap());
}

#[test]
fn where_answers_and_the_api_are_is_literal() {
    let cases = [
        ("jetStream: {}", "ring.clusters[0].jetStream: is empty"),
        (
            "jetStream: {domain: a, apiPrefix: b}",
            "ring.clusters[0].jetStream: has both domain and apiPrefix",
        ),
        (
            "jetStream: {domain: a.b}",
            "ring.clusters[0].jetStream.domain: \"a.b\" has a dot",
        ),
        (
            "jetStream: {apiPrefix: JS.>}",
            "ring.clusters[0].jetStream.apiPrefix: \"JS.>\" has a wildcard",
        ),
        (
            "inboxPrefix: _IN..BOX",
            "ring.clusters[0].inboxPrefix: \"_IN..BOX\" has an empty token",
        ),
        (
            "inboxPrefix: $JS",
            "ring.clusters[0].inboxPrefix: \"$JS\" is reserved for the server",
        ),
    ];
    for (field, expected) in cases {
        let faults = faults(&CORE.replace("name: C1,", &format!("name: C1, {field},")));
        assert!(
            faults.len() == 1 && faults[0].starts_with(expected),
            "{field}: {faults:?}"
        );
    }
    for field in [
        "jetStream: {domain: plant-a}",
        "jetStream: {apiPrefix: $JS.plant.API}",
        "inboxPrefix: _INBOX_plant.a",
        "discoverServers: false",
    ] {
        let faults = faults(&CORE.replace("name: C1,", &format!("name: C1, {field},")));
        assert!(faults.is_empty(), "{field}: {faults:?}");
    }
}

#[test]
fn faults_of_a_ring_are_named_by_their_path_in_its_own_document() {
    let unreadable = RingConfig::from_yaml("epoch: 2\nclusters: [{name: C1, server: []}]").unwrap_err();
    assert!(
        unreadable.to_string().starts_with("clusters[0].server: "),
        "{unreadable}"
    );
    let wrong = |text: &str| RingConfig::from_yaml(text).unwrap().check().unwrap_err().to_string();
    assert_eq!(
        wrong("{epoch: 0, clusters: [{name: C, servers: [nats://c]}, {name: C, servers: [http://x]}]}"),
        "epoch: 0 is out of range; write a number from 1 to 9223372036854775807\n\
         clusters[1].servers[0]: has a scheme other than nats:// and tls://; write nats://host:port or tls://host:port\n\
         clusters[1].name: \"C\" is also the name of clusters[0]; write another name"
    );
    assert_eq!(
        wrong("clusters: []"),
        "clusters: is empty: no cluster owns anything; name at least one"
    );
}

#[test]
fn further_topics_are_topics_each_named_once_and_none_is_the_dead_letters() {
    let faults = |topics: &[&str], dead: &str| {
        let mut config = Config::from_yaml(ALL).unwrap();
        config.source.topic = "a".to_owned();
        config.source.further_topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        config.dead_letter = Some(DeadLetter::Topic {
            topic: dead.to_owned(),
            connection: None,
        });
        config.check().err().map(|faults| faults.to_string())
    };
    assert_eq!(faults(&["b", "c.d"], "dead"), None);
    for (topics, dead, fault) in [
        (&["b", ""][..], "dead", "source.furtherTopics[1]: is empty"),
        (
            &["^b"],
            "dead",
            "source.furtherTopics[0]: \"^b\" is not a valid topic name",
        ),
        (&["a"], "dead", "source.furtherTopics[0]: \"a\" is named twice"),
        (&["b", "b"], "dead", "source.furtherTopics[1]: \"b\" is named twice"),
        (&["b", "c"], "c", "deadLetter.topic: is the topic of the source"),
    ] {
        let said = faults(topics, dead).unwrap();
        assert!(said.starts_with(fault), "{topics:?}: {said}");
    }
    let many: Vec<String> = (0..=MAX_FURTHER_TOPICS).map(|topic| format!("t{topic}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(faults(&many[1..], "dead"), None);
    assert!(
        faults(&many, "dead")
            .unwrap()
            .starts_with("source.furtherTopics: names 32 topics")
    );
}

#[test]
fn further_topics_are_written_only_where_they_are_declared() {
    let mut config = Config::from_yaml(ALL).unwrap();
    assert!(!config.to_yaml().unwrap().contains("furtherTopics"));
    config.source.further_topics = vec!["b".to_owned()];
    let written = config.to_yaml().unwrap();
    assert_eq!(Config::from_yaml(&written), Ok(config.clone()));
    let topics: Vec<_> = config.source.topics().collect();
    assert_eq!(topics, ["assets", "b"], "the first one first");
}

#[test]
fn a_document_without_a_ring_is_checked_for_all_the_rest() {
    let (document, _) = Config::from_yaml(ALL).unwrap().split();
    assert_eq!(document.check(), Ok(()));
    let wrong = Document {
        source: Source {
            group: String::new(),
            ..document.source.clone()
        },
        ..document
    };
    assert_eq!(
        wrong.check().unwrap_err().to_string(),
        "source.group: is empty; write a value or leave the field out"
    );
}

#[test]
fn a_ring_names_each_of_its_files_once() {
    let mut ring = ring();
    ring.clusters[1].tls = Some(Tls {
        ca_file: Some("/ca".into()),
        cert_file: Some("/creds".into()),
        key_file: Some("/key".into()),
    });
    let files: Vec<_> = ring.files().into_iter().map(|file| file.to_str().unwrap()).collect();
    assert_eq!(files, ["/ca", "/creds", "/key", "/p", "/seed", "/token"]);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _result = Checked::from_yaml(&text);
    }

    #[test]
    fn no_yaml_like_text_panics(text in "[a-z:{}\\[\\]&*!|>?%@,'\"# \n\t~0-9-]{0,200}") {
        let _result = Checked::from_yaml(&text);
    }

    #[test]
    fn no_damage_to_a_document_panics(at in 0..ALL.len(), len in 0_usize..20, with in "[\\PC\n]{0,8}") {
        let end = (at + len).min(ALL.len());
        let _result = Checked::from_yaml(&format!("{}{with}{}", &ALL[..at], &ALL[end..]));
    }

    #[test]
    fn any_texts_survive_being_written(name in "\\PC*", topic in "\\PC*", value in any::<String>(), epoch: u64) {
        let mut config = Config::from_yaml(ALL).unwrap();
        config.ring.clusters[0].name = name;
        config.ring.epoch = epoch;
        config.source.topic = topic;
        config.source.connection.properties = BTreeMap::from([(value.clone(), value)]);
        let written = config.to_yaml().unwrap();
        prop_assert_eq!(Config::from_yaml(&written).map_err(|error| format!("{error}\n{written}")), Ok(config.clone()));
        let written = config.ring.to_yaml().unwrap();
        prop_assert_eq!(RingConfig::from_yaml(&written).map_err(|error| format!("{error}\n{written}")), Ok(config.ring.clone()));
        let _result = config.check();
    }
}

#[test]
fn a_collectors_url_is_plain_and_a_share_is_one_of_a_million() {
    let faults = |traces: &str| {
        let mut config = Config::from_yaml(ALL).unwrap();
        config.telemetry = serde_json::from_str(&format!("{{\"traces\": {traces}}}")).unwrap();
        config.check().err().map(|faults| faults.to_string())
    };
    for sound in [
        r#"{"endpoint": "http://collector:4318"}"#,
        r#"{"endpoint": "https://[::1]/otlp/", "samplesPerMillion": 1000000, "tls": {"caFile": "/ca"}}"#,
    ] {
        assert_eq!(faults(sound), None, "{sound}");
    }
    for (wrong, fault) in [
        (
            r#"{"endpoint": "collector:4318"}"#,
            "telemetry.traces.endpoint: is not an http or https URL",
        ),
        (
            r#"{"endpoint": "http://user:secret@collector"}"#,
            "telemetry.traces.endpoint: is not a plain server URL",
        ),
        (
            r#"{"endpoint": "http://:4318"}"#,
            "telemetry.traces.endpoint: is not a plain server URL",
        ),
        (
            r#"{"endpoint": "http://c", "samplesPerMillion": 1000001}"#,
            "telemetry.traces.samplesPerMillion",
        ),
        (
            r#"{"endpoint": "http://c", "tls": {}}"#,
            "telemetry.traces.tls: needs an https endpoint",
        ),
    ] {
        let said = faults(wrong).unwrap();
        assert!(said.starts_with(fault) && !said.contains("secret"), "{wrong}: {said}");
    }
}

#[test]
fn a_beacon_and_what_subscribers_are_told_are_checked() {
    let ring = |beacon: &str, server: &str| {
        faults(&format!(
            "source: {{connection: {{bootstrapServers: ['kafka:9092']}}}}
ring: {{beacon: {beacon}, clusters: [{{name: C1, servers: ['nats://c1'], clientServers: ['{server}']}}]}}"
        ))
    };
    let sound = "{subject: _FANOUT.a, ring: r, keyFile: /f}";
    assert!(ring(sound, "wss://c1:443").is_empty());
    let longest = "{subject: _FANOUT.a, ring: r, keyFile: /f, graceMs: 59999}";
    assert!(ring(longest, "wss://c1:443").is_empty());
    for (beacon, server, said) in [
        (
            "{subject: a.*, ring: r, keyFile: /f}",
            "nats://c1",
            "ring.beacon.subject: \"a.*\" has a wildcard",
        ),
        (
            "{subject: $SYS.a, ring: r, keyFile: /f}",
            "nats://c1",
            "ring.beacon.subject: \"$SYS.a\" begins with a token that NATS reserves",
        ),
        (
            "{subject: a, ring: '', keyFile: /f}",
            "nats://c1",
            "ring.beacon.ring: is empty",
        ),
        (
            "{subject: a, ring: r, keyFile: /f, graceMs: 3600001}",
            "nats://c1",
            "ring.beacon.graceMs: 3600001 is out of range",
        ),
        (
            "{subject: a, ring: r, keyFile: /f, graceMs: 60000}",
            "nats://c1",
            "ring.beacon.graceMs: 60000 is not less than handoverTimeoutMs (60000), which begins after it",
        ),
        (
            sound,
            "nats://u:hush@c1",
            "ring.clusters[0].clientServers[0]: holds a user or a password",
        ),
        (
            sound,
            "http://c1",
            "ring.clusters[0].clientServers[0]: is no URL of a NATS server",
        ),
    ] {
        let found = ring(beacon, server);
        assert!(
            found.len() == 1 && found[0].starts_with(said) && !found[0].contains("hush"),
            "{found:?}"
        );
    }
}

#[test]
fn copies_for_subscribers_that_stay_are_checked() {
    let ring = |mirror: &str, publish: &str| {
        faults(&format!(
            "source: {{connection: {{bootstrapServers: ['kafka:9092']}}}}
ring: {{mirror: {mirror}, clusters: [{{name: C1, servers: ['nats://c1']}}]}}
publish: {publish}"
        ))
    };
    let previous = "{replicas: 128, clusters: [{name: C2, weight: 1}]}";
    assert!(ring(&format!("{{movedMs: 600000, previous: {previous}}}"), "{}").is_empty());
    let stream = "{mode: JetStream, subject: 'a.{key}.{id}', stream: {name: S}}";
    for (mirror, publish, said) in [
        ("{movedMs: 999}", "{}", "ring.mirror.movedMs: 999 is out of range"),
        ("{}", "{}", "ring.mirror: missing field `movedMs`"),
        (
            "{movedMs: 1000, previous: {replicas: 128, clusters: []}}",
            "{}",
            "ring.mirror.previous: has no virtual nodes",
        ),
        (
            "{movedMs: 1000, previous: {replicas: 1, clusters: [{name: C2, weight: 1}, {name: C2, weight: 1}]}}",
            "{}",
            "ring.mirror.previous: names a cluster twice",
        ),
        ("{movedMs: 1000}", stream, "ring.mirror: is not used in mode JetStream"),
    ] {
        let found = ring(mirror, publish);
        assert!(found.len() == 1 && found[0].starts_with(said), "{found:?}");
    }
}
