use super::*;

const MINUTE: u64 = 60_000_000;
const DURATION: u64 = 10 * MINUTE;

/// The ring of some members, named by digits: `12` is C1 and C2, whose outputs are 1 and 2.
fn ring(members: &str) -> RingEpoch {
    ring_of(
        members,
        members.chars().map(|member| member.to_digit(10).unwrap()).collect(),
    )
}

fn ring_of(members: &str, outputs: Vec<u32>) -> RingEpoch {
    let ring = Ring::new(members.chars().map(|member| (format!("C{member}"), 1)), 16).unwrap();
    RingEpoch::new(1, Arc::new(ring), outputs)
}

/// A lane that these outputs own under these rings, one after the other.
fn lane(way: &[(&RingEpoch, u32)]) -> u64 {
    let mut lanes = (0..u64::from(u16::MAX)).map(|number| number << 48);
    lanes
        .find(|lane| way.iter().all(|(ring, owner)| ring.output_of_lane(*lane) == *owner))
        .unwrap()
}

/// The rings, used one after the other, each at its time.
fn used(story: &[(&RingEpoch, u64)]) -> Mirror {
    let mut mirror = Mirror::default();
    for pair in story.windows(2) {
        let (former, (ring, at)) = (&pair[0].0.ring, pair[1]);
        assert_eq!(mirror.ring_used(Some(Arc::clone(former)), ring, DURATION, at), 0);
    }
    mirror
}

fn copies(mirror: &Mirror, lane: u64, ring: &RingEpoch, now: u64) -> Vec<Recipient> {
    let mut recipients = vec![Recipient::Gets(99)];
    mirror.recipients(lane, ring, ring.output_of_lane(lane), now, &mut recipients);
    recipients
}

#[test]
fn an_asset_that_moved_is_copied_to_its_former_owner_for_the_declared_time() {
    let (before, after) = (ring("123"), ring("1234"));
    let moved = lane(&[(&before, 2), (&after, 4)]);
    let stays = lane(&[(&before, 2), (&after, 2)]);
    let mut mirror = used(&[(&before, 0), (&after, MINUTE)]);
    assert!(mirror.is_on() && mirror.moves(moved, &after) && !mirror.moves(stays, &after));
    assert_eq!(
        copies(&mirror, moved, &after, MINUTE + DURATION - 1),
        [Recipient::Gets(2)]
    );
    assert_eq!(copies(&mirror, stays, &after, MINUTE), []);
    assert_eq!(
        copies(&mirror, moved, &after, MINUTE + DURATION),
        [],
        "its time is over"
    );
    mirror.expire(MINUTE + DURATION);
    assert!(!mirror.is_on());
}

#[test]
fn nothing_is_copied_where_nothing_is_declared() {
    let (before, after) = (ring("123"), ring("1234"));
    let mut mirror = used(&[(&before, 0), (&after, 0)]);
    assert!(mirror.is_on());
    mirror.ring_used(Some(Arc::clone(&after.ring)), &before, 0, MINUTE);
    assert!(!mirror.is_on(), "switched off");
    mirror.ring_used(None, &before, DURATION, MINUTE);
    assert!(!mirror.is_on(), "nobody knows a former ring");
    mirror.ring_used(Some(Arc::clone(&before.ring)), &before, DURATION, MINUTE);
    assert!(!mirror.is_on(), "each asset has the same owner");
}

#[test]
fn each_former_owner_of_a_chain_has_its_own_time() {
    let (first, second, third) = (ring("12"), ring("123"), ring("1234"));
    let moved = lane(&[(&first, 1), (&second, 3), (&third, 4)]);
    let once = lane(&[(&first, 1), (&second, 3), (&third, 3)]);
    let mirror = used(&[(&first, 0), (&second, 0), (&third, 4 * MINUTE)]);
    assert_eq!(
        copies(&mirror, moved, &third, 5 * MINUTE),
        [Recipient::Gets(1), Recipient::Gets(3)]
    );
    assert_eq!(copies(&mirror, once, &third, 5 * MINUTE), [Recipient::Gets(1)]);
    assert_eq!(copies(&mirror, moved, &third, DURATION), [Recipient::Gets(3)]);
    assert_eq!(copies(&mirror, once, &third, DURATION), []);
}

#[test]
fn who_left_the_ring_gets_no_copy_and_who_came_back_has_its_new_output() {
    let (before, after) = (ring("123"), ring("12"));
    let moved = lane(&[(&before, 3), (&after, 1)]);
    let mirror = used(&[(&before, 0), (&after, 0)]);
    assert!(!mirror.moves(moved, &after));
    assert_eq!(copies(&mirror, moved, &after, 1), []);

    let again = ring_of("1234", vec![1, 2, 7, 8]);
    let moved = lane(&[(&before, 3), (&again, 8)]);
    let mirror = used(&[(&before, 0), (&after, 0), (&again, MINUTE)]);
    assert!(copies(&mirror, moved, &again, MINUTE).contains(&Recipient::Gets(7)));
}

#[test]
fn who_owns_an_asset_again_gets_no_copy_of_what_the_other_one_confirmed() {
    let (small, large) = (ring("123"), ring("1234"));
    let moved = lane(&[(&small, 2), (&large, 4)]);
    let mirror = used(&[(&small, 0), (&large, 0), (&small, MINUTE)]);
    let mut found = Vec::new();
    mirror.recipients(moved, &small, 4, MINUTE, &mut found);
    assert_eq!(found, [Recipient::OwnsAgain(2)]);
    assert_eq!(
        copies(&mirror, moved, &small, MINUTE),
        [],
        "4 has left, and 2 confirmed it"
    );

    // Once more there and back: the ring of before has its time anew.
    let mirror = used(&[(&small, 0), (&large, 0), (&small, MINUTE), (&large, 2 * MINUTE)]);
    assert_eq!(copies(&mirror, moved, &large, DURATION + MINUTE), [Recipient::Gets(2)]);
    assert_eq!(copies(&mirror, moved, &large, DURATION + 2 * MINUTE), []);
}

#[test]
fn a_copy_waits_only_at_a_member_that_does_not_own_the_asset() {
    let (small, large) = (ring("123"), ring("1234"));
    let moved = lane(&[(&small, 2), (&large, 4)]);
    assert_eq!(may_wait(2, moved, &large), Ok(()));
    assert_eq!(may_wait(2, moved, &small), Err(NoCopy::OwnsAgain));
    assert_eq!(may_wait(4, moved, &small), Err(NoCopy::Left));
}

#[test]
fn of_many_former_rings_the_oldest_is_forgotten_first() {
    let rings: Vec<RingEpoch> = (1..=9).map(|last| ring(&"123456789"[..last])).collect();
    let mut mirror = Mirror::default();
    let mut forgotten = 0;
    let latest = ring("0123456789");
    for (at, pair) in (1..).zip(rings.windows(2)) {
        forgotten += mirror.ring_used(Some(Arc::clone(&pair[0].ring)), &pair[1], DURATION, at);
    }
    assert_eq!(forgotten, 0);
    forgotten += mirror.ring_used(Some(Arc::clone(&rings[8].ring)), &latest, DURATION, 9);
    assert_eq!(forgotten, 1);
    let moved = lane(&[(&rings[0], 1), (&rings[1], 2), (&rings[8], 2), (&latest, 2)]);
    assert_eq!(copies(&mirror, moved, &latest, 10), [], "that 1 owned it is forgotten");
}
