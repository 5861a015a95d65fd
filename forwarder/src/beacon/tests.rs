use std::time::Duration;

use forwarder_service::heartbeat::Health;
use tokio::runtime::Handle;

use super::*;

fn config(publish: &str, beacon: &str) -> Checked {
    Checked::from_yaml(&format!(
        "
source: {{connection: {{bootstrapServers: ['k:9092']}}, topic: t, group: g}}
ring: {{epoch: 7, clusters: [{{name: C1, servers: ['nats://127.0.0.1:1']}}]{beacon}}}
publish: {publish}
"
    ))
    .unwrap()
}

const BEACON: &str = ", beacon: {subject: assets.beacon, ring: r, keyFile: /nowhere/key}";

#[test]
fn a_managed_stream_that_would_store_what_is_said_is_found() {
    let below = "{mode: JetStream, subject: 'assets.{key}.{id}', stream: {name: s, manage: MANAGED}}";
    let narrow = "{mode: JetStream, subject: 'assets.{key}.{id}', stream: {name: s, manage: true, subjects: ['assets.>', 'x.>']}}";
    let elsewhere = Subjects::new("_FANOUT.a.b");
    let inside = Subjects::new("assets.beacon");
    for (publish, found) in [
        (below.replace("MANAGED", "true"), Some("assets.>")),
        (below.replace("MANAGED", "false"), None),
        (narrow.to_owned(), Some("assets.>")),
        ("{}".to_owned(), None),
    ] {
        let stored = stored(&config(&publish, "").publish);
        assert_eq!(capturing(&stored, &inside), found, "{publish}");
        assert_eq!(capturing(&stored, &elsewhere), None, "{publish}");
    }
}

#[test]
fn subscribers_follow_the_beacon_that_they_know() {
    let ring = |subject: Option<&str>| {
        let mut ring = config("{}", BEACON).ring.clone();
        ring.beacon = subject.zip(ring.beacon).map(|(subject, beacon)| document::Beacon {
            subject: subject.to_owned(),
            ..beacon
        });
        ring
    };
    let (none, old, new) = (ring(None), ring(Some("old")), ring(Some("new")));
    for (using, announced, expected) in [
        (&none, None, None),
        (&none, Some(&new), Some("new")),
        (&old, Some(&new), Some("old")),
        (&old, Some(&none), Some("old")),
    ] {
        let found = declared(using, announced).map(|beacon| beacon.subject.as_str());
        assert_eq!(found, expected);
    }
}

/// A beacon, with what the intake has of it.
fn beacon(config: &Checked) -> (Beacon, ToBeacon, watch::Receiver<Option<BeaconStatus>>) {
    let (status, shown) = watch::channel(None);
    let tasks = Tasks::new(Handle::current(), Health::default());
    let metrics = Metrics::new(&config.admin).unwrap();
    let (beacon, to_beacon) = Beacon::new(config, status, metrics, Clock::start(), tasks);
    (beacon, to_beacon, shown)
}

fn told(config: &Checked) -> Told {
    Told {
        using: config.ring.clone().into(),
        is_used: true,
        announced: None,
        grace_left_ms: 0,
        oldest: [("t".to_owned(), vec![(0, 7)])].into(),
        partitions: [("t".to_owned(), 1)].into(),
        topics: ["t".to_owned()].into(),
        answers: std::collections::BTreeMap::new(),
        stopping: false,
    }
}

async fn shown(
    status: &mut watch::Receiver<Option<BeaconStatus>>,
    is_it: impl Fn(&BeaconStatus) -> bool,
) -> BeaconStatus {
    let waiting = status.wait_for(|status| status.as_ref().is_some_and(&is_it));
    let found = tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .unwrap()
        .unwrap();
    found.clone().unwrap()
}

#[tokio::test]
async fn what_a_stream_would_store_is_not_said_and_nobody_waits_for_it() {
    let publish = "{mode: JetStream, subject: 'assets.{key}.{id}', stream: {name: s, manage: true}}";
    let config = config(publish, BEACON);
    let (beacon, to_beacon, mut status) = beacon(&config);
    let running = tokio::spawn(beacon.run());
    to_beacon.told.send_replace(Some(told(&config)));
    let fault = shown(&mut status, |status| status.fault.is_some()).await.fault.unwrap();
    assert!(fault.contains("assets.>") && fault.contains("assets.beacon"), "{fault}");
    assert_eq!(*to_beacon.heard.borrow(), Some(7));
    // The ring gets none, then the process ends.
    to_beacon.told.send_replace(None);
    tokio::time::timeout(Duration::from_secs(30), status.wait_for(Option::is_none))
        .await
        .unwrap()
        .unwrap();
    drop(to_beacon);
    tokio::time::timeout(Duration::from_secs(30), running)
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_beacon_takes_the_key_that_is_there_and_says_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let beacon_of = BEACON.replace("/nowhere/key", key.to_str().unwrap());
    let config = config("{}", &beacon_of);
    let (beacon, to_beacon, mut status) = beacon(&config);
    let running = tokio::spawn(beacon.run());
    to_beacon.told.send_replace(Some(told(&config)));
    let without = shown(&mut status, |status| status.fault.is_some()).await;
    assert_eq!((without.public_key, without.left, without.pods.len()), (None, 7, 1));
    assert!(without.fault.unwrap().contains(key.to_str().unwrap()));
    std::fs::write(&key, "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y").unwrap();
    let with = shown(&mut status, |status| status.public_key.is_some()).await;
    assert_eq!(with.fault, None);
    // Another key comes without another ring.
    std::fs::write(&key, "SUAACAQDAQCQMBYIBEFAWDANBYHRAEISCMKBKFQXDAMRUGY4DUPB6IC5CQ").unwrap();
    let other = shown(&mut status, |status| status.public_key != with.public_key).await;
    assert_eq!(other.fault, None);
    // One that cannot be used leaves the one of before.
    std::fs::write(&key, "SUAB").unwrap();
    let kept = shown(&mut status, |status| status.fault.is_some()).await;
    assert_eq!(kept.public_key, other.public_key);
    drop(to_beacon);
    tokio::time::timeout(Duration::from_secs(30), running)
        .await
        .unwrap()
        .unwrap();
}
