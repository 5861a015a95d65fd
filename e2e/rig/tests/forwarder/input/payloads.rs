//! What becomes of a record that is forwarded: subject, body, stamps and headers, as a subscriber gets them.

use std::time::{SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use e2e_rig::kafka::unique;
use e2e_rig::observer::{self, Message};
use e2e_rig::traffic::{Plan, Raw, Traffic};
use forwarder_core::document::PublishMode;
use forwarder_core::fanout::clock::TimeText;
use forwarder_core::fanout::headers::decode;

use crate::stage::{STREAM, Stage};

/// 2026-01-01T00:00:00.123Z.
const MADE: i64 = 1_767_225_600_123;

/// Where a core server's messages are kept whose subjects have more than the two tokens of the traffic.
const LONG: &str = "long";

const STAMPS: &str = r#""asset_forwarder_timestamp":"NOW","kafka_timestamp":"2026-01-01T00:00:00.123Z","kafka_timestamp_type":"producer""#;

/// Value, ID and body. In bodies, `STAMPS` stands for the three members and `NOW` for the time.
const PAYLOADS: &[(&str, &str, &str)] = &[
    // As the adapters send it.
    (
        r#"{"ID": "Temperature", "VALUE": "21.500", "type": "Samples", "asset_uuid": "WTVB01", "attributes": {"timestamp": "2026-01-01T00:00:00.000Z", "tag": "Temperature", "subType": "ACTUAL"}}"#,
        "Temperature",
        r#"{"VALUE":"21.500","type":"Samples","asset_uuid":"WTVB01","attributes":{"timestamp":"2026-01-01T00:00:00.000Z","tag":"Temperature","subType":"ACTUAL",STAMPS}}"#,
    ),
    (
        r#"{"VALUE": "AVAILABLE", "id": "avail", "attributes": {}, "type": "Events"}"#,
        "avail",
        r#"{"VALUE":"AVAILABLE","attributes":{STAMPS},"type":"Events"}"#,
    ),
    (
        r#"{"Id": "x", "VALUE": null}"#,
        "x",
        r#"{"VALUE":null,"attributes":{STAMPS}}"#,
    ),
    (r#"{"iD": "x"}"#, "x", r#"{"attributes":{STAMPS}}"#),
    // Stamps of an earlier forwarder are replaced where they stand.
    (
        r#"{"id": "x", "attributes": {"a": 1, "kafka_timestamp": "old", "b": 2, "asset_forwarder_timestamp": 7, "kafka_timestamp_type": null, "c": 3}}"#,
        "x",
        r#"{"attributes":{"a":1,"kafka_timestamp":"2026-01-01T00:00:00.123Z","b":2,"asset_forwarder_timestamp":"NOW","kafka_timestamp_type":"producer","c":3}}"#,
    ),
    // What a parser would have changed.
    (
        r#"{"z": 1.0, "id": "x", "a": 1e400, "b": 12345678901234567890, "c": -0.0, "d": 0.1000, "e": 1E+2, "f": "\ud800", "g": "\u00e9\/é", "z": 2, "h": {"y": [1, {"id": 0}], "y": []}}"#,
        "x",
        r#"{"z":1.0,"a":1e400,"b":12345678901234567890,"c":-0.0,"d":0.1000,"e":1E+2,"f":"\ud800","g":"\u00e9\/é","z":2,"h":{"y":[1,{"id":0}],"y":[]},"attributes":{STAMPS}}"#,
    ),
    // Numbers are IDs in their own text.
    (r#"{"id": 17, "v": 1}"#, "17", r#"{"v":1,"attributes":{STAMPS}}"#),
    (r#"{"id": 1e5}"#, "1e5", r#"{"attributes":{STAMPS}}"#),
    (r#"{"id": -0.5}"#, "-0.5", r#"{"attributes":{STAMPS}}"#),
    // Dots make tokens.
    (r#"{"ID": "axis.x.load"}"#, "axis.x.load", r#"{"attributes":{STAMPS}}"#),
    (r#"{"ID": "W\u00e4rme-度"}"#, "Wärme-度", r#"{"attributes":{STAMPS}}"#),
    // Names count without their escapes, and the first spelling is the ID's.
    (r#"{"\u0049d": "x", "v": 1}"#, "x", r#"{"v":1,"attributes":{STAMPS}}"#),
    (r#"{"id": "x", "ID": "y"}"#, "x", r#"{"ID":"y","attributes":{STAMPS}}"#),
    // Of two, the last one counts, and both go.
    (
        r#"{"id": "x", "v": 1, "id": "y"}"#,
        "y",
        r#"{"v":1,"attributes":{STAMPS}}"#,
    ),
    (
        r#"{"id": null, "v": 1, "id": 5}"#,
        "5",
        r#"{"v":1,"attributes":{STAMPS}}"#,
    ),
];

#[tokio::test]
async fn payloads_keep_all_that_is_theirs() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let nats = &stage.clusters[0].1;
    observer::record(nats, LONG, &["plant.*.>"]).await.unwrap();
    let _forwarder = stage.start("forwarder", &stage.config()).await;
    let before = now();
    for (number, (value, _, _)) in PAYLOADS.iter().enumerate() {
        let record = Raw {
            key: Some(format!("plant.machine-{number}").into_bytes()),
            value: Some(value.as_bytes().to_vec()),
            timestamp: Some(MADE),
            ..Raw::default()
        };
        stage.traffic.send_record(record).await.unwrap();
    }
    stage.wait_committed().await;
    let mut messages = observer::read_stream(nats, LONG).await.unwrap();
    let number = |message: &Message| -> usize {
        let token = message.subject.split('.').nth(1).unwrap();
        token.strip_prefix("machine-").unwrap().parse().unwrap()
    };
    messages.sort_by_key(number);
    assert_eq!(messages.len(), PAYLOADS.len());
    for (message, (value, id, body)) in messages.iter().zip(PAYLOADS) {
        assert_eq!(
            message.subject,
            format!("plant.machine-{}.{id}", number(message)),
            "{value}"
        );
        let (text, stamp) = without_now(&message.payload);
        assert_eq!(text, body.replace("STAMPS", STAMPS), "{value}");
        assert!((before.as_str()..=now().as_str()).contains(&stamp.as_str()), "{stamp}");
        assert!(message.headers.is_empty(), "{:?}", message.headers);
    }
}

/// A topic may have the broker's time instead of the producer's.
#[tokio::test]
async fn a_brokers_timestamp_is_called_one() {
    let mut stage = Stage::new(PublishMode::Core, 1).await;
    stage.topic = unique("assets");
    let broker = [("message.timestamp.type", "LogAppendTime")];
    stage.kafka.create_topic(&stage.topic, 1, &broker).await.unwrap();
    let traffic = Traffic::new(stage.kafka.bootstrap(), &stage.topic, Plan::default()).unwrap();
    let _forwarder = stage.start("forwarder", &stage.config()).await;
    let before = now();
    let record = Raw {
        key: Some(b"k".to_vec()),
        value: Some(br#"{"id": "x"}"#.to_vec()),
        timestamp: Some(MADE),
        ..Raw::default()
    };
    traffic.send_record(record).await.unwrap();
    stage.wait_committed().await;
    let body: serde_json::Value = serde_json::from_slice(&stage.stored(0).await[0].payload).unwrap();
    let attributes = &body["attributes"];
    assert_eq!(attributes["kafka_timestamp_type"], "broker", "{body}");
    let stamp = attributes["kafka_timestamp"].as_str().unwrap();
    assert!((before.as_str()..=now().as_str()).contains(&stamp), "{stamp}");
}

/// A header from Kafka must not act as one of JetStream's own: `Nats-Rollup` would purge the stream, a `Nats-Msg-Id` would drop all but
/// the first, `Nats-Expected-…` would be refused for ever.
#[tokio::test]
async fn kafka_headers_are_carried_and_never_obeyed() {
    let stage = Stage::new(PublishMode::JetStream, 1).await;
    // A stream that would obey.
    let context = jetstream::new(stage.clusters[0].1.client().await.unwrap());
    let stream = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["assets.>".to_owned()],
        allow_rollup: true,
        ..jetstream::stream::Config::default()
    };
    context.create_stream(stream).await.unwrap();
    let mut config = stage.config();
    config.publish.stream.as_mut().unwrap().manage = false;
    let forwarder = stage.start("forwarder", &config).await;

    let headers: Vec<(String, Option<Vec<u8>>)> = [
        ("trace", Some(&b"abc"[..])),
        ("trace", Some(b"def")),
        ("Trace", Some(b"other case")),
        ("Nats-Rollup", Some(b"all")),
        ("nats-msg-id", Some(b"same")),
        ("NATS-Expected-Last-Sequence", Some(b"99")),
        ("Nats-Expected-Stream", Some(b"another")),
        ("Kafka-Topic", Some(b"forged")),
        ("Kafka-Nats-Rollup", Some(b"sub")),
        ("with space", Some(b"1")),
        ("colon:", Some(b"2")),
        ("", Some(b"no name")),
        ("\u{e4}", Some(b"not ASCII")),
        ("raw", Some(b"\xff\x00\r\nNats-Rollup: all")),
        ("empty", Some(b"")),
        ("null", None),
    ]
    .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
    .into();
    for number in 0..5 {
        let record = Raw {
            key: Some(b"k".to_vec()),
            value: Some(format!(r#"{{"id": "x", "n": {number}}}"#).into_bytes()),
            headers: headers.clone(),
            timestamp: Some(MADE),
            ..Raw::default()
        };
        stage.traffic.send_record(record).await.unwrap();
    }
    stage.wait_committed().await;

    let messages = stage.stored(0).await;
    assert_eq!(messages.len(), 5, "none was purged, dropped or refused");
    let mut expected = headers.clone();
    expected.sort();
    for (number, message) in messages.iter().enumerate() {
        let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
        assert_eq!(body["n"], number);
        assert_eq!(values(message, "trace"), ["abc", "def"]);
        assert_eq!(values(message, "Kafka-Nats-Rollup"), ["all"]);
        assert_eq!(values(message, "Kafka-nats-msg-id"), ["same"]);
        for name in ["Nats-Rollup", "nats-msg-id", "Nats-Expected-Stream", "Kafka-Topic"] {
            assert!(values(message, name).is_empty(), "{name}");
        }
        let all = message
            .headers
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        let mut decoded: Vec<_> = all
            .filter_map(|(name, value)| decode(name.as_ref(), value.as_str().as_bytes()))
            .collect();
        decoded.sort();
        assert_eq!(decoded, expected, "each can be had back as it was");
    }
    let refused = forwarder
        .metrics()
        .await
        .unwrap()
        .sum("asset_forwarder_nats_publish_failures_total", &[]);
    assert_eq!(refused, 0.0);
}

#[tokio::test]
async fn origin_headers_are_added_where_they_are_asked_for() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let mut config = stage.config();
    config.publish.headers.origin = true;
    let _forwarder = stage.start("forwarder", &config).await;
    for number in 0..2 {
        let record = Raw {
            key: Some(b"k".to_vec()),
            value: Some(format!(r#"{{"id": "x", "n": {number}}}"#).into_bytes()),
            headers: vec![("Kafka-Offset".to_owned(), Some(b"forged".to_vec()))],
            timestamp: Some(MADE),
            partition: Some(4),
        };
        stage.traffic.send_record(record).await.unwrap();
    }
    stage.wait_committed().await;
    let messages = stage.stored(0).await;
    assert_eq!(messages.len(), 2);
    for (offset, message) in messages.iter().enumerate() {
        assert_eq!(values(message, "Kafka-Topic"), [stage.topic.as_str()]);
        assert_eq!(values(message, "Kafka-Partition"), ["4"]);
        assert_eq!(values(message, "Kafka-Offset"), [offset.to_string()]);
        assert_eq!(values(message, "Kafka-Timestamp"), [MADE.to_string()]);
        assert_eq!(values(message, "Kafka-Timestamp-Type"), ["producer"]);
        assert_eq!(values(message, "Kafka-Encoded-Kafka-Offset"), ["forged"]);
    }
}

fn values<'m>(message: &'m Message, name: &str) -> Vec<&'m str> {
    let all = message.headers.get_all(name);
    all.map(async_nats::HeaderValue::as_str).collect()
}

/// The body without blanks between its tokens, `NOW` in place of the forwarder's time, and that time.
fn without_now(body: &[u8]) -> (String, String) {
    let body = std::str::from_utf8(body).unwrap();
    let (mut compact, mut in_text, mut escaped) = (String::new(), false, false);
    for letter in body.chars() {
        if in_text || !letter.is_ascii_whitespace() {
            compact.push(letter);
        }
        if letter == '"' && !escaped {
            in_text = !in_text;
        }
        escaped = in_text && letter == '\\' && !escaped;
    }
    let name = r#""asset_forwarder_timestamp":""#;
    let at = compact.find(name).unwrap() + name.len();
    let stamp = compact[at..at + 24].to_owned();
    let shape: String = stamp
        .chars()
        .map(|letter| if letter.is_ascii_digit() { '0' } else { letter })
        .collect();
    assert_eq!(shape, "0000-00-00T00:00:00.000Z");
    (compact.replacen(&stamp, "NOW", 1), stamp)
}

fn now() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    TimeText::default()
        .format(i64::try_from(now.as_millis()).unwrap())
        .to_owned()
}
