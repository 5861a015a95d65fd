use std::net::SocketAddr;

use forwarder_core::document::{Cluster, RingConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

async fn start() -> SocketAddr {
    let cluster = |name: &str, servers: &[&str]| Cluster {
        name: name.to_owned(),
        servers: servers.iter().map(ToString::to_string).collect(),
        weight: 1,
        auth: None,
        tls: None,
        discover_servers: None,
        jet_stream: None,
        inbox_prefix: None,
        client_servers: Vec::new(),
    };
    let clusters = vec![cluster("C1", &["nats://user:hush@c1:4222", "tls://c2"])];
    let table = Table::new(&RingConfig {
        epoch: 7,
        replicas: 128,
        handover_timeout_ms: 60_000,
        clusters,
        beacon: None,
        mirror: None,
    })
    .unwrap();
    let server = Server::bind("127.0.0.1", 0).await.unwrap();
    let address = server.address();
    tokio::spawn(serve(table, server, false, std::future::pending()));
    address
}

async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn an_asset_is_answered_without_credentials() {
    let address = start().await;
    for (path, id) in [
        ("WTVB01", "WTVB01"),
        ("a%2Fb%20%C3%A9", "a/b é"),
        ("a+b", "a+b"),
        ("%25", "%"),
    ] {
        let (code, body) = ask(address, &format!("GET /asset/{path}")).await;
        let expected = json!({
            "asset_id": id,
            "cluster_name": "C1",
            "nats_url": "nats://c1:4222",
            "nats_urls": ["nats://c1:4222", "tls://c2"],
            "ring_epoch": 7,
        });
        assert_eq!((code, serde_json::from_str::<Value>(&body).unwrap()), (200, expected));
    }
}

#[tokio::test]
async fn what_is_no_asset_is_refused() {
    let address = start().await;
    for (request, code) in [
        ("GET /healthz", 200),
        ("GET /", 404),
        ("GET /asset", 404),
        ("GET /asset/", 404),
        ("GET /asset/a/b", 404),
        ("GET /asset/%FF", 400),
        ("POST /asset/a", 405),
        ("DELETE /asset/a", 405),
    ] {
        assert_eq!(ask(address, request).await.0, code, "{request}");
    }
}
