//! In the place of the original's container: its environment alone, no arguments, and what its users have built on it.

use std::collections::BTreeMap;

use e2e_rig::forwarder::{self, Forwarder, Metrics};
use e2e_rig::http;
use e2e_rig::port::Port;
use e2e_rig::process::{Process, Spec};
use e2e_rig::traffic::{Plan, Traffic};
use e2e_rig::{kafka, wait};
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::stage::{SOON, Stage};

const QUEUE_TIME: &str = "0.0001 0.0005 0.001 0.002 0.005 0.01 0.025 0.05 0.1 0.25 0.5 +Inf";
const LATENCY: &str = "0.0001 0.0005 0.001 0.002 0.005 0.01 0.025 0.05 0.1 0.25 +Inf";
const QUEUE_SIZE: &str = "0 1 2 5 10 20 50 100 500 1000 2500 5000 10000 +Inf";

type Labels = &'static [(&'static str, &'static str)];

const FORWARDER: Labels = &[("forwarder", "uuid-1")];
const CLUSTERS: &[Labels] = &[&[("cluster", "C1")], &[("cluster", "C2")]];
const BUILD: Labels = &[("version", "1.2.3"), ("swarm_node", "node-7")];

/// Name, type, labels of each series, and the buckets of a histogram.
const CONTRACT: &[(&str, &str, &[Labels], &str)] = &[
    ("fan_out_layer_forwarder_build_info", "gauge", &[BUILD], ""),
    (
        "asset_forwarder_kafka_messages_consumed_total",
        "counter",
        &[FORWARDER],
        "",
    ),
    ("asset_forwarder_kafka_errors_total", "counter", &[FORWARDER], ""),
    ("asset_forwarder_invalid_messages_total", "counter", &[FORWARDER], ""),
    ("asset_forwarder_kafka_consume_calls_total", "counter", &[FORWARDER], ""),
    ("asset_forwarder_nats_messages_published_total", "counter", CLUSTERS, ""),
    ("asset_forwarder_nats_publish_failures_total", "counter", CLUSTERS, ""),
    (
        "asset_forwarder_queue_time_seconds",
        "histogram",
        &[FORWARDER],
        QUEUE_TIME,
    ),
    (
        "asset_forwarder_message_processing_latency_seconds",
        "histogram",
        &[FORWARDER],
        LATENCY,
    ),
    ("asset_forwarder_queue_size", "gauge", &[FORWARDER], ""),
    (
        "asset_forwarder_queue_size_histogram",
        "histogram",
        &[FORWARDER],
        QUEUE_SIZE,
    ),
];

/// The variables of a deployment of the original's.
struct Deployment {
    stage: Stage,
    variables: BTreeMap<String, String>,
}

impl Deployment {
    /// A topic of so many partitions and two clusters.
    async fn new(partitions: i32) -> Self {
        let mut stage = Stage::new(PublishMode::Core, 2).await;
        stage.topic = kafka::unique("original");
        stage.kafka.create_topic(&stage.topic, partitions, &[]).await.unwrap();
        stage.traffic = Traffic::new(stage.kafka.bootstrap(), &stage.topic, Plan::default()).unwrap();
        let mut variables: BTreeMap<String, String> = [
            ("KAFKA_BROKER", stage.kafka.bootstrap()),
            ("KAFKA_TOPIC", &stage.topic),
            ("KAFKA_GROUP", &stage.group),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        for (name, nats) in &stage.clusters {
            // Blanks and empty places are what hand-written files have.
            variables.insert(format!("NATS_CLUSTER_{name}"), format!(" {} , ,", nats.url()));
        }
        Self { stage, variables }
    }

    fn set(&mut self, variables: &[(&str, &str)]) {
        let owned = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.variables.extend(owned);
    }

    async fn start(&self) -> Forwarder {
        let variables = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let mut forwarder = Forwarder::start_from_env(&variables.collect::<Vec<_>>()).unwrap();
        forwarder.wait_ready().await.unwrap();
        forwarder
    }

    /// Waits until the group knows where it begins: what is sent from now on is forwarded.
    async fn wait_begun(&self) {
        let Stage {
            kafka, group, topic, ..
        } = &self.stage;
        wait::eventually(SOON, "the start is committed", || async {
            let committed = kafka.committed(group, topic).await?;
            Ok(committed.iter().all(|partition| partition.offset.is_some()))
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn the_environment_of_the_original_is_enough() {
    let mut deployment = Deployment::new(3).await;
    deployment.set(&[
        ("APPLICATION_VERSION", "1.2.3"),
        ("NODE_HOSTNAME", "node-7"),
        ("APP_UUID", "uuid-1"),
        ("HOSTNAME", "container"),
        // Its default: what is older than the group is not forwarded.
        ("KAFKA_AUTO_OFFSET_RESET", ""),
        ("KAFKA_CONSUMER_BATCH_SIZE", "100"),
        ("KAFKA_CONSUMER_TIME_OUT_MS", "1"),
        ("KAFKA_CONSUMER_COMMIT_INTERVAL_MS", "100"),
        ("ASSET_FORWARDER_QUEUE_SIZE", "10000"),
        ("HASH_RING_REPLICAS", "128"),
        ("LOG_LEVEL", "INFO"),
        ("LOG_HTTP_REQUESTS", "true"),
        // Without effect, and misspelt.
        ("ASSET_FORWARDER_CONCURRENCY", "4"),
        ("ASSET_FORWARDER_LOG_LEVEL", "INFO"),
        ("TASK_SLOT", "1"),
        ("KSQLDB_URL", "http://ksqldb:8088"),
        ("OPENFACTORY_ROOT_PATH", "/ofa"),
        ("APPLICATION_MANUFACTURER", "OpenFactory"),
        ("KAFKA_BROKERS", "misspelt:9092"),
        ("ASSET_FORWARDER_QUEUE", "7"),
    ]);
    let stage = &deployment.stage;
    stage
        .traffic
        .send_raw(b"old", Some(br#"{"id": "before"}"#))
        .await
        .unwrap();
    let mut forwarder = deployment.start().await;
    deployment.wait_begun().await;
    check_contract(&forwarder.page("/metrics").await.unwrap().1);

    stage.traffic.send(1_000).await.unwrap();
    stage.traffic.send_raw(b"bad", None).await.unwrap();
    let verdict = stage.verdict().await;
    verdict.check_exactly_once().unwrap();
    let mut bodies = 0;
    for place in 0..stage.clusters.len() {
        for message in stage.stored(place).await {
            let body: Value = serde_json::from_slice(&message.payload).unwrap();
            let attributes = &body["attributes"];
            let id = attributes["tag"].as_str().unwrap();
            assert_eq!(
                message.subject,
                format!("{}.{id}", body["asset_uuid"].as_str().unwrap())
            );
            assert_eq!(
                (body.get("ID"), &attributes["kafka_timestamp_type"]),
                (None, &json!("producer"))
            );
            assert!(message.headers.is_empty(), "the original sends none");
            bodies += 1;
        }
    }
    assert_eq!(bodies, 1_000, "what is older than the group is not among them");

    let (status, page) = forwarder.page("/metrics").await.unwrap();
    assert_eq!(status, 200);
    check_contract(&page);
    let metrics = Metrics::parse(&page);
    let value = |name: &str| metrics.sum(name, &[]);
    assert_eq!(value("fan_out_layer_forwarder_build_info"), 1.0);
    assert_eq!(value("asset_forwarder_kafka_messages_consumed_total"), 1_001.0);
    assert_eq!(value("asset_forwarder_nats_messages_published_total"), 1_000.0);
    assert_eq!(value("asset_forwarder_invalid_messages_total"), 1.0);
    assert_eq!(value("asset_forwarder_kafka_errors_total"), 0.0);
    assert_eq!(value("asset_forwarder_nats_publish_failures_total"), 0.0);
    assert_eq!(value("asset_forwarder_queue_time_seconds_count"), 1_000.0);
    assert_eq!(
        value("asset_forwarder_message_processing_latency_seconds_count"),
        1_000.0
    );
    for cluster in ["C1", "C2"] {
        let published = metrics.get("asset_forwarder_nats_messages_published_total", &[("cluster", cluster)]);
        assert!(published.unwrap() > 0.0, "{cluster}");
    }
    assert_eq!(forwarder.page("/health").await.unwrap().0, 200);

    let log = forwarder.process().log().unwrap();
    let line = |part: &str| -> &str {
        let mut lines = log.lines().filter(|line| line.contains(part));
        let line = lines.next().unwrap_or_else(|| panic!("no line has {part:?}\n{log}"));
        assert_eq!(lines.next(), None, "{part:?} stands in one line");
        line
    };
    let idle = line("without effect here");
    assert!(idle.contains("INFO"), "{idle}");
    assert!(
        idle.ends_with(
            "APPLICATION_MANUFACTURER, ASSET_FORWARDER_CONCURRENCY, ASSET_FORWARDER_LOG_LEVEL, KSQLDB_URL, \
             OPENFACTORY_ROOT_PATH, TASK_SLOT"
        ),
        "{idle}"
    );
    let unknown = line("not known");
    assert!(unknown.contains("WARN"), "{unknown}");
    assert!(unknown.ends_with(": ASSET_FORWARDER_QUEUE, KAFKA_BROKERS"), "{unknown}");
    assert!(
        log.lines()
            .any(|line| line.contains("answered a request") && line.contains("/health")),
        "{log}"
    );
    assert!(forwarder.terminate(SOON).await.unwrap().success());
}

/// Every series is there before its first event, under its names; dashboards and recording rules are built on them.
fn check_contract(page: &str) {
    let metrics = Metrics::parse(page);
    for (name, kind, series, buckets) in CONTRACT {
        assert!(
            page.lines().any(|line| line == format!("# TYPE {name} {kind}")),
            "{name} is a {kind}\n{page}"
        );
        let parts: &[&str] = match *kind {
            "histogram" => &["_sum", "_count", "_bucket"],
            _ => &[""],
        };
        for part in parts {
            let full = format!("{name}{part}");
            let mut labels: Vec<_> = metrics
                .samples()
                .iter()
                .filter(|(found, _, _)| *found == full)
                .map(|(_, labels, _)| {
                    let labels = labels.iter().filter(|(label, _)| *label != "le");
                    labels
                        .map(|(label, value)| (label.as_str(), value.as_str()))
                        .collect::<BTreeMap<_, _>>()
                })
                .collect();
            labels.dedup();
            let expected: Vec<BTreeMap<_, _>> = series.iter().map(|labels| labels.iter().copied().collect()).collect();
            assert_eq!(labels, expected, "{full}");
        }
        let found: Vec<_> = metrics
            .samples()
            .iter()
            .filter(|(found, _, _)| *found == format!("{name}_bucket"))
            .map(|(_, labels, _)| labels["le"].as_str())
            .collect();
        assert_eq!(found.join(" "), *buckets, "{name}");
    }
}

/// `latest` is the original's default; who asks for `earliest` gets it.
#[tokio::test]
async fn earliest_can_be_asked_for() {
    let mut deployment = Deployment::new(2).await;
    deployment.set(&[("KAFKA_AUTO_OFFSET_RESET", "earliest")]);
    deployment.stage.traffic.send(500).await.unwrap();
    let _forwarder = deployment.start().await;
    deployment.stage.verdict().await.check_exactly_once().unwrap();
}

/// The original ended where it got no partition, again and again.
#[tokio::test]
async fn an_instance_without_a_partition_stays_ready() {
    let deployment = Deployment::new(1).await;
    let mut instances = [deployment.start().await, deployment.start().await];
    deployment.wait_begun().await;
    let phase = async |instance: &Forwarder| instance.status().await.unwrap()["phase"].as_str().unwrap().to_owned();
    wait::eventually(SOON, "one consumes and one is idle", || async {
        let mut phases = [phase(&instances[0]).await, phase(&instances[1]).await];
        phases.sort();
        anyhow::ensure!(phases == ["consuming", "idle"], "{phases:?}");
        Ok(true)
    })
    .await
    .unwrap();
    deployment.stage.traffic.send(500).await.unwrap();
    deployment.stage.verdict().await.check_exactly_once().unwrap();
    for instance in &mut instances {
        assert_eq!(instance.page("/readyz").await.unwrap().0, 200);
        assert_eq!(instance.page("/health").await.unwrap().0, 200);
        assert_eq!(instance.process().try_exit().unwrap(), None);
    }
}

#[tokio::test]
async fn what_the_environment_lacks_is_named_by_its_variable() {
    let variables = [
        ("HASH_RING_REPLICAS", "many"),
        ("KAFKA_AUTO_OFFSET_RESET", "newest"),
        ("NATS_CLUSTER_C1", " , "),
    ];
    let mut forwarder = Forwarder::start_from_env(&variables).unwrap();
    let status = forwarder.wait_exit(SOON).await.unwrap();
    assert_eq!(status.code(), Some(1));
    let log = forwarder.process().log().unwrap();
    for name in [
        "KAFKA_BROKER",
        "HASH_RING_REPLICAS",
        "KAFKA_AUTO_OFFSET_RESET",
        "NATS_CLUSTER_C1",
    ] {
        assert!(log.lines().any(|line| line.starts_with(name)), "{name}: {log}");
    }
}

/// The asset router, which needs no Kafka and no NATS to be there.
#[tokio::test]
async fn the_router_answers_as_the_original_does() {
    let port = Port::reserve().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec::new("router", forwarder::binary().unwrap(), folder.path().join("router.log"))
        .clear_env()
        .dir(folder.path())
        .args(["router", "--address", "127.0.0.1", "--port", &port.number().to_string()])
        .env("NATS_CLUSTER_C1", "nats://user:secret@c1-a:4222, nats://c1-b:4222")
        .env("NATS_CLUSTER_C2", "nats://c2:4222")
        .env("NATS_CLUSTER_C3", "nats://c3:4222")
        .env("KAFKA_BROKER", "");
    let mut router = Process::start(spec).unwrap();
    let address = port.address();
    let up = wait::eventually(SOON, "the router answers", || async {
        Ok(http::get(&address, "/healthz").await?.0 == 200)
    });
    up.await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", router.log_tail()));

    // Owners by the golden vectors.
    let answers = [
        (
            "WTVB01-0004",
            "WTVB01-0004",
            "C1",
            &["nats://c1-a:4222", "nats://c1-b:4222"][..],
        ),
        ("WTVB01-0001", "WTVB01-0001", "C2", &["nats://c2:4222"]),
        ("PROVER3018", "PROVER3018", "C2", &["nats://c2:4222"]),
        ("WTVB01-0000", "WTVB01-0000", "C3", &["nats://c3:4222"]),
        (
            "%C3%84%C3%96-%E6%9C%BA%E5%99%A8-7",
            "ÄÖ-机器-7",
            "C1",
            &["nats://c1-a:4222", "nats://c1-b:4222"],
        ),
    ];
    for (path, id, cluster, urls) in answers {
        let body = http::get_ok(&address, &format!("/asset/{path}")).await.unwrap();
        let expected = json!({
            "asset_id": id,
            "cluster_name": cluster,
            "nats_url": urls[0],
            "nats_urls": urls,
            "ring_epoch": 1,
        });
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
    }
    for (path, expected) in [
        ("/", 404),
        ("/asset/", 404),
        ("/asset", 404),
        ("/asset/a/b", 404),
        ("/asset/%FF", 400),
    ] {
        assert_eq!(http::get(&address, path).await.unwrap().0, expected, "{path}");
    }
    router.terminate().unwrap();
    assert!(router.wait_exit(SOON).unwrap().success());
    assert!(!router.log().unwrap().contains("secret"));
}
