use std::sync::mpsc;

use forwarder_core::delivery::caps::{Limits, Load};
use forwarder_core::document::Checked;
use forwarder_core::fanout::dispatch::{Phase, Resume, RingEpoch};
use forwarder_core::fanout::ring::Ring;
use forwarder_service::clock::Clock;
use forwarder_service::heartbeat::Health;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::*;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::tasks::Tasks;

/// An intake's part in it, with the beacon's ends.
struct Rig {
    announcing: Announcing,
    inputs: Inputs,
    publishers: Publishers,
    dispatcher: Dispatcher<Message>,
    told: watch::Receiver<Option<Told>>,
    heard: watch::Sender<Option<u64>>,
    now: Instant,
}

fn rig() -> Rig {
    let config = Checked::from_yaml(
        "
source: {connection: {bootstrapServers: ['k:9092']}, topic: t, group: g}
ring: {epoch: 7, clusters: [{name: C1, servers: ['nats://127.0.0.1:1']}]}
",
    );
    let config = Arc::new(config.unwrap());
    let clock = Clock::start();
    let mut publishers = Publishers::new(
        Arc::clone(&config),
        mpsc::channel().0,
        Metrics::new(&config.admin).unwrap(),
        clock,
        Lease::new(clock, Duration::from_secs(1)),
        Tasks::new(Handle::current(), Health::default()),
    );
    let output = publishers.open(&config.ring.clusters[0]).unwrap();
    let ring = Arc::new(Ring::new([("C1".to_owned(), 1)], 10).unwrap());
    let load = Load { records: 10, bytes: 10 };
    let limits = Limits {
        output: load,
        total: load,
        queue: 10,
    };
    let (told_in, told) = watch::channel(None);
    let (heard, heard_out) = watch::channel(None);
    let inputs = Inputs::new(["t"]);
    let now = Instant::now();
    let beacon = ToBeacon {
        told: told_in,
        heard: heard_out,
    };
    Rig {
        announcing: Announcing::new(beacon, &inputs, now),
        inputs,
        publishers,
        dispatcher: Dispatcher::new(limits, RingEpoch::new(7, ring, vec![output]), 0),
        told,
        heard,
        now,
    }
}

/// A ring; with a beacon or without.
fn ring(epoch: u64, beacon: bool) -> Arc<RingConfig> {
    let mut ring: RingConfig = serde_json::from_value(serde_json::json!({
        "epoch": epoch,
        "clusters": [{"name": "C1", "servers": ["nats://127.0.0.1:1"]}],
        "beacon": {"subject": "b", "ring": "r", "keyFile": "/key", "graceMs": 3000},
    }))
    .unwrap();
    ring.beacon.take_if(|_| !beacon);
    Arc::new(ring)
}

impl Rig {
    /// One turn of the intake, so long after the start. Yields what the beacon is told, if that is something new.
    fn turn(
        &mut self,
        after: Duration,
        using: &Arc<RingConfig>,
        announced: Option<&Arc<RingConfig>>,
    ) -> Option<Option<Told>> {
        let view = View {
            using,
            announced,
            inputs: &self.inputs,
            publishers: &self.publishers,
        };
        self.announcing.tell_when_due(&view, &self.dispatcher, self.now + after);
        let news = self.told.has_changed().unwrap();
        news.then(|| self.told.borrow_and_update().clone())
    }
}

const MILLI: Duration = Duration::from_millis(1);

#[tokio::test]
async fn the_beacon_is_told_each_second_and_at_once_of_another_ring() {
    let mut rig = rig();
    let (seven, eight) = (ring(7, true), ring(8, true));
    let first = rig.turn(Duration::ZERO, &seven, None).unwrap().unwrap();
    assert_eq!((first.using.epoch, first.announced.is_none()), (7, true));
    assert_eq!(first.answers.keys().collect::<Vec<_>>(), ["C1"]);
    assert!(rig.turn(INTERVAL - MILLI, &seven, None).is_none());
    assert!(rig.turn(INTERVAL, &seven, None).is_some());
    let news = rig.turn(INTERVAL + MILLI, &seven, Some(&eight)).unwrap().unwrap();
    assert_eq!(news.announced.unwrap().epoch, 8);
    assert!(rig.turn(INTERVAL + 2 * MILLI, &eight, None).is_some());
    rig.announcing.stop();
    let last = rig.turn(INTERVAL + 3 * MILLI, &eight, None).unwrap().unwrap();
    assert!(
        last.stopping && last.answers.is_empty(),
        "who stops proves nothing more"
    );
}

#[tokio::test]
async fn without_a_beacon_nothing_is_told_and_its_end_is() {
    let mut rig = rig();
    assert!(rig.turn(Duration::ZERO, &ring(7, false), None).is_none());
    assert!(rig.turn(INTERVAL, &ring(7, false), None).is_none());
    assert_eq!(
        rig.announcing.take_heard(rig.now + PATIENCE),
        None,
        "nobody asks for it"
    );
    assert!(rig.turn(INTERVAL, &ring(8, true), None).unwrap().is_some());
    assert!(rig.turn(INTERVAL, &ring(9, false), None).unwrap().is_none());
    assert!(rig.turn(2 * INTERVAL, &ring(9, false), None).is_none());
}

#[tokio::test]
async fn an_announcement_is_heard_once_and_a_beacon_that_is_silent_holds_nobody_up() {
    let mut rig = rig();
    let (seven, eight) = (ring(7, true), ring(8, true));
    rig.turn(Duration::ZERO, &seven, None);
    let now = rig.now;
    assert_eq!(rig.announcing.take_heard(now), None);
    rig.heard.send_replace(Some(7));
    assert_eq!(rig.announcing.take_heard(now), Some(7));
    assert_eq!(rig.announcing.take_heard(now), None);
    rig.turn(INTERVAL, &seven, Some(&eight));
    assert_eq!(rig.announcing.take_heard(now + INTERVAL), None, "that was another one");
    assert_eq!(rig.announcing.take_heard(now + INTERVAL + PATIENCE - MILLI), None);
    assert_eq!(rig.announcing.take_heard(now + INTERVAL + PATIENCE), Some(8));
}

#[tokio::test]
async fn a_ring_whose_grace_is_owed_is_told_as_not_used_and_its_use_at_once() {
    let mut rig = rig();
    let seven = ring(7, true);
    rig.dispatcher.set_grace(3_000_000);
    let first = rig.turn(Duration::ZERO, &seven, None).unwrap().unwrap();
    assert_eq!((first.is_used, first.grace_left_ms), (false, 3_000));
    assert_eq!(first.oldest, BTreeMap::new());
    // The one before died in the grace of ring 7.
    let resume = Resume {
        ring: 7,
        members: Some(rig.dispatcher.ring_epoch().fingerprint()),
        using: Some(6),
        ..Resume::default()
    };
    let partition = rig.inputs.partition("t", 3).unwrap();
    rig.dispatcher.assign(partition, &resume, Phase::Active);
    rig.dispatcher.heard(7, 0);
    let owing = rig.turn(INTERVAL, &seven, None).unwrap().unwrap();
    assert!(!owing.is_used);
    assert_eq!(owing.oldest, BTreeMap::from([("t".to_owned(), Vec::new())]));
    assert!(rig.turn(INTERVAL + MILLI, &seven, None).is_none());
    // Another partition comes, under whose former owner ring 7 was used.
    let other = rig.inputs.partition("t", 4).unwrap();
    let resume = Resume { using: None, ..resume };
    rig.dispatcher.assign(other, &resume, Phase::Active);
    let used = rig.turn(INTERVAL + MILLI, &seven, None).unwrap().unwrap();
    assert_eq!((used.is_used, used.grace_left_ms), (true, 0));
    // It stays so, though the partition goes.
    rig.dispatcher.remove(other);
    assert!(rig.turn(INTERVAL + 2 * MILLI, &seven, None).is_none());
}
