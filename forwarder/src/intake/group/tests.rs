use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::Input;
use forwarder_core::document::Checked;
use forwarder_core::fanout::dispatch::{Admission, Resume, RingEpoch};
use forwarder_core::fanout::ring::Ring;
use forwarder_core::program::Place;

use super::*;
use crate::intake::limits;
use crate::lease::Lease;
use crate::message::Origin;
use forwarder_service::clock::Clock;

const OUTPUT: u32 = 1;
const PLACE: Place = Place { owner: 0, lane: 7 };

struct Bench {
    client: Client,
    dispatcher: Dispatcher<Message>,
    lease: Lease,
    clock: Clock,
    group: Group,
}

fn partition(number: i32) -> PartitionId {
    PartitionId::new(Input::FIRST, number).unwrap()
}

/// A member that has partitions 0 and 1.
fn bench() -> Bench {
    let config = Checked::from_yaml(
        "
source: {connection: {bootstrapServers: ['127.0.0.1:1']}, topic: t, group: g}
ring: {epoch: 1, clusters: [{name: C1, servers: ['nats://127.0.0.1:1']}]}
",
    )
    .unwrap();
    let ring = Ring::new([("C1".to_owned(), 1)], 10).unwrap();
    let ring_epoch = RingEpoch::new(1, Arc::new(ring), vec![OUTPUT]);
    let mut dispatcher = Dispatcher::new(limits(&config.engine), ring_epoch, 0);
    dispatcher.assign(partition(0), &Resume::default(), Phase::Active);
    dispatcher.assign(partition(1), &Resume::default(), Phase::Active);
    let clock = Clock::start();
    let lease = Lease::new(clock, Duration::from_secs(60));
    let metrics = Metrics::new(&config.admin).unwrap();
    let membership = Membership::new(lease.clone(), metrics.fenced.clone(), Instant::now());
    let mut group = Group::new(membership, metrics);
    let sent = group.membership.asks(clock.micros());
    group.answered(sent, Proof::Member);
    Bench {
        client: Client::new(Arc::new(config)).unwrap(),
        dispatcher,
        lease,
        clock,
        group,
    }
}

impl Bench {
    /// A record of partition 0 is out.
    fn hand_out(&mut self) -> (Tag, usize) {
        let Admission::Take(tag) = self.dispatcher.receive(partition(0), 0, b"key", PLACE) else {
            panic!("the record is not taken");
        };
        let origin = Origin::new(tag, None);
        let message = Message::pack(origin, PLACE.lane, 0, b"s", b"", b"{}", b"");
        let weight = message.weight();
        self.dispatcher.enter(message, PLACE.owner);
        (tag, weight)
    }

    fn revoke(&mut self, lost: bool) {
        let stay = self.revoke_these(&[0], lost);
        assert!(stay.is_empty());
    }

    /// Returns those that were to begin and stay.
    fn revoke_these(&mut self, numbers: &[i32], lost: bool) -> Vec<PartitionId> {
        let partitions = numbers.iter().copied().map(partition).collect();
        self.group.revoked(partitions, lost, &self.client, &mut self.dispatcher)
    }

    fn take_leaving(&mut self) -> Option<Leaving> {
        self.group.take_leaving(&self.client, &self.dispatcher)
    }
}

#[test]
fn a_revoked_partition_is_given_up_when_nothing_of_it_is_out() {
    let mut bench = bench();
    let (tag, weight) = bench.hand_out();
    bench.revoke(false);
    assert!(bench.lease.is_held());
    assert_eq!(bench.dispatcher.partitions()[&partition(0)].phase, Phase::Draining);
    assert!(bench.take_leaving().is_none(), "a record is out");
    assert!(bench.group.is_rebalancing());
    bench.dispatcher.leave(OUTPUT, weight);
    bench.dispatcher.settle(tag);
    let leaving = bench.take_leaving().unwrap();
    assert!(!leaving.lost);
    assert_eq!(leaving.partitions, [partition(0)]);
    assert!(!bench.group.is_rebalancing());
}

#[test]
fn a_lost_partition_ends_the_lease_and_is_given_up_with_records_out() {
    let mut bench = bench();
    bench.hand_out();
    bench.revoke(true);
    assert!(!bench.lease.is_held());
    assert_eq!(bench.group.committable(&bench.dispatcher), [partition(1)]);
    assert!(bench.take_leaving().unwrap().lost);
}

#[test]
fn who_is_turned_out_of_the_group_awaits_nothing_and_commits_nothing() {
    let mut bench = bench();
    bench.hand_out();
    bench.revoke(false);
    assert!(bench.take_leaving().is_none());
    assert_eq!(bench.group.committable(&bench.dispatcher), [partition(0), partition(1)]);
    let sent = bench.group.membership.asks(bench.clock.micros());
    bench.group.answered(sent, Proof::Out);
    assert!(!bench.lease.is_held());
    assert_eq!(bench.group.committable(&bench.dispatcher), [partition(1)]);
    assert!(bench.take_leaving().unwrap().lost);
}

#[test]
fn a_refused_commit_lets_the_partition_wait() {
    let mut bench = bench();
    bench.revoke(false);
    let mut leaving = bench.take_leaving().unwrap();
    let refused = |code| KafkaError::ConsumerCommit(code);
    assert!(leaving.is_worth_repeating(&refused(rdkafka::error::RDKafkaErrorCode::RebalanceInProgress)));
    assert!(!leaving.is_worth_repeating(&refused(rdkafka::error::RDKafkaErrorCode::UnknownMemberId)));
    bench.group.leave_later(leaving);
    assert!(bench.group.is_rebalancing());
    assert!(bench.take_leaving().is_none(), "not at once");
}

#[test]
fn partitions_that_are_to_begin_stay_when_others_are_lost() {
    let mut bench = bench();
    bench.group.assigned(vec![partition(2), partition(3)], &bench.client);
    assert_eq!(bench.revoke_these(&[0, 3], true), [partition(2)]);
    assert!(bench.group.take_joining().is_none());
    assert_eq!(bench.take_leaving().unwrap().partitions, [partition(0), partition(3)]);
    let given = bench.client.consumer.assignment().unwrap();
    let mut given: Vec<i32> = given.elements().iter().map(|element| element.partition()).collect();
    given.sort_unstable();
    assert_eq!(given, [2, 3], "librdkafka lets go only of what it was given");
}

#[test]
fn what_leaves_already_is_given_up_with_what_is_lost_amid_that() {
    let mut bench = bench();
    bench.hand_out();
    bench.revoke(false);
    assert!(bench.take_leaving().is_none(), "a record is out");
    bench.revoke_these(&[1], true);
    assert!(bench.group.committable(&bench.dispatcher).is_empty());
    let leaving = bench.take_leaving().unwrap();
    assert!(leaving.lost);
    assert_eq!(leaving.partitions, [partition(0), partition(1)]);
    assert!(!bench.group.is_rebalancing());
}

#[test]
fn what_leaves_already_is_awaited_when_more_is_revoked() {
    let mut bench = bench();
    let (tag, weight) = bench.hand_out();
    bench.revoke(false);
    bench.revoke_these(&[0, 1], false);
    assert!(bench.take_leaving().is_none(), "a record is out");
    bench.dispatcher.leave(OUTPUT, weight);
    bench.dispatcher.settle(tag);
    let leaving = bench.take_leaving().unwrap();
    assert!(!leaving.lost);
    assert_eq!(leaving.partitions, [partition(0), partition(1)], "each once");
}
