//! Subscribers have time to learn of a ring, and are told which rings are left.

use super::*;

const GRACE: u64 = 30 * SECOND;

/// The broker acknowledges whatever may be committed.
fn commit(desk: &mut Desk) -> Vec<PartitionId> {
    let all: Vec<_> = desk
        .dispatcher
        .partitions()
        .iter()
        .map(|(at, state)| (*at, state.epoch))
        .collect();
    let mut begun = Vec::new();
    for (partition, epoch) in all {
        if let Some(point) = desk.dispatcher.to_commit(partition)
            && desk.dispatcher.committed(partition, epoch, point)
        {
            begun.push(partition);
        }
    }
    begun
}

/// The ring that the commit of the first partition names, and the one that it says is in use.
fn told(desk: &Desk) -> (u64, Option<u64>) {
    let point = desk.dispatcher.commit_point(first(0)).unwrap();
    (point.ring, point.using)
}

fn phase(desk: &Desk) -> Phase {
    desk.dispatcher.partitions()[&first(0)].phase
}

fn oldest(desk: &Desk) -> Option<u64> {
    let mut all = desk.dispatcher.oldest_rings();
    all.find(|(partition, _)| *partition == first(0))
        .map(|(_, oldest)| oldest)
}

/// A commit that names a ring of these members.
fn past(ring: u64, members: &str, using: Option<u64>) -> Resume {
    Resume {
        ring,
        members: Some(ring_epoch(ring, members).fingerprint()),
        using,
        ..Resume::default()
    }
}

/// A process whose subscribers know its first ring, the one of epoch 1.
fn told_desk(members: &str) -> Desk {
    let mut desk = new_desk(members);
    desk.dispatcher.heard(1, 0);
    desk.wait(GRACE);
    commit(&mut desk);
    desk
}

/// A process that has just begun.
fn new_desk(members: &str) -> Desk {
    let mut desk = Desk::new(members, 50);
    desk.dispatcher.set_grace(GRACE);
    desk
}

/// A process whose first ring is this one.
fn successor(epoch: u64, members: &str) -> Desk {
    let mut desk = Desk::new("12", 50);
    desk.change(epoch, members);
    desk.dispatcher.set_grace(GRACE);
    desk
}

fn announce(desk: &mut Desk, epoch: u64, members: &str) -> bool {
    desk.dispatcher.announce_with_grace(&ring_epoch(epoch, members), GRACE)
}

#[test]
fn a_ring_is_used_when_it_was_heard_and_committed_and_the_grace_has_run_since() {
    for commit_first in [true, false] {
        let mut desk = told_desk("12");
        assert!(announce(&mut desk, 2, "123"));
        assert_eq!(told(&desk), (2, Some(1)));
        let step = |desk: &mut Desk, commits: bool| {
            if commits {
                commit(desk);
            } else {
                desk.dispatcher.heard(2, desk.now);
            }
        };
        step(&mut desk, commit_first);
        desk.wait(2 * GRACE);
        assert!(!desk.dispatcher.may_use_announced(), "one of both is missing");
        assert_eq!(desk.dispatcher.grace_left(), Some(GRACE));
        step(&mut desk, !commit_first);
        desk.wait(GRACE - 1);
        assert!(desk.dispatcher.is_announced() && !desk.dispatcher.may_use_announced());
        assert_eq!(desk.dispatcher.grace_left(), Some(1));
        desk.wait(1);
        assert!(desk.dispatcher.may_use_announced());
        desk.change(2, "123");
        assert_eq!((told(&desk), desk.dispatcher.grace_left()), ((2, None), None));
    }
}

#[test]
fn without_a_grace_a_ring_is_used_as_soon_as_it_is_committed() {
    let mut desk = Desk::new("12", 50);
    assert!(desk.dispatcher.announce_with_grace(&ring_epoch(2, "123"), 0));
    assert_eq!(told(&desk), (2, None));
    assert!(!desk.dispatcher.may_use_announced() && desk.dispatcher.may_announce());
    assert!(
        desk.dispatcher.announce_with_grace(&ring_epoch(3, "13"), 0),
        "the newest one counts"
    );
    commit(&mut desk);
    assert!(desk.dispatcher.may_use_announced());
    desk.dispatcher.assign(first(0), &past(2, "12", Some(1)), Phase::Active);
    assert_eq!(phase(&desk), Phase::Active, "nobody waits for subscribers here");
}

#[test]
fn a_partition_that_comes_in_the_grace_is_committed_before_the_ring_is_used() {
    let mut desk = told_desk("12");
    announce(&mut desk, 2, "123");
    commit(&mut desk);
    desk.dispatcher.heard(2, desk.now);
    desk.wait(GRACE);
    desk.dispatcher.assign(first(1), &past(1, "12", None), Phase::Active);
    assert!(!desk.dispatcher.may_use_announced());
    commit(&mut desk);
    assert!(desk.dispatcher.may_use_announced(), "the grace is not begun anew");
}

#[test]
fn a_ring_that_moves_nothing_has_no_grace() {
    // Of one member whatever its weight, nothing moves either, though the rings differ.
    let heavy = Ring::new([("C1".to_owned(), 2)], 16).unwrap();
    let heavy = RingEpoch::new(2, Arc::new(heavy), vec![1]);
    for (members, next) in [("12", ring_epoch(2, "12")), ("1", heavy)] {
        let mut desk = told_desk(members);
        assert!(desk.dispatcher.announce_with_grace(&next, GRACE));
        assert_eq!((told(&desk), desk.dispatcher.grace_left()), ((2, None), None));
        commit(&mut desk);
        assert!(desk.dispatcher.may_use_announced());
    }
}

#[test]
fn a_newer_ring_is_announced_when_the_one_that_has_its_grace_is_used() {
    let mut desk = told_desk("12");
    announce(&mut desk, 2, "123");
    commit(&mut desk);
    desk.dispatcher.heard(2, desk.now);
    desk.wait(GRACE - 1);
    assert!(!desk.dispatcher.may_announce() && !announce(&mut desk, 3, "12"));
    assert_eq!(told(&desk), (2, Some(1)));
    desk.wait(1);
    desk.change(2, "123");
    assert!(desk.dispatcher.may_announce() && announce(&mut desk, 3, "12"));
    assert_eq!(
        told(&desk),
        (3, Some(2)),
        "the members of ring 1 are others than those of ring 2"
    );
}

#[test]
fn a_successor_gives_its_own_grace_and_keeps_the_word() {
    // The commit names our ring, which is only announced; or an older one; or an older one that moves nothing.
    for (resume, given, expected) in [
        (past(2, "12", Some(1)), Phase::Active, Phase::Grace),
        (past(1, "123", None), Phase::Announcing, Phase::Grace),
        (past(1, "12", None), Phase::Announcing, Phase::Announcing),
        (past(2, "12", None), Phase::Active, Phase::Active),
    ] {
        let mut desk = successor(2, "12");
        desk.dispatcher.assign(first(0), &resume, given);
        assert_eq!(phase(&desk), expected, "{resume:?}");
    }

    let mut desk = successor(2, "12");
    let moves = key(&[("12", 1)], 0);
    desk.dispatcher.assign(first(0), &past(2, "12", Some(1)), Phase::Active);
    assert_eq!(desk.comes(&moves), Admission::Unwanted);
    assert_eq!(
        (told(&desk), phase(&desk).to_string()),
        ((2, Some(1)), Phase::Grace.to_string())
    );
    assert!(!desk.dispatcher.may_announce(), "its grace is not begun anew");
    desk.dispatcher.heard(2, desk.now);
    desk.wait(GRACE - 1);
    assert!(commit(&mut desk).is_empty() && desk.dispatcher.end_grace().is_empty());
    desk.wait(1);
    assert_eq!(desk.dispatcher.end_grace(), [first(0)]);
    assert_eq!((told(&desk), desk.dispatcher.end_grace()), ((2, None), Vec::new()));
    assert!(matches!(desk.comes(&moves), Admission::Take(_)));
}

#[test]
fn a_successor_begins_only_when_the_broker_has_its_commit() {
    let mut desk = successor(3, "123");
    desk.dispatcher
        .assign(first(0), &past(2, "12", None), Phase::Announcing);
    desk.dispatcher.heard(3, desk.now);
    desk.wait(GRACE);
    assert_eq!(desk.dispatcher.end_grace(), []);
    assert_eq!(told(&desk), (3, Some(2)));
    commit(&mut desk);
    assert_eq!(desk.dispatcher.end_grace(), [first(0)]);
}

#[test]
fn what_drains_in_its_grace_tells_its_successor_the_same() {
    let mut desk = successor(3, "123");
    desk.dispatcher
        .assign(first(0), &past(2, "12", None), Phase::Announcing);
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    desk.dispatcher.heard(3, desk.now);
    desk.wait(GRACE);
    assert_eq!((told(&desk), desk.dispatcher.end_grace()), ((3, Some(2)), Vec::new()));
}

#[test]
fn whose_subscribers_know_the_ring_takes_a_partition_over_without_a_wait() {
    let mut desk = told_desk("12");
    desk.dispatcher.assign(first(0), &past(1, "12", None), Phase::Active);
    assert_eq!(phase(&desk), Phase::Active);
    announce(&mut desk, 3, "123");
    commit(&mut desk);
    desk.dispatcher.heard(3, desk.now);
    desk.wait(GRACE);
    // Another process has used ring 2, or uses ring 3 by now: this one begins when it uses ring 3.
    desk.dispatcher
        .assign(first(1), &past(3, "123", None), Phase::Behind(3));
    desk.dispatcher
        .assign(first(2), &past(3, "123", Some(2)), Phase::Behind(3));
    desk.dispatcher.assign(first(3), &past(2, "13", None), Phase::Behind(2));
    assert!(desk.dispatcher.may_use_announced());
    let begun = desk.dispatcher.set_ring(ring_epoch(3, "123"));
    assert_eq!(begun, [first(1), first(2)]);
    assert_eq!(desk.dispatcher.partitions()[&first(3)].phase, Phase::Announcing);
    desk.dispatcher
        .assign(first(4), &past(2, "13", None), Phase::Announcing);
    assert_eq!(commit(&mut desk), [first(3), first(4)]);
}

#[test]
fn a_partition_without_a_past_has_no_grace() {
    let mut desk = new_desk("12");
    desk.dispatcher.assign(first(0), &Resume::default(), Phase::Announcing);
    assert_eq!(phase(&desk), Phase::Announcing);
    assert_eq!(commit(&mut desk), [first(0)]);
}

#[test]
fn a_ring_is_left_when_all_that_came_before_the_next_one_is_settled() {
    let mut desk = told_desk("12");
    let (moves, stays) = (key(&[("12", 1), ("123", 3)], 0), key(&[("12", 2), ("123", 2)], 0));
    desk.comes(&stays);
    desk.comes(&moves);
    announce(&mut desk, 2, "123");
    commit(&mut desk);
    desk.dispatcher.heard(2, desk.now);
    desk.wait(GRACE);
    assert_eq!(oldest(&desk), Some(1));
    desk.change(2, "123");
    commit(&mut desk);
    desk.comes(&moves);
    desk.confirm(1, 1);
    assert_eq!(
        (oldest(&desk), desk.at(3)),
        (Some(1), vec![2]),
        "the other asset's record is out"
    );
    desk.confirm(2, 0);
    assert_eq!(oldest(&desk), Some(2), "record 2 went by ring 2");
}

#[test]
fn what_is_parked_counts_as_the_older_ring_s() {
    let mut desk = told_desk("12");
    let away = key(&[("12", 1), ("123", 1)], 0);
    desk.resumes(first(0), 9, 3);
    commit(&mut desk);
    desk.log = vec![away; 9];
    desk.change(2, "123");
    commit(&mut desk);
    assert_eq!(oldest(&desk), Some(1));
    assert_eq!(desk.read_again(), [3, 4, 5, 6, 7, 8]);
    assert_eq!(oldest(&desk), Some(1), "they are out, and there is one offset for all");
    (3..9).for_each(|offset| desk.confirm(1, offset));
    assert_eq!(oldest(&desk), Some(2));
}

#[test]
fn no_ring_is_left_before_subscribers_know_a_newer_one_from_this_process() {
    let mut desk = told_desk("12");
    assert_eq!(oldest(&desk), Some(1));
    // Others may use ring 2 meanwhile. Ring 3 moves nothing here, so it is used at once.
    announce(&mut desk, 3, "12");
    commit(&mut desk);
    desk.change(3, "12");
    commit(&mut desk);
    assert_eq!(oldest(&desk), Some(1), "who knows rings 1 and 2 would be nowhere");
    desk.dispatcher.heard(3, desk.now);
    desk.wait(GRACE);
    assert_eq!(oldest(&desk), Some(3));

    // One that has just begun knows nothing of what subscribers know.
    let mut desk = new_desk("12");
    desk.dispatcher.assign(first(0), &past(1, "12", None), Phase::Active);
    assert_eq!((phase(&desk), oldest(&desk)), (Phase::Active, None));
    desk.dispatcher.heard(1, 0);
    desk.wait(GRACE);
    assert_eq!(oldest(&desk), Some(1));
}

#[test]
fn a_ring_that_the_broker_does_not_know_of_is_not_spoken_of() {
    let mut desk = told_desk("12");
    desk.change(2, "123");
    assert_eq!(oldest(&desk), Some(1), "a successor may go by ring 1");
    commit(&mut desk);
    assert_eq!(oldest(&desk), Some(2));
    desk.dispatcher.assign(first(0), &Resume::default(), Phase::Sought);
    assert_eq!(oldest(&desk), None);
}

#[test]
fn many_rings_in_use_take_no_more_memory_and_none_is_left_too_early() {
    let mut desk = told_desk("12");
    let stays = key(&[("12", 1)], 0);
    for epoch in 2..200 {
        desk.comes(&stays);
        desk.change(epoch, "12");
        commit(&mut desk);
    }
    for offset in 0..198 {
        let in_use = oldest(&desk).unwrap();
        assert!(in_use <= offset as u64 + 1, "{in_use} where {offset} is out");
        desk.confirm(1, offset);
    }
    assert_eq!(oldest(&desk), Some(199));
}

/// A process that has begun with ring 2 and has no partition.
fn unassigned() -> Desk {
    let mut desk = successor(2, "12");
    desk.dispatcher.remove(first(0));
    desk
}

#[test]
fn a_successor_s_ring_is_not_used_before_a_partition_has_begun_by_it() {
    let mut desk = unassigned();
    let unused_for = |desk: &Desk| desk.dispatcher.unused_for();
    assert_eq!(
        unused_for(&desk),
        Some(GRACE),
        "it does not know yet what others have done"
    );
    desk.dispatcher.assign(first(0), &past(2, "12", Some(1)), Phase::Active);
    assert_eq!(unused_for(&desk), Some(GRACE));
    desk.dispatcher.heard(2, desk.now);
    desk.wait(GRACE - 1);
    assert_eq!(unused_for(&desk), Some(1));
    desk.wait(1);
    assert_eq!(unused_for(&desk), Some(0), "the broker has no commit yet");
    commit(&mut desk);
    desk.dispatcher.end_grace();
    assert_eq!(unused_for(&desk), None);

    // Others have delivered under it; or no partition comes; or no grace is declared.
    let mut desk = unassigned();
    desk.dispatcher.assign(first(0), &past(2, "12", Some(1)), Phase::Active);
    desk.dispatcher.assign(first(1), &past(2, "12", None), Phase::Active);
    assert_eq!(unused_for(&desk), None);
    let mut desk = unassigned();
    desk.dispatcher.heard(2, desk.now);
    desk.wait(GRACE);
    assert_eq!(unused_for(&desk), None);
    assert_eq!(unused_for(&Desk::new("12", 50)), None);
}
