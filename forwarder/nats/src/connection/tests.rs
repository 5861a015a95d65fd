//! Handshakes byte by byte. The servers in here are stand-ins that play a script; real ones are met in the e2e tests.

use std::error::Error as _;

use tokio::net::TcpListener;

use super::*;

const INFO: &str =
    "INFO {\"server_id\":\"N\",\"version\":\"2.15.1\",\"proto\":1,\"headers\":true,\"max_payload\":1048576}\r\n";

/// Plays the script to one client: writes a piece, then waits for this text before the next piece.
/// Afterwards the connection stays open until the client leaves.
async fn play(script: Vec<(&'static [u8], &'static str)>, timeout: Duration) -> Result<Connection, ConnectError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = ServerAddress::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let actor = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        for (piece, wait_for) in script {
            socket.write_all(piece).await.unwrap();
            while !String::from_utf8_lossy(&seen).contains(wait_for) {
                if socket.read_buf(&mut seen).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            seen.clear();
        }
        while socket.read_buf(&mut seen).await.unwrap_or(0) > 0 {}
    });
    let result = connect(
        &server,
        Login {
            auth: None,
            tls: None,
            name: "test",
        },
        timeout,
    )
    .await;
    actor.abort();
    result
}

async fn fails(script: Vec<(&'static [u8], &'static str)>) -> ConnectError {
    play(script, Duration::from_millis(300)).await.unwrap_err()
}

const LONG: Duration = Duration::from_secs(10);

#[tokio::test]
async fn what_follows_the_pong_is_kept() {
    let script = vec![
        (INFO.as_bytes(), "PING\r\nPING\r\n"),
        (b"PONG\r\nPONG\r\nPING\r\nMSG a 1", ""),
    ];
    let connection = play(script, LONG).await.unwrap();
    assert_eq!(connection.info.max_payload, 1 << 20);
    // How much of it came with the PONG is up to the network.
    assert!(b"PING\r\nMSG a 1".starts_with(&connection.leftover));
}

#[tokio::test]
async fn pings_and_infos_may_come_before_the_pong() {
    let newer = b"+OK\r\nINFO {\"server_id\":\"N\",\"headers\":true,\"connect_urls\":[\"b:1\"]}\r\nPING\r\n";
    let script = vec![
        (INFO.as_bytes(), "PING\r\nPING\r\n"),
        (newer, "PONG\r\n"),
        (b"PONG\r\nPONG\r\n", ""),
    ];
    assert_eq!(play(script, LONG).await.unwrap().info.connect_urls, ["b:1"]);
}

#[tokio::test]
async fn the_limits_of_our_account_come_after_the_first_pong() {
    let limits = b"PONG\r\nINFO {\"max_payload\":500,\"headers\":true}\r\nPONG\r\n";
    let script = vec![(INFO.as_bytes(), "PING\r\nPING\r\n"), (limits, "")];
    assert_eq!(play(script, LONG).await.unwrap().info.max_payload, 500);
}

#[tokio::test]
async fn an_error_before_the_pong_is_the_reason() {
    let script = vec![
        (INFO.as_bytes(), "PING\r\nPING\r\n"),
        (b"-ERR 'Authorization Violation'\r\nPONG\r\n", ""),
    ];
    let error = fails(script).await;
    assert_eq!(error.kind(), "authorization");
    let error = fails(vec![(b"-ERR 'maximum connections exceeded'\r\n", "")]).await;
    assert_eq!(error.kind(), "refused");
    assert_eq!(error.source().unwrap().to_string(), "maximum connections exceeded");
}

#[tokio::test]
async fn what_is_no_nats_server() {
    for greeting in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"SSH-2.0-x\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
    ] {
        assert_eq!(fails(vec![(greeting, "")]).await.kind(), "protocol");
    }
    assert_eq!(fails(vec![(b"PING\r\n", "")]).await.kind(), "unsupported");
}

#[tokio::test]
async fn servers_that_lack_what_we_need() {
    let no_headers = b"INFO {\"version\":\"2.1.0\",\"proto\":1}\r\n";
    assert!(fails(vec![(no_headers, "")]).await.to_string().contains("headers"));
    let old = b"INFO {\"version\":\"1.0\",\"headers\":true}\r\n";
    assert!(
        fails(vec![(old, "")])
            .await
            .to_string()
            .contains("a protocol that is too old")
    );
}

#[tokio::test]
async fn silence_at_any_point_ends_in_a_timeout() {
    for (script, at) in [
        (vec![], Stage::Info),
        (vec![(&b"INFO {\"server_id\""[..], "")], Stage::Info),
        (vec![(INFO.as_bytes(), "")], Stage::Login),
        (
            vec![(INFO.as_bytes(), "PING\r\nPING\r\n"), (b"PONG\r\nPON", "")],
            Stage::Login,
        ),
        (
            vec![(b"INFO {\"headers\":true,\"proto\":1,\"tls_required\":true}\r\n", "")],
            Stage::Tls,
        ),
    ] {
        let error = fails(script).await;
        assert!(
            matches!(error, ConnectError::Timeout { stage, .. } if stage == at),
            "{at:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn dribbling_does_not_buy_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = ServerAddress::parse(&listener.local_addr().unwrap().to_string()).unwrap();
    let actor = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        for byte in INFO.bytes() {
            socket.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let start = Instant::now();
    let error = connect(
        &server,
        Login {
            auth: None,
            tls: None,
            name: "",
        },
        Duration::from_millis(300),
    )
    .await
    .unwrap_err();
    actor.abort();
    assert_eq!(error.kind(), "timeout");
    assert!(
        start.elapsed() < Duration::from_secs(3),
        "it took {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn tls_is_not_to_be_stripped_or_spoken_into() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = ServerAddress::parse(&format!("tls://{}", listener.local_addr().unwrap())).unwrap();
    let actor = tokio::spawn(async move {
        for greeting in [
            INFO.to_owned(),
            INFO.replace("\"proto\"", "\"tls_available\":true,\"proto\"") + "PONG\r\n",
        ] {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(greeting.as_bytes()).await.unwrap();
            let mut seen = Vec::new();
            socket.read_to_end(&mut seen).await.unwrap();
            assert!(seen.is_empty(), "nothing may be sent in the clear");
        }
    });
    let login = Login {
        auth: None,
        tls: None,
        name: "",
    };
    let stripped = connect(&server, login, LONG).await.unwrap_err();
    assert!(matches!(stripped, ConnectError::TlsUnavailable { .. }), "{stripped:?}");
    let spoken_into = connect(&server, login, LONG).await.unwrap_err();
    assert!(
        spoken_into
            .to_string()
            .contains("between its INFO and the TLS handshake"),
        "{spoken_into:?}"
    );
    actor.await.unwrap();
}

#[tokio::test]
async fn nobody_there() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let login = Login {
        auth: None,
        tls: None,
        name: "",
    };
    let server = ServerAddress::parse(&format!("user:secret@{closed}")).unwrap();
    let error = connect(&server, login, LONG).await.unwrap_err();
    assert_eq!(error.kind(), "io");
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
    let nowhere = ServerAddress::parse("no-such-host.invalid").unwrap();
    assert!(matches!(
        connect(&nowhere, login, LONG).await.unwrap_err().kind(),
        "resolve" | "timeout"
    ));
}
