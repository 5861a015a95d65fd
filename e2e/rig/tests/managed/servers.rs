//! NATS servers that the operator runs, while records flow to them.

use std::collections::BTreeMap;

use crds::NatsCluster;
use e2e_rig::site::{PODS, Site, condition};
use e2e_rig::stage::STREAM;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt as _;
use kube::api::EvictParams;
use serde_json::json;
use tokio::time::timeout;

use crate::rig::{CLUSTER, IMAGES, Servers, Volumes, manifest, verdict};

#[tokio::test]
async fn another_image_restarts_one_server_at_a_time_and_loses_nothing() {
    let site = Site::new(PublishMode::JetStream, 0).await;
    let volumes = Volumes::new(&site, 3).await;
    let servers = start(&site, &volumes, 3).await;
    let flow = site.stage.flow(200);
    let before = servers.images().await;
    assert_eq!(before.len(), 3);
    let password = servers.password().await;

    let watch = servers.watch();
    site.apply(&[manifest(&volumes, 3, IMAGES[1])]).await;
    wait_ready(&site, "all run the other image", 3).await;
    let seen = watch.stop().await;
    assert_eq!(seen.most_away, 1, "one at a time: {seen:?}");
    assert!(seen.restarted.len() >= 3, "every server was away: {seen:?}");
    let after = servers.images().await;
    assert!(after.values().all(|image| image.contains(":dev2")), "{after:?}");
    assert_eq!(servers.password().await, password, "made once");

    flow.stop().await.unwrap();
    verdict(&site, &servers).await;

    // What is settled is not written again: neither by a look, nor by an operator that knows nothing.
    site.wait_quiet().await;
    site.restart_operator().await;
    site.wait_reconciled().await;
    assert_eq!(site.operator_writes().await, 0.0);
    assert_eq!(servers.watch().stop().await.most_away, 0);

    // The claims stay, and with them the streams.
    site.namespace
        .kubectl(&["delete", "assetforwarder,natscluster", "--all"])
        .await
        .unwrap();
    wait::eventually(PODS, "the servers are gone", || async {
        Ok(servers.images().await.is_empty())
    })
    .await
    .unwrap();
    let claims = site.namespace.kubectl(&["get", "pvc", "-o", "name"]).await.unwrap();
    assert_eq!(claims.lines().count(), 3, "{claims}");
}

#[tokio::test]
async fn long_servers_come_and_go_and_streams_move_while_the_operator_is_killed() {
    let mut site = Site::new(PublishMode::JetStream, 0).await;
    let volumes = Volumes::new(&site, 5).await;
    let servers = start(&site, &volumes, 3).await;
    let flow = site.stage.flow(200);
    site.unrest();
    site.apply(&[manifest(&volumes, 5, IMAGES[0])]).await;
    wait_ready(&site, "there are five", 5).await;
    // On those that will go.
    let client = servers.client().await;
    let streams = async_nats::jetstream::new(client.clone());
    for number in 0..4 {
        let config = async_nats::jetstream::stream::Config {
            name: format!("S{number}"),
            subjects: vec![format!("s{number}.>")],
            num_replicas: 3,
            ..async_nats::jetstream::stream::Config::default()
        };
        streams.create_stream(config).await.unwrap();
        let subject = format!("s{number}.x");
        streams.publish(subject, "kept".into()).await.unwrap().await.unwrap();
    }
    let single = async_nats::jetstream::stream::Config {
        name: "ALONE".to_owned(),
        subjects: vec!["alone.>".to_owned()],
        placement: None,
        num_replicas: 5,
        ..async_nats::jetstream::stream::Config::default()
    };
    streams.create_stream(single).await.unwrap();

    site.apply(&[manifest(&volumes, 3, IMAGES[0])]).await;
    site.namespace
        .wait::<NatsCluster>(CLUSTER, PODS, "a stream of five copies holds it", |cluster| {
            condition(cluster, "Stalled").is_some_and(|stalled| stalled.reason == "StreamReplicas")
        })
        .await
        .unwrap();
    assert_eq!(servers.images().await.len(), 5, "nobody has gone");
    streams.delete_stream("ALONE").await.unwrap();
    wait_ready(&site, "there are three", 3).await;
    assert_eq!(servers.images().await.len(), 3);

    flow.stop().await.unwrap();
    verdict(&site, &servers).await;
    let streams = async_nats::jetstream::new(servers.client().await);
    for number in 0..4 {
        let mut stream = streams.get_stream(format!("S{number}")).await.unwrap();
        let info = stream.info().await.unwrap();
        assert_eq!(info.state.messages, 1, "{info:?}");
        assert_eq!(
            info.cluster.as_ref().map(|cluster| cluster.replicas.len()),
            Some(2),
            "{info:?}"
        );
    }
}

#[tokio::test]
async fn long_servers_that_another_hand_takes_away_come_back_with_their_streams() {
    let site = Site::new(PublishMode::JetStream, 0).await;
    let volumes = Volumes::new(&site, 3).await;
    let servers = start(&site, &volumes, 3).await;
    let streams = async_nats::jetstream::new(servers.client().await);
    for number in 0..6 {
        let config = async_nats::jetstream::stream::Config {
            name: format!("SINGLE{number}"),
            subjects: vec![format!("single{number}")],
            num_replicas: 1,
            ..async_nats::jetstream::stream::Config::default()
        };
        streams.create_stream(config).await.unwrap();
        let subject = format!("single{number}");
        streams.publish(subject, "kept".into()).await.unwrap().await.unwrap();
    }
    // With a majority left, and without one.
    for left in ["2", "1"] {
        let set = format!("statefulset/{CLUSTER}-nats");
        let scale = ["scale", &set, "--replicas", left];
        site.namespace.kubectl(&scale).await.unwrap();
        site.namespace
            .wait::<NatsCluster>(CLUSTER, PODS, "it is noticed", |cluster| {
                condition(cluster, "Ready").is_some_and(|ready| ready.status != "True")
            })
            .await
            .unwrap();
        wait_ready(&site, "all are back", 3).await;
        let streams = async_nats::jetstream::new(servers.client().await);
        for number in 0..6 {
            let mut stream = streams.get_stream(format!("SINGLE{number}")).await.unwrap();
            assert_eq!(stream.info().await.unwrap().state.messages, 1, "SINGLE{number}, {left}");
        }
    }
}

#[tokio::test]
async fn a_single_server_that_cannot_run_can_be_evicted() {
    let site = Site::new(PublishMode::JetStream, 0).await;
    let volumes = Volumes::new(&site, 1).await;
    // An image without a server in it: it is there, so the pod is not pending, and its program never begins.
    let image = site.namespace.kubernetes.cluster.operator_image.clone();
    site.apply(&[manifest(&volumes, 1, &image)]).await;
    let name = format!("{CLUSTER}-nats-0");
    let broken = site
        .namespace
        .wait::<Pod>(&name, PODS, "the server fails again and again", |pod| {
            let status = pod.status.clone().unwrap_or_default();
            let restarts = status
                .container_statuses
                .iter()
                .flatten()
                .map(|found| found.restart_count);
            status.phase.as_deref() == Some("Running") && restarts.sum::<i32>() > 0
        })
        .await
        .unwrap();
    wait_counted(&site, &format!("{CLUSTER}-nats")).await;
    let pods = site.namespace.api::<Pod>();
    let evicted = timeout(PODS, pods.evict(&name, &EvictParams::default())).await;
    evicted.expect("nobody refuses it again and again").unwrap();
    wait::eventually(PODS, "another pod has its place", || async {
        let found = pods.get_opt(&name).await?;
        Ok(found.is_some_and(|found| found.uid() != broken.uid()))
    })
    .await
    .unwrap();
    // The operator's own eviction passes too: the right image is taken up.
    site.apply(&[manifest(&volumes, 1, IMAGES[0])]).await;
    wait_ready(&site, "the server runs", 1).await;
}

#[tokio::test]
async fn a_server_that_a_disruption_budget_protects_is_not_restarted() {
    let site = Site::new(PublishMode::JetStream, 0).await;
    let volumes = Volumes::new(&site, 1).await;
    site.apply(&[manifest(&volumes, 1, IMAGES[0])]).await;
    wait_ready(&site, "the server is up", 1).await;
    let servers = Servers::of(&site);
    let budget = json!({
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "theirs"},
        "spec": {
            "maxUnavailable": 0,
            "selector": {"matchLabels": {"fanout.openfactory.io/nats-cluster": CLUSTER}},
        },
    });
    site.apply(&[budget]).await;
    wait_counted(&site, "theirs").await;
    let name = format!("{CLUSTER}-nats-0");
    let before = site.namespace.get::<Pod>(&name).await.unwrap();

    site.apply(&[manifest(&volumes, 1, IMAGES[1])]).await;
    let waits = site
        .namespace
        .wait::<NatsCluster>(CLUSTER, PODS, "it says what it waits for", |cluster| {
            condition(cluster, "Reconciling").is_some_and(|found| found.reason == "EvictionRefused")
        })
        .await
        .unwrap();
    let message = &condition(&waits, "Reconciling").unwrap().message;
    for part in [name.as_str(), "PodDisruptionBudget", "tries again"] {
        assert!(message.contains(part), "{message}");
    }
    // Some tries later it has not taken another way.
    let tries = async || {
        let metrics = site.operator_metrics().await;
        metrics.sum(
            "fanout_operator_api_writes_total",
            &[("kind", "Pod"), ("verb", "evict")],
        )
    };
    let until = tries().await + 3.0;
    wait::eventually(PODS, "it has tried three times more", || async {
        Ok(tries().await >= until)
    })
    .await
    .unwrap();
    let after = site.namespace.get::<Pod>(&name).await.unwrap();
    assert_eq!(after.uid(), before.uid());
    assert_eq!(after.metadata.deletion_timestamp, None);

    site.namespace
        .kubectl(&["delete", "poddisruptionbudget", "theirs"])
        .await
        .unwrap();
    wait_ready(&site, "it goes on by itself", 1).await;
    let images = servers.images().await;
    assert!(images.values().all(|image| image.contains(":dev2")), "{images:?}");
}

/// Waits until the API server's controller has counted the pods of a budget: before, it lets none go.
async fn wait_counted(site: &Site, budget: &str) {
    site.namespace
        .wait::<PodDisruptionBudget>(budget, PODS, "the budget's pods are counted", |budget| {
            let status = budget.status.clone().unwrap_or_default();
            status.observed_generation == budget.metadata.generation && status.expected_pods == Some(1)
        })
        .await
        .unwrap();
}

/// Applies the cluster, the channel and a forwarder that chooses the cluster by nothing but its label; waits until both are ready.
async fn start(site: &Site, volumes: &Volumes, replicas: u32) -> Servers {
    let mut forwarder = site.forwarder(1);
    forwarder["spec"]["publish"]["stream"] = json!({"name": STREAM, "manage": true, "replicas": 3});
    site.apply(&[manifest(volumes, replicas, IMAGES[0]), site.channel(), forwarder])
        .await;
    wait_ready(site, "the servers are up", replicas).await;
    site.wait_ready().await;
    Servers::of(site)
}

/// Waits until the cluster is ready in its present generation with so many servers.
async fn wait_ready(site: &Site, what: &str, replicas: u32) {
    let waited = site
        .namespace
        .wait::<NatsCluster>(CLUSTER, 2 * PODS, what, |cluster| {
            let status = cluster.status.clone().unwrap_or_default();
            let counted = status.managed.unwrap_or_default();
            let counts: BTreeMap<_, _> = [
                ("replicas", counted.replicas),
                ("ready", counted.ready_replicas),
                ("updated", counted.updated_replicas),
            ]
            .into();
            status.observed_generation == cluster.metadata.generation
                && condition(cluster, "Ready").is_some_and(|ready| ready.status == "True")
                && counts.values().all(|count| *count == replicas)
        })
        .await;
    if let Err(error) = waited {
        panic!("{error:#}\n{}", site.log_tail().await);
    }
}
