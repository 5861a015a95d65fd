//! The pods' configuration: what it says, when it changes, and what is wrong with it.

use super::*;

fn hash(world: &World) -> (String, String) {
    let config = world.validate().unwrap().config.unwrap();
    (config.hash, config.kafka_credentials)
}

fn refused(spec: &str) -> String {
    let mut world = World::new([cluster("c1", 1)]);
    let mut value = serde_json::to_value(&world.forwarder.spec).unwrap();
    let patch: serde_json::Value = yaml(spec);
    for (key, field) in patch.as_object().unwrap() {
        value[key] = field.clone();
    }
    world.forwarder.spec = serde_json::from_value(value).unwrap();
    let verdict = match world.validate() {
        Ok(validated) => validated.config.unwrap_err(),
        Err(verdict) => verdict,
    };
    assert!(matches!(verdict, Verdict::Stalled(_)), "{verdict:?}");
    verdict.words().message.clone()
}

#[test]
fn what_the_forwarder_would_refuse_is_told_at_the_field_that_a_person_wrote() {
    let source = "channelRef: {name: assets}, group: g";
    for (spec, start) in [
        (
            format!("{{sources: [{{{source}, clientConfig: {{group.instance.id: x}}}}]}}"),
            "spec.sources[0].clientConfig[\"group.instance.id\"]: ",
        ),
        (
            format!("{{sources: [{{{source}, startFrom: {{type: Timestamp, timestamp: yesterday}}}}]}}"),
            "spec.sources[0].startFrom.timestamp: ",
        ),
        ("{sources: []}".to_owned(), "spec.sources: has 0 entries"),
        ("{publish: {subject: '{key}'}}".to_owned(), "spec.publish.subject: "),
        ("{publish: {maxAttempts: 3}}".to_owned(), "spec.publish.maxAttempts: "),
        (
            "{publish: {mode: JetStream, subject: 'a.{key}.{id}', stream: {name: a b}}}".to_owned(),
            "spec.publish.stream.name: ",
        ),
        (
            "{limits: {maxPendingRecords: 5, maxPendingRecordsPerCluster: 6}}".to_owned(),
            "spec.limits.maxPendingRecordsPerCluster: ",
        ),
        (
            "{limits: {drainTimeoutSeconds: 3600}}".to_owned(),
            "spec.limits.drainTimeoutSeconds: ",
        ),
        (
            "{clusters: {selector: {matchExpressions: [{key: a, operator: Like}]}}}".to_owned(),
            "spec.clusters.selector: ",
        ),
    ] {
        let message = refused(&spec);
        assert!(message.contains(start), "{spec}: {message}");
    }
    let mut world = World::new([cluster("c1", 1)]);
    world.channel.spec.topic.name = "a b".to_owned();
    let message = world.validate().unwrap().config.unwrap_err().words().message.clone();
    assert!(
        message.starts_with("KafkaChannel plant/assets: spec.topic.name: "),
        "{message}"
    );
}

#[test]
fn a_name_that_pods_or_services_cannot_have_is_refused() {
    for name in ["a.b", "1a", &"a".repeat(51)] {
        let mut world = World::new([]);
        world.forwarder.metadata.name = Some(name.to_owned());
        let verdict = world.validate().unwrap_err();
        assert!(verdict.words().message.starts_with("metadata.name: "), "{verdict:?}");
    }
}

#[test]
fn a_channel_that_is_not_there_leaves_pods_as_they_are() {
    let world = World::new([cluster("c1", 1)]);
    for (found, reason) in [(Found::Missing, "ChannelMissing"), (Found::Denied, "NotGranted")] {
        let mut dereferenced = world.dereferenced();
        dereferenced.sources[0].found = found;
        let settings = Settings {
            forwarder_image: "i".to_owned(),
            forwarder_image_pull_policy: "Never",
            require_secret_opt_in: false,
            pod_security_ids: true,
            namespace: String::new(),
            concurrency: 1,
        };
        let validated = validate(&dereferenced, &settings).unwrap();
        assert_eq!(validated.config.as_ref().unwrap_err().words().reason, reason);
        assert!(validated.ring.is_some(), "clusters join and leave meanwhile");
        let resources = build(&validated).unwrap();
        assert!(matches!(resources.workload, Workload::Scaled(2)));
    }
}

#[test]
fn whether_another_namespace_has_a_channel_is_not_told() {
    let world = World::new([cluster("c1", 1)]);
    let words = |found: Found| {
        let mut dereferenced = world.dereferenced();
        dereferenced.sources[0] = Reference {
            name: "other/assets".to_owned(),
            found,
        };
        let validated = validate(&dereferenced, &world.settings()).unwrap();
        validated.config.unwrap_err().words().clone()
    };
    let missing = words(Found::Missing);
    assert_eq!(missing, words(Found::Denied));
    assert_eq!(missing.reason, "NotGranted");
    assert!(missing.message.contains("other/assets") && missing.message.contains("allowedNamespaces"));
}

#[test]
fn the_configuration_changes_with_what_cannot_change_live_and_with_nothing_else() {
    let mut world = World::new([cluster("c1", 1)]);
    let first = hash(&world);
    world.clusters.push(cluster("c2", 2));
    world.forwarder.spec.replicas = 7;
    world.forwarder.spec.ring.replicas = 64;
    assert_eq!(hash(&world), first);
    world.forwarder.spec.sources[0].group = "other".to_owned();
    let other = hash(&world);
    assert_ne!(other.0, first.0);
}

#[test]
fn a_new_password_rolls_the_pods_and_a_new_token_does_not() {
    let sasl = |mechanism: &str| yaml(&format!("{{mechanism: {mechanism}, secretRef: {{name: kafka}}}}"));
    let mut world = World::new([cluster("c1", 1)])
        .with_secret("kafka", "username", "u")
        .with_secret("kafka", "password", "p1")
        .with_secret("kafka", "token", "a.b.c");
    world.channel.spec.connection.sasl = Some(sasl("SCRAM-SHA-512"));
    let first = hash(&world);
    world.put_secret("kafka", "password", "p2");
    let second = hash(&world);
    assert_eq!(first.0, second.0, "the document holds no secret");
    assert_ne!(first.1, second.1);

    world.channel.spec.connection.sasl = Some(sasl("OAUTHBEARER"));
    let first = hash(&world);
    world.put_secret("kafka", "token", "a.b.d");
    assert_eq!(hash(&world), first);
}

#[test]
fn the_default_of_a_cap_gives_way_to_the_one_that_is_given() {
    let engine = |limits: &str| super::super::config::engine(Some(&yaml(limits)));
    let low = engine("{maxPendingBytes: 1000}");
    assert_eq!(
        (low.max_pending_bytes_per_cluster, low.max_pending_bytes),
        (1_000, 1_000)
    );
    let high = engine("{maxPendingRecordsPerCluster: 1000000}");
    assert_eq!(high.max_pending_records, 1_000_000);
}

/// A pod of an older image refuses what it does not know.
#[test]
fn the_largest_record_is_written_only_where_it_is_declared() {
    let engine = |limits: &str| serde_json::to_value(super::super::config::engine(Some(&yaml(limits)))).unwrap();
    assert_eq!(engine("{}").get("maxRecordBytes"), None);
    assert_eq!(engine("{maxRecordBytes: 2000000}")["maxRecordBytes"], 2_000_000);
}

#[test]
fn pods_of_another_group_end_before_the_first_of_the_new_one_begins() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.pods_follow();
    world.forwarder.spec.sources[0].group = "another".to_owned();
    let ends_first = |world: &World| {
        let pass = world.look();
        let reason = pass
            .validated
            .config
            .err()
            .map(|verdict| verdict.words().reason.as_str());
        (matches!(pass.resources.workload, Workload::Scaled(0)), reason)
    };
    assert_eq!(ends_first(&world), (true, Some("SourceChanging")));
    let spec = world.existing.deployment.as_mut().unwrap().spec.as_mut().unwrap();
    spec.replicas = Some(0);
    assert_eq!(ends_first(&world), (true, Some("SourceChanging")), "pods still drain");
    world.existing.pods.clear();
    assert_eq!(ends_first(&world), (false, None));
}

#[test]
fn a_password_stays_until_the_pods_template_no_longer_names_it() {
    let sasl = "{mechanism: PLAIN, secretRef: {name: kafka}}";
    let mut world = World::new([cluster("c1", 1)]).with_secret("kafka", "password", "p");
    world.put_secret("kafka", "username", "u");
    world.channel.spec.connection.sasl = Some(yaml(sasl));
    world.step();
    world.pods_follow();
    world.step();
    let with = world.files();
    assert!(!with.is_empty());
    world.channel.spec.connection.sasl = None;
    world.step();
    assert_eq!(world.files(), with, "the template still named it when that was written");
    world.step();
    assert_eq!(world.files(), [""; 0]);
}

/// All that the first release writes where nothing is declared. The list never grows: `spec.image` may keep an image of it, which refuses
/// a configuration with a field that it does not know.
const FIRST: &[&str] = &[
    "admin.address",
    "admin.credentialsVersionFile",
    "admin.port",
    "engine.batchSize",
    "engine.commitIntervalMs",
    "engine.drainTimeoutMs",
    "engine.maxPendingBytes",
    "engine.maxPendingBytesPerCluster",
    "engine.maxPendingRecords",
    "engine.maxPendingRecordsPerCluster",
    "engine.pollTimeoutMs",
    "engine.queueSize",
    "engine.watchdogIntervalMs",
    "engine.watchdogTimeoutMs",
    "logging.format",
    "logging.httpRequests",
    "logging.level",
    "publish.headers.origin",
    "publish.mode",
    "publish.retry.confirmTimeoutMs",
    "publish.retry.initialBackoffMs",
    "publish.retry.maxBackoffMs",
    "publish.subject",
    "ring.clusters.name",
    "ring.clusters.servers",
    "ring.clusters.weight",
    "ring.epoch",
    "ring.handoverTimeoutMs",
    "ring.replicas",
    "source.connection.bootstrapServers",
    "source.group",
    "source.missingOffset",
    "source.protocol",
    "source.startFrom.type",
    "source.topic",
];

fn fields(value: &serde_json::Value, path: &str, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields_of) => {
            for (name, value) in fields_of {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                fields(value, &path, found);
            }
        }
        serde_json::Value::Array(items) if items.iter().any(serde_json::Value::is_object) => {
            items.iter().for_each(|item| fields(item, path, found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}

#[test]
fn a_configuration_has_no_field_that_nobody_has_declared() {
    let mut world = World::new([cluster("c1", 1)]);
    world.forwarder.spec.ring.update = crds::asset_forwarder::RingUpdate::Roll;
    let text = world.step().validated.config.unwrap().text;
    let mut found = std::collections::BTreeSet::new();
    fields(&yaml(&text), "", &mut found);
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, FIRST);
}
