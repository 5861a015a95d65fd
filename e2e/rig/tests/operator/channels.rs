//! Channels: a topic is found, made, kept as declared and, where that is asked for, deleted.

use crds::KafkaChannel;
use e2e_rig::kafka::unique;
use e2e_rig::site::{Site, condition};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::config::PublishMode;
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
    wait::eventually(SOON, "the topic is gone", || async {
        Ok(site.stage.kafka.partitions(&topic).await? == 0)
    })
    .await
    .unwrap();
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
    let mut channel = managed(&site, "nowhere", json!({"deletionPolicy": "Delete"}));
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
