use super::*;

fn parse(text: &str) -> ServerError {
    ServerError::parse(text.as_bytes())
}

fn denied(subject: impl AsRef<[u8]>) -> ServerError {
    ServerError::PublishViolation {
        subject: subject.as_ref().to_vec(),
    }
}

#[test]
fn a_publish_violation_names_the_subject_as_it_was_published() {
    for (quoted, subject) in [
        (r#""a.b""#, b"a.b".as_slice()),
        (r#""it's 'so'""#, b"it's 'so'"),
        (r#""q\"uote""#, b"q\"uote"),
        (r#""back\\slash""#, br"back\slash"),
        (r#""Zürich.日本""#, "Zürich.日本".as_bytes()),
        (r#""\x00\x7f\xff\xfe""#, b"\x00\x7f\xff\xfe"),
        (r#""\a\b\f\n\r\t\v""#, b"\x07\x08\x0c\n\r\t\x0b"),
        (r#""\u00a0\u200b\ufeff""#, "\u{a0}\u{200b}\u{feff}".as_bytes()),
        (r#""\U000e0001\U0010ffff""#, "\u{e0001}\u{10ffff}".as_bytes()),
        (r#""""#, b""),
        (r#""'""#, b"'"),
    ] {
        let text = format!("'Permissions Violation for Publish to {quoted}'");
        assert_eq!(parse(&text), denied(subject), "{text}");
    }
}

#[test]
fn violations_keep_the_connection() {
    let reply = ServerError::ReplyViolation {
        reply: b"_R_.x".to_vec(),
    };
    let subscription = ServerError::SubscriptionViolation {
        subject: b"a.>".to_vec(),
    };
    for (text, error) in [
        (r#"'Permissions Violation for Publish to "a"'"#, denied("a")),
        (r#"'Permissions Violation for Publish with Reply of "_R_.x"'"#, reply),
        (
            r#"'Permissions Violation for Subscription to "a.>"'"#,
            subscription.clone(),
        ),
        (
            r#"'Permissions Violation for Subscription to "a.>" using queue "q"'"#,
            subscription.clone(),
        ),
        (
            r#"'Permissions Violation for Subscription to "a.>" (sid "3")'"#,
            subscription.clone(),
        ),
        (
            r#"'Permissions Violation for Subscription to "a.>", too many tokens'"#,
            subscription,
        ),
    ] {
        assert_eq!(parse(text), error);
        assert!(!error.closes_connection() && !error.is_authorization(), "{text}");
    }
}

#[test]
fn a_violation_that_cannot_be_read_is_still_one() {
    for text in [
        "Permissions Violation",
        "Permissions Violation for Publish to a.b",
        r#"Permissions Violation for Publish to "a"#,
        r#"Permissions Violation for Publish to "a" or so"#,
        r#"Permissions Violation for Publish to "\q""#,
        r#"Permissions Violation for Publish to "\x4""#,
        r#"Permissions Violation for Publish to "\ud800""#,
        r#"Permissions Violation for Publish to "\"#,
    ] {
        assert_eq!(parse(text), ServerError::OtherViolation { text: text.to_owned() });
    }
}

#[test]
fn what_other_credentials_would_cure() {
    for text in AUTHORIZATION {
        let error = parse(&format!("'{text}'"));
        assert!(error.is_authorization() && error.closes_connection(), "{text}");
        assert_eq!(error.to_string(), text);
    }
    assert!(parse("'authorization violation'").is_authorization());
    assert!(!parse("'Stale Connection'").is_authorization());
}

#[test]
fn what_ends_the_connection() {
    for (text, kind) in [
        ("Maximum Payload Violation", "maximum_payload"),
        ("maximum control line exceeded", "maximum_control_line"),
        ("Stale Connection", "stale_connection"),
        ("maximum connections exceeded", "limit"),
        ("maximum account active connections exceeded", "limit"),
        ("Secure Connection - TLS Required", "protocol"),
        ("Unknown Protocol Operation", "protocol"),
        ("something new", "other"),
        ("", "other"),
    ] {
        let error = parse(&format!("'{text}'"));
        assert_eq!((error.kind(), error.closes_connection()), (kind, true), "{text}");
        assert_eq!(error.to_string(), text);
    }
    assert!(!parse("'maximum subscriptions exceeded'").closes_connection());
}

#[test]
fn quotes_around_the_text_are_optional() {
    assert_eq!(parse("Stale Connection"), ServerError::StaleConnection);
    assert_eq!(
        ServerError::parse(b"'\xff'"),
        ServerError::Other {
            text: "\u{fffd}".to_owned()
        }
    );
    assert_eq!(parse("'"), ServerError::Other { text: "'".to_owned() });
}
