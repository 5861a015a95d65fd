//! An operator that is killed right after every write that it makes comes to where one comes that is left alone.

use anyhow::ensure;
use e2e_rig::kubernetes::{Call, Moment};
use e2e_rig::site::{FORWARDER, PODS, Site, State, condition, differences, status};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::config::PublishMode;
use serde_json::{Value, json};

/// The topic of the channel that the operator makes and deletes.
fn managed_topic(site: &Site) -> String {
    format!("{}-managed", site.stage.topic)
}

fn managed(site: &Site) -> Value {
    let mut channel = site.channel();
    channel["metadata"]["name"] = json!("managed");
    channel["spec"]["topic"] =
        json!({"name": managed_topic(site), "managed": true, "partitions": 2, "deletionPolicy": "Delete"});
    channel
}

/// All that can be declared, changed and taken back where no pod runs.
async fn without_pods(site: &Site) -> State {
    site.apply(&[
        site.cluster(0),
        site.cluster(1),
        site.channel(),
        managed(site),
        site.forwarder(0),
    ])
    .await;
    let forwarder = site.wait_ring(&["C1", "C2"], 0).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;

    site.apply(&[site.cluster(2)]).await;
    let forwarder = site.wait_ring(&["C1", "C2", "C3"], epoch).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;

    let mut drained = site.cluster(0);
    drained["spec"]["drain"] = json!(true);
    site.apply(&[drained]).await;
    let forwarder = site.wait_ring(&["C2", "C3"], epoch).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;

    site.delete_cluster(1).await;
    site.wait_ring(&["C3"], epoch).await;
    wait::eventually(PODS, "the cluster is gone", || async {
        Ok(site.namespace.api::<crds::NatsCluster>().get_opt("c2").await?.is_none())
    })
    .await
    .unwrap();

    let mut suspended = site.forwarder(0);
    suspended["spec"]["suspend"] = json!(true);
    site.apply(&[suspended]).await;
    site.wait("it is suspended", |forwarder| {
        condition(forwarder, "Ready").is_some_and(|ready| ready.reason == "Suspended")
    })
    .await;
    site.wait_quiet().await;
    site.state().await
}

/// Everything is deleted, and nothing of it is left, the topic that the operator has made neither.
async fn deleted(site: &Site) {
    site.namespace
        .kubectl(&["delete", "assetforwarder", FORWARDER, "--timeout=120s"])
        .await
        .unwrap();
    site.namespace
        .kubectl(&["delete", "natsclusters,kafkachannels", "--all", "--timeout=120s"])
        .await
        .unwrap();
    wait::eventually(PODS, "nothing is left", || async {
        let left = site.state().await;
        ensure!(left.is_empty(), "{:?}", left.keys());
        ensure!(
            site.stage.kafka.partitions(&managed_topic(site)).await? == 0,
            "the topic is there"
        );
        Ok(true)
    })
    .await
    .unwrap();
}

/// What there is in the middle of a scenario of an operator that is left alone. The audit log must know every write of its.
async fn undisturbed() -> State {
    let site = Site::behind_proxy(PublishMode::Core, 3).await;
    let (mut log, user) = site.audit().await;
    let state = without_pods(&site).await;
    deleted(&site).await;
    let writes: Vec<String> = site.api().take_writes().iter().map(Call::to_string).collect();
    let mut logged = 0;
    wait::eventually(SOON, "the audit log has all writes", || {
        for write in log.read().unwrap() {
            logged += usize::from(write.user == user && !write.is_aside() && write.code < 300);
        }
        let (logged, writes) = (logged, &writes);
        async move {
            ensure!(logged == writes.len(), "{logged} are logged, of {writes:#?}");
            Ok(true)
        }
    })
    .await
    .unwrap();
    println!("left alone: {} writes", writes.len());
    state
}

/// The same of one that is killed after each write.
async fn killed(moment: Moment) -> State {
    let site = Site::behind_proxy(PublishMode::Core, 3).await;
    let kills = site.kill_after_each_write(moment);
    let state = without_pods(&site).await;
    deleted(&site).await;
    let kills = kills.end().await;
    println!("{moment:?}: {} kills", kills.len());
    assert!(
        kills.len() > 20,
        "every write of the scenario was to be followed by a kill: {kills:?}"
    );
    state
}

#[tokio::test]
async fn killed_after_every_write_the_operator_comes_to_the_same_end() {
    let (undisturbed, unanswered, answered) =
        tokio::join!(undisturbed(), killed(Moment::Unanswered), killed(Moment::Answered));
    for (moment, state) in [("unanswered", unanswered), ("answered", answered)] {
        let differ = differences(&state, &undisturbed);
        assert!(
            differ.is_empty(),
            "killed with the write {moment} | undisturbed:\n{differ}"
        );
    }
}
