//! Clusters: what the operator sees of them, and who is sent where.

use crds::NatsCluster;
use e2e_rig::nats::{self, Login, User};
use e2e_rig::site::{FORWARDER, Site, condition, status};
use e2e_rig::stage::SOON;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

async fn wait_reason(site: &Site, name: &str, reason: &str) -> NatsCluster {
    let what = format!("the cluster's reason is {reason}");
    site.namespace
        .wait::<NatsCluster>(name, SOON, &what, |cluster| {
            condition(cluster, "Ready").is_some_and(|ready| ready.reason == reason)
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_cluster_is_looked_at_and_its_health_is_no_matter_of_membership() {
    let mut site = Site::new(PublishMode::Core, 2).await;
    let forwarder = site.start(1).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;
    let cluster = wait_reason(&site, "c1", "Connected").await.status.unwrap();
    assert_eq!(
        (cluster.ring_name.as_deref(), cluster.jet_stream),
        (Some("C1"), Some(true))
    );
    assert!(cluster.server_version.is_some());
    assert_eq!(cluster.member_of, [format!("{}/{FORWARDER}", site.namespace.name)]);

    site.stage.clusters[0].1.shut_down().unwrap();
    // A change of the resource has the operator look at once.
    site.namespace
        .kubectl(&[
            "patch",
            "natscluster",
            "c1",
            "--type=merge",
            "-p",
            r#"{"spec":{"weight":1,"drain":false}}"#,
        ])
        .await
        .unwrap();
    site.restart_operator().await;
    wait_reason(&site, "c1", "Unreachable").await;
    let ring = status(&site.get().await).ring.unwrap();
    assert_eq!((ring.epoch, ring.members), (epoch, 2));
}

#[tokio::test]
async fn a_wrong_password_is_told_apart_from_a_server_that_is_away() {
    let user = User {
        name: "plant".to_owned(),
        password: "right".to_owned(),
        ..User::default()
    };
    let options = nats::Options {
        login: Login::Users(vec![user]),
        ..nats::Options::default()
    };
    let site = Site::with_servers(PublishMode::Core, 1, options).await;
    let mut cluster = site.cluster(0);
    cluster["spec"]["auth"] = json!({"type": "UserPassword", "secretRef": {"name": "login"}});
    let secret = |password: &str| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"}, "stringData": {"username": "plant", "password": password}});
    site.apply(&[secret("wrong"), cluster]).await;
    wait_reason(&site, "c1", "AuthorizationFailed").await;
    site.apply(&[secret("right")]).await;
    wait_reason(&site, "c1", "Connected").await;
}

#[tokio::test]
async fn the_router_answers_as_the_forwarder_routes() {
    let site = Site::new(PublishMode::Core, 2).await;
    assert_ne!(site.route("/asset/a").await.0, 200, "there is no forwarder yet");
    site.start(0).await;
    let (code, body) = e2e_rig::wait::value(SOON, "the router knows the ring", || async {
        let answer = site.route("/asset/WTVB01-0001").await;
        Ok((answer.0 == 200).then_some(answer))
    })
    .await
    .unwrap();
    let answer: Value = serde_json::from_str(&body).unwrap();
    let home = answer["cluster_name"].as_str().unwrap();
    let (_, nats) = site.stage.clusters.iter().find(|(name, _)| name == home).unwrap();
    assert_eq!(
        (code, &answer),
        (
            200,
            &json!({"asset_id": "WTVB01-0001", "cluster_name": home, "nats_url": nats.url(), "nats_urls": [nats.url()], "ring_epoch": 1})
        )
    );
    let named = format!("/forwarders/{}/{FORWARDER}/asset/WTVB01-0001", site.namespace.name);
    assert_eq!(site.route(&named).await, (200, body));
    assert_eq!(site.route("/forwarders/nowhere/none/asset/x").await.0, 404);
}
