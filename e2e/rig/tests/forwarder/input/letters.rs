//! Dead letters, read back from where they were written.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e_rig::kafka::Kafka;
use forwarder_core::record::Invalid;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::corpus::Bad;
use crate::stage::{SOON, Stage};

type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A letter, of either place.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
    /// How long the value was that is left out.
    pub(super) truncated: Option<String>,
    /// Those of the record.
    headers: Headers,
    /// What the forwarder says: by the names of the file's fields.
    said: BTreeMap<&'static str, String>,
}

/// What is in the topic now.
pub(super) async fn of_topic(kafka: &Kafka, topic: &str) -> Vec<Letter> {
    let ends = kafka.end_offsets(topic).await.unwrap();
    let (config, topic) = (kafka.client(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.clone().set("group.id", "reader").create().unwrap();
        let mut from = TopicPartitionList::new();
        for partition in 0..ends.len() {
            let partition = i32::try_from(partition).unwrap();
            from.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
        }
        consumer.assign(&from).unwrap();
        let total = ends.iter().sum::<i64>();
        (0..total)
            .map(|_| letter(&consumer.poll(SOON).unwrap().unwrap()))
            .collect()
    })
    .await
    .unwrap()
}

fn letter(message: &rdkafka::message::BorrowedMessage<'_>) -> Letter {
    let all = message.headers().unwrap().iter();
    let mut headers: Headers = all
        .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
        .collect();
    // Those of the forwarder stand behind the record's own.
    let names = [
        ("dead-letter-reason", "reason"),
        ("dead-letter-description", "description"),
        ("dead-letter-topic", "topic"),
        ("dead-letter-partition", "partition"),
        ("dead-letter-offset", "offset"),
        ("dead-letter-timestamp", "timestamp"),
        ("dead-letter-group", "group"),
    ];
    let truncated = headers.pop_if(|(name, _)| name == "dead-letter-truncated");
    let own = headers.split_off(headers.len() - names.len());
    let mut said = BTreeMap::new();
    for ((name, value), (expected, field)) in own.into_iter().zip(names) {
        assert_eq!(name, expected);
        said.insert(field, String::from_utf8(value.unwrap()).unwrap());
    }
    Letter {
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        truncated: truncated.map(|(_, value)| String::from_utf8(value.unwrap()).unwrap()),
        headers,
        said,
    }
}

/// What is in the file now.
pub(super) fn of_file(path: &Path) -> Vec<Letter> {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    text.lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            let bytes = |value: &Value| match value {
                Value::Null => None,
                value => Some(STANDARD.decode(value.as_str().unwrap()).unwrap()),
            };
            let headers = line["headers"].as_array().unwrap().iter();
            let word = |field| match &line[field] {
                Value::String(text) => (field, text.clone()),
                other => (field, other.to_string()),
            };
            assert!(line["writtenAt"].is_i64(), "{line}");
            Letter {
                key: bytes(&line["key"]),
                value: bytes(&line["value"]),
                truncated: line.get("truncated").map(Value::to_string),
                headers: headers
                    .map(|header| (header[0].as_str().unwrap().to_owned(), bytes(&header[1])))
                    .collect(),
                said: [
                    "reason",
                    "description",
                    "topic",
                    "partition",
                    "offset",
                    "timestamp",
                    "group",
                ]
                .map(word)
                .into(),
            }
        })
        .collect()
}

/// Each bad record has one letter, byte for byte as it came, which says why and where it was.
pub(super) fn check(stage: &Stage, bad: &[Bad], letters: &[Letter]) {
    let sorted = |mut texts: Vec<String>| {
        texts.sort();
        texts
    };
    let expected = bad
        .iter()
        .map(|Bad { record, reason }| shown(reason.reason(), &record.key, &record.value, &record.headers));
    let found = letters
        .iter()
        .map(|letter| shown(&letter.said["reason"], &letter.key, &letter.value, &letter.headers));
    for (found, expected) in sorted(found.collect()).iter().zip(sorted(expected.collect())) {
        assert!(*found == expected, "{found:.300}\ninstead of\n{expected:.300}");
    }
    assert_eq!(letters.len(), bad.len());

    let mut places: Vec<_> = letters
        .iter()
        .map(|letter| (&letter.said["partition"], &letter.said["offset"]))
        .collect();
    places.sort();
    places.dedup();
    assert_eq!(places.len(), bad.len(), "each letter names a place of its own");
    for letter in letters {
        let said = &letter.said;
        assert_eq!((&said["topic"], &said["group"]), (&stage.topic, &stage.group));
        assert!(
            said["timestamp"].parse::<i64>().unwrap() > 1_700_000_000_000,
            "{said:?}"
        );
        let reason = Invalid::ALL
            .into_iter()
            .find(|reason| reason.reason() == said["reason"])
            .unwrap();
        assert_eq!(said["description"], reason.to_string());
    }
}

fn shown(reason: &str, key: &Option<Vec<u8>>, value: &Option<Vec<u8>>, headers: &Headers) -> String {
    let encode = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (name, encode(value))).collect();
    format!("{reason} {:?} {headers:?} {:?}", encode(key), encode(value))
}
