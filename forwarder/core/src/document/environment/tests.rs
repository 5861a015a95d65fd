use super::*;

const MINIMAL: &[(&str, &str)] = &[("KAFKA_BROKER", "kafka:9092"), ("NATS_CLUSTER_C1", "nats://c1:4222")];

fn read(more: &[(&str, &str)]) -> Result<(Checked, Vec<Notice>), ConfigErrors> {
    let all = MINIMAL
        .iter()
        .chain(more)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    from_environment(all)
}

fn faults(more: &[(&str, &str)]) -> Vec<String> {
    read(more).err().map_or_else(Vec::new, |errors| {
        errors.faults().iter().map(ToString::to_string).collect()
    })
}

#[test]
fn the_defaults_are_those_of_the_original() {
    let (config, notices) = read(&[]).unwrap();
    assert_eq!(config.source.connection.bootstrap_servers, ["kafka:9092"]);
    assert_eq!(
        (config.source.topic.as_str(), config.source.group.as_str()),
        ("ofa_assets", "ofa_fan_out_layer_group")
    );
    assert_eq!(config.source.start_from, StartFrom::Latest);
    let Engine {
        batch_size,
        poll_timeout_ms,
        commit_interval_ms,
        queue_size,
        ..
    } = config.engine;
    assert_eq!(
        (batch_size, poll_timeout_ms, commit_interval_ms, queue_size),
        (100, 1, 100, 10_000)
    );
    assert_eq!(
        (config.engine.watchdog_interval_ms, config.engine.watchdog_timeout_ms),
        (30_000, 300_000)
    );
    assert_eq!((config.ring.replicas, config.ring.clusters.len()), (128, 1));
    assert_eq!(config.publish, Publish::default());
    assert_eq!(
        (config.admin.port, config.admin.version.as_deref()),
        (4000, Some("UNKNOWN"))
    );
    assert_eq!(config.admin.node.as_deref(), Some("unknown"));
    assert_eq!(
        (config.logging.level, config.logging.http_requests),
        (LogLevel::Info, false)
    );
    assert_eq!(notices, []);
}

#[test]
fn every_variable_is_taken() {
    let (config, notices) = read(&[
        ("KAFKA_BROKER", "PLAINTEXT://a:1, b:2 ,"),
        ("KAFKA_TOPIC", " t "),
        ("KAFKA_GROUP", "g"),
        ("KAFKA_CONSUMER_BATCH_SIZE", "7"),
        ("KAFKA_CONSUMER_TIME_OUT_MS", "8"),
        ("KAFKA_CONSUMER_COMMIT_INTERVAL_MS", "9"),
        ("KAFKA_AUTO_OFFSET_RESET", "Smallest"),
        ("KAFKA_WATCHDOG_INTERVAL", "1.5"),
        ("KAFKA_WATCHDOG_TIMEOUT", "12"),
        ("ASSET_FORWARDER_QUEUE_SIZE", "10"),
        ("HASH_RING_REPLICAS", "11"),
        ("NATS_CLUSTER_c-2", " nats://u:p@x:1 ,, y:2 "),
        ("APPLICATION_VERSION", "v1"),
        ("NODE_HOSTNAME", "n1"),
        ("PORT", "80"),
        ("LOG_LEVEL", "critical"),
        ("LOG_HTTP_REQUESTS", "True"),
        ("APP_UUID", ""),
        ("HOSTNAME", "h"),
    ])
    .unwrap();
    assert_eq!(config.source.connection.bootstrap_servers, ["a:1", "b:2"]);
    assert_eq!((config.source.topic.as_str(), config.source.group.as_str()), ("t", "g"));
    assert_eq!(config.source.start_from, StartFrom::Earliest);
    let Engine {
        batch_size,
        poll_timeout_ms,
        commit_interval_ms,
        queue_size,
        ..
    } = config.engine;
    assert_eq!(
        (batch_size, poll_timeout_ms, commit_interval_ms, queue_size),
        (7, 8, 9, 10)
    );
    assert_eq!(
        (config.engine.watchdog_interval_ms, config.engine.watchdog_timeout_ms),
        (1_500, 12_000)
    );
    assert_eq!(config.engine.drain_timeout_ms, 6_000);
    assert_eq!(config.ring.replicas, 11);
    assert_eq!(config.ring.clusters[1].name, "c-2");
    assert_eq!(config.ring.clusters[1].servers, ["nats://u:p@x:1", "y:2"]);
    let Admin {
        address: _,
        port,
        forwarder,
        version,
        node,
        credentials_version_file: _,
    } = config.admin.clone();
    assert_eq!(
        (port, forwarder.as_deref(), version.as_deref(), node.as_deref()),
        (80, Some("h"), Some("v1"), Some("n1"))
    );
    assert_eq!(
        (config.logging.level, config.logging.http_requests),
        (LogLevel::Error, true)
    );
    assert_eq!(notices, []);
}

#[test]
fn librdkafkas_words_for_the_offset_reset_are_taken() {
    for (word, expected) in [
        ("latest", StartFrom::Latest),
        ("largest", StartFrom::Latest),
        ("END", StartFrom::Latest),
        ("", StartFrom::Latest),
        ("earliest", StartFrom::Earliest),
        ("smallest", StartFrom::Earliest),
        ("beginning", StartFrom::Earliest),
    ] {
        assert_eq!(
            read(&[("KAFKA_AUTO_OFFSET_RESET", word)]).unwrap().0.source.start_from,
            expected,
            "{word}"
        );
    }
    assert_eq!(
        faults(&[("KAFKA_AUTO_OFFSET_RESET", "error")]),
        ["KAFKA_AUTO_OFFSET_RESET: \"error\" is not known; write latest or earliest"]
    );
}

#[test]
fn a_url_with_a_broken_password_is_told_without_it() {
    assert_eq!(
        faults(&[("NATS_CLUSTER_C1", "nats://u:hush%@c1")]),
        [
            "NATS_CLUSTER_C1: must have a token or user:password before the @, percent-encoded; \
             percent-encode special characters: %40 for @, %2F for /, %25 for %"
        ]
    );
}

#[test]
fn every_fault_is_told_by_its_variable() {
    let found = faults(&[
        ("KAFKA_BROKER", " "),
        ("KAFKA_TOPIC", "a b"),
        ("KAFKA_CONSUMER_BATCH_SIZE", "-1"),
        ("ASSET_FORWARDER_QUEUE_SIZE", "0"),
        ("KAFKA_WATCHDOG_TIMEOUT", "soon"),
        ("HASH_RING_REPLICAS", "0"),
        ("NATS_CLUSTER_C1", "ws://c1"),
        ("NATS_CLUSTER_C2", " , "),
        ("NATS_CLUSTER_", "nats://x"),
        ("PORT", "99999"),
        ("LOG_LEVEL", "loud"),
        ("LOG_HTTP_REQUESTS", "maybe"),
    ]);
    let names: BTreeSet<_> = found.iter().map(|fault| fault.split(':').next().unwrap()).collect();
    let expected = [
        "ASSET_FORWARDER_QUEUE_SIZE",
        "HASH_RING_REPLICAS",
        "KAFKA_BROKER",
        "KAFKA_CONSUMER_BATCH_SIZE",
        "KAFKA_TOPIC",
        "KAFKA_WATCHDOG_TIMEOUT",
        "LOG_HTTP_REQUESTS",
        "LOG_LEVEL",
        "NATS_CLUSTER_",
        "NATS_CLUSTER_C1",
        "NATS_CLUSTER_C2",
        "PORT",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn at_least_one_cluster_is_needed() {
    let found = from_environment([("KAFKA_BROKER".to_owned(), "x".to_owned())])
        .unwrap_err()
        .to_string();
    assert!(found.starts_with("NATS_CLUSTER_<NAME>: is empty"), "{found}");
}

#[test]
fn the_variables_of_a_kubernetes_service_are_no_members() {
    let (config, notices) = read(&[
        ("NATS_CLUSTER_C1_SERVICE_HOST", "10.0.0.1"),
        ("NATS_CLUSTER_C1_SERVICE_PORT", "4222"),
        ("NATS_CLUSTER_C1_SERVICE_PORT_CLIENT", "4222"),
        ("NATS_CLUSTER_C1_PORT", "tcp://10.0.0.1:4222"),
        ("NATS_CLUSTER_C1_PORT_4222_TCP_ADDR", "10.0.0.1"),
        ("OTHER_SERVICE_HOST", "x"),
        ("OTHER_SERVICE_PORT", "x"),
        // Not of a Service: there is no NATS_CLUSTER_B_SERVICE_HOST.
        ("NATS_CLUSTER_B_PORT", "nats://b"),
    ])
    .unwrap();
    let names: Vec<_> = config
        .ring
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    assert_eq!(names, ["B_PORT", "C1"]);
    let [Notice::KubernetesService(ignored)] = notices.as_slice() else {
        panic!("{notices:?}")
    };
    assert_eq!(ignored.len(), 5, "{ignored:?}");
}

#[test]
fn names_without_effect_and_unknown_ones_are_noticed() {
    let (config, notices) = read(&[
        ("ASSET_FORWARDER_CONCURRENCY", "4"),
        ("APPLICATION_MANUFACTURER", "x"),
        ("APPLICATION_VERSION", "x"),
        ("KSQLDB_URL", "x"),
        ("KAFKA_TOPICS", "x"),
        ("NATS_CLUSTERS", "x"),
        ("PATH", "x"),
        ("KAFKA_CONSUMER_COMMIT_INTERVAL_MS", "5000"),
    ])
    .unwrap();
    assert_eq!(config.engine.commit_interval_ms, 3_000);
    let shown: Vec<_> = notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "KAFKA_CONSUMER_COMMIT_INTERVAL_MS is 5000, which is too large; using 3000",
            "without effect here: APPLICATION_MANUFACTURER, ASSET_FORWARDER_CONCURRENCY, KSQLDB_URL",
            "not known, perhaps misspelt: KAFKA_TOPICS, NATS_CLUSTERS",
        ]
    );
}

#[test]
fn a_document_is_completed_by_who_runs_it() {
    let variables = BTreeMap::from([
        ("HOSTNAME".to_owned(), "pod-0".to_owned()),
        ("APP_UUID".to_owned(), "id".to_owned()),
    ]);
    let mut admin = Admin {
        node: Some("mine".to_owned()),
        ..Admin::default()
    };
    identify(&mut admin, &variables);
    assert_eq!(
        (admin.forwarder.as_deref(), admin.node.as_deref()),
        (Some("id"), Some("mine"))
    );
}

#[test]
fn a_router_needs_no_kafka() {
    let read = |variables: &[(&str, &str)]| {
        ring_from_environment(
            variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    };
    let (ring, _) = read(&[
        ("NATS_CLUSTER_C1", "c1"),
        ("KAFKA_BROKER", "://"),
        ("HASH_RING_REPLICAS", "3"),
    ])
    .unwrap();
    assert_eq!((ring.replicas, ring.clusters.len()), (3, 1));
    read(&[("KAFKA_BROKER", "x")]).unwrap_err();
}
