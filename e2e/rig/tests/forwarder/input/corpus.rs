//! What producers send that no forwarder can forward.

use e2e_rig::traffic::Raw;
use forwarder_core::document::PublishMode;
use forwarder_core::record::Invalid;

/// The servers' bound here. Larger than any good record of the traffic, smaller than what Kafka takes.
pub(super) const MAX_PAYLOAD: usize = 64 << 10;

/// A record and the reason that it must be counted under.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) record: Raw,
    pub(super) reason: Invalid,
}

/// All of it; `key` yields the keys of assets whose good records stand around.
pub(super) fn corpus(mode: PublishMode, key: impl Fn(u32) -> String) -> Vec<Bad> {
    let mut all = Vec::new();
    for (reason, value) in values() {
        let asset = key(u32::try_from(all.len()).unwrap());
        all.push(bad(reason, Some(asset.as_bytes()), value.as_deref()));
    }
    let good = &br#"{"ID": "Temperature", "VALUE": "21.5"}"#[..];
    all.push(bad(Invalid::NoKey, None, Some(good)));
    all.push(bad(Invalid::NoKey, None, None));
    for key in [&b""[..], b"\xff\xfe", b"WTVB01-\xc3", b"\xed\xa0\x80"] {
        all.push(bad(Invalid::BadKey, Some(key), Some(good)));
    }
    let long = "k".repeat(4_100);
    let mut keys = vec![
        "*",
        ">",
        "a*",
        ">a",
        "a b",
        "a\tb",
        "a\r\nPUB x 0",
        "\u{7f}",
        "\u{85}",
        "a..b",
        ".a",
        "a.",
        ".",
    ];
    keys.push(&long);
    if mode == PublishMode::Core {
        // Behind `assets.`, which JetStream's subjects begin with here, these are names like any other.
        keys.extend(["$JS.API.STREAM", "$SYS.REQ", "$", "_INBOX", "_INBOX.rig"]);
    }
    for key in keys {
        all.push(bad(Invalid::BadSubject, Some(key.as_bytes()), Some(good)));
    }
    // What would call JetStream's API if it went out.
    if mode == PublishMode::Core {
        let call = &br#"{"id": "DELETE.all"}"#[..];
        all.push(bad(Invalid::BadSubject, Some(b"$JS.API.STREAM"), Some(call)));
    }
    for (number, record) in all.iter_mut().enumerate() {
        // Whatever is wrong with a record, its headers must be kept; a third has none.
        if number % 3 > 0 {
            let headers = [
                ("trace", Some(&b"abc"[..])),
                ("raw", Some(b"\xff\x00")),
                ("trace", None),
            ];
            record.record.headers = headers
                .map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec)))
                .into();
        }
    }
    all
}

fn bad(reason: Invalid, key: Option<&[u8]>, value: Option<&[u8]>) -> Bad {
    Bad {
        record: Raw {
            key: key.map(<[u8]>::to_vec),
            value: value.map(<[u8]>::to_vec),
            ..Raw::default()
        },
        reason,
    }
}

fn values() -> Vec<(Invalid, Option<Vec<u8>>)> {
    let mut all: Vec<(Invalid, Option<Vec<u8>>)> = vec![
        (Invalid::NullValue, None),
        (Invalid::NotUtf8, Some(b"{\"id\": \"a\", \"v\": \"\xff\"}".to_vec())),
        (Invalid::NotUtf8, Some(b"\x00\x80\x01".to_vec())),
        (Invalid::NotJson, Some(b"\x00\x00\x00\x00\x07avro".to_vec())),
    ];
    let mut add = |reason, value: &str| all.push((reason, Some(value.as_bytes().to_vec())));
    for text in [
        "",
        " ",
        "not JSON",
        "{",
        r#"{"id": "a""#,
        r#"{"id": "a",}"#,
        r#"{"id": "a"} x"#,
        r#"{"id": "a"}{"id": "b"}"#,
        r#"{"id": "a", "v": NaN}"#,
        r#"{"id": "a", "v": -Infinity}"#,
        r#"{"id": "a", "v": 01}"#,
        r#"{"id": "a", "v": 1.}"#,
        r#"{'id': 'a'}"#,
        r#"{"id": "a", "v": "\x"}"#,
        "{\"id\": \"a\", \"v\": \"\u{1}\"}",
        "\u{feff}{\"id\": \"a\"}",
    ] {
        add(Invalid::NotJson, text);
    }
    for text in ["[]", "null", "true", "17", r#""id""#, r#"[{"id": "a"}]"#] {
        add(Invalid::NotAnObject, text);
    }
    for value in ["null", r#""text""#, "7", "[]", "true"] {
        add(
            Invalid::BadAttributes,
            &format!(r#"{{"id": "a", "attributes": {value}}}"#),
        );
    }
    add(Invalid::NoId, "{}");
    add(
        Invalid::NoId,
        r#"{"VALUE": "21.5", "identifier": "a", "attributes": {"id": "a"}}"#,
    );
    for value in [
        "null", r#""""#, "true", "false", "0", "-0.0", "0e7", "[]", r#"["a"]"#, "{}",
    ] {
        add(Invalid::NoId, &format!(r#"{{"ID": {value}, "VALUE": "21.5"}}"#));
    }
    add(Invalid::NoId, r#"{"id": "a", "id": null}"#);
    for id in [
        "*", ">", "a.*", "a b", "a\\nb", "a\\u0000", "a\\u0085", "\\ud800", "a..b", ".a", "a.", ".",
    ] {
        add(Invalid::BadSubject, &format!(r#"{{"ID": "{id}", "VALUE": "21.5"}}"#));
    }
    add(Invalid::BadSubject, &format!(r#"{{"ID": "{}"}}"#, "i".repeat(4_100)));
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    add(Invalid::TooDeep, &deep("[", "]"));
    add(Invalid::TooDeep, &"[".repeat(10_000));
    add(Invalid::TooDeep, &format!(r#"{{"id": "a", "v": {}}}"#, deep("[", "]")));
    add(
        Invalid::TooDeep,
        &format!(
            r#"{{"id": "a", "attributes": {{"v": {}1{}}}}}"#,
            "{\"a\":".repeat(10_000),
            "}".repeat(10_000)
        ),
    );
    add(
        Invalid::TooLarge,
        &format!(r#"{{"id": "a", "v": "{}"}}"#, "x".repeat(MAX_PAYLOAD)),
    );
    // It fits, and no longer does with what the forwarder adds.
    add(
        Invalid::TooLarge,
        &format!(r#"{{"id": "a", "v": "{}"}}"#, "x".repeat(MAX_PAYLOAD - 30)),
    );
    all
}
