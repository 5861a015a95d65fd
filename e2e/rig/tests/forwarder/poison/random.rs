//! Random records that no server takes, or that this one denies, among many that are good: the good ones do not notice.

use std::fs;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{Login, Nats, Options, User};
use e2e_rig::observer::Observer;
use e2e_rig::stage::{PUBLISHED, STREAM, Stage};
use e2e_rig::traffic::{Plan, Raw, Traffic};
use forwarder_core::document::{NatsAuth, PublishMode};

const LASTING: Duration = Duration::from_secs(600);

/// Good records per second.
const RATE: u32 = 5_000;

/// Before the first poison: what is undisturbed.
const BEFORE: Duration = Duration::from_secs(20);

/// Assets whose subjects are denied.
const DENIED: u32 = 20;

/// The largest message of the stream, in bytes.
const LARGEST: i32 = 100_000;

/// The share of their rate that good records keep.
const KEPT: f64 = 0.95;

/// How much longer the slowest hundredth of good records may take than before, and what is noise in any case, in milliseconds.
const SLOWER: f64 = 3.0;
const NOISE_MS: f64 = 100.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_random_poison_disturbs_no_good_record() {
    let denied: Vec<String> = (0..DENIED)
        .map(|asset| format!("\"assets.BAD-{asset:04}.>\""))
        .collect();
    let user = User {
        name: "forwarder".to_owned(),
        password: "forwards".to_owned(),
        permissions: format!("publish: {{deny: [{}]}}", denied.join(", ")),
        ..User::default()
    };
    let options = Options {
        login: Login::Users(vec![user]),
        ..Options::default()
    };
    let nats = Nats::start_with(options).await.unwrap();
    let password_file = nats.dir().join("password");
    fs::write(&password_file, "forwards").unwrap();
    let stage = Stage::of(Kafka::shared().await.unwrap(), PublishMode::JetStream, vec![nats]).await;
    let context = jetstream::new(stage.clusters[0].1.client().await.unwrap());
    let stream = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["assets.>".to_owned()],
        max_message_size: LARGEST,
        max_bytes: 1 << 30,
        ..jetstream::stream::Config::default()
    };
    context.create_stream(stream).await.unwrap();
    let mut config = stage.config();
    config.publish.stream = Some(serde_json::from_value(serde_json::json!({ "name": STREAM })).unwrap());
    config.publish.retry.max_backoff_ms = 1_000;
    config.ring.clusters[0].auth = Some(NatsAuth::UserPassword {
        username: "forwarder".to_owned(),
        password_file,
    });
    let clusters = [("C1", &stage.clusters[0].1)];
    let observer = Observer::live(&clusters, stage.traffic.ledger()).await.unwrap();
    let mut forwarder = stage.start("forwarder", &config).await;
    let flow = stage.flow(RATE);
    stage.wait_published(&forwarder, f64::from(RATE)).await;
    observer.look(|tally| tally.take_recent(0));
    let sent = stage.traffic.ledger().acknowledged();
    tokio::time::sleep(BEFORE).await;
    let rate = (stage.traffic.ledger().acknowledged() - sent) as f64 / BEFORE.as_secs_f64();
    let before = observer.look(|tally| tally.take_recent(0)).quantile_ms(0.99);

    let plan = Plan {
        assets: DENIED,
        prefix: "BAD".to_owned(),
        ..Plan::default()
    };
    let bad = Traffic::new(stage.kafka.bootstrap(), &stage.topic, plan).unwrap();
    let (began, sent) = (Instant::now(), observer.distinct());
    let mut number = 0;
    while began.elapsed() < LASTING {
        bad.send(u64::from(DENIED)).await.unwrap();
        stage.traffic.send_record(poison(number)).await.unwrap();
        number += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let during = observer.look(|tally| tally.take_recent(0)).quantile_ms(0.99);
    let arrived = (observer.distinct() - sent) as f64 / began.elapsed().as_secs_f64();
    flow.stop().await.unwrap();
    assert!(
        arrived >= KEPT * rate,
        "{arrived:.0} good records a second of {rate:.0}"
    );
    assert!(
        during <= (before * SLOWER).max(NOISE_MS),
        "p99 {during:.1} ms while poison flows, {before:.1} ms before"
    );
    let metrics = forwarder.metrics().await.unwrap();
    // The denied assets, and each of those with a record that is too large for the stream.
    assert!(metrics.sum("asset_forwarder_held_assets", &[]) >= f64::from(DENIED));
    assert!(metrics.sum("asset_forwarder_invalid_total", &[("reason", "impossible")]) > 0.0);
    observer
        .wait_distinct(stage.traffic.ledger().acknowledged(), Duration::from_secs(60))
        .await
        .unwrap();
    observer.verdict().unwrap();
    println!(
        "{number} rounds of poison: {arrived:.0} good records a second of {rate:.0}, p99 {during:.1} ms (before {before:.1}), {} published",
        metrics.sum(PUBLISHED, &[])
    );
    assert!(forwarder.terminate(Duration::from_secs(30)).await.unwrap().success());
}

/// One of each kind in turn, of ever other assets.
fn poison(number: u64) -> Raw {
    let key = |kind: &str| Some(format!("{kind}-{:04}", number / 5 % 200).into_bytes());
    let value = Some(br#"{"id":"x"}"#.to_vec());
    match number % 5 {
        // Headers that no stream takes.
        0 => Raw {
            key: key("HEAVY"),
            value,
            headers: vec![("h".to_owned(), Some(vec![b'x'; 70_000]))],
            ..Raw::default()
        },
        // More than this stream takes.
        1 => Raw {
            key: key("LARGE"),
            value: Some(format!(r#"{{"id":"x","v":"{}"}}"#, "x".repeat(150_000)).into_bytes()),
            ..Raw::default()
        },
        // No JSON.
        2 => Raw {
            key: key("TEXT"),
            value: Some(b"{".to_vec()),
            ..Raw::default()
        },
        // No subject.
        3 => Raw {
            key: Some(b"a.*.b".to_vec()),
            value,
            ..Raw::default()
        },
        _ => Raw {
            key: key("NULL"),
            value: None,
            ..Raw::default()
        },
    }
}
