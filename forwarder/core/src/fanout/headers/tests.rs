use proptest::prelude::*;

use super::*;
use crate::record::TimestampKind;

type Header = (String, Option<Vec<u8>>);

const ORIGIN: Origin<'static> = Origin {
    topic: "ofa_assets",
    partition: 7,
    offset: 42,
};
const AT: Option<Timestamp> = Some(Timestamp {
    millis: 1_769_528_223_886,
    kind: TimestampKind::Broker,
});

fn block(write: impl FnOnce(&mut Block<'_>)) -> String {
    finished(None, write)
}

fn identified(origin: &Origin<'_>, timestamp: Option<Timestamp>) -> String {
    finished(Some((origin, timestamp)), |_| {})
}

fn finished(id: Option<(&Origin<'_>, Option<Timestamp>)>, write: impl FnOnce(&mut Block<'_>)) -> String {
    let mut out = b"rubbish".to_vec();
    let mut block = match id {
        Some((origin, timestamp)) => Block::with_message_id(&mut out, origin, timestamp),
        None => Block::new(&mut out),
    };
    write(&mut block);
    block.finish();
    String::from_utf8(out).unwrap()
}

/// The one line that a header becomes.
fn line(name: &str, value: impl AsRef<[u8]>) -> String {
    let block = block(|block| block.append(name, Some(value.as_ref())));
    block
        .strip_prefix("NATS/1.0\r\n")
        .unwrap()
        .strip_suffix("\r\n\r\n")
        .unwrap()
        .to_owned()
}

/// Reads a block as strict clients do: lines end with CRLF, names at the first colon, values are trimmed.
fn read(block: &str) -> Vec<(String, Vec<u8>)> {
    if block.is_empty() {
        return vec![];
    }
    let lines = block
        .strip_prefix("NATS/1.0\r\n")
        .unwrap()
        .strip_suffix("\r\n\r\n")
        .unwrap();
    assert!(!lines.replace("\r\n", "").contains(['\r', '\n', '\0']), "{block:?}");
    lines
        .split("\r\n")
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            assert!(
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()),
                "{line:?}"
            );
            (name.to_owned(), value.trim().as_bytes().to_vec())
        })
        .collect()
}

fn decoded(block: &str) -> Vec<Option<Header>> {
    read(block)
        .into_iter()
        .map(|(name, value)| decode(&name, &value))
        .collect()
}

#[test]
fn no_headers_make_no_block() {
    assert_eq!(block(|_| {}), "");
}

#[test]
fn plain_headers_pass_as_they_are_in_order() {
    let block = block(|block| {
        for (name, value) in [
            ("b", "1"),
            ("a", "x y:z"),
            ("B", ""),
            ("b", "\"{ü}\" 100%"),
            ("kafka-topics", "2"),
            ("Nats", "-"),
        ] {
            block.append(name, Some(value.as_bytes()));
        }
    });
    assert_eq!(
        block,
        "NATS/1.0\r\nb: 1\r\na: x y:z\r\nB: \r\nb: \"{ü}\" 100%\r\nkafka-topics: 2\r\nNats: -\r\n\r\n"
    );
}

#[test]
fn nats_headers_are_renamed() {
    for name in ["Nats-Rollup", "nats-msg-id", "NATS-Expected-Stream", "Nats-"] {
        assert_eq!(line(name, "v"), format!("Kafka-{name}: v"));
        // The same name from Kafka is another header.
        assert_eq!(
            line(&format!("Kafka-{name}"), "v"),
            format!("Kafka-Encoded-Kafka-{name}: v")
        );
        assert_eq!(line(name, "v\n"), format!("Kafka-Encoded-{name}: v%0A"));
    }
}

#[test]
fn a_copy_says_that_it_is_one_and_no_record_can() {
    for name in ["Fanout-Mirrored", "fanout-mirrored", "FANOUT-MIRRORED"] {
        assert_eq!(line(name, "1"), format!("Kafka-Encoded-{name}: 1"));
        assert_eq!(decode(name, b"1"), None, "it is no header of the record");
    }
    assert_eq!(line("Fanout-Mirrored-By", "1"), "Fanout-Mirrored-By: 1");
    let mut copy = b"rubbish".to_vec();
    mirrored(block(|block| block.append("a", Some(b"1"))).as_bytes(), &mut copy);
    assert_eq!(copy, b"NATS/1.0\r\nFanout-Mirrored: 1\r\na: 1\r\n\r\n");
    mirrored(b"", &mut copy);
    assert_eq!(copy, b"NATS/1.0\r\nFanout-Mirrored: 1\r\n\r\n");
}

#[test]
fn what_nats_cannot_carry_is_encoded() {
    for (name, value, expected) in [
        ("", &b"v"[..], "Kafka-Encoded-: v"),
        ("a b", b"v", "Kafka-Encoded-a%20b: v"),
        ("a:b", b"v:w", "Kafka-Encoded-a%3Ab: v:w"),
        ("a%3A", b"v", "a%3A: v"),
        ("a\r\nNats-Rollup", b"all", "Kafka-Encoded-a%0D%0ANats-Rollup: all"),
        ("\u{e9}", b"v", "Kafka-Encoded-%C3%A9: v"),
        ("\0", b"v", "Kafka-Encoded-%00: v"),
        ("a", b" v", "Kafka-Encoded-a: %20v"),
        ("a", b"v\t", "Kafka-Encoded-a: v%09"),
        ("a", b" ", "Kafka-Encoded-a: %20"),
        ("a", b"\r\n\r\nPUB x 0", "Kafka-Encoded-a: %0D%0A%0D%0APUB%20x%200"),
        ("a", b"\n x%", "Kafka-Encoded-a: %0A%20x%25"),
        ("a", b"\0\xff", "Kafka-Encoded-a: %00%FF"),
        ("a", b"v\x7f", "Kafka-Encoded-a: v%7F"),
        ("a", "x\u{85}y".as_bytes(), "Kafka-Encoded-a: x%C2%85y"),
        ("a", "x\u{2028}y".as_bytes(), "Kafka-Encoded-a: x%E2%80%A8y"),
        ("a", "\u{3000}x".as_bytes(), "Kafka-Encoded-a: %E3%80%80x"),
    ] {
        assert_eq!(line(name, value), expected);
        let header = (name.to_owned(), Some(value.to_vec()));
        assert_eq!(decoded(&block(|block| block.append(name, Some(value)))), [Some(header)]);
    }
    assert_eq!(
        block(|block| block.append("a b", None)),
        "NATS/1.0\r\nKafka-Null-a%20b: \r\n\r\n"
    );
}

#[test]
fn no_record_forges_what_the_forwarder_says() {
    for name in OWN
        .into_iter()
        .flat_map(|name| [name.to_owned(), name.to_uppercase(), name.to_lowercase()])
    {
        assert_eq!(line(&name, "v"), format!("Kafka-Encoded-{name}: v"));
    }
    for name in [
        "Kafka-Encoded-a",
        "kafka-encoded-",
        "Kafka-Null-a",
        "KAFKA-NULL-",
        "kafka-nats-a",
    ] {
        assert_eq!(line(name, "v"), format!("Kafka-Encoded-{name}: v"));
    }
    for (name, value) in [
        (MESSAGE_ID, "x"),
        ("nats-x", "x"),
        (TOPIC, "x"),
        ("kafka-null-x", ""),
        ("kafka-nats-x", "v"),
    ] {
        assert_eq!(decode(name, value.as_bytes()), None, "{name}");
    }
    for (name, value) in [
        ("Kafka-Null-a", "x"),
        ("Kafka-Encoded-a", "%"),
        ("Kafka-Encoded-a", "%0"),
        ("Kafka-Encoded-%FF", ""),
    ] {
        assert_eq!(decode(name, value.as_bytes()), None, "{name}");
    }
}

#[test]
fn the_message_id_is_stable_and_first() {
    assert_eq!(
        identified(&ORIGIN, AT),
        "NATS/1.0\r\nNats-Msg-Id: ofa_assets.7.42.1769528223886\r\n\r\n"
    );
    assert_eq!(
        identified(&ORIGIN, None),
        "NATS/1.0\r\nNats-Msg-Id: ofa_assets.7.42.-1\r\n\r\n"
    );
    let odd = Origin {
        topic: "a\r\nb ü%",
        partition: i32::MIN,
        offset: i64::MIN,
    };
    assert_eq!(
        identified(&odd, None),
        "NATS/1.0\r\nNats-Msg-Id: a%0D%0Ab%20%C3%BC%25.-2147483648.-9223372036854775808.-1\r\n\r\n"
    );
}

#[test]
fn the_origin_is_told() {
    assert_eq!(
        block(|block| block.origin(&ORIGIN, AT)),
        "NATS/1.0\r\nKafka-Topic: ofa_assets\r\nKafka-Partition: 7\r\nKafka-Offset: 42\r\n\
         Kafka-Timestamp: 1769528223886\r\nKafka-Timestamp-Type: broker\r\n\r\n"
    );
    assert_eq!(
        block(|block| block.origin(&ORIGIN, None)),
        "NATS/1.0\r\nKafka-Topic: ofa_assets\r\nKafka-Partition: 7\r\nKafka-Offset: 42\r\n\r\n"
    );
}

fn name() -> impl Strategy<Value = String> {
    let prefix = prop::sample::select(vec![
        "",
        "",
        "Nats-",
        "nats-",
        "Kafka-Nats-",
        "KAFKA-nats-",
        "Kafka-Encoded-",
        "kafka-encoded-",
        "Kafka-Null-",
        "Kafka-",
        "Kafka-Topic",
    ]);
    prop_oneof![
        (prefix.clone(), "[a-zA-Z%0-9:-]{0,6}").prop_map(|(prefix, rest)| format!("{prefix}{rest}")),
        (prefix, ".{0,4}").prop_map(|(prefix, rest)| format!("{prefix}{rest}")),
        any::<String>(),
    ]
}

fn value() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        1 => Just(None),
        2 => "[ -~]{0,12}".prop_map(|text| Some(text.into_bytes())),
        2 => any::<String>().prop_map(|text| Some(text.into_bytes())),
        2 => any::<Vec<u8>>().prop_map(Some),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn every_header_comes_back(headers in prop::collection::vec((name(), value()), 0..6), with_id: bool, with_origin: bool) {
        let block = finished(with_id.then_some((&ORIGIN, AT)), |block| {
            if with_origin {
                block.origin(&ORIGIN, AT);
            }
            for (name, value) in &headers {
                block.append(name, value.as_deref());
            }
        });
        // All in order, and nothing of ours among them.
        let decoded: Vec<_> = decoded(&block).into_iter().flatten().collect();
        prop_assert_eq!(decoded, headers);

        let names: Vec<_> = read(&block).into_iter().map(|(name, _)| name).collect();
        for (at, name) in names.iter().enumerate() {
            let ours = with_id && at == 0;
            prop_assert_eq!(name.to_lowercase().starts_with("nats-"), ours, "{}", name);
        }
        // Where nats-server up to 2.10 looks for it.
        prop_assert_eq!(with_id, block.find("Nats-Msg-Id:").is_some_and(|at| at == VERSION.len()));
    }

    #[test]
    fn whatever_is_decoded_says_one_thing(name in name(), bytes in any::<Vec<u8>>()) {
        // No NATS header that we would write in another way is read as ours in disguise.
        if let Some((name_then, value_then)) = decode(&name, &bytes)
            && is_plain_name(&name)
            && is_plain_value(&bytes)
            && !name.starts_with(ENCODED)
            && !name.starts_with(NULL)
        {
            let again = line(&name_then, value_then.unwrap());
            prop_assert_eq!(again, format!("{}: {}", name, String::from_utf8(bytes).unwrap()));
        }
    }
}
