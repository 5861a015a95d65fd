//! The payload edit, judged by serde_json (what is JSON, and what a reader sees) and by the model of its tests (every
//! spelling).

#![no_main]

use forwarder_core::fanout::payload::{MAX_DEPTH, Stamps, edit};
use forwarder_core::record::Invalid;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

#[path = "../../src/fanout/payload/tests/model.rs"]
mod model;

const NOW: &str = "2026-01-27T15:37:03.886Z";
const THEN: &str = "2026-01-27T15:37:03.882Z";

const WITH_KAFKA: Stamps<'_> = Stamps {
    forwarder: NOW,
    kafka: Some((THEN, "producer")),
};
const WITHOUT_KAFKA: Stamps<'_> = Stamps {
    forwarder: NOW,
    kafka: None,
};

fuzz_target!(|value: &[u8]| {
    for stamps in [&WITH_KAFKA, &WITHOUT_KAFKA] {
        judge(value, stamps);
    }
});

fn judge(value: &[u8], stamps: &Stamps<'_>) {
    // What the buffers held before must not matter.
    let (mut body, mut id) = (b"rubbish".to_vec(), b"rubbish".to_vec());
    let result = edit(value, stamps, &mut body, &mut id);

    let Ok(text) = std::str::from_utf8(value) else {
        assert_eq!(result, Err(Invalid::NotUtf8));
        return;
    };
    let depth = || text.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count();
    match result {
        Err(Invalid::NotUtf8) => panic!("it is UTF-8"),
        Err(Invalid::NotJson) => assert!(!is_json(text), "it is JSON"),
        Err(Invalid::TooDeep) => assert!(depth() > MAX_DEPTH, "it is not that deep"),
        _ => {
            assert!(is_json(text), "it is no JSON: {result:?}");
            let edited = result.map(|()| {
                let body = std::str::from_utf8(&body).expect("a body is UTF-8");
                assert!(is_json(body), "no JSON was made: {body}");
                let id = std::str::from_utf8(&id).expect("an ID is UTF-8");
                (id.to_owned(), model::parse(body))
            });
            assert_eq!(edited, model::expected(stamps, &model::parse(text)));
        }
    }
    if let Ok(Value::Object(members)) = serde_json::from_str(text) {
        judge_meaning(members, stamps, result, &id, &body);
    }
}

/// All of the syntax, without the limits that a tree of serde_json has: depth, range of numbers, lone surrogates.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// What a reader makes of it that keeps the last of several members and nothing of the order.
fn judge_meaning(
    mut members: Map<String, Value>,
    stamps: &Stamps<'_>,
    result: Result<(), Invalid>,
    id: &[u8],
    body: &[u8],
) {
    let mut spellings = members.keys().filter(|name| name.eq_ignore_ascii_case("id"));
    let (spelling, None) = (spellings.next().cloned(), spellings.next()) else {
        // Which one is first is for the model to say.
        return;
    };
    let attributes = members.entry("attributes").or_insert_with(|| Map::new().into());
    let Value::Object(attributes) = attributes else {
        assert_eq!(result, Err(Invalid::BadAttributes));
        return;
    };
    let (time, kind) = stamps.kafka.unzip();
    for (name, stamp) in [
        ("asset_forwarder_timestamp", Some(stamps.forwarder)),
        ("kafka_timestamp", time),
        ("kafka_timestamp_type", kind),
    ] {
        match stamp {
            Some(stamp) => attributes.insert(name.to_owned(), stamp.into()),
            None => attributes.remove(name),
        };
    }
    match spelling.and_then(|spelling| members.remove(&spelling)) {
        Some(Value::String(text)) if !text.is_empty() => {
            assert_eq!(result, Ok(()), "the ID is a good one");
            assert_eq!(id, text.as_bytes());
        }
        Some(Value::Number(number)) => {
            // One too small for a float is an ID, and reads as zero.
            assert!(
                result.is_ok() || number.as_f64() == Some(0.0),
                "the ID is a good one: {result:?}"
            );
            if result.is_ok() {
                let id: Value = serde_json::from_slice(id).expect("the ID is a number");
                assert_eq!(id, Value::Number(number));
            }
        }
        _ => assert_eq!(result, Err(Invalid::NoId)),
    }
    if result.is_ok() {
        let body: Value = serde_json::from_slice(body).expect("a reader takes the body");
        assert_eq!(body, Value::Object(members));
    }
}
