use super::*;

fn published(reply: Option<&[u8]>, headers: &[u8], body: &[u8]) -> String {
    let mut out = Vec::new();
    encode_pub(&mut out, b"a.b", reply, headers, body);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_publish_without_headers_is_a_pub() {
    assert_eq!(published(None, b"", b"hello"), "PUB a.b 5\r\nhello\r\n");
    assert_eq!(published(None, b"", b""), "PUB a.b 0\r\n\r\n");
    assert_eq!(
        published(Some(b"_INBOX.1"), b"", b"hello"),
        "PUB a.b _INBOX.1 5\r\nhello\r\n"
    );
}

#[test]
fn a_publish_with_headers_counts_both_sizes() {
    let headers = b"NATS/1.0\r\nA: 1\r\n\r\n";
    assert_eq!(
        published(Some(b"r"), headers, b"0123456789"),
        "HPUB a.b r 18 28\r\nNATS/1.0\r\nA: 1\r\n\r\n0123456789\r\n"
    );
}

#[test]
fn operations_follow_one_another_in_one_buffer() {
    let mut out = Vec::new();
    encode_sub(&mut out, b"_INBOX.x.*", 7);
    encode_ping(&mut out);
    encode_pong(&mut out);
    assert_eq!(out, b"SUB _INBOX.x.* 7\r\nPING\r\nPONG\r\n");
}

#[test]
fn connect_leaves_out_what_is_not_set_and_escapes_the_rest() {
    let mut out = Vec::new();
    let connect = Connect {
        name: "a\"\r\nPUB x 0",
        token: Some("t"),
        protocol: 1,
        ..Connect::default()
    };
    encode_connect(&mut out, &connect).unwrap();
    let text = String::from_utf8(out).unwrap();
    let json: serde_json::Value =
        serde_json::from_str(text.strip_prefix("CONNECT ").unwrap().strip_suffix("\r\n").unwrap()).unwrap();
    assert_eq!(json["auth_token"], "t");
    assert_eq!(json["protocol"], 1);
    assert_eq!(json["verbose"], false);
    assert!(json.get("user").is_none() && json.get("jwt").is_none());
    assert_eq!(
        text.matches('\n').count(),
        1,
        "a name cannot start an operation of its own: {text}"
    );
}

#[test]
fn a_member_of_a_queue_group_names_it() {
    let mut out = Vec::new();
    encode_queue_sub(&mut out, b"a.b", b"group", 7);
    assert_eq!(out, b"SUB a.b group 7\r\n");
}

#[test]
#[should_panic(expected = "single argument")]
fn a_subject_with_a_line_break_stops_a_debug_build() {
    encode_pub(&mut Vec::new(), b"a\r\nPUB b 0", None, b"", b"");
}
