use std::sync::mpsc;

use super::*;
use forwarder_service::clock::Clock;

const LEASE: Duration = Duration::from_secs(60);

struct Bench {
    clock: Clock,
    lease: Lease,
    fenced: IntCounter,
    membership: Membership,
}

fn bench() -> Bench {
    let clock = Clock::start();
    let lease = Lease::new(clock, LEASE);
    let fenced = IntCounter::new("fenced", "fenced").unwrap();
    Bench {
        clock,
        membership: Membership::new(lease.clone(), fenced.clone(), Instant::now()),
        lease,
        fenced,
    }
}

fn failed(code: RDKafkaErrorCode) -> Result<(), KafkaError> {
    Err(KafkaError::ConsumerCommit(code))
}

#[test]
fn what_an_answer_says() {
    use RDKafkaErrorCode as Code;
    for (result, expected) in [
        (Ok(()), Proof::Member),
        (failed(Code::UnknownMemberId), Proof::Out),
        (failed(Code::FencedMemberEpoch), Proof::Out),
        (failed(Code::FencedInstanceId), Proof::Out),
        (failed(Code::IllegalGeneration), Proof::Nothing),
        (failed(Code::StaleMemberEpoch), Proof::Nothing),
        (failed(Code::RebalanceInProgress), Proof::Nothing),
        (failed(Code::RequestTimedOut), Proof::Nothing),
    ] {
        assert_eq!(Proof::of(&result, false), expected, "{result:?}");
        assert_eq!(
            Proof::of(&result, true),
            Proof::Out,
            "{result:?}, and the assignment is lost"
        );
    }
}

#[test]
fn only_a_yes_begins_a_lease() {
    let mut bench = bench();
    let sent = bench.membership.asks(bench.clock.micros());
    bench.membership.answered(sent, Proof::Nothing);
    assert!(!bench.lease.is_held());
    bench.membership.answered(sent, Proof::Member);
    assert!(bench.lease.is_held());
    bench.membership.answered(sent, Proof::Nothing);
    assert!(
        bench.lease.is_held(),
        "a commit that failed for any other reason ends nothing"
    );
    bench.membership.answered(sent, Proof::Out);
    assert!(!bench.lease.is_held());
    assert_eq!(bench.fenced.get(), 1);
}

#[test]
fn an_answer_to_an_earlier_membership_begins_no_lease() {
    let mut bench = bench();
    let early = bench.membership.asks(bench.clock.micros());
    bench.membership.end();
    bench.membership.answered(early, Proof::Member);
    assert!(!bench.lease.is_held());
    let sent = bench.membership.asks(bench.clock.micros());
    assert_eq!(
        bench.membership.answered(early, Proof::Out),
        Proof::Nothing,
        "nor does it end one"
    );
    bench.membership.answered(sent, Proof::Member);
    assert!(bench.lease.is_held());
}

#[test]
fn no_lease_begins_before_publishers_have_dropped_what_is_not_ours() {
    let mut bench = bench();
    let (first, all_dropped) = mpsc::channel();
    let second = first.clone();
    bench.membership.await_abandonment(all_dropped);
    let sent = bench.membership.asks(bench.clock.micros());
    drop(first);
    bench.membership.answered(sent, Proof::Member);
    assert!(!bench.lease.is_held(), "one has not answered yet");
    drop(second);
    bench.membership.answered(sent, Proof::Member);
    assert!(bench.lease.is_held());
}

#[test]
fn a_lease_that_runs_out_is_counted_once_where_it_matters() {
    let mut bench = bench();
    for (owner, counted) in [(false, 0), (true, 1)] {
        let sent = bench.membership.asks(bench.clock.micros());
        bench.membership.answered(sent, Proof::Member);
        bench.lease.revoke();
        bench.membership.observe(owner);
        bench.membership.observe(owner);
        assert_eq!(bench.fenced.get(), counted);
    }
}

#[test]
fn the_proof_is_repeated_before_the_lease_ends() {
    let mut bench = bench();
    let now = Instant::now();
    assert!(bench.membership.needs_proof(now), "at once, at first");
    let sent = bench.membership.asks(bench.clock.micros());
    assert!(!bench.membership.needs_proof(now));
    bench.membership.answered(sent, Proof::Member);
    bench.membership.asks(bench.clock.micros());
    assert!(!bench.membership.needs_proof(now + LEASE / 5));
    assert!(bench.membership.needs_proof(now + LEASE / 3));
}

#[test]
fn what_a_rebalance_refuses_may_be_taken_a_moment_later() {
    use RDKafkaErrorCode as Code;
    for (code, expected) in [
        (Code::RebalanceInProgress, true),
        (Code::IllegalGeneration, true),
        (Code::StaleMemberEpoch, true),
        (Code::NotCoordinator, true),
        (Code::UnknownMemberId, false),
        (Code::FencedMemberEpoch, false),
        (Code::OffsetMetadataTooLarge, false),
        (Code::GroupAuthorizationFailed, false),
    ] {
        assert_eq!(is_passing(&KafkaError::ConsumerCommit(code)), expected, "{code:?}");
    }
}
