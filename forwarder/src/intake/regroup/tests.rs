use std::sync::{Arc, mpsc};
use std::time::Duration;

use forwarder_core::document::Checked;
use forwarder_core::fanout::dispatch::{Phase, RingEpoch};
use forwarder_core::fanout::ring::Ring;
use forwarder_core::program::{self, Draft, Incoming, Program};
use forwarder_core::record::{Header, Invalid};
use forwarder_core::status::Status;
use forwarder_service::clock::Clock;
use forwarder_service::heartbeat::Health;
use forwarder_service::shutdown;
use tokio::sync::watch;

use super::*;
use crate::beacon::ToBeacon;
use crate::intake::Links;
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::outputs::nats::Publishers;
use crate::tasks::Tasks;

const LONG: Duration = Duration::from_secs(60);

/// Never sees a record.
struct Unused;

impl Program for Unused {
    fn asset(_: Option<&[u8]>) -> Result<&[u8], Invalid> {
        unreachable!()
    }

    fn place(&mut self, _: &[u8]) -> program::Place {
        unreachable!()
    }

    fn write<'h>(
        &mut self,
        _: &Incoming<'_>,
        _: impl Iterator<Item = Header<'h>>,
        _: i64,
        _: &mut Draft,
    ) -> Result<(), Invalid> {
        unreachable!()
    }
}

impl RingProgram for Unused {
    fn use_ring(&mut self, _: &Arc<Ring>) {}

    fn keep_off(&mut self, _: &str) {}
}

/// An intake of the topics `t` and `u`, which no Kafka answers.
fn intake(tasks: Tasks) -> Intake<Unused> {
    let config = Checked::from_yaml(
        "
source: {connection: {bootstrapServers: ['127.0.0.1:1']}, topic: t, furtherTopics: [u], group: g}
ring: {epoch: 1, clusters: [{name: C1, servers: ['nats://127.0.0.1:1']}]}
",
    );
    let config = Arc::new(config.unwrap());
    let ring_epoch = RingEpoch::new(1, Arc::new(Ring::new([("C1".to_owned(), 1)], 10).unwrap()), vec![1]);
    let clock = Clock::start();
    let lease = Lease::new(clock, LONG);
    let metrics = Metrics::new(&config.admin).unwrap();
    let (reports, receipts) = mpsc::channel();
    let links = Links {
        publishers: Publishers::new(
            Arc::clone(&config),
            reports,
            metrics.clone(),
            clock,
            lease.clone(),
            tasks,
        ),
        dead_letter: None,
        receipts,
        shutdown: shutdown::channel().1,
        heartbeat: Health::default().heartbeat("intake", LONG),
        rings: watch::channel(None).1,
        status: watch::channel(Status::default()).0,
        lease,
        tracer: None,
        beacon: ToBeacon {
            told: watch::channel(None).0,
            heard: watch::channel(None).1,
        },
    };
    Intake::new(config, Unused, ring_epoch, links, metrics, clock).unwrap()
}

/// Partition 0 of the further topic.
fn further(intake: &Intake<Unused>) -> PartitionId {
    PartitionId::new(intake.client.inputs.find("u").unwrap(), 0).unwrap()
}

#[tokio::test]
async fn a_topic_that_begins_later_has_been_seen_too() {
    let mut intake = intake(Tasks::new(tokio::runtime::Handle::current(), Health::default()));
    let partition = further(&intake);
    let input = partition.input();
    intake
        .begin_sought(vec![Begin::untold(input, vec![partition])])
        .unwrap();
    assert!(!intake.seeking.has_been_seen(input), "Kafka does not have it");
    let begin = Begin {
        group_partitions: Some(1),
        ..Begin::untold(input, vec![partition])
    };
    intake.begin_sought(vec![begin]).unwrap();
    assert!(intake.seeking.has_been_seen(input));
    assert!(intake.commits.knows(input));
    intake.revoked(vec![partition], true);
    intake.go_on_leaving();
    assert!(!intake.commits.knows(input), "it may be made anew");
    assert!(intake.seeking.has_been_seen(input));
}

#[tokio::test]
async fn what_is_to_begin_while_another_topic_is_lost_is_sought() {
    let mut intake = intake(Tasks::new(tokio::runtime::Handle::current(), Health::default()));
    let (lost, stays) = (further(&intake), PartitionId::new(Input::FIRST, 1).unwrap());
    intake.group.assigned(vec![lost, stays], &intake.client);
    intake.revoked(vec![lost], true);
    intake.go_on_leaving();
    assert!(!intake.group.is_rebalancing());
    assert_eq!(intake.dispatcher.partitions()[&stays].phase, Phase::Sought);
    assert!(!intake.dispatcher.partitions().contains_key(&lost));
    assert_eq!(intake.seeking.due(Instant::now()), Some(vec![stays]));
    let given = intake.client.consumer.assignment().unwrap();
    let given: Vec<_> = given
        .elements()
        .iter()
        .map(|element| (element.topic().to_owned(), element.partition()))
        .collect();
    assert_eq!(given, [("t".to_owned(), 1)]);
}
