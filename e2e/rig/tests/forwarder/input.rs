//! Records that can never be forwarded, between records that can, and what becomes of a payload that is forwarded.

mod corpus;
mod letters;
mod payloads;

use std::collections::BTreeMap;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::segment::Segment;
use e2e_rig::kafka::{self, Kafka};
use e2e_rig::traffic::Raw;
use e2e_rig::{nats, wait};
use forwarder_core::document::{Config, DeadLetter, KafkaConnection, PublishMode};
use forwarder_core::record::Invalid;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use self::corpus::{Bad, MAX_PAYLOAD};
use crate::stage::{SOON, Stage};

/// Good records before each bad one: fewer than there are assets, so that they go round.
const BETWEEN: u64 = 20;

/// More than there are assets: each has records before and behind what is bad.
const AROUND: u64 = 400;

#[tokio::test]
async fn bad_input_is_counted_and_stepped_over_in_core_mode() {
    stepped_over(PublishMode::Core).await;
}

#[tokio::test]
async fn bad_input_is_counted_and_stepped_over_in_jetstream_mode() {
    stepped_over(PublishMode::JetStream).await;
}

async fn stepped_over(mode: PublishMode) {
    let stage = stage(mode, Kafka::shared().await.unwrap()).await;
    let mut forwarder = stage.start("forwarder", &stage.config()).await;
    let bad = send(&stage, mode).await;
    check(&stage, &mut forwarder, &bad).await;
    let log = forwarder.process().log().unwrap();
    for reason in reasons(&bad).keys() {
        let lines = log
            .lines()
            .filter(|line| line.contains("invalid record") && line.contains(reason));
        assert!(
            (1..=3).contains(&lines.count()),
            "{reason} is named, at a limited rate\n{log}"
        );
    }
}

#[tokio::test]
async fn bad_input_goes_to_a_topic_as_it_came_in_core_mode() {
    lettered_to_a_topic(PublishMode::Core).await;
}

#[tokio::test]
async fn bad_input_goes_to_a_topic_as_it_came_in_jetstream_mode() {
    lettered_to_a_topic(PublishMode::JetStream).await;
}

async fn lettered_to_a_topic(mode: PublishMode) {
    let stage = stage(mode, Kafka::shared().await.unwrap()).await;
    let topic = stage.kafka.topic("letters", 2).await.unwrap();
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::Topic {
        topic: topic.clone(),
        connection: None,
    });
    let mut forwarder = stage.start("forwarder", &config).await;
    let bad = send(&stage, mode).await;
    check(&stage, &mut forwarder, &bad).await;
    letters::check(&stage, &bad, &letters::of_topic(&stage.kafka, &topic).await);
    check_counted(&forwarder, &bad).await;
}

#[tokio::test]
async fn bad_input_goes_to_a_file_as_it_came() {
    let stage = stage(PublishMode::Core, Kafka::shared().await.unwrap()).await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::File { path: path.clone() });
    let mut forwarder = stage.start("forwarder", &config).await;
    let bad = send(&stage, PublishMode::Core).await;
    check(&stage, &mut forwarder, &bad).await;
    letters::check(&stage, &bad, &letters::of_file(&path));
    check_counted(&forwarder, &bad).await;
}

/// The broker takes it, so it must be possible to write it down again: librdkafka's own bound is lower.
#[tokio::test]
async fn a_bad_record_of_a_megabyte_goes_to_the_topic() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    // What is written is larger by the headers that say why.
    let topic = kafka::unique("letters");
    let larger = [("max.message.bytes", "2000000")];
    stage.kafka.create_topic(&topic, 1, &larger).await.unwrap();
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::Topic {
        topic: topic.clone(),
        connection: None,
    });
    let _forwarder = stage.start("forwarder", &config).await;
    let value = vec![b'x'; 1_040_000];
    stage.traffic.send_raw(b"large", Some(&value)).await.unwrap();
    stage.wait_committed().await;
    let letters = letters::of_topic(&stage.kafka, &topic).await;
    assert_eq!(letters.len(), 1);
    assert!(letters[0].value.as_ref() == Some(&value), "not as it came");
}

/// A batch of an eighth of a megabyte holds one record of an eighth of a gigabyte. librdkafka decompresses it; nothing more is made of it.
#[tokio::test]
async fn a_record_that_grows_beyond_all_bounds_is_decompressed_once_and_copied_never() {
    const BYTES: usize = 128 << 20;
    let stage = Stage::new(PublishMode::Core, 2).await;
    let topic = stage.kafka.topic("letters", 1).await.unwrap();
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::Topic {
        topic: topic.clone(),
        connection: None,
    });
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.traffic.send(AROUND).await.unwrap();
    let key = stage.traffic.ledger().key(0);
    send_bomb(&stage, &key, BYTES).await;
    stage.traffic.send(AROUND).await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();

    let metrics = forwarder.metrics().await.unwrap();
    let counted = metrics.get("asset_forwarder_invalid_total", &[("reason", "record_too_large")]);
    assert_eq!(counted, Some(1.0));
    let letters = letters::of_topic(&stage.kafka, &topic).await;
    let found: Vec<_> = letters
        .iter()
        .map(|letter| {
            (
                letter.key.as_deref(),
                letter.value.as_deref(),
                letter.truncated.as_deref(),
            )
        })
        .collect();
    let length = BYTES.to_string();
    assert_eq!(found, [(Some(key.as_bytes()), None, Some(length.as_str()))]);
    let peak = forwarder.process().peak_rss_bytes().unwrap();
    assert!(peak < 2 * BYTES as u64, "{} MiB at most", peak >> 20);
}

/// Sends one good record of so many bytes, compressed.
async fn send_bomb(stage: &Stage, key: &str, bytes: usize) {
    let (mut config, topic, key) = (stage.kafka.client(), stage.topic.clone(), key.to_owned());
    tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = config
            .set("compression.type", "gzip")
            .set("message.max.bytes", "1000000000")
            .create()
            .unwrap();
        let (head, tail) = (r#"{"id": "Temperature", "fill": ""#, r#""}"#);
        let value = [head, &"x".repeat(bytes - head.len() - tail.len()), tail].concat();
        let record = BaseRecord::to(&topic).key(&key).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(SOON).unwrap();
    })
    .await
    .unwrap();
}

/// Kafka takes any bytes as a header's name, clients only text: so it is made in the broker's file.
#[tokio::test]
async fn a_header_whose_name_is_no_text_is_one_bad_record() {
    const NAME: &str = "name-to-be-broken";
    let stage = Stage::with(Kafka::start().await.unwrap(), PublishMode::Core, 1).await;
    let bad = Bad {
        record: Raw {
            key: Some(stage.traffic.ledger().key(0).into_bytes()),
            value: Some(br#"{"id": "Temperature"}"#.to_vec()),
            headers: vec![(NAME.to_owned(), Some(b"v".to_vec()))],
            partition: Some(0),
            ..Raw::default()
        },
        reason: Invalid::BadHeaders,
    };
    stage.traffic.send(AROUND).await.unwrap();
    stage.traffic.send_record(bad.record.clone()).await.unwrap();
    stage.traffic.send(AROUND).await.unwrap();
    let mut broken = NAME.as_bytes().to_vec();
    broken[0] = 0xff;
    let segment = Segment::of(&stage.kafka, &stage.topic, 0).unwrap();
    segment.replace(NAME.as_bytes(), &broken).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letters.jsonl");
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::File { path: path.clone() });
    let mut forwarder = stage.start("forwarder", &config).await;
    stage.verdict().await.check_exactly_once().unwrap();
    let letters = letters::of_file(&path);
    let found: Vec<_> = letters.iter().map(|letter| (&letter.key, &letter.value)).collect();
    assert_eq!(found, [(&bad.record.key, &bad.record.value)]);
    check_counted(&forwarder, &[bad]).await;
    assert_eq!(forwarder.process().try_exit().unwrap(), None);
    let log = forwarder.process().log().unwrap();
    assert!(log.contains("bad_headers") && !log.contains("panicked"), "{log}");
}

/// Brokers make no topic here that nobody asked for.
#[tokio::test]
async fn offsets_wait_for_a_dead_letter_topic_that_is_not_there_yet() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let topic = kafka::unique("letters");
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::Topic {
        topic: topic.clone(),
        connection: None,
    });
    let mut forwarder = held(&stage, &config).await;
    stage.kafka.create_topic(&topic, 1, &[]).await.unwrap();
    released(&stage, &mut forwarder, &stage.kafka, &topic).await;
}

#[tokio::test]
async fn offsets_wait_for_a_dead_letter_broker_that_is_down() {
    let other = Kafka::start().await.unwrap();
    let topic = other.topic("letters", 1).await.unwrap();
    other.kill9().unwrap();
    let stage = Stage::new(PublishMode::Core, 1).await;
    let mut config = stage.config();
    config.dead_letter = Some(DeadLetter::Topic {
        topic: topic.clone(),
        connection: Some(KafkaConnection {
            bootstrap_servers: vec![other.bootstrap().to_owned()],
            ..config.source.connection.clone()
        }),
    });
    // The group's properties mean nothing to a producer.
    if let Some(DeadLetter::Topic {
        connection: Some(connection),
        ..
    }) = &mut config.dead_letter
    {
        connection.properties.clear();
    }
    let mut forwarder = held(&stage, &config).await;
    other.start_again().await.unwrap();
    released(&stage, &mut forwarder, &other, &topic).await;
}

/// Starts a forwarder whose dead letter cannot be written; returns when all else is done.
async fn held(stage: &Stage, config: &Config) -> Forwarder {
    let forwarder = stage.start("forwarder", config).await;
    stage.traffic.send(AROUND).await.unwrap();
    stage.wait_committed().await;
    let before = stage.kafka.end_offsets(&stage.topic).await.unwrap();
    let bad = Raw {
        key: Some(b"bad".to_vec()),
        partition: Some(3),
        ..Raw::default()
    };
    stage.traffic.send_record(bad).await.unwrap();
    stage.traffic.send(AROUND).await.unwrap();
    let name = "asset_forwarder_nats_messages_published_total";
    forwarder.wait_metric(name, (2 * AROUND) as f64, SOON).await.unwrap();
    let mut expected = stage.kafka.end_offsets(&stage.topic).await.unwrap();
    expected[3] = before[3];
    let committed = || async {
        let committed = stage.kafka.committed(&stage.group, &stage.topic).await.unwrap();
        committed
            .into_iter()
            .map(|partition| partition.offset.unwrap())
            .collect::<Vec<_>>()
    };
    wait::eventually(SOON, "all but what is behind the letter is committed", || async {
        let now = committed().await;
        anyhow::ensure!(now == expected, "{now:?} instead of {expected:?}");
        Ok(true)
    })
    .await
    .unwrap();
    // Commits of others go on meanwhile, in many intervals; this one's place stays.
    let name = "asset_forwarder_kafka_consume_calls_total";
    let calls = forwarder.metrics().await.unwrap().sum(name, &[]);
    forwarder.wait_metric(name, calls + 200.0, SOON).await.unwrap();
    assert_eq!(committed().await, expected);
    forwarder
}

/// Waits until the letter is written, and what waited for it is committed.
async fn released(stage: &Stage, forwarder: &mut Forwarder, kafka: &Kafka, topic: &str) {
    stage.verdict().await.check_exactly_once().unwrap();
    let letters = letters::of_topic(kafka, topic).await;
    let keys: Vec<_> = letters.iter().map(|letter| letter.key.as_deref()).collect();
    assert_eq!(keys, [Some(&b"bad"[..])]);
    assert_eq!(forwarder.process().try_exit().unwrap(), None);
}

async fn stage(mode: PublishMode, kafka: Kafka) -> Stage {
    let options = nats::Options {
        max_payload: MAX_PAYLOAD,
        ..nats::Options::default()
    };
    Stage::with_servers(kafka, mode, 2, options).await
}

/// Sends the corpus, every bad record between good ones of its asset.
async fn send(stage: &Stage, mode: PublishMode) -> Vec<Bad> {
    let ledger = stage.traffic.ledger();
    let bad = corpus::corpus(mode, |number| ledger.key(number));
    stage.traffic.send(AROUND).await.unwrap();
    for Bad { record, .. } in &bad {
        stage.traffic.send_record(record.clone()).await.unwrap();
        stage.traffic.send(BETWEEN).await.unwrap();
    }
    stage.traffic.send(AROUND).await.unwrap();
    bad
}

/// All that is good arrived once and in order, nothing that is bad did, and each fault is counted as what it is.
async fn check(stage: &Stage, forwarder: &mut Forwarder, bad: &[Bad]) {
    let verdict = stage.verdict().await;
    verdict.check_exactly_once().unwrap();
    assert_eq!(verdict.sent, 2 * AROUND + bad.len() as u64 * BETWEEN);
    assert_eq!(forwarder.process().try_exit().unwrap(), None);
    let metrics = forwarder.metrics().await.unwrap();
    let expected = reasons(bad);
    for reason in Invalid::ALL {
        let reason = reason.reason();
        let counted = metrics.get("asset_forwarder_invalid_total", &[("reason", reason)]);
        let expected = expected.get(reason).copied().unwrap_or_default();
        assert_eq!(counted, Some(expected), "{reason}");
    }
    let sum = |name| metrics.sum(name, &[]);
    assert_eq!(sum("asset_forwarder_invalid_messages_total"), bad.len() as f64);
    assert_eq!(
        sum("asset_forwarder_nats_messages_published_total"),
        verdict.sent as f64
    );
    assert_eq!(
        sum("asset_forwarder_reconnects_total"),
        0.0,
        "no server was made to hang up"
    );
}

async fn check_counted(forwarder: &Forwarder, bad: &[Bad]) {
    let metrics = forwarder.metrics().await.unwrap();
    for (reason, expected) in reasons(bad) {
        let counted = metrics.get("asset_forwarder_dead_letters_total", &[("reason", reason)]);
        assert_eq!(counted, Some(expected), "{reason}");
    }
}

fn reasons(bad: &[Bad]) -> BTreeMap<&'static str, f64> {
    let mut reasons = BTreeMap::new();
    for Bad { reason, .. } in bad {
        *reasons.entry(reason.reason()).or_insert(0.0) += 1.0;
    }
    reasons
}
