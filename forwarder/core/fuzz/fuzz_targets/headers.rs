//! Kafka headers as a NATS header block: whatever a record brings, a strict reader finds the forwarder's own headers and the
//! record's, each where it belongs, and can tell what they were.
//!
//! The input is a byte of choices, then texts divided by the control characters that ASCII has for that: the topic and the
//! headers by RS, a header's name from its value by US. ESC before one of them makes it part of the text.

#![no_main]

use forwarder_core::fanout::headers::{Block, decode};
use forwarder_core::record::{Origin, Timestamp, TimestampKind};
use libfuzzer_sys::fuzz_target;

type Header = (String, Option<Vec<u8>>);

const VERSION: &str = "NATS/1.0\r\n";
const MESSAGE_ID: &str = "Nats-Msg-Id";
const OWN: [&str; 5] = [
    "Kafka-Topic",
    "Kafka-Partition",
    "Kafka-Offset",
    "Kafka-Timestamp",
    "Kafka-Timestamp-Type",
];

fuzz_target!(|input: &[u8]| {
    let Some((&choices, texts)) = input.split_first() else {
        return;
    };
    let mut records = split(texts).into_iter();
    let topic = records.next().map(|(topic, _)| topic).unwrap_or_default();
    let headers: Vec<Header> = records.collect();

    let is_set = |bit: u8| choices >> bit & 1 == 1;
    let (with_id, with_origin) = (is_set(0), is_set(1));
    let timestamp = is_set(2).then_some(Timestamp {
        millis: if is_set(3) { i64::MIN } else { 1_769_528_223_886 },
        kind: if is_set(4) {
            TimestampKind::Broker
        } else {
            TimestampKind::Unknown
        },
    });
    let origin = Origin {
        topic: &topic,
        partition: if is_set(5) { i32::MIN } else { 7 },
        offset: if is_set(6) { i64::MAX } else { 42 },
    };

    let mut out = b"rubbish".to_vec();
    let mut block = if with_id {
        Block::with_message_id(&mut out, &origin, timestamp)
    } else {
        Block::new(&mut out)
    };
    if with_origin {
        block.origin(&origin, timestamp);
    }
    for (name, value) in &headers {
        block.append(name, value.as_deref());
    }
    block.finish();

    let text = std::str::from_utf8(&out).expect("a block is UTF-8");
    let read = read(text);
    let mut rest = read.as_slice();

    if with_id {
        // nats-server up to 2.10 takes the first place in the block where the name stands, and it has to begin a line there.
        assert_eq!(text.find(MESSAGE_ID), Some(VERSION.len()));
        assert_eq!(rest[0].0, MESSAGE_ID);
        assert_eq!(decode(rest[0].0, rest[0].1.as_bytes()), None);
        rest = &rest[1..];
    }
    if with_origin {
        let count = if timestamp.is_some() { 5 } else { 3 };
        for (&(name, value), own) in rest[..count].iter().zip(OWN) {
            assert_eq!(name, own);
            assert_eq!(decode(name, value.as_bytes()), None);
        }
        assert_eq!(rest[1].1, origin.partition.to_string());
        assert_eq!(rest[2].1, origin.offset.to_string());
        rest = &rest[count..];
    }
    for (name, _) in rest {
        let is_nats = name.to_ascii_lowercase().starts_with("nats-");
        let is_own = OWN.iter().any(|own| own.eq_ignore_ascii_case(name));
        assert!(!is_nats && !is_own, "forged: {name}");
    }
    let decoded: Vec<_> = rest
        .iter()
        .map(|(name, value)| decode(name, value.as_bytes()).expect("what was written can be decoded"))
        .collect();
    assert_eq!(decoded, headers);

    // And the other way round: what others wrote may be anything.
    for (name, value) in &headers {
        drop(decode(name, value.as_deref().unwrap_or_default()));
    }
});

/// Reads a block as the strictest client does: nothing but visible ASCII in names, no control characters in values, and no
/// white space that another client might trim.
fn read(block: &str) -> Vec<(&str, &str)> {
    if block.is_empty() {
        return vec![];
    }
    let lines = block.strip_prefix(VERSION).expect("a version");
    let lines = lines.strip_suffix("\r\n\r\n").expect("an end");
    let header = |line| {
        let (name, value) = str::split_once(line, ": ").expect("a name and a value");
        assert!(
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'),
            "{line:?}"
        );
        assert!(
            !value.contains(|char: char| char.is_control() || "\u{2028}\u{2029}".contains(char)),
            "{line:?}"
        );
        assert_eq!(value, value.trim(), "{line:?}");
        (name, value)
    };
    lines.split("\r\n").map(header).collect()
}

fn split(texts: &[u8]) -> Vec<Header> {
    const ESCAPE: u8 = 0x1b;
    const RECORD: u8 = 0x1e;
    const UNIT: u8 = 0x1f;
    let mut headers = vec![(Vec::new(), None)];
    let mut bytes = texts.iter().copied();
    while let Some(byte) = bytes.next() {
        let (name, value) = headers.last_mut().expect("there is one from the start");
        match byte {
            RECORD => headers.push((Vec::new(), None)),
            UNIT if value.is_none() => *value = Some(Vec::new()),
            byte => {
                let byte = if byte == ESCAPE {
                    bytes.next().unwrap_or(ESCAPE)
                } else {
                    byte
                };
                value.as_mut().unwrap_or(name).push(byte);
            }
        }
    }
    // A name that is no text is dropped before there is a block.
    let text = |name: Vec<u8>| String::from_utf8_lossy(&name).into_owned();
    headers.into_iter().map(|(name, value)| (text(name), value)).collect()
}
