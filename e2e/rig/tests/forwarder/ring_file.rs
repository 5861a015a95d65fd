//! The ring in a document of its own: waited for, and taken up once its members can be reached.

use std::fs;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{Login, Nats, Options, User};
use e2e_rig::wait;
use forwarder_core::document::{NatsAuth, PublishMode, RingConfig};
use forwarder_core::status::{Phase, Status};

use crate::stage::{SOON, Stage};

async fn status(forwarder: &Forwarder) -> anyhow::Result<Status> {
    Ok(serde_json::from_value(forwarder.status().await?)?)
}

/// Waits until the status is so, and yields it.
async fn wait_status(forwarder: &Forwarder, what: &str, is_it: impl Fn(&Status) -> bool) -> Status {
    wait::value(SOON, what, || async {
        let status = status(forwarder).await?;
        if is_it(&status) {
            return Ok(Some(status));
        }
        anyhow::bail!("it says {status:?}");
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn without_a_ring_the_process_waits_for_one_and_says_why() {
    let stage = Stage::new(PublishMode::Core, 1).await;
    let config = stage.config();
    let mut forwarder = Forwarder::start_without_ring(&config).unwrap();
    let waits = |part: &'static str| move |status: &Status| matches!(&status.phase, Phase::WithoutRing(reason) if reason.contains(part));
    wait_status(&forwarder, "it says that there is no file", waits("ring.yaml")).await;
    let nobody = RingConfig {
        clusters: Vec::new(),
        ..config.ring.clone()
    };
    forwarder.declare_ring(&nobody).unwrap();
    wait_status(&forwarder, "it says what is wrong with it", waits("clusters: is empty")).await;
    assert_eq!(forwarder.page("/healthz").await.unwrap().0, 200);
    let (code, said) = forwarder.page("/readyz").await.unwrap();
    assert_eq!(code, 503);
    assert!(said.starts_with("there is no ring yet: clusters: is empty"), "{said}");
    assert!(forwarder.terminate(SOON).await.unwrap().success(), "nothing keeps it");

    forwarder.start_again().unwrap();
    wait_status(&forwarder, "it is back", waits("clusters: is empty")).await;
    let flow = stage.flow(1_000);
    forwarder.declare_ring(&config.ring).unwrap();
    forwarder.wait_ready().await.unwrap();
    stage.wait_published(&forwarder, 1_000.0).await;
    assert_eq!(status(&forwarder).await.unwrap().ring.refused, None);
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
}

#[tokio::test]
async fn a_new_member_is_used_once_its_password_is_there() {
    const PASSWORD: &str = "forwards-all";
    let user = User {
        name: "forwarder".to_owned(),
        password: PASSWORD.to_owned(),
        ..User::default()
    };
    let closed = Nats::start_with(Options {
        login: Login::Users(vec![user.clone()]),
        ..Options::default()
    })
    .await
    .unwrap();
    let stage = Stage::of(
        Kafka::shared().await.unwrap(),
        PublishMode::JetStream,
        vec![Nats::start().await.unwrap(), closed],
    )
    .await;
    let password_file = stage.clusters[1].1.dir().join("password");
    let mut config = stage.config();
    let mut newcomer = config.ring.clusters.pop().unwrap();
    newcomer.auth = Some(NatsAuth::UserPassword {
        username: user.name,
        password_file: password_file.clone(),
    });

    let mut forwarder = Forwarder::start_without_ring(&config).unwrap();
    forwarder.declare_ring(&config.ring).unwrap();
    forwarder.wait_ready().await.unwrap();
    let flow = stage.flow(2_000);
    stage.wait_published(&forwarder, 2_000.0).await;

    config.ring.epoch = 2;
    config.ring.clusters.push(newcomer);
    forwarder.declare_ring(&config.ring).unwrap();
    let waiting = wait_status(&forwarder, "the ring is declared", |status| {
        status.ring.declared == Some(2)
    })
    .await;
    assert_eq!(waiting.ring.waits_for, std::slice::from_ref(&password_file));
    fs::write(&password_file, "\n").unwrap();
    stage.wait_published(&forwarder, 4_000.0).await;
    let waiting = status(&forwarder).await.unwrap();
    assert_eq!((waiting.ring.epoch, waiting.ring.announced), (1, None), "{waiting:?}");
    assert_eq!(
        waiting.ring.waits_for,
        std::slice::from_ref(&password_file),
        "it is blank"
    );
    assert_eq!(waiting.clusters.keys().collect::<Vec<_>>(), ["C1"]);

    fs::write(&password_file, PASSWORD).unwrap();
    let used = wait_status(&forwarder, "the ring is in use", |status| status.ring.epoch == 2).await;
    assert_eq!((used.ring.declared, used.ring.waits_for), (None, Vec::new()));
    stage.wait_published(&forwarder, 4_000.0).await;
    flow.stop().await.unwrap();
    stage.verdict().await.check_exactly_once().unwrap();
    assert!(stage.stored(1).await.len() > 100, "the new member has its share");
}
