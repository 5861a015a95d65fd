use std::error::Error as _;

use forwarder_core::document::properties::Kind;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::BaseConsumer;
use rdkafka::producer::BaseProducer;
use tempfile::TempDir;

use super::*;

/// A document with this connection, and more fields of the source and the document.
fn config(connection: &str, source: &str, more: &str) -> Checked {
    let text = format!(
        "source: {{connection: {{bootstrapServers: [a:1, b:2], {connection}}}, {source}}}
ring: {{clusters: [{{name: C1, servers: [nats://c1]}}]}}
{more}"
    );
    Checked::from_yaml(&text).unwrap()
}

fn file(dir: &TempDir, name: &str, content: &str) -> String {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_delivery_rests_on_is_set() {
    let client = consumer(&config("", "", "")).unwrap();
    for (name, value) in [
        ("bootstrap.servers", "a:1,b:2"),
        ("security.protocol", "plaintext"),
        ("group.id", "ofa_fan_out_layer_group"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("session.timeout.ms", "10000"),
        ("statistics.interval.ms", "1000"),
        ("check.crcs", "true"),
        ("isolation.level", "read_committed"),
        ("queued.max.messages.kbytes", "16384"),
    ] {
        assert_eq!(client.get(name), Some(value), "{name}");
    }
    client.create::<BaseConsumer>().unwrap();
}

#[test]
fn the_consumer_protocol_leaves_the_session_to_the_broker() {
    let client = consumer(&config("", "protocol: Consumer", "")).unwrap();
    assert_eq!(client.get("group.protocol"), Some("consumer"));
    for name in [
        "session.timeout.ms",
        "heartbeat.interval.ms",
        "partition.assignment.strategy",
    ] {
        assert_eq!(client.get(name), None, "{name}");
    }
    client.create::<BaseConsumer>().unwrap();
}

#[test]
fn properties_tune_and_do_not_own() {
    let checked = config(
        "properties: {fetch.queue.backoff.ms: 9, session.timeout.ms: 30000, client.id: me}",
        "",
        "",
    );
    let client = consumer(&checked).unwrap();
    assert_eq!(client.get("fetch.queue.backoff.ms"), Some("9"));
    assert_eq!(client.get("session.timeout.ms"), Some("30000"));
    assert_eq!(client.get("client.id"), Some("me"));
    client.create::<BaseConsumer>().unwrap();
}

#[test]
fn debug_lets_the_lines_through_that_it_asks_for() {
    let client = consumer(&config("properties: {debug: cgrp}", "", "")).unwrap();
    assert!(
        matches!(client.log_level, RDKafkaLogLevel::Debug),
        "{:?}",
        client.log_level
    );
}

#[test]
fn dead_letters_are_written_once_to_every_replica() {
    assert!(dead_letter_producer(&config("", "", "")).unwrap().is_none());
    assert!(
        dead_letter_producer(&config("", "", "deadLetter: {type: File, path: /x}"))
            .unwrap()
            .is_none()
    );

    let shared = config(
        "properties: {fetch.min.bytes: 9, client.id: me}",
        "",
        "deadLetter: {type: Topic, topic: d}",
    );
    let client = dead_letter_producer(&shared).unwrap().unwrap();
    assert_eq!(
        (client.get("acks"), client.get("enable.idempotence")),
        (Some("all"), Some("true"))
    );
    assert_eq!(
        client.get("message.max.bytes"),
        Some("1000000000"),
        "the broker's bound is the only one"
    );
    assert_eq!(
        (client.get("client.id"), client.get("fetch.min.bytes")),
        (Some("me"), None)
    );
    client.create::<BaseProducer>().unwrap();

    let own = "deadLetter: {type: Topic, topic: d, connection: {bootstrapServers: [c:3], properties: {linger.ms: 7, message.max.bytes: 5000}}}";
    let client = dead_letter_producer(&config("", "", own)).unwrap().unwrap();
    assert_eq!(
        (client.get("bootstrap.servers"), client.get("linger.ms")),
        (Some("c:3"), Some("7"))
    );
    assert_eq!(client.get("message.max.bytes"), Some("5000"));
    client.create::<BaseProducer>().unwrap();
}

#[test]
fn an_admin_client_has_the_connection_alone() {
    let dir = TempDir::new().unwrap();
    let connection = format!(
        "sasl: {{mechanism: SCRAM-SHA-256, username: me, passwordFile: {}}}, \
         properties: {{client.id: it, session.timeout.ms: 30000}}",
        file(&dir, "password", "hush\n")
    );
    let client = admin(&config(&connection, "", "").source.connection).unwrap();
    for (name, value) in [
        ("bootstrap.servers", Some("a:1,b:2")),
        ("sasl.password", Some("hush")),
        ("client.id", Some("it")),
        ("session.timeout.ms", None),
        ("group.id", None),
    ] {
        assert_eq!(client.get(name), value, "{name}");
    }
    client.create::<AdminClient<_>>().unwrap();
}

#[test]
fn librdkafka_knows_every_property_of_the_allowlist_in_its_range() {
    for property in properties::all() {
        let values = match property.kind {
            Kind::Number(least, most) => vec![least.to_string(), most.to_string()],
            Kind::Switch => vec!["true".to_owned(), "false".to_owned()],
            Kind::OneOf(words) => words.iter().map(ToString::to_string).collect(),
            Kind::SomeOf(words) => vec![words.join(",")],
            // librdkafka hands both on to OpenSSL when a client is made.
            Kind::Text | Kind::CipherSuites => vec!["x".to_owned()],
        };
        for value in values {
            let mut client = ClientConfig::new();
            client.set(property.name, &value);
            client
                .create_native_config()
                .unwrap_or_else(|error| panic!("{} = {value}: {error}", property.name));
        }
    }
}

#[test]
fn credentials_come_from_files_without_their_line_end() {
    let dir = TempDir::new().unwrap();
    let password = file(&dir, "password", " pass word\r\n");
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let sasl = format!("sasl: {{mechanism: {mechanism}, username: u, passwordFile: {password}}}");
        let client = consumer(&config(&sasl, "", "")).unwrap();
        assert_eq!(client.get("security.protocol"), Some("sasl_plaintext"));
        assert_eq!(
            (client.get("sasl.mechanism"), client.get("sasl.username")),
            (Some(mechanism), Some("u"))
        );
        assert_eq!(client.get("sasl.password"), Some("pass word"));
        assert!(!format!("{client:?}").contains("pass word"));
        client.create::<BaseConsumer>().unwrap();
    }
    let tls = format!("tls: {{}}, sasl: {{mechanism: PLAIN, username: u, passwordFile: {password}}}");
    assert_eq!(
        consumer(&config(&tls, "", "")).unwrap().get("security.protocol"),
        Some("sasl_ssl")
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let dir = TempDir::new().unwrap();
    let sasl = |path: &str| format!("sasl: {{mechanism: PLAIN, username: u, passwordFile: {path}}}");
    let fault = |connection: &str| {
        let error = consumer(&config(connection, "", "")).unwrap_err();
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        format!("{error}{source}")
    };
    assert!(fault(&sasl("/no/such")).starts_with("failed to read /no/such: No such file"));
    let empty = file(&dir, "empty", " \n");
    assert_eq!(fault(&sasl(&empty)), format!("{empty} is empty"));
    assert!(fault("tls: {caFile: /no/ca}").starts_with("failed to read /no/ca: "));
    let token = file(&dir, "token", "no-jwt");
    assert_eq!(
        fault(&format!("sasl: {{mechanism: OAUTHBEARER, tokenFile: {token}}}")),
        format!("{token} holds no JWT")
    );
}

#[test]
fn a_token_says_its_principal_and_its_end() {
    let dir = TempDir::new().unwrap();
    let claims = BASE64_URL_SAFE_NO_PAD.encode(r#"{"sub":"me","exp":1700000000}"#);
    let path = file(&dir, "token", &format!("e30.{claims}.sig\n"));
    let OAuthToken {
        token,
        principal_name,
        lifetime_ms,
    } = oauth_token(Path::new(&path)).unwrap();
    assert_eq!((token, principal_name), (format!("e30.{claims}.sig"), "me".to_owned()));
    assert_eq!(lifetime_ms, 1_700_000_000_000);
    let connection = format!("sasl: {{mechanism: OAUTHBEARER, tokenFile: {path}}}");
    assert_eq!(
        consumer(&config(&connection, "", "")).unwrap().get("sasl.mechanism"),
        Some("OAUTHBEARER")
    );
}
