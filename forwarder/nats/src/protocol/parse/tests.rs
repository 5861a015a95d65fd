use super::*;

/// All operations of `input`, which arrives in the given pieces.
fn parse_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, ProtocolError> {
    let mut parser = Parser::default();
    let mut buffer = BytesMut::new();
    let mut ops = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(op) = parser.next_op(&mut buffer)? {
            ops.push(format!("{op:?}"));
        }
    }
    if !buffer.is_empty() {
        ops.push(format!("rest {:?}", &buffer[..]));
    }
    Ok(ops)
}

fn parse_one(input: &[u8]) -> Op {
    let mut buffer = BytesMut::from(input);
    let op = Parser::default().next_op(&mut buffer).unwrap().unwrap();
    assert!(buffer.is_empty(), "left over: {buffer:?}");
    op
}

fn message(input: &[u8]) -> Message {
    match parse_one(input) {
        Op::Message(message) => message,
        op => panic!("{op:?} is no message"),
    }
}

fn fails(input: &[u8]) -> ProtocolError {
    let mut parser = Parser::new(Limits {
        line: 100,
        info: 200,
        message: 1000,
    });
    let mut buffer = BytesMut::from(input);
    loop {
        match parser.next_op(&mut buffer) {
            Ok(Some(_)) => {}
            Ok(None) => panic!("waits for more after {:?}", input.escape_ascii().to_string()),
            Err(error) => return error,
        }
    }
}

const ALL: &[u8] = b"INFO {\"server_id\":\"N1\",\"connect_urls\":[\"a:1\",\"b:2\"]}\r\n\
    PING\r\nPONG\r\n+OK\r\n-ERR 'Permissions Violation for Publish to \"a\\\\b\"'\r\n\
    MSG a.b 1 5\r\nhe\r\no\r\nMSG a.b 12 r.1 0\r\n\r\n\
    HMSG a.b 1 12 17\r\nNATS/1.0\r\n\r\nhello\r\nHMSG a.b 1 r.2 12 12\r\nNATS/1.0\r\n\r\n\r\nping\r\n";

#[test]
fn every_operation_in_every_fragmentation() {
    let whole = parse_pieces([ALL]).unwrap();
    assert_eq!(whole.len(), 10, "{whole:#?}");
    assert_eq!(parse_pieces(ALL.chunks(1)).unwrap(), whole);
    for first in 0..ALL.len() {
        for second in first..ALL.len() {
            assert_eq!(
                parse_pieces([&ALL[..first], &ALL[first..second], &ALL[second..]]).unwrap(),
                whole
            );
        }
    }
}

#[test]
fn messages_are_cut_where_their_sizes_say() {
    let plain = message(b"MSG a.b 7 4\r\n\r\n\r\n\r\n");
    assert_eq!(
        (&plain.subject[..], plain.sid, &plain.payload[..]),
        (&b"a.b"[..], 7, &b"\r\n\r\n"[..])
    );
    assert_eq!((plain.reply, plain.headers), (None, None));
    let full = message(b"hmsg  a.b\t7   r.x 18  23 \r\nNATS/1.0\r\nA: 1\r\n\r\nhello\r\n");
    assert_eq!(full.headers.as_deref(), Some(&b"NATS/1.0\r\nA: 1\r\n\r\n"[..]));
    assert_eq!(full.reply.as_deref(), Some(&b"r.x"[..]));
    assert_eq!(&full.payload[..], b"hello");
}

#[test]
fn parts_of_a_message_are_slices_of_what_was_read() {
    let buffer = BytesMut::from(&b"MSG a.b 1 5\r\nhello\r\n"[..]);
    let range = buffer.as_ptr_range();
    let mut buffer = buffer;
    let Some(Op::Message(message)) = Parser::default().next_op(&mut buffer).unwrap() else {
        panic!("no message")
    };
    assert!(range.contains(&message.payload.as_ptr()) && range.contains(&message.subject.as_ptr()));
}

#[test]
fn an_info_tells_what_is_needed_and_ignores_the_rest() {
    let info = |json: &str| match parse_one(format!("INFO {json}\r\n").as_bytes()) {
        Op::Info(info) => *info,
        op => panic!("{op:?} is no INFO"),
    };
    let full = info(
        r#"{"server_id":"N","server_name":"n1","version":"2.15.1","proto":1,"headers":true,"max_payload":1048576,
            "jetstream":true,"ldm":true,"client_ip":"::1","connect_urls":["a:1"],"nonce":"x","new":{"y":[1]}}"#
            .replace('\n', " ")
            .as_str(),
    );
    assert_eq!(
        (full.max_payload, full.proto, full.headers, full.ldm),
        (1 << 20, 1, true, true)
    );
    assert_eq!(
        (full.connect_urls, full.nonce.as_deref()),
        (vec!["a:1".to_owned()], Some("x"))
    );
    assert_eq!(info(r#"{"max_payload":-1}"#).max_payload, usize::MAX);
    assert_eq!(info(r#"{"connect_urls":null}"#).max_payload, usize::MAX);
}

#[test]
fn what_is_not_nats_is_found_out_at_once() {
    for input in [
        "HTTP/1.1 400 Bad Request\r\n",
        "\r\n",
        "PINGS\r\n",
        "MSGX a 1 0\r\n\r\n",
        "H",
        "\0",
        " PING\r\n",
        "SSH-2.0",
    ] {
        // "H" may still become an HMSG.
        if input == "H" {
            assert!(Parser::default().next_op(&mut BytesMut::from(input)).unwrap().is_none());
            continue;
        }
        assert!(
            matches!(fails(input.as_bytes()), ProtocolError::UnknownOperation(_)),
            "{input:?}"
        );
    }
    // A TLS alert has no line feed to wait for.
    assert!(matches!(
        fails(b"\x15\x03\x01\x00\x02\x02\x46"),
        ProtocolError::UnknownOperation(_)
    ));
}

#[test]
fn lines_and_messages_are_bounded() {
    let endless = |verb: &str, length: usize| format!("{verb} {}", "x".repeat(length)).into_bytes();
    assert!(matches!(
        fails(&endless("-ERR", 100)),
        ProtocolError::LineTooLong { limit: 100, .. }
    ));
    assert!(matches!(
        fails(&endless("INFO", 200)),
        ProtocolError::LineTooLong { limit: 200, .. }
    ));
    let mut ended = endless("-ERR", 100);
    ended.extend_from_slice(b"\r\n");
    assert!(
        matches!(fails(&ended), ProtocolError::LineTooLong { limit: 100, .. }),
        "however it arrives"
    );
    assert!(matches!(
        fails(b"MSG a 1 1001\r\n"),
        ProtocolError::MessageTooLarge {
            size: 1001,
            limit: 1000
        }
    ));
    assert!(matches!(
        fails(b"MSG a 1 18446744073709551615\r\n"),
        ProtocolError::MessageTooLarge { .. }
    ));
}

#[test]
fn arguments_that_make_no_sense() {
    for input in [
        "MSG\r\n",
        "MSG a\r\n",
        "MSG a 1\r\n",
        "MSG a x 1\r\n",
        "MSG a 1 -1\r\n",
        "MSG a 1 1x\r\n",
        "MSG a 1 b c 1\r\n",
        "MSG a 1 b c d e f g 1\r\n",
        "MSG a 1 18446744073709551616\r\n",
        "HMSG a 1 5\r\n",
        "HMSG a 1 6 5\r\n",
        "HMSG a 1 r x 5 6\r\n",
        "MSG a 1 2\r\nabcd",
        "MSG a 1 2\r\nab\r\r",
    ] {
        assert!(
            matches!(fails(input.as_bytes()), ProtocolError::Malformed { .. }),
            "{input:?}"
        );
    }
    for input in [
        "INFO\r\n",
        "INFO {\r\n",
        "INFO []x\r\n",
        "INFO {\"max_payload\":\"x\"}\r\n",
    ] {
        assert!(matches!(fails(input.as_bytes()), ProtocolError::Info(_)), "{input:?}");
    }
}

#[test]
fn no_bytes_make_it_panic() {
    // Every mutation of one byte, and every cut, of a valid exchange.
    for at in 0..ALL.len() {
        for byte in 0..=u8::MAX {
            let mut input = ALL.to_vec();
            input[at] = byte;
            drop(parse_pieces([&input[..]]));
        }
        drop(parse_pieces([&ALL[at..]]));
    }
}

#[test]
fn a_long_line_in_crumbs_is_searched_once() {
    let mut parser = Parser::default();
    let mut buffer = BytesMut::from(&b"INFO {"[..]);
    assert!(parser.next_op(&mut buffer).unwrap().is_none());
    assert_eq!(parser.searched, buffer.len());
    buffer.extend_from_slice(b"}\r\n");
    assert!(matches!(parser.next_op(&mut buffer).unwrap(), Some(Op::Info(_))));
    assert_eq!(parser.searched, 0);
}
