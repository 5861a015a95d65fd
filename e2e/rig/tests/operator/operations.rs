//! What the manual tells an operator's people to do.

use e2e_rig::site::{FORWARDER, Site, status};
use e2e_rig::stage::PARTITIONS;
use forwarder_core::document::PublishMode;
use serde_json::json;

#[tokio::test]
async fn a_group_whose_offsets_are_moved_back_while_it_is_suspended_delivers_again() {
    let site = Site::new(PublishMode::Core, 1).await;
    site.start(1).await;
    site.stage.traffic.send(300).await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
    let suspend = |suspend: bool| {
        let patch = json!({"spec": {"suspend": suspend}}).to_string();
        let site = &site;
        async move {
            let args = ["patch", "assetforwarder", FORWARDER, "--type=merge", "-p", &patch];
            site.namespace.kubectl(&args).await.unwrap();
            site.wait_ready().await
        }
    };
    assert_eq!(status(&suspend(true).await).replicas, 0);
    let start: Vec<_> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
    // As Kafka's own tool does it: it takes a group that has no members.
    let (group, topic) = (&site.stage.group, &site.stage.topic);
    site.stage.kafka.commit(group, topic, &start).await.unwrap();
    suspend(false).await;
    let verdict = site.stage.verdict().await;
    verdict.check().unwrap();
    assert_eq!(verdict.repeated, 300, "{verdict}");
}
