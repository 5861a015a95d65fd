//! The forwarders' side of the beacon.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use e2e_rig::forwarder::BEACON;
use e2e_rig::kafka::Kafka;
use e2e_rig::nats::{Login, Nats, Options, User};
use e2e_rig::stage::{PUBLISHED, SOON, Stage};
use forwarder_beacon::{Announcement, Body, Digest, Phase, Signer, Statement};
use forwarder_core::document::{DeadLetter, NatsAuth, PublishMode};
use futures::StreamExt as _;
use nkeys::KeyPair;

use crate::site::{RING, Site, declare, phases, status, wait_beacon};

/// How long an announced ring is not used.
const GRACE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn who_asks_is_answered_with_the_ring_signed_and_hears_of_it_in_a_rhythm() {
    let site = Site::new(2).await;
    let mut config = site.config(3, 2, Duration::ZERO);
    config.ring.clusters[1].client_servers = vec!["tls://c2.example.com:4222".to_owned()];
    let forwarder = site.stage.start("first", &config).await;
    let client = site.client(0).await;
    site.wait_announced(&client, "nothing is on its way under older rings", |told| {
        told.left == 3
    })
    .await;
    let told = site.ask(&client, "a-nonce").await.unwrap();
    assert_eq!((told.ring.as_str(), told.nonce.as_str()), (RING, "a-nonce"));
    assert_eq!(phases(&told), [(3, Phase::InUse)]);
    assert_eq!(told.pods, ["first"]);
    assert_eq!(told.publishing.subject, "{key}.{id}");
    let servers: Vec<_> = told.rings[0]
        .clusters
        .iter()
        .map(|cluster| &cluster.servers[0])
        .collect();
    assert_eq!(servers, [&site.nats(0).url(), "tls://c2.example.com:4222"]);
    let shown = wait_beacon(&forwarder, "it is heard on both", |beacon| beacon.heard == Some(3)).await;
    assert_eq!(shown.public_key, Some(site.signer.public_key()));
    assert!(
        shown
            .clusters
            .values()
            .all(|cluster| cluster.connected && cluster.fault.is_none()),
        "{shown:?}"
    );

    // Each cluster hears of it by itself, without a question.
    for cluster in 0..2 {
        let client = site.client(cluster).await;
        let mut digests = site.digests(&client).await;
        let first = site.next_digest(&mut digests).await;
        let began = Instant::now();
        let second = site.next_digest(&mut digests).await;
        let bound = Duration::from_millis(first.next_ms) + Duration::from_secs(3);
        assert!(began.elapsed() <= bound, "after {:?}: {first:?}", began.elapsed());
        assert_eq!((first.epoch, &first.hash), (3, &told.hash));
        assert!(second.sequence > first.sequence);
    }

    // Through the connection that publishes, which has the forwarder's own name.
    let asked = client.request(site.subjects.ready(), "{\"nonce\":\"another\"}".into());
    let answer = tokio::time::timeout(SOON, asked).await.unwrap().unwrap();
    let Body::Ready(ready) = site.open(&answer.payload) else {
        panic!("{answer:?}");
    };
    assert_eq!(
        (ready.nonce.as_str(), ready.pod.as_str(), ready.cluster.as_str()),
        ("another", "first", "C1")
    );
    // Nobody has us publish where records are.
    let mut records = client.subscribe("WTVB01-0001.*").await.unwrap();
    client
        .publish_with_reply(site.subjects.ready(), "WTVB01-0001.x", "{}".into())
        .await
        .unwrap();
    let asked = client.request(site.subjects.ready(), "{}".into());
    tokio::time::timeout(SOON, asked).await.unwrap().unwrap();
    let heard = tokio::time::timeout(Duration::from_millis(200), records.next()).await;
    assert!(heard.is_err(), "{heard:?}");
}

#[tokio::test]
async fn a_ring_is_announced_before_it_is_used_and_then_the_old_one_is_left() {
    let site = Site::new(4).await;
    let config = site.config(3, 3, GRACE);
    let first = site.stage.start("first", &config).await;
    let second = site.stage.start("second", &config).await;
    let flow = site.stage.flow(500);
    let client = site.client(0).await;
    site.wait_announced(&client, "both speak, and are beyond older rings", |told| {
        told.left == 3 && told.pods == ["first", "second"]
    })
    .await;
    let mut digests = site.digests(&client).await;

    let next = site.config(4, 4, GRACE);
    let declared = Instant::now();
    declare(&[&first, &second], &next.ring);
    site.wait_announced(&client, "it is announced", |told| {
        phases(told) == [(3, Phase::InUse), (4, Phase::Announced)]
    })
    .await;
    // The new member has it too, before it is used.
    let newcomer = site.client(3).await;
    site.wait_announced(&newcomer, "it is announced there", |told| told.rings.len() == 2)
        .await;
    let used = site
        .wait_announced(&client, "it is in use", |told| {
            phases(told).contains(&(4, Phase::InUse))
        })
        .await;
    assert!(
        declared.elapsed() >= GRACE,
        "it was used after {:?}: {used:?}",
        declared.elapsed()
    );
    let left = site
        .wait_announced(&client, "the old one is left", |told| told.left == 4)
        .await;
    assert_eq!(phases(&left), [(4, Phase::InUse)]);
    // Who was connected all the time has heard of each step without a question.
    let mut seen = 0;
    loop {
        let digest = site.next_digest(&mut digests).await;
        if digest.epoch == 4 && digest.hash == left.hash {
            break;
        }
        seen += 1;
        assert!(seen < 1_000, "no digest has the hash of {left:?}");
    }
    for forwarder in [&first, &second] {
        wait_beacon(forwarder, "each knows that it is left", |beacon| beacon.left == 4).await;
    }
    flow.stop().await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
}

#[tokio::test]
async fn who_forges_or_sends_again_what_pods_say_changes_nothing() {
    let site = Site::new(1).await;
    let config = site.config(3, 1, Duration::ZERO);
    let forwarder = site.stage.start("first", &config).await;
    let client = site.client(0).await;
    let mut statements = client.subscribe(site.subjects.pods()).await.unwrap();
    let before = site
        .wait_announced(&client, "it is beyond older rings", |told| told.left == 3)
        .await;
    let overheard = tokio::time::timeout(SOON, statements.next()).await.unwrap().unwrap();
    let Body::Statement(said) = site.open(&overheard.payload) else {
        panic!("{overheard:?}");
    };

    // Signed by a key of somebody's own: of the next ring, by a pod that is not there.
    let own = Signer::from_seed(&KeyPair::new_user().seed().unwrap()).unwrap();
    let stranger = Statement {
        pod: "stranger".to_owned(),
        using: 99,
        announced: Some(100),
        sequence: u64::MAX,
        ..said.clone()
    };
    let digest = Digest {
        ring: RING.to_owned(),
        epoch: 100,
        hash: "x".to_owned(),
        pod: "stranger".to_owned(),
        sequence: 1,
        next_ms: 1,
    };
    let announcement = Announcement {
        left: 99,
        ..before.clone()
    };
    for (subject, body) in [
        (site.subjects.pods(), Body::Statement(stranger)),
        (site.subjects.pods(), Body::Announcement(announcement)),
        (site.subjects.digest(), Body::Digest(digest)),
    ] {
        client.publish(subject, own.sign(&body).unwrap().into()).await.unwrap();
    }
    // Changed by a byte, sent again, and nothing of the sort.
    let mut changed = overheard.payload.to_vec();
    *changed.last_mut().unwrap() = b' ';
    for payload in [changed.into(), overheard.payload.clone(), "x".into()] {
        client.publish(site.subjects.pods(), payload).await.unwrap();
    }
    // One of another ring that is signed by the same key.
    let other = Statement {
        ring: "another".to_owned(),
        pod: "neighbour".to_owned(),
        ..said
    };
    let signed = site.signer.sign(&Body::Statement(other)).unwrap();
    client.publish(site.subjects.pods(), signed.into()).await.unwrap();
    client.flush().await.unwrap();
    forwarder
        .wait_metric("fanout_beacon_forged_total", 4.0, SOON)
        .await
        .unwrap();

    let after = site.ask(&client, "n").await.unwrap();
    assert_eq!(after.hash, before.hash, "{after:?}");
    let shown = status(&forwarder).await.unwrap().beacon.unwrap();
    assert_eq!(
        (shown.left, shown.heard, shown.pods),
        (3, Some(3), vec!["first".to_owned()])
    );
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named_and_records_flow() {
    const PASSWORD: &str = "forwards-all";
    let user = User {
        name: "forwarder".to_owned(),
        password: PASSWORD.to_owned(),
        permissions: format!(
            "publish: {{deny: [\"{BEACON}.digest\", \"_INBOX.>\"]}}, subscribe: {{deny: [\"{BEACON}.pods\"]}}"
        ),
        ..User::default()
    };
    let denying = Nats::start_with(Options {
        login: Login::Users(vec![user.clone()]),
        ..Options::default()
    })
    .await
    .unwrap();
    let stage = Stage::of(Kafka::shared().await.unwrap(), PublishMode::Core, vec![denying]).await;
    let site = Site::on(stage);
    let password_file = site.nats(0).dir().join("password");
    fs::write(&password_file, PASSWORD).unwrap();
    let mut config = site.config(3, 1, GRACE);
    config.ring.clusters[0].auth = Some(NatsAuth::UserPassword {
        username: user.name,
        password_file,
    });
    let forwarder = site.stage.start("first", &config).await;
    let flow = site.stage.flow(500);
    let fault = |beacon: &forwarder_core::status::BeaconStatus| beacon.clusters["C1"].fault.clone().unwrap_or_default();
    let said = [
        format!("publish to `{BEACON}.digest`"),
        format!("subscribe to `{BEACON}.pods`"),
    ];
    let beacon = wait_beacon(&forwarder, "both are named", |beacon| {
        beacon.clusters.contains_key("C1") && said.iter().all(|part| fault(beacon).contains(part))
    })
    .await;
    assert!(beacon.clusters["C1"].connected, "{beacon:?}");

    // Answers are denied too, on either connection, and no record suffers by that.
    let reconnects = "asset_forwarder_reconnects_total";
    let client = site.client(0).await;
    for subject in [site.subjects.get(), site.subjects.ready()] {
        client
            .publish_with_reply(subject, "_INBOX.a.b", "{}".into())
            .await
            .unwrap();
    }
    wait_beacon(&forwarder, "answers are named", |beacon| {
        [
            "publish answers to subscribers, as to",
            "through the connection that publishes records",
        ]
        .iter()
        .all(|part| fault(beacon).contains(part))
    })
    .await;
    assert_eq!(forwarder.metrics().await.unwrap().sum("fanout_beacon_fault", &[]), 1.0);
    // Who cannot be told is not waited for, but for the grace itself.
    let mut next = site.config(4, 1, GRACE).ring;
    next.clusters.clone_from(&config.ring.clusters);
    next.replicas += 1;
    forwarder.declare_ring(&next).unwrap();
    forwarder
        .wait_metric("asset_forwarder_ring_epoch", 4.0, SOON)
        .await
        .unwrap();
    site.stage.wait_published(&forwarder, 1_000.0).await;
    flow.stop().await.unwrap();
    site.stage.verdict().await.check_exactly_once().unwrap();
    let metrics = forwarder.metrics().await.unwrap();
    assert_eq!(metrics.sum(reconnects, &[]), 0.0, "the connection of records stays");
    assert_eq!(metrics.sum("asset_forwarder_nats_publish_failures_total", &[]), 0.0);
}

#[tokio::test]
async fn a_record_below_the_beacons_subject_is_refused_and_nobody_hears_it_there() {
    let site = Site::new(1).await;
    let mut config = site.config(3, 1, Duration::ZERO);
    let letters = site.nats(0).dir().join("letters.jsonl");
    config.dead_letter = Some(DeadLetter::File { path: letters.clone() });
    // The ring gets its beacon while records flow.
    let plain = forwarder_core::document::RingConfig {
        epoch: 2,
        beacon: None,
        ..config.ring.clone()
    };
    let with_beacon = std::mem::replace(&mut config.ring, plain);
    let forwarder = site.stage.start("first", &config).await;
    assert_eq!(status(&forwarder).await.unwrap().beacon, None);
    declare(&[&forwarder], &with_beacon);
    forwarder
        .wait_metric("asset_forwarder_ring_epoch", 3.0, SOON)
        .await
        .unwrap();

    let client = site.client(0).await;
    let mut below = client.subscribe(format!("{BEACON}.get")).await.unwrap();
    client.flush().await.unwrap();
    for (key, id) in [(BEACON, "get"), ("_FANOUT", "e2e.assets"), (BEACON, "another.one")] {
        let value = format!("{{\"id\":\"{id}\"}}");
        site.stage
            .traffic
            .send_raw(key.as_bytes(), Some(value.as_bytes()))
            .await
            .unwrap();
    }
    site.stage.traffic.send(600).await.unwrap();
    forwarder.wait_metric(PUBLISHED, 600.0, SOON).await.unwrap();
    site.stage.wait_committed().await;
    let text = fs::read_to_string(&letters).unwrap();
    let mut reasons = BTreeMap::<String, usize>::new();
    for line in text.lines() {
        let letter: serde_json::Value = serde_json::from_str(line).unwrap();
        *reasons
            .entry(letter["reason"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(reasons, BTreeMap::from([("bad_subject".to_owned(), 3)]), "{text}");
    assert_eq!(forwarder.metrics().await.unwrap().sum(PUBLISHED, &[]), 600.0);
    // What is heard there comes behind whatever came before.
    client.publish(format!("{BEACON}.get"), "{}".into()).await.unwrap();
    let heard = tokio::time::timeout(SOON, below.next()).await.unwrap().unwrap();
    assert_eq!(heard.payload, "{}");
}
