use std::net::SocketAddr;
use std::time::Duration;

use forwarder_core::document;
use forwarder_core::fanout::dispatch;
use forwarder_core::status::{Assignment, ClusterStatus, Phase};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use forwarder_service::heartbeat::{Ill, Panicked};
use forwarder_service::http::HttpError;

struct Running {
    address: SocketAddr,
    health: Health,
    status: watch::Sender<Status>,
    ring: watch::Sender<Outlook>,
    /// Where the version of the credentials is.
    dir: TempDir,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

async fn start() -> Running {
    let server = Server::bind("127.0.0.1", 0).await.unwrap();
    let address = server.address();
    let health = Health::default();
    let (status, receiver) = watch::channel(Status::default());
    let metrics = Metrics::new(&document::Admin::default()).unwrap();
    let (ring, outlook) = watch::channel(Outlook::default());
    let dir = tempfile::tempdir().unwrap();
    let admin = Admin {
        health: health.clone(),
        metrics,
        status: receiver,
        ring: outlook,
        beacon: watch::channel(None).1,
        credentials_version_file: Some(dir.path().join("version")),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(admin.serve(server, true, async { drop(stopped.await) }));
    Running {
        address,
        health,
        status,
        ring,
        dir,
        stop,
        server,
    }
}

/// Status code and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_loop_that_stands_still_is_ill_until_it_turns_or_ends() {
    let running = start().await;
    let Running {
        address, ref health, ..
    } = running;
    assert_eq!(get(address, "/healthz").await, (200, "ok\n".to_owned()));
    let patient = health.heartbeat("commit", Duration::from_secs(60));
    let heartbeat = health.heartbeat("consume", Duration::from_millis(300));
    tokio::time::sleep(Duration::from_millis(400)).await;
    for path in ["/healthz", "/health"] {
        let (code, body) = get(address, path).await;
        assert_eq!(code, 503);
        assert!(body.starts_with("the loop `consume` has not run for "), "{body}");
    }
    heartbeat.beat();
    assert_eq!(health.check(), Ok(()));
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(matches!(health.check(), Err(Ill::Stalled(stalled)) if stalled.name == "consume"));
    drop(heartbeat);
    assert_eq!(get(address, "/healthz").await.0, 200);
    drop(patient);
}

#[tokio::test]
async fn a_task_that_has_panicked_is_ill_for_good() {
    let running = start().await;
    running.health.fall(Panicked {
        task: "publisher C1".to_owned(),
        reason: "why".to_owned(),
    });
    let (code, body) = get(running.address, "/healthz").await;
    assert_eq!(code, 503);
    assert!(body.starts_with("the task `publisher C1` has panicked: why."), "{body}");
}

#[tokio::test]
async fn a_member_is_ready_with_or_without_partitions() {
    let running = start().await;
    let Running {
        address, ref status, ..
    } = running;
    for (phase, expected) in [
        (
            Phase::WithoutRing("no file".to_owned()),
            (503, "there is no ring yet: no file\n"),
        ),
        (Phase::Starting, (503, "not yet a member of the group\n")),
        (Phase::Consuming, (200, "ok\n")),
        (Phase::Idle, (200, "ok\n")),
        (Phase::Rebalancing, (200, "ok\n")),
        (
            Phase::Outside("no broker".to_owned()),
            (503, "not a stable member of the consumer group: no broker\n"),
        ),
        (Phase::Draining, (503, "stopping\n")),
        (Phase::Waiting("for a reason".to_owned()), (503, "for a reason\n")),
    ] {
        status.send_modify(|status| status.phase = phase);
        assert_eq!(get(address, "/readyz").await, (expected.0, expected.1.to_owned()));
    }
}

#[tokio::test]
async fn metrics_and_status_are_shown() {
    let Running {
        address,
        status,
        stop,
        server,
        ..
    } = start().await;
    let before: Status = serde_json::from_str(&get(address, "/status").await.1).unwrap();
    assert_eq!(
        before.reads_documents(),
        RING_DOCUMENT_VERSION,
        "also before there is a ring"
    );
    let (code, body) = get(address, "/metrics").await;
    assert_eq!(code, 200);
    assert!(body.contains("fan_out_layer_forwarder_build_info{"), "{body}");
    status.send_modify(|status| {
        status.phase = Phase::Outside("x".to_owned());
        status.ring_epoch = 7;
        status.membership_proven = true;
        status.assignment.insert(
            3,
            Assignment {
                state: dispatch::Phase::Behind(8).to_string(),
                committed: Some(17),
                lag: None,
                paused: true,
                fault: None,
            },
        );
        status.clusters.insert(
            "C1".to_owned(),
            ClusterStatus {
                connected: true,
                ..ClusterStatus::default()
            },
        );
    });
    let (code, body) = get(address, "/status").await;
    assert_eq!(code, 200);
    let expected = serde_json::json!({
        "phase": "outside",
        "reason": "x",
        "ringEpoch": 7,
        "ring": {"epoch": 0, "movedShare": 0.0, "waitingAssets": 0},
        "membershipProven": true,
        "assignment": {"3": {"state": "waits for ring epoch 8", "committed": 17, "paused": true}},
        "clusters": {"C1": {
            "connected": true,
            "pendingRecords": 0,
            "pendingBytes": 0,
            "parkedRecords": 0,
            "parkedSeconds": 0,
            "heldAssets": 0,
        }},
        "documentVersion": RING_DOCUMENT_VERSION,
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap(), expected);
    assert_eq!(get(address, "/").await.0, 404);
    stop.send(()).unwrap();
    server.await.unwrap();
    TcpStream::connect(address).await.unwrap_err();
}

#[tokio::test]
async fn a_declared_ring_is_shown_until_the_engine_has_it() {
    let running = start().await;
    let Running {
        address,
        ref status,
        ref ring,
        ..
    } = running;
    ring.send_replace(Outlook {
        declared: Some(8),
        waits_for: vec!["/c4".into()],
        refused: Some("one".to_owned()),
        api_fault: Some("two".to_owned()),
        file_fault: Some("three".to_owned()),
    });
    for (epoch, announced, waiting) in [(7, None, true), (7, Some(8), false), (8, None, false)] {
        status.send_modify(|status| {
            status.ring.epoch = epoch;
            status.ring.announced = announced;
        });
        let mut expected = serde_json::json!({
            "epoch": epoch, "movedShare": 0.0, "waitingAssets": 0, "refused": "one", "apiFault": "two",
        });
        if let Some(announced) = announced {
            expected["announced"] = announced.into();
        }
        if waiting {
            expected["declared"] = 8.into();
            expected["waitsFor"] = serde_json::json!(["/c4"]);
        }
        let shown: serde_json::Value = serde_json::from_str(&get(address, "/status").await.1).unwrap();
        assert_eq!(shown["ring"], expected);
    }
}

#[tokio::test]
async fn the_version_of_the_credentials_is_the_one_that_is_there_now() {
    let running = start().await;
    let Running { address, ref dir, .. } = running;
    let shown = async || {
        let status: Status = serde_json::from_str(&get(address, "/status").await.1).unwrap();
        status.credentials_version
    };
    assert_eq!(shown().await, None);
    for version in ["a1", "b2"] {
        std::fs::write(dir.path().join("version"), format!("{version}\n")).unwrap();
        assert_eq!(shown().await.as_deref(), Some(version));
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_to_be() {
    let running = start().await;
    let address = running.address;
    let error = Server::bind("127.0.0.1", address.port()).await.unwrap_err();
    assert!(matches!(error, HttpError::InUse(_)));
    let expected = format!("port {} of 127.0.0.1 is in use by another process", address.port());
    assert!(error.to_string().starts_with(&expected), "{error}");
}
