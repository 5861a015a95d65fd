use super::*;
use crate::record::{Origin, TimestampKind};

const NOW: i64 = 1_769_528_223_886;
const RECORD: &[u8] = br#"{"ID":"temp","VALUE":1.0,"attributes":{"unit":"C"}}"#;
const INCOMING: Incoming<'static> = Incoming {
    key: Some(b"WTVB01-0007"),
    value: Some(RECORD),
    timestamp: Some(Timestamp {
        millis: NOW - 4,
        kind: TimestampKind::Producer,
    }),
    origin: Origin {
        topic: "ofa_assets",
        partition: 3,
        offset: 99,
    },
};

fn ring(names: &[&str]) -> Ring {
    Ring::new(names.iter().map(|name| ((*name).to_owned(), 1)), 128).unwrap()
}

fn router(options: RouteOptions) -> Router {
    Router::new(
        ring(&["C1", "C2", "C3"]),
        Template::parse("{key}.{id}").unwrap(),
        options,
    )
}

fn invalid(key: Option<&[u8]>, value: Option<&[u8]>) -> Invalid {
    let incoming = Incoming { key, value, ..INCOMING };
    router(RouteOptions::default())
        .route(&incoming, std::iter::empty(), NOW, &mut Draft::default())
        .unwrap_err()
}

fn body(draft: &Draft) -> &str {
    std::str::from_utf8(&draft.body).unwrap()
}

#[test]
fn a_record_becomes_a_message() {
    let mut draft = Draft::default();
    let mut router = router(RouteOptions::default());
    let route = router.route(&INCOMING, std::iter::empty(), NOW, &mut draft).unwrap();
    assert_eq!(draft.subject, b"WTVB01-0007.temp");
    assert_eq!(draft.headers, b"");
    assert_eq!(
        body(&draft),
        r#"{"VALUE":1.0,"attributes":{"unit":"C","asset_forwarder_timestamp":"2026-01-27T15:37:03.886Z","kafka_timestamp":"2026-01-27T15:37:03.882Z","kafka_timestamp_type":"producer"}}"#
    );
    // As the golden vectors have it.
    assert_eq!(router.ring().name(route.owner), "C3");
    assert_eq!(route, router.place(b"WTVB01-0007"));
}

#[test]
fn a_message_carries_headers() {
    let mut draft = Draft::default();
    let headers = [("trace", Some(&b"1"[..])), ("nats-msg-id", Some(b"x")), ("trace", None)];
    let mut route = |message_id, origin_headers| {
        let mut router = router(RouteOptions {
            message_id,
            origin_headers,
        });
        router.route(&INCOMING, headers.into_iter(), NOW, &mut draft).unwrap();
        String::from_utf8(draft.headers.clone()).unwrap()
    };
    let kafka = "trace: 1\r\nKafka-nats-msg-id: x\r\nKafka-Null-trace: \r\n\r\n";
    let id = "Nats-Msg-Id: ofa_assets.3.99.1769528223882\r\n";
    let origin = "Kafka-Topic: ofa_assets\r\nKafka-Partition: 3\r\nKafka-Offset: 99\r\n\
                  Kafka-Timestamp: 1769528223882\r\nKafka-Timestamp-Type: producer\r\n";
    assert_eq!(route(false, false), format!("NATS/1.0\r\n{kafka}"));
    assert_eq!(route(true, false), format!("NATS/1.0\r\n{id}{kafka}"));
    assert_eq!(route(true, true), format!("NATS/1.0\r\n{id}{origin}{kafka}"));
}

#[test]
fn a_draft_forgets_the_record_before() {
    let (mut used, mut fresh) = (Draft::default(), Draft::default());
    let mut router = router(RouteOptions::default());
    let long = [b"{\"id\":\"", "x".repeat(500).as_bytes(), b"\"}"].concat();
    let earlier = Incoming {
        value: Some(&long),
        ..INCOMING
    };
    router
        .route(&earlier, [("a", Some(&b"b"[..]))].into_iter(), NOW, &mut used)
        .unwrap();
    // Also one that failed on the way.
    let failed = Incoming {
        value: Some(br#"{"id":"x","a":[1,2,"#),
        ..INCOMING
    };
    assert_eq!(
        router.route(&failed, std::iter::empty(), NOW, &mut used),
        Err(Invalid::NotJson)
    );
    for draft in [&mut used, &mut fresh] {
        router.route(&INCOMING, std::iter::empty(), NOW, draft).unwrap();
    }
    assert_eq!(
        (used.subject, used.headers, used.body),
        (fresh.subject, fresh.headers, fresh.body)
    );
}

#[test]
fn every_reason_is_given() {
    let key = INCOMING.key;
    assert_eq!(invalid(None, Some(RECORD)), Invalid::NoKey);
    assert_eq!(invalid(Some(b""), Some(RECORD)), Invalid::BadKey);
    assert_eq!(invalid(Some(b"a\xff"), Some(RECORD)), Invalid::BadKey);
    assert_eq!(invalid(key, None), Invalid::NullValue);
    assert_eq!(invalid(key, Some(b"{\"id\":\"\xff\"}")), Invalid::NotUtf8);
    assert_eq!(invalid(key, Some(b"")), Invalid::NotJson);
    assert_eq!(invalid(key, Some(b"[]")), Invalid::NotAnObject);
    assert_eq!(invalid(key, Some("[".repeat(1_000_000).as_bytes())), Invalid::TooDeep);
    assert_eq!(
        invalid(key, Some(br#"{"id":"x","attributes":null}"#)),
        Invalid::BadAttributes
    );
    assert_eq!(invalid(key, Some(br#"{"id":true}"#)), Invalid::NoId);
    assert_eq!(invalid(key, Some(br#"{"id":"a.>"}"#)), Invalid::BadSubject);
    assert_eq!(invalid(key, Some(br#"{"id":"a\nb"}"#)), Invalid::BadSubject);
    for key in ["*", "a b", "$JS.API.STREAM", "_INBOX.x", "a..b", ".", "\0"] {
        assert_eq!(
            invalid(Some(key.as_bytes()), Some(br#"{"id":"DELETE.x"}"#)),
            Invalid::BadSubject,
            "{key:?}"
        );
    }
}

#[test]
fn the_first_fault_in_order_counts() {
    assert_eq!(invalid(None, None), Invalid::NoKey);
    assert_eq!(invalid(Some(b""), None), Invalid::BadKey);
    assert_eq!(invalid(Some(b"\xff"), None), Invalid::BadKey);
    assert_eq!(invalid(Some(b"*"), None), Invalid::NullValue);
    assert_eq!(invalid(Some(b"*"), Some(b"{")), Invalid::NotJson);
    assert_eq!(invalid(Some(b"*"), Some(b"{}")), Invalid::NoId);
}

#[test]
fn a_time_without_text_is_none() {
    for timestamp in [None, Some(i64::MAX), Some(i64::MIN), Some(NOW * 1000)] {
        let timestamp = timestamp.map(|millis| Timestamp {
            millis,
            kind: TimestampKind::Producer,
        });
        let mut draft = Draft::default();
        let incoming = Incoming { timestamp, ..INCOMING };
        router(RouteOptions::default())
            .route(&incoming, std::iter::empty(), NOW, &mut draft)
            .unwrap();
        assert_eq!(
            body(&draft),
            r#"{"VALUE":1.0,"attributes":{"unit":"C","asset_forwarder_timestamp":"2026-01-27T15:37:03.886Z"}}"#
        );
    }
}

#[test]
fn another_ring_takes_over_with_the_next_record() {
    let mut router = router(RouteOptions::default());
    let before: Vec<_> = (0..500).map(|key| router.place(format!("{key}").as_bytes())).collect();
    // The same keys again, remembered; then on the new ring, not remembered from the old one.
    router.set_ring(ring(&["C4"]));
    for (key, before) in before.iter().enumerate() {
        let now = router.place(format!("{key}").as_bytes());
        assert_eq!((now.owner, now.lane), (0, before.lane));
    }
    assert!(before.iter().any(|route| route.owner != 0));
}

#[test]
fn a_template_with_a_prefix_takes_any_first_token_of_a_key() {
    let template = Template::parse("assets.{key}.{id}").unwrap();
    let mut router = Router::new(ring(&["C1"]), template, RouteOptions::default());
    let mut draft = Draft::default();
    let incoming = Incoming {
        key: Some(b"$JS.API"),
        ..INCOMING
    };
    router.route(&incoming, std::iter::empty(), NOW, &mut draft).unwrap();
    assert_eq!(draft.subject, b"assets.$JS.API.temp");
}
