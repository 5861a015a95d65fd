use std::future::poll_fn;
use std::io::IoSlice;
use std::task::Poll;

use forwarder_nats::Guarded;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

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

const CAPACITY: usize = 64;

/// A stream over which records are to go while the lease is held, its guard, the lease, and the other end.
fn guarded() -> (Guarded<DuplexStream>, Guard, Lease, DuplexStream) {
    let clock = Clock::start();
    let lease = Lease::new(clock, Duration::from_secs(60));
    lease.renew(clock.micros());
    let guard = Guard::new(lease.clone());
    guard.set_records_wait(true);
    let (near, far) = duplex(CAPACITY);
    let mut near = Guarded::new(near);
    near.set_gate(guard.clone());
    (near, guard, lease, far)
}

async fn all_of(mut far: DuplexStream) -> Vec<u8> {
    let mut all = Vec::new();
    far.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn nothing_passes_once_the_lease_is_over() {
    let (mut near, _, lease, far) = guarded();
    near.write_all(b"in time").await.unwrap();
    lease.revoke();
    let error = near.write_all(b"late").await.unwrap_err();
    assert!(NotHeld::is_reason(&error), "{error}");
    let error = near.write_vectored(&[IoSlice::new(b"late")]).await.unwrap_err();
    assert!(NotHeld::is_reason(&error), "{error}");
    drop(near);
    assert_eq!(all_of(far).await, b"in time");
}

#[tokio::test]
async fn a_write_that_was_waiting_when_the_lease_ended_passes_nothing() {
    let (mut near, _, lease, mut far) = guarded();
    near.write_all(&[b'a'; CAPACITY]).await.unwrap();
    let mut write = Box::pin(near.write(b"late"));
    // It has looked at the lease, and waits for room.
    let waits = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await;
    assert!(waits);
    lease.revoke();
    let mut taken = [0; CAPACITY];
    far.read_exact(&mut taken).await.unwrap();
    let error = write.await.unwrap_err();
    assert!(NotHeld::is_reason(&error), "{error}");
    drop(near);
    assert_eq!(all_of(far).await, b"");
}

#[tokio::test]
async fn what_carries_no_record_passes_without_a_lease() {
    let (mut near, guard, lease, far) = guarded();
    lease.revoke();
    guard.set_records_wait(false);
    near.write_all(b"PING").await.unwrap();
    drop(near);
    assert_eq!(all_of(far).await, b"PING");
}
