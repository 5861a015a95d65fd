use super::*;

fn stored(stream: &str, sequence: u64, duplicate: bool) -> Ack<'_> {
    Ack::Stored {
        stream: Cow::Borrowed(stream),
        sequence,
        duplicate,
    }
}

#[test]
fn the_usual_acks_take_the_short_way() {
    for (payload, ack) in [
        (r#"{"stream":"ASSETS","seq":1}"#, stored("ASSETS", 1, false)),
        (
            r#"{"stream":"ASSETS","seq":1,"duplicate": true}"#,
            stored("ASSETS", 1, true),
        ),
        (r#"{"stream":"ASSETS", "seq":1}"#, stored("ASSETS", 1, false)),
        (
            r#"{"stream":"A-1_x", "seq":18446744073709551615}"#,
            stored("A-1_x", u64::MAX, false),
        ),
        (
            r#"{"stream":"ASSETS", "seq":12,"duplicate": true}"#,
            stored("ASSETS", 12, true),
        ),
    ] {
        assert_eq!(parse_usual(payload.as_bytes()), Some(ack.clone()), "{payload}");
        assert_eq!(parse_any(payload.as_bytes()), ack, "both ways must agree: {payload}");
    }
}

#[test]
fn other_spellings_are_understood() {
    for (payload, ack) in [
        (r#"{"stream":"S","seq": 3}"#, stored("S", 3, false)),
        (r#" { "seq" : 3 , "stream" : "S" } "#, stored("S", 3, false)),
        (r#"{"stream":"S", "domain":"hub", "seq":3}"#, stored("S", 3, false)),
        (
            r#"{"stream":"S", "domain":"hub", "seq":3,"duplicate": true}"#,
            stored("S", 3, true),
        ),
        (r#"{"stream":"\"é", "seq":3}"#, stored("\"é", 3, false)),
        (
            r#"{"stream":"S", "seq":3,"batch":"b","count":2}"#,
            stored("S", 3, false),
        ),
    ] {
        assert_eq!(parse_ack(None, payload.as_bytes()), ack, "{payload}");
    }
}

#[test]
fn a_refusal_wins_over_a_sequence() {
    let payload =
        br#"{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"S","seq":9}"#;
    let refused = Ack::Refused {
        code: 503,
        err_code: 10077,
        description: "maximum messages exceeded".to_owned(),
    };
    assert_eq!(parse_ack(None, payload), refused);
    let terse = Ack::Refused {
        code: 0,
        err_code: 0,
        description: String::new(),
    };
    assert_eq!(parse_ack(None, br#"{"error":{},"stream":"S","seq":9}"#), terse);
}

#[test]
fn nobody_listens() {
    let headers = b"NATS/1.0 503\r\nNats-Subject: a.b\r\n\r\n";
    assert_eq!(parse_ack(Some(headers), b""), Ack::NoResponders);
    assert_eq!(parse_ack(Some(b"NATS/1.0 5031\r\n\r\n"), b""), Ack::Malformed);
    assert_eq!(parse_ack(Some(b"NATS/1.0\r\nStatus: 503\r\n\r\n"), b""), Ack::Malformed);
    // A body is what counts, whatever the headers say.
    assert_eq!(
        parse_ack(Some(headers), br#"{"stream":"S", "seq":3}"#),
        stored("S", 3, false)
    );
}

#[test]
fn what_proves_nothing_is_no_confirmation() {
    for payload in [
        "",
        "+OK",
        "{}",
        "null",
        "[]",
        r#"{"stream":"S"}"#,
        r#"{"stream":"S", "seq":0}"#,
        r#"{"stream":"", "seq":1}"#,
        r#"{"stream":"S", "seq":18446744073709551616}"#,
        r#"{"stream":"S", "seq":-1}"#,
        r#"{"stream":"S", "seq":1"#,
        r#"{"stream":"S", "seq":}"#,
        r#"{"stream":"S", "seq":1}}"#,
    ] {
        assert_eq!(parse_ack(None, payload.as_bytes()), Ack::Malformed, "{payload}");
    }
    assert_eq!(parse_ack(None, b"{\"stream\":\"\xff\", \"seq\":1}"), Ack::Malformed);
}
