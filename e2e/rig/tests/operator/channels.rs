//! Channels: a topic is found, made, kept as declared and, where that is asked for, deleted.

use crds::KafkaChannel;
use e2e_rig::kafka::unique;
use e2e_rig::kubernetes::{Fault, Rule, Verb};
use e2e_rig::nats::Options;
use e2e_rig::site::{Site, condition};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use serde_json::{Value, json};

fn managed(site: &Site, topic: &str, change: Value) -> Value {
    let mut channel = site.channel();
    channel["metadata"]["name"] = json!("managed");
    channel["spec"]["topic"] =
        json!({"name": topic, "managed": true, "partitions": 3, "config": {"retention.ms": "3600000"}});
    for (field, value) in change.as_object().unwrap() {
        channel["spec"]["topic"][field] = value.clone();
    }
    channel
}

async fn wait_reason(site: &Site, name: &str, reason: &str) -> KafkaChannel {
    let what = format!("the channel's reason is {reason}");
    site.namespace
        .wait::<KafkaChannel>(name, SOON, &what, |channel| {
            let observed = channel.status.as_ref().and_then(|status| status.observed_generation);
            observed == channel.metadata.generation
                && condition(channel, "Ready").is_some_and(|ready| ready.reason == reason)
        })
        .await
        .unwrap()
}

async fn wait_topic_gone(site: &Site, topic: &str) {
    wait::eventually(SOON, "the topic is gone", || async {
        Ok(site.stage.kafka.partitions(topic).await? == 0)
    })
    .await
    .unwrap();
}

async fn wait_gone(site: &Site, name: &str) {
    wait::eventually(SOON, "the channel is gone", || async {
        Ok(site.namespace.api::<KafkaChannel>().get_opt(name).await?.is_none())
    })
    .await
    .unwrap();
}

fn message(channel: &KafkaChannel) -> &str {
    condition(channel, "Ready").map_or("", |ready| &ready.message)
}

/// The notes of the events of this reason about the channel `managed`, each as often as it was published.
async fn notes(site: &Site, reason: &str) -> Vec<String> {
    let events = site
        .namespace
        .api::<Event>()
        .list(&ListParams::default())
        .await
        .unwrap();
    let about = |event: &Event| {
        event.involved_object.name.as_deref() == Some("managed") && event.reason.as_deref() == Some(reason)
    };
    let mut notes = Vec::new();
    for event in events.items.into_iter().filter(about) {
        let often = event.series.and_then(|series| series.count).unwrap_or(1);
        for _ in 0..often {
            notes.push(event.message.clone().unwrap_or_default());
        }
    }
    notes
}

async fn wait_note(site: &Site, reason: &str, part: &str) {
    wait::eventually(SOON, &format!("an event {reason} says {part:?}"), || async {
        Ok(notes(site, reason).await.iter().any(|note| note.contains(part)))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_managed_topic_is_made_and_kept_and_deleted() {
    let site = Site::new(PublishMode::Core, 0).await;
    let topic = unique("managed");
    site.apply(&[managed(&site, &topic, json!({}))]).await;
    let channel = wait_reason(&site, "managed", "TopicReady").await;
    assert_eq!(channel.status.unwrap().partitions, Some(3));
    assert_eq!(site.stage.kafka.partitions(&topic).await.unwrap(), 3);

    // More partitions re-map keys, so they are asked for twice.
    let more = managed(&site, &topic, json!({"partitions": 5}));
    let refused = site.namespace.apply(&more.to_string()).await.unwrap_err();
    assert!(format!("{refused:#}").contains("allowPartitionIncrease"), "{refused:#}");
    assert_eq!(site.stage.kafka.partitions(&topic).await.unwrap(), 3);
    let acknowledged = json!({"partitions": 5, "allowPartitionIncrease": 5, "deletionPolicy": "Delete"});
    site.apply(&[managed(&site, &topic, acknowledged)]).await;
    let channel = wait_reason(&site, "managed", "TopicReady").await;
    assert_eq!(channel.status.unwrap().partitions, Some(5));

    site.namespace
        .kubectl(&["delete", "kafkachannel", "managed", "--timeout=60s"])
        .await
        .unwrap();
    wait_topic_gone(&site, &topic).await;
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_waited_for() {
    let site = Site::new(PublishMode::Core, 0).await;
    let topic = unique("later");
    let mut channel = site.channel();
    channel["spec"]["topic"]["name"] = json!(topic);
    site.apply(&[channel]).await;
    let channel = wait_reason(&site, "assets", "TopicMissing").await;
    assert!(condition(&channel, "Reconciling").is_some());
    site.stage.kafka.create_topic(&topic, 2, &[]).await.unwrap();
    let channel = wait_reason(&site, "assets", "TopicReady").await;
    assert_eq!(channel.status.unwrap().partitions, Some(2));
}

#[tokio::test]
async fn brokers_that_do_not_answer_are_told_and_do_not_hold_a_deletion_up() {
    let site = Site::new(PublishMode::Core, 0).await;
    // One that the channel has created: another topic would be left at once.
    let mut channel = managed(&site, &unique("nowhere"), json!({"deletionPolicy": "Delete"}));
    site.apply(std::slice::from_ref(&channel)).await;
    wait_reason(&site, "managed", "TopicReady").await;
    // A port of this machine that nobody listens on.
    let nobody = e2e_rig::port::Port::reserve().unwrap();
    channel["spec"]["connection"]["bootstrapServers"] = json!([nobody.address()]);
    site.apply(&[channel]).await;
    wait_reason(&site, "managed", "Unreachable").await;
    site.namespace
        .kubectl(&["delete", "kafkachannel", "managed", "--wait=false"])
        .await
        .unwrap();
    let skip = "fanout.openfactory.io/skip-topic-deletion=true";
    site.namespace
        .kubectl(&["annotate", "kafkachannel", "managed", skip])
        .await
        .unwrap();
    wait::eventually(SOON, "the channel is gone", || async {
        Ok(site.namespace.api::<KafkaChannel>().get_opt("managed").await?.is_none())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_value_that_kafka_writes_otherwise_is_written_once() {
    let site = Site::new(PublishMode::Core, 0).await;
    let topic = unique("forms");
    site.stage.kafka.create_topic(&topic, 3, &[]).await.unwrap();
    let config = json!({"min.cleanable.dirty.ratio": "0.10", "preallocate": "TRUE", "retention.ms": "0600000"});
    site.apply(&[managed(&site, &topic, json!({"config": config}))]).await;
    let ready = wait_reason(&site, "managed", "TopicReady").await;
    assert!(condition(&ready, "Drifted").is_none(), "{:?}", ready.status);
    wait_note(&site, "TopicConfigured", "retention.ms").await;
    // So that it is looked at anew.
    site.restart_operator().await;
    site.wait_reconciled().await;
    let again = site.namespace.get::<KafkaChannel>("managed").await.unwrap();
    assert_eq!(again.metadata.resource_version, ready.metadata.resource_version);
    let notes = notes(&site, "TopicConfigured").await;
    assert_eq!(notes.len(), 1, "{notes:?}");
}

#[tokio::test]
async fn every_setting_that_kafka_refuses_is_named() {
    let site = Site::new(PublishMode::Core, 0).await;
    let topic = unique("refused");
    let bad = json!({
        "max.message.bytes": "many",
        "no.such.setting": "1",
        "retention.ms": "-2",
        "segment.ms": "1000000",
    });
    let refused = json!({"config": bad, "deletionPolicy": "Delete"});
    let named = |channel: &KafkaChannel| {
        let message = message(channel);
        for part in ["max.message.bytes", "no.such.setting", "retention.ms"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!message.contains("segment.ms"), "{message}");
    };
    // One that is to be made.
    site.apply(&[managed(&site, &topic, refused.clone())]).await;
    let channel = wait_reason(&site, "managed", "TopicInvalid").await;
    assert!(condition(&channel, "Stalled").is_some());
    named(&channel);
    assert_eq!(site.stage.kafka.partitions(&topic).await.unwrap(), 0);
    assert!(channel.status.unwrap().topic_creation.is_none(), "nothing was begun");
    // One that is there.
    site.apply(&[managed(&site, &topic, json!({"deletionPolicy": "Delete"}))])
        .await;
    wait_reason(&site, "managed", "TopicReady").await;
    site.apply(&[managed(&site, &topic, refused)]).await;
    named(&wait_reason(&site, "managed", "InvalidSpec").await);
    // Without the one that Kafka does not know.
    let bad = json!({"max.message.bytes": "many", "retention.ms": "-2"});
    site.apply(&[managed(
        &site,
        &topic,
        json!({"config": bad, "deletionPolicy": "Delete"}),
    )])
    .await;
    let channel = wait_reason(&site, "managed", "TopicInvalid").await;
    let message = message(&channel);
    assert!(
        message.contains("max.message.bytes: \"many\"") && message.contains("retention.ms: \"-2\""),
        "{message}"
    );
}

/// The channel says beforehand that its deletion leaves the topic, and that is what it does, for this reason.
async fn check_deletion_leaves(site: &Site, topic: &str, why: &str) {
    let channel = wait_reason(site, "managed", "TopicReady").await;
    assert!(
        message(&channel).contains("Deleting this channel leaves it"),
        "{}",
        message(&channel)
    );
    let delete = ["delete", "kafkachannel", "managed", "--timeout=60s"];
    site.namespace.kubectl(&delete).await.unwrap();
    wait_note(site, "TopicLeft", why).await;
    assert_eq!(site.stage.kafka.partitions(topic).await.unwrap(), 3);
}

#[tokio::test]
async fn a_topic_that_the_channel_has_not_created_stays() {
    let site = Site::new(PublishMode::Core, 0).await;
    let topic = unique("before");
    site.stage.kafka.create_topic(&topic, 3, &[]).await.unwrap();
    site.apply(&[managed(&site, &topic, json!({"deletionPolicy": "Delete"}))])
        .await;
    check_deletion_leaves(&site, &topic, "no record of having created it").await;

    // One that the channel creates, and that somebody deletes and makes anew while nobody looks.
    let topic = unique("anew");
    site.apply(&[managed(&site, &topic, json!({"deletionPolicy": "Delete"}))])
        .await;
    let channel = wait_reason(&site, "managed", "TopicReady").await;
    let creation = channel.status.unwrap().topic_creation.unwrap();
    assert!(creation.topic_id.is_some(), "the topic's ID is known: {creation:?}");
    site.kill_operator().await;
    site.stage.kafka.delete_topic(&topic).await.unwrap();
    site.stage.kafka.create_topic(&topic, 3, &[]).await.unwrap();
    site.namespace
        .kubectl(&["delete", "kafkachannel", "managed", "--wait=false"])
        .await
        .unwrap();
    site.start_operator_again().await;
    wait_gone(&site, "managed").await;
    wait_note(&site, "TopicLeft", "another one with the same name").await;
    assert_eq!(site.stage.kafka.partitions(&topic).await.unwrap(), 3);
}

#[tokio::test]
async fn a_topic_that_was_made_anew_before_its_deletion_was_asked_for_stays() {
    let site = Site::new(PublishMode::Core, 0).await;
    let topic = unique("retained");
    site.apply(&[managed(&site, &topic, json!({"deletionPolicy": "Retain"}))])
        .await;
    let channel = wait_reason(&site, "managed", "TopicReady").await;
    let creation = channel.status.unwrap().topic_creation.unwrap();
    assert!(
        creation.topic_id.is_some(),
        "its ID is known from the beginning: {creation:?}"
    );
    assert_eq!(creation.begun_at, None, "it is needed no more: {creation:?}");
    site.stage.kafka.delete_topic(&topic).await.unwrap();
    site.stage.kafka.create_topic(&topic, 3, &[]).await.unwrap();
    site.apply(&[managed(&site, &topic, json!({"deletionPolicy": "Delete"}))])
        .await;
    check_deletion_leaves(&site, &topic, "another one with the same name").await;
}

#[tokio::test]
async fn a_topic_that_others_use_is_deleted_only_after_them() {
    let site = Site::new(PublishMode::Core, 0).await;
    let topic = unique("shared");
    let channel = managed(&site, &topic, json!({"deletionPolicy": "Delete"}));
    site.apply(std::slice::from_ref(&channel)).await;
    wait_reason(&site, "managed", "TopicReady").await;
    let mut other = site.channel();
    other["metadata"]["name"] = json!("other");
    other["spec"]["topic"]["name"] = json!(topic);
    let mut forwarder = site.forwarder(0);
    forwarder["spec"]["sources"][0]["channelRef"]["name"] = json!("managed");
    site.apply(&[other, forwarder]).await;
    wait_reason(&site, "other", "TopicReady").await;

    site.namespace
        .kubectl(&["delete", "kafkachannel", "managed", "--wait=false"])
        .await
        .unwrap();
    let users = |message: &str| (message.contains("KafkaChannel"), message.contains("AssetForwarder"));
    let wait_users = async |expected: (bool, bool)| {
        let what = format!("it is used by another channel, a forwarder: {expected:?}");
        site.namespace
            .wait::<KafkaChannel>("managed", SOON, &what, |channel| {
                condition(channel, "Ready").is_some_and(|ready| ready.reason == "TopicInUse")
                    && users(message(channel)) == expected
            })
            .await
            .unwrap();
    };
    wait_users((true, true)).await;
    site.namespace
        .kubectl(&["delete", "assetforwarder", "--all", "--timeout=60s"])
        .await
        .unwrap();
    wait_users((true, false)).await;
    assert_eq!(site.stage.kafka.partitions(&topic).await.unwrap(), 3);
    site.namespace
        .kubectl(&["delete", "kafkachannel", "other", "--timeout=60s"])
        .await
        .unwrap();
    wait_gone(&site, "managed").await;
    wait_topic_gone(&site, &topic).await;
}

#[tokio::test]
async fn a_secret_that_cannot_be_read_does_not_hold_a_deletion_up() {
    let site = Site::behind_proxy(PublishMode::Core, 0, Options::default()).await;
    let topic = unique("unreadable");
    let mut channel = managed(&site, &topic, json!({"deletionPolicy": "Delete"}));
    site.apply(std::slice::from_ref(&channel)).await;
    wait_reason(&site, "managed", "TopicReady").await;
    site.api().set(&[Rule {
        verbs: &[Verb::Get],
        resource: Some("secrets"),
        every: 1,
        fault: Fault::Refuse(403),
    }]);
    channel["spec"]["connection"]["sasl"] = json!({"mechanism": "PLAIN", "secretRef": {"name": "kafka-login"}});
    site.apply(&[channel]).await;
    site.namespace
        .kubectl(&["delete", "kafkachannel", "managed", "--wait=false"])
        .await
        .unwrap();
    site.namespace
        .wait::<KafkaChannel>("managed", SOON, "the Secret is named", |channel| {
            condition(channel, "Ready").is_some_and(|ready| ready.reason == "TopicDeletionFailed")
                && message(channel).contains("kafka-login")
        })
        .await
        .unwrap();
    let skip = "fanout.openfactory.io/skip-topic-deletion=true";
    site.namespace
        .kubectl(&["annotate", "kafkachannel", "managed", skip])
        .await
        .unwrap();
    wait_gone(&site, "managed").await;
    wait_note(&site, "TopicLeft", "the annotation").await;
    assert_eq!(site.stage.kafka.partitions(&topic).await.unwrap(), 3);
}
