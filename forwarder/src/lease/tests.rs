use super::*;

const DURATION: Duration = Duration::from_secs(60);

/// A clock that has run for two minutes: long enough for proofs of any age.
fn old_clock() -> Clock {
    Clock::started_at(std::time::Instant::now() - 2 * DURATION)
}

#[test]
fn it_is_not_held_before_the_first_proof() {
    assert!(!Lease::new(Clock::start(), DURATION).is_held());
}

#[test]
fn it_counts_from_when_the_proof_was_asked_for() {
    let clock = old_clock();
    let lease = Lease::new(clock, DURATION);
    lease.renew(clock.micros() - micros(DURATION));
    assert!(
        !lease.is_held(),
        "an answer that took as long as the lease proves nothing"
    );
    lease.renew(clock.micros() - micros(DURATION / 2));
    assert!(lease.is_held());
}

#[test]
fn an_older_proof_shortens_nothing() {
    let clock = old_clock();
    let lease = Lease::new(clock, DURATION);
    lease.renew(clock.micros());
    lease.renew(clock.micros() - micros(2 * DURATION));
    assert!(lease.is_held());
}

#[test]
fn all_clones_end_with_one() {
    let clock = Clock::start();
    let lease = Lease::new(clock, DURATION);
    let clone = lease.clone();
    lease.renew(clock.micros());
    assert!(clone.is_held());
    lease.revoke();
    assert!(!clone.is_held());
}

#[tokio::test]
async fn who_waits_is_woken_by_the_renewal() {
    let clock = old_clock();
    let lease = Lease::new(clock, DURATION);
    let mut waiting = tokio::spawn({
        let lease = lease.clone();
        async move { lease.held().await }
    });
    // One that is over already wakes nobody for good.
    lease.renew(clock.micros() - micros(DURATION));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut waiting).await;
    assert!(early.is_err(), "nothing is held yet");
    lease.renew(clock.micros());
    tokio::time::timeout(DURATION, waiting).await.unwrap().unwrap();
}

#[test]
fn only_records_need_it() {
    let clock = Clock::start();
    let lease = Lease::new(clock, DURATION);
    let guard = Guard::new(lease.clone());
    guard.check().unwrap();
    guard.set_records_wait(true);
    assert!(NotHeld::is_reason(&guard.check().unwrap_err()));
    lease.renew(clock.micros());
    guard.check().unwrap();
    lease.revoke();
    guard.check().unwrap_err();
    guard.set_records_wait(false);
    guard.check().unwrap();
}
