//! Partitions taken and given up; what may be committed.

use super::*;

#[test]
fn partitions_of_one_number_in_two_topics_have_nothing_in_common() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    let other = Inputs::new(["a", "b"]).partition("b", 0).unwrap();
    let resume = Resume {
        offset: 5,
        ..Resume::default()
    };
    desk.dispatcher.assign(other, &resume, Phase::Active);
    desk.comes(&some);
    let place = desk.dispatcher.ring_epoch().ring.place(some.as_bytes());
    let Admission::Take(tag) = desk.dispatcher.receive(other, 5, some.as_bytes(), place) else {
        panic!("it is taken");
    };
    desk.dispatcher.enter(Message { tag, lane: place.lane }, place.owner);
    desk.hand_out();
    desk.confirm(1, 0);
    let position = |desk: &Desk| desk.dispatcher.partitions()[&other].position();
    assert_eq!((desk.position(), position(&desk)), (1, 5));
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(
        (desk.dispatcher.awaited(first(0)), desk.dispatcher.awaited(other)),
        (0, 1)
    );
    desk.dispatcher.remove(first(0));
    desk.confirm(1, 5);
    assert_eq!(position(&desk), 6);
}

#[test]
fn a_drain_does_not_wait_for_an_output_that_stands_still() {
    let mut desk = Desk::new("12", 50);
    let (stands, flows) = (key(&[("12", 1), ("2", 2)], 0), key(&[("12", 2)], 0));
    desk.wait(0);
    desk.comes(&stands);
    for _ in 0..4 {
        desk.comes(&flows);
    }
    for offset in 1..4 {
        desk.wait(SECOND);
        desk.confirm(2, offset);
    }
    desk.wait(0);
    assert_eq!(
        desk.dispatcher.awaited(first(0)),
        1,
        "one is at the output that answers"
    );
    // What waits for the one that stands still is not waited for, either.
    desk.change(2, "2");
    desk.comes(&stands);
    assert_eq!(desk.dispatcher.awaited(first(0)), 1);
}

#[test]
fn what_was_read_behind_the_last_record_is_committed_only_with_that() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1)], 0);
    desk.dispatcher.reached(first(0), 7);
    assert_eq!(desk.position(), 0, "who knows what that was read for");
    desk.comes(&moves);
    desk.dispatcher.reached(first(0), 7);
    assert_eq!(desk.position(), 0, "the record is out");
    desk.confirm(1, 0);
    assert_eq!(desk.position(), 7);
    desk.dispatcher.reached(first(0), 3);
    assert_eq!(desk.position(), 7);
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    desk.dispatcher.reached(first(0), 9);
    assert_eq!(desk.position(), 7, "what came meanwhile was not taken");
}

#[test]
fn a_commit_tells_what_is_settled_ahead_and_a_successor_goes_on_from_there() {
    let mut desk = Desk::new("12", 4);
    let (away, well) = (key(&[("12", 1)], 0), key(&[("12", 2)], 0));
    for _ in 0..4 {
        desk.comes(&away);
    }
    desk.overflow();
    desk.comes(&well);
    desk.comes(&away);
    desk.comes(&well);
    desk.confirm(2, 4);
    desk.confirm(2, 6);
    let point = desk.dispatcher.commit_point(first(0)).unwrap();
    let ahead = point.ahead.unwrap();
    assert_eq!((point.position, ahead.upto), (0, 7), "however few they are");
    assert_eq!(ahead.away, [("C1".to_owned(), 0)]);
    (0..4).for_each(|offset| desk.confirm(1, offset));
    let point = desk.dispatcher.commit_point(first(0)).unwrap();
    let ahead = point.ahead.unwrap();
    assert_eq!((point.position, ahead.upto), (5, 7));
    assert_eq!(ahead.away, [("C1".to_owned(), 5)]);

    let resume = Resume {
        offset: ahead.upto,
        away: ahead.away,
        lanes: Vec::new(),
        ..Resume::default()
    };
    let (log, now) = (desk.log, desk.now);
    let mut next = Desk::new("12", 4);
    (next.log, next.now) = (log, now);
    next.dispatcher.assign(first(0), &resume, Phase::Active);
    assert_eq!(next.position(), 5);
    assert_eq!(next.comes(&away), Admission::Parked);
    assert!(matches!(next.comes(&well), Admission::Take(_)));
    assert_eq!(next.read_again(), [5, 7]);
    assert_eq!((next.at(1), next.at(2)), (vec![5, 7], vec![8]));
    next.confirm(1, 5);
    assert_eq!(next.position(), 7);
}

#[test]
fn a_drain_waits_for_no_output_that_overflows() {
    let mut desk = Desk::new("12", 2);
    let (away, well) = (key(&[("12", 1)], 0), key(&[("12", 2)], 0));
    desk.comes(&away);
    desk.comes(&away);
    desk.comes(&well);
    assert_eq!(desk.dispatcher.awaited(first(0)), 3);
    desk.overflow();
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(desk.dispatcher.awaited(first(0)), 1);
    assert_eq!(desk.comes(&well), Admission::Unwanted);
    desk.confirm(2, 2);
    assert_eq!(desk.dispatcher.awaited(first(0)), 0);
}

#[test]
fn a_partition_that_is_given_up_leaves_nothing_behind() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.comes(&moves);
    // In a batch that nobody has taken.
    let other = key(&[("2", 2)], 0);
    let place = desk.dispatcher.ring_epoch().ring.place(other.as_bytes());
    if let Admission::Take(tag) = desk.dispatcher.receive(first(0), 2, other.as_bytes(), place) {
        desk.dispatcher.enter(Message { tag, lane: place.lane }, place.owner);
    }
    assert_eq!(desk.dispatcher.total().records, 3);
    desk.dispatcher.remove(first(0));
    assert_eq!(desk.dispatcher.waiting(), 0);
    assert_eq!(
        desk.dispatcher.total().records,
        1,
        "what the old owner has is still out"
    );
    desk.leaves(1, 0);
    desk.hand_out();
    assert!(desk.dispatcher.is_idle() && desk.dispatcher.caps.is_clear());
    assert!(desk.at(2).is_empty());
}

#[test]
fn a_partition_without_a_beginning_is_given_up_without_a_commit() {
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.assign(first(0), &Resume::default(), Phase::Stopped);
    assert_eq!(desk.dispatcher.to_commit(first(0)), None);
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(
        desk.dispatcher.to_commit(first(0)),
        None,
        "where to begin is for a person to say"
    );
}

#[test]
fn a_late_report_changes_nothing() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    desk.comes(&some);
    let late = desk.leaves(1, 0);
    desk.dispatcher.assign(first(0), &Resume::default(), Phase::Active);
    desk.log.clear();
    desk.comes(&some);
    desk.dispatcher.settle(late.tag);
    desk.dispatcher.take_back(1, late);
    desk.hand_out();
    assert_eq!((desk.position(), desk.at(1)), (0, vec![0]));
}

#[test]
fn a_partition_that_has_to_stop_midway_commits_nothing_until_it_is_given_up() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    desk.comes(&some);
    desk.confirm(1, 0);
    desk.dispatcher.set_phase(first(0), Phase::Stopped);
    assert_eq!(
        desk.dispatcher.commit_point(first(0)),
        None,
        "that is for a person to say"
    );
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(desk.dispatcher.commit_point(first(0)).unwrap().position, 1);
}

#[test]
fn a_record_is_current_as_long_as_its_assignment_lasts() {
    let mut desk = Desk::new("12", 50);
    desk.comes(&key(&[("12", 1)], 0));
    let tag = desk.out[&1][0].tag;
    assert!(desk.dispatcher.is_current(tag));
    desk.dispatcher.assign(first(0), &Resume::default(), Phase::Active);
    assert!(!desk.dispatcher.is_current(tag));
    desk.dispatcher.remove(first(0));
    assert!(!desk.dispatcher.is_current(tag));
}

#[test]
fn a_record_of_no_asset_is_not_taken_where_no_other_is() {
    let mut desk = Desk::new("12", 50);
    assert!(matches!(desk.dispatcher.receive_stray(first(0), 0), Admission::Take(_)));
    assert_eq!(
        desk.dispatcher.receive_stray(first(0), 0),
        Admission::Unwanted,
        "seen before"
    );
    for phase in [
        Phase::Draining,
        Phase::Stopped,
        Phase::Behind(2),
        Phase::Announcing,
        Phase::Contested,
    ] {
        desk.dispatcher.set_phase(first(0), phase);
        assert_eq!(
            desk.dispatcher.receive_stray(first(0), 1),
            Admission::Unwanted,
            "{phase:?}"
        );
    }
    assert_eq!(desk.dispatcher.receive_stray(first(1), 0), Admission::Unwanted);
}

#[test]
fn a_drain_waits_for_what_is_held_as_well() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.comes(&moves);
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(desk.dispatcher.awaited(first(0)), 2);
    desk.confirm(1, 0);
    assert_eq!(desk.dispatcher.awaited(first(0)), 1);
    desk.confirm(2, 1);
    assert_eq!(desk.dispatcher.awaited(first(0)), 0);
}
