//! Several channels of one Kafka.

use super::*;

/// Declares one source more, by a channel of its own whose topic has its name.
pub(super) fn add(world: &mut World, name: &str) {
    let mut channel = world.channel.clone();
    channel.metadata.name = Some(name.to_owned());
    channel.spec.topic.name = name.to_owned();
    world.further.push(channel);
    let mut source = world.forwarder.spec.sources[0].clone();
    source.channel_ref.name = name.to_owned();
    world.forwarder.spec.sources.push(source);
}

fn several(names: &[&str]) -> World {
    let mut world = World::new([cluster("c1", 1)]);
    for name in names {
        add(&mut world, name);
    }
    world
}

/// The verdict over the configuration, which no pod has then.
fn refused(world: &World) -> (bool, &'static str, String) {
    let verdict = match world.validate() {
        Ok(validated) => validated.config.unwrap_err(),
        Err(verdict) => verdict,
    };
    let words = verdict.words();
    let is_stalled = matches!(verdict, Verdict::Stalled(_));
    (is_stalled, words.reason.as_str(), words.message.clone())
}

fn source_in(world: &World) -> serde_json::Value {
    let text = world.validate().unwrap().config.unwrap().text;
    yaml::<serde_json::Value>(&text)["source"].clone()
}

#[test]
fn the_first_source_is_the_topic_and_the_rest_are_further_ones() {
    let mut world = several(&["b", "c"]);
    let source = source_in(&world);
    assert_eq!(source["topic"], "assets");
    assert_eq!(source["furtherTopics"], serde_json::json!(["b", "c"]));
    assert_eq!(source["group"], "fanout");
    let deployment = world.step().resources.workload;
    let Workload::Configured { deployment, .. } = deployment else {
        panic!("there is a configuration")
    };
    assert_eq!(
        deployment.annotations()[names::SOURCE],
        "plant/assets assets, plant/b b, plant/c c fanout"
    );
    assert_eq!(source_in(&several(&[])).get("furtherTopics"), None);
}

#[test]
fn with_one_source_nothing_that_pods_have_is_another_than_before() {
    let mut world = several(&[]);
    let Workload::Configured { deployment, .. } = world.step().resources.workload else {
        panic!("there is a configuration")
    };
    assert_eq!(deployment.annotations()[names::SOURCE], "plant/assets assets fanout");
    assert_eq!(deployment.annotations()[names::GENERATION], "1 c1@1");
}

#[test]
fn sources_come_and_go_with_a_roll() {
    let mut world = several(&[]);
    world.step();
    world.pods_follow();
    world.step();
    let rolls = |world: &mut World| {
        world.forwarder.metadata.generation = world.forwarder.metadata.generation.map(|generation| generation + 1);
        let template = |world: &World| {
            let deployment = world.existing.deployment.as_ref();
            deployment.unwrap().spec.as_ref().unwrap().template.clone()
        };
        let before = template(world);
        let pass = world.step();
        let Workload::Configured { deployment, .. } = pass.resources.workload else {
            panic!("no pod ends before another one begins: {:?}", pass.validated.config)
        };
        assert_eq!(deployment.spec.unwrap().replicas, Some(2));
        template(world) != before
    };
    add(&mut world, "b");
    assert!(rolls(&mut world));
    // The first one goes, and the second takes its place.
    world.channel = world.further.remove(0);
    world.forwarder.spec.sources.remove(0);
    assert!(rolls(&mut world));
    assert_eq!(source_in(&world)["topic"], "b");
    add(&mut world, "c");
    assert!(rolls(&mut world));
    // Nothing of what pods read is left.
    world.channel = several(&["d"]).further.remove(0);
    world.further.clear();
    world.forwarder.spec.sources.truncate(1);
    world.forwarder.spec.sources[0].channel_ref.name = "d".to_owned();
    let (is_stalled, reason, message) = refused(&world);
    assert_eq!((is_stalled, reason), (false, "SourceChanging"));
    assert!(
        message.contains("\"plant/b b, plant/c c fanout\"") && message.contains("\"plant/d d fanout\""),
        "{message}"
    );
}

#[test]
fn a_source_that_goes_is_noted_until_no_pod_reads_it() {
    let mut world = several(&["b"]);
    world.step();
    world.pods_follow();
    let former = |world: &mut World| {
        world.step();
        let deployment = world.existing.deployment.clone().unwrap();
        deployment.annotations().get(names::FORMER_SOURCE).cloned()
    };
    assert_eq!(former(&mut world), None);
    world.forwarder.spec.sources.pop();
    world.further.clear();
    let noted = Some("plant/b b fanout".to_owned());
    assert_eq!(former(&mut world), noted);
    let status = |world: &mut World| {
        let deployment = world.existing.deployment.as_mut().unwrap();
        deployment.status.as_mut().unwrap().updated_replicas = Some(1);
    };
    status(&mut world);
    assert_eq!(former(&mut world), noted, "a pod that is not replaced yet may read it");
    world.existing.pods[0].terminating = true;
    assert_eq!(former(&mut world), noted, "one is ending");
    world.existing.pods.remove(0);
    assert_eq!(former(&mut world), None);
}

#[test]
fn another_group_ends_all_pods_first_and_so_does_what_nobody_can_read() {
    let mut world = several(&["b"]);
    world.step();
    world.pods_follow();
    let noted = |world: &mut World, text: &str| {
        let annotations = world.existing.deployment.as_mut().unwrap().annotations_mut();
        annotations.insert(names::SOURCE.to_owned(), text.to_owned())
    };
    let before = noted(&mut world, "nonsense").unwrap();
    assert_eq!(refused(&world).1, "SourceChanging");
    noted(&mut world, &before);
    assert!(world.validate().unwrap().config.is_ok());
    for source in &mut world.forwarder.spec.sources {
        source.group = "another".to_owned();
    }
    assert_eq!(refused(&world).1, "SourceChanging");
}

#[test]
fn what_a_consumer_has_once_is_the_same_in_each_source() {
    type Change = fn(&mut crds::asset_forwarder::Source);
    let changes: [(&str, Change); 5] = [
        ("group", |source| source.group = "other".to_owned()),
        ("startFrom", |source| source.start_from = Some(yaml("{type: Earliest}"))),
        ("missingOffset", |source| source.missing_offset = Some(yaml("Stop"))),
        ("protocol", |source| source.protocol = Some(yaml("Consumer"))),
        ("clientConfig", |source| {
            source.client_config = yaml("{fetch.min.bytes: '2'}");
        }),
    ];
    for (field, change) in changes {
        let mut world = several(&["b", "c"]);
        change(&mut world.forwarder.spec.sources[2]);
        let (is_stalled, reason, message) = refused(&world);
        assert_eq!((is_stalled, reason), (true, "InvalidSpec"));
        let start = format!("spec.sources[2].{field}: differs from that of spec.sources[0]");
        assert!(message.starts_with(&start), "{message}");
        world.forwarder.spec.sources.iter_mut().for_each(change);
        assert!(world.validate().unwrap().config.is_ok(), "{field} of all");
    }
}

#[test]
fn channels_of_another_kafka_or_login_are_told_with_what_differs() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 7] = [
        ("spec.connection.bootstrapServers", |world| {
            world.further[1].spec.connection.bootstrap_servers = vec!["elsewhere:9092".to_owned()];
        }),
        ("spec.connection.tls", |world| {
            world.further[1].spec.connection.tls = None;
        }),
        ("spec.connection.tls.caSecretRef", |world| {
            world.further[1].spec.connection.tls = Some(yaml("{caSecretRef: {name: other}}"));
        }),
        ("spec.connection.sasl", |world| {
            world.further[1].spec.connection.sasl = None;
        }),
        ("spec.connection.sasl.mechanism", |world| {
            world.further[1].spec.connection.sasl = Some(yaml("{mechanism: SCRAM-SHA-512, secretRef: {name: kafka}}"));
        }),
        ("user (spec.connection.sasl.secretRef)", |world| {
            world.put_secret("copy", "username", "another");
        }),
        ("password or token (spec.connection.sasl.secretRef)", |world| {
            world.put_secret("copy", "password", "another");
        }),
    ];
    let world = || {
        let mut world = several(&[])
            .with_secret("kafka", "username", "u")
            .with_secret("kafka", "password", "p")
            .with_secret("kafka", "ca.crt", CERTIFICATE)
            .with_secret("other", "ca.crt", &CERTIFICATE.repeat(2))
            .with_secret("copy", "username", "u")
            .with_secret("copy", "password", "p");
        world.channel.spec.connection.tls = Some(yaml("{caSecretRef: {name: kafka}}"));
        world.channel.spec.connection.sasl = Some(yaml("{mechanism: PLAIN, secretRef: {name: kafka}}"));
        add(&mut world, "b");
        add(&mut world, "c");
        // Another Secret that holds the same.
        world.further[1].spec.connection.sasl = Some(yaml("{mechanism: PLAIN, secretRef: {name: copy}}"));
        world
    };
    let config = world().validate().unwrap().config.unwrap();
    assert_eq!(config.text.matches("bootstrapServers").count(), 1);
    let mut same = world();
    same.step();
    assert_eq!(
        same.files().len(),
        2,
        "the first channel's are mounted: {:?}",
        same.files()
    );
    for (differs, change) in changes {
        let mut world = world();
        change(&mut world);
        let (is_stalled, reason, message) = refused(&world);
        assert_eq!((is_stalled, reason), (true, "InvalidSpec"), "{differs}");
        assert!(
            message.starts_with("spec.sources[2].channelRef: the KafkaChannel plant/c has a different ")
                && message.contains(&format!("{differs} than the KafkaChannel plant/assets. "))
                || message.contains(&format!("({differs}) than the KafkaChannel plant/assets. ")),
            "{differs}: {message}"
        );
        assert!(
            world.validate().unwrap().ring.is_some(),
            "clusters join and leave meanwhile"
        );
    }
    // One set of addresses, whatever their order.
    let mut world = several(&["b"]);
    let servers = |servers: [&str; 2]| servers.map(str::to_owned).to_vec();
    world.channel.spec.connection.bootstrap_servers = servers(["k1:9092", "k2:9092"]);
    world.further[0].spec.connection.bootstrap_servers = servers(["k2:9092", "k1:9092"]);
    assert!(world.validate().unwrap().config.is_ok());
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

#[test]
fn a_topic_is_named_once_and_each_channel_says_what_is_wrong_with_it() {
    let mut world = several(&["b", "c"]);
    world.further[1].spec.topic.name = "b".to_owned();
    let (is_stalled, _, message) = refused(&world);
    assert!(is_stalled);
    assert_eq!(
        message,
        "spec.sources[2].channelRef: the KafkaChannel plant/c has the same topic \"b\" as the KafkaChannel plant/b; name each \
         topic once"
    );
    world.further[1].spec.topic.name = "b c".to_owned();
    let (_, _, message) = refused(&world);
    assert!(
        message.starts_with("KafkaChannel plant/c: spec.topic.name: \"b c\""),
        "{message}"
    );
}

#[test]
fn of_several_channels_the_one_is_named_that_is_missing_or_not_ready() {
    let world = several(&["b"]);
    for (found, reason) in [(Found::Missing, "ChannelMissing"), (Found::Denied, "NotGranted")] {
        let mut dereferenced = world.dereferenced();
        dereferenced.sources[1].found = found;
        let validated = validate(&dereferenced, &world.settings()).unwrap();
        let words = validated.config.as_ref().unwrap_err().words();
        assert_eq!(words.reason, reason);
        assert!(
            words.message.starts_with("spec.sources[1].channelRef: ") && words.message.contains("plant/b"),
            "{words:?}"
        );
        assert!(matches!(build(&validated).unwrap().workload, Workload::Scaled(2)));
    }
    let mut dereferenced = world.dereferenced();
    let not_ready = |dereferenced: &Dereferenced| {
        let validated = validate(dereferenced, &world.settings()).unwrap();
        validated.channel_not_ready
    };
    assert_eq!(not_ready(&dereferenced), None);
    for reference in &mut dereferenced.sources {
        let Found::Channel(channel) = &mut reference.found else {
            panic!("all are there")
        };
        channel.not_ready = Some(format!("no topic {}", channel.topic));
    }
    assert_eq!(
        not_ready(&dereferenced).as_deref(),
        Some("the KafkaChannel assets is not ready: no topic assets; the KafkaChannel b is not ready: no topic b")
    );
}

#[test]
fn a_change_of_any_channel_that_reaches_the_pods_rolls_them() {
    let mut world = several(&["b"]);
    world.step();
    let is_kept = |world: &World| matches!(world.look().resources.workload, Workload::Kept { .. });
    world.default_image = "forwarder:2";
    assert!(is_kept(&world));
    world.further[0].metadata.generation = Some(2);
    assert!(is_kept(&world), "a change that is nothing to pods");
    for channel in [&mut world.channel, &mut world.further[0]] {
        channel.spec.connection.bootstrap_servers = vec!["moved:9092".to_owned()];
    }
    assert!(!is_kept(&world));
}
