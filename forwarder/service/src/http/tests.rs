use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::*;

/// Longer than anything here takes.
const SOON: Duration = Duration::from_secs(10);

/// More than any socket's buffers hold.
const HUGE: usize = 64 << 20;

struct Running {
    address: SocketAddr,
    /// Lets those go who ask for `/held`.
    release: Arc<Notify>,
    /// How many are held has changed.
    held: Arc<Notify>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start(limits: Limits) -> Running {
    let server = Server::bind("127.0.0.1", 0).await.unwrap().with_limits(limits);
    let address = server.address();
    let (release, held) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (releasing, holding) = (Arc::clone(&release), Arc::clone(&held));
    let router = Router::new()
        .route("/", get(async || "ok\n"))
        .route("/huge", get(async || vec![b'x'; HUGE]))
        .route(
            "/held",
            get(async move || {
                holding.notify_one();
                releasing.notified().await;
                "released\n"
            }),
        );
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(server.serve(router, false, async { drop(stopped.await) }));
    Running {
        address,
        release,
        held,
        stop,
        server,
    }
}

fn limits() -> Limits {
    Limits {
        connections: 4,
        patience: SOON * 10,
        farewell: SOON * 10,
    }
}

async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn ask(address: SocketAddr, path: &str) -> TcpStream {
    send(
        address,
        &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"),
    )
    .await
}

/// All that the server sends until it closes the connection, in whatever way.
async fn until_closed(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    let reading = stream.read_to_end(&mut read);
    // A connection may be reset where something was left unread.
    tokio::time::timeout(SOON, reading).await.expect("still open").ok();
    String::from_utf8(read).unwrap()
}

async fn assert_answered(address: SocketAddr) {
    let answer = until_closed(&mut ask(address, "/").await).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer:?}");
}

#[tokio::test]
async fn every_address_is_that_of_ipv4_and_of_ipv6() {
    let server = Server::bind("::", 0).await.unwrap();
    let port = server.address().port();
    assert_eq!(server.address().ip(), Ipv6Addr::UNSPECIFIED);
    tokio::spawn(server.serve(
        Router::new().route("/", get(async || "ok\n")),
        false,
        std::future::pending(),
    ));
    assert_answered((Ipv4Addr::LOCALHOST, port).into()).await;
    assert_answered((Ipv6Addr::LOCALHOST, port).into()).await;
}

#[tokio::test]
async fn without_ipv6_every_address_of_ipv4_is_listened_on() {
    for refused in [io::ErrorKind::Unsupported, io::ErrorKind::AddrNotAvailable] {
        let listener = listen::any(0, |_| Err(refused.into())).await.unwrap();
        assert_eq!(listener.local_addr().unwrap().ip(), Ipv4Addr::UNSPECIFIED);
    }
}

/// A port that somebody has by IPv4 alone is no reason to listen on half of it.
#[tokio::test]
async fn a_port_of_which_one_family_is_in_use_is_in_use() {
    let other = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = other.local_addr().unwrap().port();
    let error = Server::bind("::", port).await.unwrap_err();
    assert!(matches!(error, HttpError::InUse(_)), "{error}");
    assert!(matches!(Server::bind("0.0.0.0", port).await, Err(HttpError::InUse(_))));
}

#[tokio::test]
async fn a_client_that_sends_nothing_or_no_whole_request_is_let_go() {
    let running = start(Limits {
        patience: Duration::from_millis(200),
        ..limits()
    })
    .await;
    for begun in [
        "",
        "GET / HTTP/1.1\r\nHost: x\r\nX-",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
    ] {
        let mut stream = send(running.address, begun).await;
        until_closed(&mut stream).await;
    }
    // One that asks, and then says nothing more.
    let mut stream = send(running.address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let answer = until_closed(&mut stream).await;
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer:?}");
    // One that says a little again and again, but never all.
    let mut stream = send(running.address, "GET / HTTP/1.1\r\n").await;
    let trickle = async {
        while stream.write_all(b"X-A: b\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, trickle).await.expect("still open");
    assert_answered(running.address).await;
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_let_go() {
    let running = start(Limits {
        patience: Duration::from_millis(200),
        ..limits()
    })
    .await;
    let mut stream = ask(running.address, "/huge").await;
    // It reads nothing for longer than the server waits; what the buffers took on the way is all there ever is.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let read = until_closed(&mut stream).await.len();
    assert!(read < HUGE, "{read}");
}

#[tokio::test]
async fn whoever_asks_is_answered_whatever_is_open_besides() {
    let running = start(limits()).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(running.address).await.unwrap());
    }
    for _ in 0..10 {
        assert_answered(running.address).await;
    }
    // Those that were there first made room.
    until_closed(&mut silent[0]).await;
}

#[tokio::test]
async fn nobody_who_is_being_answered_makes_room() {
    let running = start(limits()).await;
    let mut held = Vec::new();
    for _ in 0..limits().connections {
        held.push(ask(running.address, "/held").await);
        running.held.notified().await;
    }
    let mut refused = ask(running.address, "/").await;
    assert_eq!(until_closed(&mut refused).await, "");
    for stream in &mut held {
        running.release.notify_one();
        let mut first = [0; 12];
        tokio::time::timeout(SOON, stream.read_exact(&mut first))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        until_closed(stream).await;
    }
    assert_answered(running.address).await;
}

#[tokio::test]
async fn what_is_being_answered_at_the_end_has_a_moment_and_no_more() {
    // Long enough: it is answered, and one that is silent does not hold the end up.
    let running = start(limits()).await;
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let mut asking = ask(running.address, "/held").await;
    running.held.notified().await;
    running.stop.send(()).unwrap();
    until_closed(&mut silent).await;
    running.release.notify_one();
    assert!(until_closed(&mut asking).await.ends_with("released\n"));
    tokio::time::timeout(SOON, running.server).await.unwrap().unwrap();

    let running = start(Limits {
        farewell: Duration::from_millis(100),
        ..limits()
    })
    .await;
    let mut asking = ask(running.address, "/held").await;
    running.held.notified().await;
    running.stop.send(()).unwrap();
    tokio::time::timeout(SOON, running.server).await.unwrap().unwrap();
    assert_eq!(until_closed(&mut asking).await, "");
}
