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
    let refused = Ack::Refused(ApiError {
        code: 503,
        err_code: 10077,
        description: "maximum messages exceeded".to_owned(),
    });
    assert_eq!(parse_ack(None, payload), refused);
    let terse = Ack::Refused(ApiError::default());
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

#[test]
fn a_refusal_is_for_ever_or_of_the_configuration_or_for_now() {
    let refusal = |code: u16, err_code: u16, text: &str| {
        let json = format!(
            r#"{{"error":{{"code":{code},"err_code":{err_code},"description":"{text}"}},"stream":"S","seq":0}}"#
        );
        parse_ack(None, json.as_bytes()).refusal().unwrap()
    };
    for (code, err_code, text, expected) in [
        (
            400,
            10097,
            "header size exceeds maximum allowed of 64k",
            Refusal::Impossible,
        ),
        (503, 10077, "message too large", Refusal::Impossible),
        (400, 10054, "message size exceeds maximum allowed", Refusal::Denied),
        (503, 10077, "maximum messages per subject exceeded", Refusal::Denied),
        (503, 10077, "maximum messages exceeded", Refusal::Transient),
        (503, 10077, "maximum bytes exceeded", Refusal::Transient),
        (503, 10023, "insufficient resources", Refusal::Transient),
        (400, 10002, "resource limits exceeded for account", Refusal::Transient),
        (429, 10167, "too many requests", Refusal::Transient),
        (409, 10158, "duplicate message id is in process", Refusal::Transient),
        (
            500,
            10047,
            "insufficient storage resources available",
            Refusal::Transient,
        ),
        (
            503,
            10008,
            "JetStream system temporarily unavailable",
            Refusal::Transient,
        ),
        (400, 10109, "invalid operation on sealed stream", Refusal::Transient),
        (400, 0, "words of a later server", Refusal::Denied),
        (0, 0, "", Refusal::Denied),
    ] {
        assert_eq!(refusal(code, err_code, text), expected, "{code} {err_code} {text}");
    }
    assert_eq!(Ack::Malformed.refusal(), Some(Refusal::Transient));
    assert_eq!(parse_ack(None, br#"{"stream":"S","seq":1}"#).refusal(), None);
}
