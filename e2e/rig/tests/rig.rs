//! The rig itself: what judges the forwarder must be right first.

#![allow(
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

use std::sync::Arc;
use std::time::Duration;

use e2e_rig::kafka::{Door, Kafka, Mechanism, Options};
use e2e_rig::nats::{self, Login, Nats, User, user_nkey};
use e2e_rig::observer::{self, Observer, Stored};
use e2e_rig::proxy::Proxy;
use e2e_rig::traffic::{Amount, Plan, Traffic, write_value};
use e2e_rig::verdict::Ledger;
use e2e_rig::{http, wait};
use futures::StreamExt as _;
use rdkafka::Message as _;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

const SOON: Duration = Duration::from_secs(20);

/// Publishes records of a plan as a forwarder would: `(asset, n)`.
async fn publish(nats: &Nats, ledger: &Ledger, records: &[(u32, u32)]) {
    let client = nats.client().await.unwrap();
    for &(asset, n) in records {
        let mut value = String::new();
        write_value(&mut value, &ledger.key(asset), n, 300);
        client
            .publish(format!("{}.Temperature", ledger.key(asset)), value.into())
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
}

fn ledger_of(records: &[u32]) -> Arc<Ledger> {
    let ledger = Ledger::new("WTVB01", u32::try_from(records.len()).unwrap());
    for (asset, count) in records.iter().enumerate() {
        for _ in 0..*count {
            ledger.take(u32::try_from(asset).unwrap());
            ledger.acknowledge();
        }
    }
    Arc::new(ledger)
}

#[tokio::test]
async fn the_observer_sees_loss_repeats_and_wrong_order_on_real_servers() {
    let (one, two) = (Nats::start().await.unwrap(), Nats::start().await.unwrap());
    for nats in [&one, &two] {
        observer::record(nats, "all", &["*.*"]).await.unwrap();
    }
    // Asset 0: 1 is lost. Asset 1: 0 comes twice. Asset 2: 1 before 0. Asset 3 moves from one cluster to the other in order.
    let ledger = ledger_of(&[3, 2, 2, 4]);
    let home: observer::AtHome = Arc::new(|key, cluster| key != "WTVB01-0000" || cluster == "one");
    let live = Observer::live_with(
        &[("one", &one), ("two", &two)],
        Arc::clone(&ledger),
        Some(Arc::clone(&home)),
    )
    .await
    .unwrap();
    publish(
        &one,
        &ledger,
        &[(0, 0), (1, 0), (2, 1), (3, 0), (1, 0), (3, 1), (2, 0), (1, 1)],
    )
    .await;
    live.wait_distinct(7, SOON).await.unwrap();
    publish(&two, &ledger, &[(3, 2), (0, 2), (3, 3)]).await;

    let seen = live.settle(Duration::from_secs(1)).await.unwrap();
    let streams = [
        Stored {
            cluster: "one",
            nats: &one,
            stream: "all",
        },
        Stored {
            cluster: "two",
            nats: &two,
            stream: "all",
        },
    ];
    let stored = observer::read_streams(&streams, &ledger, Some(home)).await.unwrap();
    for verdict in [seen, stored] {
        assert_eq!(
            (verdict.sent, verdict.distinct, verdict.foreign, verdict.unknown),
            (11, 10, 1, 0),
            "{verdict:?}"
        );
        assert_eq!(verdict.to_string(), "lost 1, out of order 1, repeated 1");
        let why = verdict.check().unwrap_err().to_string();
        assert!(why.contains("asset 0: record 1 of 3 never arrived"), "{why}");
    }
}

#[tokio::test]
async fn an_asset_that_moved_too_early_is_out_of_order_by_the_servers_clocks() {
    let (one, two) = (Nats::start().await.unwrap(), Nats::start().await.unwrap());
    for nats in [&one, &two] {
        observer::record(nats, "all", &["*.*"]).await.unwrap();
    }
    let ledger = ledger_of(&[2]);
    let streams = [
        Stored {
            cluster: "one",
            nats: &one,
            stream: "all",
        },
        Stored {
            cluster: "two",
            nats: &two,
            stream: "all",
        },
    ];
    for (nats, record) in [(&two, 1), (&one, 0)] {
        publish(nats, &ledger, &[(0, record)]).await;
        // Stored, so that the next record is later by the clock.
        wait::eventually(SOON, "the record is stored", || async {
            Ok(observer::read_stream(nats, "all").await?.len() == 1)
        })
        .await
        .unwrap();
    }
    let verdict = observer::read_streams(&streams, &ledger, None).await.unwrap();
    assert_eq!(verdict.to_string(), "lost 0, out of order 1, repeated 0");
}

#[tokio::test]
async fn a_stream_outlives_a_killed_server() {
    let mut nats = Nats::start().await.unwrap();
    observer::record(&nats, "all", &["*.*"]).await.unwrap();
    let ledger = ledger_of(&[4]);
    publish(&nats, &ledger, &[(0, 0), (0, 1)]).await;
    wait::eventually(SOON, "both are stored", || async {
        Ok(observer::read_stream(&nats, "all").await?.len() == 2)
    })
    .await
    .unwrap();
    nats.restart().await.unwrap();
    publish(&nats, &ledger, &[(0, 2), (0, 3)]).await;
    wait::eventually(SOON, "all are stored", || async {
        Ok(observer::read_stream(&nats, "all").await?.len() == 4)
    })
    .await
    .unwrap();
    let stored = [Stored {
        cluster: "one",
        nats: &nats,
        stream: "all",
    }];
    observer::read_streams(&stored, &ledger, None)
        .await
        .unwrap()
        .check_exactly_once()
        .unwrap();
}

#[tokio::test]
async fn logins_and_permissions_are_enforced() {
    let (public, seed) = user_nkey().unwrap();
    let users = vec![
        User {
            nkey: Some(public),
            ..User::default()
        },
        User {
            name: "limited".to_owned(),
            password: "pw".to_owned(),
            permissions: r#"publish: {deny: ["forbidden.>"]}"#.to_owned(),
            ..User::default()
        },
    ];
    let nats = Nats::start_with(nats::Options {
        login: Login::Users(users),
        tls: true,
        ..nats::Options::default()
    })
    .await
    .unwrap();
    nats.client().await.unwrap();
    let tls = nats.tls().unwrap();
    let as_client = |options: async_nats::ConnectOptions| {
        options
            .add_root_certificates(tls.authority.ca_file.clone())
            .add_client_certificate(tls.client.cert_file.clone(), tls.client.key_file.clone())
    };
    as_client(async_nats::ConnectOptions::with_nkey(seed))
        .connect(nats.url())
        .await
        .unwrap();
    let wrong = async_nats::ConnectOptions::with_user_and_password("limited".to_owned(), "no".to_owned());
    as_client(wrong).connect(nats.url()).await.unwrap_err();
    // Without a client certificate the door stays shut.
    async_nats::ConnectOptions::with_user_and_password("limited".to_owned(), "pw".to_owned())
        .add_root_certificates(tls.authority.ca_file.clone())
        .connect(nats.url())
        .await
        .unwrap_err();
}

#[tokio::test]
async fn a_proxy_cuts_stalls_and_heals() {
    let nats = Nats::start().await.unwrap();
    let proxy = Proxy::start(&nats.address()).await.unwrap();
    let client = async_nats::connect(proxy.nats_url()).await.unwrap();
    let direct = nats.client().await.unwrap();
    let mut direct_subscription = direct.subscribe("to.server").await.unwrap();
    direct.flush().await.unwrap();
    wait::eventually(SOON, "a request passes", || async {
        Ok(client.request("$JS.API.INFO", "".into()).await.is_ok())
    })
    .await
    .unwrap();

    // Answers are held back: what is published arrives, a request's answer does not.
    proxy.stall_answers();
    client.publish("to.server", "x".into()).await.unwrap();
    client.flush().await.unwrap();
    tokio::time::timeout(SOON, direct_subscription.next())
        .await
        .unwrap()
        .unwrap();
    let answer = client.request("$JS.API.INFO", "".into());
    assert!(tokio::time::timeout(Duration::from_millis(300), answer).await.is_err());

    proxy.heal().await.unwrap();
    client.request("$JS.API.INFO", "".into()).await.unwrap();

    proxy.cut().await.unwrap();
    assert_eq!(proxy.connections(), 0);
    assert!(
        tokio::net::TcpStream::connect(proxy.address()).await.is_err(),
        "a cut proxy refuses"
    );
    proxy.heal().await.unwrap();
    wait::eventually(SOON, "the client is back", || async {
        Ok(client.request("$JS.API.INFO", "".into()).await.is_ok())
    })
    .await
    .unwrap();

    proxy.slow(Duration::from_millis(100)).await.unwrap();
    let started = std::time::Instant::now();
    client.request("$JS.API.INFO", "".into()).await.unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(200),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn traffic_reaches_kafka_in_each_assets_order() {
    let kafka = Kafka::shared().await.unwrap();
    let topic = kafka.topic("rig-traffic", 4).await.unwrap();
    let plan = Plan {
        assets: 10,
        lz4: true,
        ..Plan::default()
    };
    let traffic = Traffic::new(kafka.bootstrap(), &topic, plan).unwrap();
    traffic.send(1_000).await.unwrap();
    let slow = traffic
        .start(Amount {
            rate: Some(500),
            ..Amount::default()
        })
        .unwrap();
    let ledger = traffic.ledger();
    wait::eventually(SOON, "a hundred more are sent", || async {
        Ok(ledger.acknowledged() >= 1_100)
    })
    .await
    .unwrap();
    slow.stop().await.unwrap();
    traffic.send_raw(b"\xff", None).await.unwrap();

    let sent = ledger.acknowledged();
    let ends = kafka.end_offsets(&topic).await.unwrap();
    assert_eq!(ends.len(), 4);
    assert_eq!(
        u64::try_from(ends.iter().sum::<i64>()).unwrap(),
        sent + 1,
        "and the raw one"
    );
    assert_eq!((0..10).map(|asset| u64::from(ledger.given(asset))).sum::<u64>(), sent);

    // Each asset's numbers, as a consumer sees them.
    let topic_read = topic.clone();
    let mut config = kafka.client();
    config.set("group.id", "rig").set("auto.offset.reset", "earliest");
    let numbers = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[&topic_read]).unwrap();
        let mut next = [0_u32; 10];
        let mut read = 0;
        let deadline = std::time::Instant::now() + SOON;
        while read < sent + 1 {
            assert!(std::time::Instant::now() < deadline, "{read} of {} records", sent + 1);
            // None says no more than that something else came: an assignment.
            let Some(message) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = message.unwrap();
            read += 1;
            let Some(value) = message.payload() else { continue };
            let (key, n, _) = e2e_rig::traffic::read_value(value).unwrap();
            assert_eq!(message.key().unwrap(), key.as_bytes());
            let asset: usize = key.strip_prefix("WTVB01-").unwrap().parse().unwrap();
            assert_eq!(n, next[asset], "{key}");
            next[asset] += 1;
        }
        next
    })
    .await
    .unwrap();
    for (asset, next) in numbers.iter().enumerate() {
        assert_eq!(*next, ledger.given(u32::try_from(asset).unwrap()));
    }

    // Offsets, partitions, retention.
    let group = e2e_rig::kafka::unique("rig");
    kafka.commit(&group, &topic, &[(1, 7)]).await.unwrap();
    let committed = kafka.committed(&group, &topic).await.unwrap();
    assert_eq!(
        committed.iter().map(|committed| committed.offset).collect::<Vec<_>>(),
        [None, Some(7), None, None]
    );
    assert_eq!(
        kafka.lag(&group, &topic).await.unwrap(),
        i64::try_from(sent).unwrap() + 1 - 7
    );
    kafka.delete_records(&topic, 0, 5).await.unwrap();
    assert_eq!(kafka.watermarks(&topic).await.unwrap()[0].0, 5);
    kafka.add_partitions(&topic, 6).await.unwrap();
    assert_eq!(kafka.partitions(&topic).await.unwrap(), 6);
    kafka.delete_topic(&topic).await.unwrap();
}

#[tokio::test]
async fn kafka_keeps_its_records_over_a_kill() {
    let kafka = Kafka::start().await.unwrap();
    let topic = kafka.topic("rig-kill", 1).await.unwrap();
    let traffic = Traffic::new(kafka.bootstrap(), &topic, Plan::default()).unwrap();
    traffic.send(100).await.unwrap();
    kafka.kill9().unwrap();
    let more = traffic
        .start(Amount {
            records: Some(100),
            ..Amount::default()
        })
        .unwrap();
    kafka.start_again().await.unwrap();
    more.finish().await.unwrap();
    assert_eq!(kafka.end_offsets(&topic).await.unwrap(), [200]);
}

/// Comes in through a listener with credentials and asks for metadata.
async fn comes_in(door: Door) {
    let kafka = Kafka::start_with(Options {
        door: Some(door),
        ..Options::default()
    })
    .await
    .unwrap();
    let secured = kafka.secured().unwrap();
    let mut config = e2e_rig::kafka::client(&secured.bootstrap);
    let protocol = match (door.tls, door.sasl.is_some()) {
        (true, true) => "SASL_SSL",
        (true, false) => "SSL",
        (false, _) => "SASL_PLAINTEXT",
    };
    config.set("security.protocol", protocol);
    if let (Some(authority), Some(client)) = (&secured.authority, &secured.client) {
        config.set("ssl.ca.location", authority.ca_file.to_str().unwrap());
        config.set("ssl.certificate.location", client.cert_file.to_str().unwrap());
        config.set("ssl.key.location", client.key_file.to_str().unwrap());
    }
    let mechanism = match door.sasl {
        Some(Mechanism::Plain) => "PLAIN",
        Some(Mechanism::ScramSha256) => "SCRAM-SHA-256",
        Some(Mechanism::ScramSha512) => "SCRAM-SHA-512",
        Some(Mechanism::OAuthBearer) | None => "",
    };
    if !mechanism.is_empty() {
        config
            .set("sasl.mechanism", mechanism)
            .set("sasl.username", &secured.username);
        config.set(
            "sasl.password",
            std::fs::read_to_string(&secured.password_file).unwrap(),
        );
    }
    if door.sasl == Some(Mechanism::OAuthBearer) {
        // librdkafka makes such tokens itself for tests.
        config
            .set("sasl.mechanism", "OAUTHBEARER")
            .set("enable.sasl.oauthbearer.unsecure.jwt", "true");
        config.set("sasl.oauthbearer.config", "principal=forwarder");
    }
    let metadata = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        consumer
            .fetch_metadata(None, SOON)
            .map(|metadata| metadata.brokers().len())
    });
    assert_eq!(metadata.await.unwrap().unwrap(), 1, "{door:?}");
}

#[tokio::test]
async fn kafka_asks_for_certificates_and_scram() {
    comes_in(Door {
        tls: true,
        sasl: Some(Mechanism::ScramSha512),
    })
    .await;
}

#[tokio::test]
async fn kafka_asks_for_plain_passwords() {
    comes_in(Door {
        tls: false,
        sasl: Some(Mechanism::Plain),
    })
    .await;
}

#[tokio::test]
async fn kafka_asks_for_bearer_tokens() {
    comes_in(Door {
        tls: false,
        sasl: Some(Mechanism::OAuthBearer),
    })
    .await;
}

#[tokio::test]
async fn kafka_sends_its_clients_through_a_proxy() {
    let proxy = Proxy::bind().await.unwrap();
    let kafka = Kafka::start_with(Options {
        proxied: Some(proxy.address()),
        ..Options::default()
    })
    .await
    .unwrap();
    proxy.aim(kafka.behind_proxy().unwrap());
    let topic = kafka.topic("rig-proxied", 1).await.unwrap();
    let traffic = Traffic::new(&proxy.address(), &topic, Plan::default()).unwrap();
    traffic.send(10).await.unwrap();
    assert!(proxy.connections() > 0);
    proxy.cut().await.unwrap();
    let more = traffic
        .start(Amount {
            records: Some(10),
            ..Amount::default()
        })
        .unwrap();
    proxy.heal().await.unwrap();
    more.finish().await.unwrap();
    assert_eq!(kafka.end_offsets(&topic).await.unwrap(), [20]);
}

#[tokio::test]
async fn nothing_is_left_running() {
    let mut nats = Nats::start().await.unwrap();
    let (pid, address, dir) = (nats.process().pid(), nats.address(), nats.dir().to_owned());
    drop(nats);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!dir.exists());
    assert!(http::get(&address, "/").await.is_err());
}
