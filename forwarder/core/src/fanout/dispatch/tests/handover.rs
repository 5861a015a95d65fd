//! Assets that move.

use super::*;

#[test]
fn an_asset_that_moves_waits_and_no_other_does() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("123", 3)], 0);
    let stays = key(&[("12", 1), ("123", 1)], 0);
    desk.comes(&moves);
    desk.comes(&stays);
    desk.comes(&moves);
    desk.change(2, "123");
    assert_eq!(desk.dispatcher.waiting(), 1);
    desk.comes(&moves);
    desk.comes(&stays);
    assert_eq!((desk.at(1), desk.at(3)), (vec![0, 1, 2, 4], vec![]));
    desk.confirm(1, 0);
    assert!(desk.at(3).is_empty(), "record 2 is still at the old owner");
    desk.confirm(1, 2);
    desk.comes(&moves);
    assert_eq!((desk.at(3), desk.dispatcher.waiting()), (vec![3, 5], 0));
}

#[test]
fn an_old_owner_that_does_not_answer_gives_back_and_the_new_one_gets_all_in_order() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    for _ in 0..3 {
        desk.comes(&moves);
    }
    desk.change(2, "2");
    desk.comes(&moves);
    desk.wait(SECOND - 1);
    assert_eq!(desk.dispatcher.overdue(), []);
    desk.wait(1);
    let lane = desk.out[&1][0].lane;
    assert_eq!(desk.dispatcher.overdue(), [(1, lane)]);
    assert_eq!(desk.dispatcher.overdue(), [], "it is asked once");
    // One was confirmed before it heard of that; the others come back in no particular order.
    desk.confirm(1, 0);
    desk.give_back(1, 2);
    assert!(desk.at(2).is_empty());
    desk.give_back(1, 1);
    assert_eq!(desk.at(2), [1, 2, 3]);
    assert!(desk.dispatcher.is_done_with(1));
    assert_eq!(desk.position(), 1);
}

#[test]
fn an_asset_that_moves_twice_waits_for_whoever_has_its_records() {
    let mut desk = Desk::new("12", 50);
    let twice = key(&[("12", 1), ("23", 2), ("3", 3)], 0);
    let home = key(&[("12", 1), ("23", 2)], 0);
    desk.comes(&twice);
    desk.change(2, "23");
    desk.comes(&twice);
    desk.change(3, "3");
    desk.comes(&twice);
    assert_eq!(desk.dispatcher.waiting(), 1);
    desk.confirm(1, 0);
    assert_eq!((desk.at(2), desk.at(3)), (vec![], vec![1, 2]));

    let mut desk = Desk::new("12", 50);
    desk.comes(&home);
    desk.change(2, "23");
    desk.comes(&home);
    desk.change(3, "12");
    assert_eq!(desk.dispatcher.waiting(), 0, "it is where it belongs again");
    assert_eq!(desk.at(1), [0, 1]);
}

#[test]
fn an_asset_that_moves_is_held_within_bounds_and_parked_beyond() {
    let mut desk = Desk::new("12", 4);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.comes(&moves);
    desk.change(2, "2");
    for _ in 0..2 {
        assert!(matches!(desk.comes(&moves), Admission::Take(_)));
    }
    for _ in 0..2 {
        assert_eq!(desk.comes(&moves), Admission::Parked);
    }
    assert!(desk.read_again().is_empty(), "not before those that are held");
    desk.confirm(1, 0);
    assert_eq!(desk.at(2), [1, 2]);
    desk.confirm(2, 1);
    desk.wait(SECOND);
    assert_eq!(desk.read_again(), [3]);
    assert_eq!(desk.at(2), [2, 3]);
}

#[test]
fn a_ring_change_while_records_are_given_back_loses_count_of_none() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2), ("23", 3)], 0);
    desk.comes(&moves);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.wait(SECOND);
    assert_eq!(desk.dispatcher.overdue().len(), 1);
    desk.give_back(1, 1);
    desk.change(3, "23");
    assert!(desk.at(3).is_empty());
    desk.give_back(1, 0);
    assert_eq!(desk.at(3), [0, 1]);
}

#[test]
fn an_asset_that_moves_does_not_wait_for_the_dead_letter() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.comes(&moves);
    let refused = desk.leaves(1, 0);
    desk.dispatcher.bury_from(1, refused.tag, refused.lane, 5);
    desk.hand_out();
    assert_eq!((desk.at(2), desk.dispatcher.waiting()), (vec![1], 0));
    assert_eq!(desk.position(), 0, "it is settled when the dead letter has it");
    assert_eq!(desk.dispatcher.load(DEAD_LETTER).records, 1);
}

#[test]
fn an_asset_that_comes_home_waits_for_what_was_asked_back() {
    let mut desk = Desk::new("12", 50);
    let home = key(&[("12", 1), ("23", 2)], 0);
    desk.comes(&home);
    desk.change(2, "23");
    desk.comes(&home);
    desk.wait(SECOND);
    assert_eq!(desk.dispatcher.overdue().len(), 1);
    desk.change(3, "12");
    assert_eq!(desk.at(1), [0], "record 0 is on its way back");
    desk.give_back(1, 0);
    assert_eq!(desk.at(1), [0, 1]);
}

#[test]
fn what_is_not_handed_out_yet_is_not_asked_back() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    let place = desk.dispatcher.ring_epoch().ring.place(moves.as_bytes());
    let Admission::Take(tag) = desk.dispatcher.receive(first(0), 0, moves.as_bytes(), place) else {
        panic!("it is taken");
    };
    desk.dispatcher.enter(Message { tag, lane: place.lane }, place.owner);
    desk.dispatcher.set_ring(ring_epoch(2, "2"));
    desk.wait(SECOND);
    assert_eq!(desk.dispatcher.overdue(), []);
    desk.hand_out();
    assert_eq!(desk.dispatcher.overdue(), [(1, place.lane)]);
}

#[test]
fn an_asset_in_two_partitions_waits_only_for_the_one_that_is_left() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.dispatcher.assign(first(1), &Resume::default(), Phase::Active);
    let place = desk.dispatcher.ring_epoch().ring.place(moves.as_bytes());
    let Admission::Take(other) = desk.dispatcher.receive(first(1), 0, moves.as_bytes(), place) else {
        panic!("it is taken");
    };
    let message = Message {
        tag: other,
        lane: place.lane,
    };
    desk.dispatcher.enter(message, place.owner);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.comes(&moves);
    desk.dispatcher.remove(first(1));
    desk.hand_out();
    assert_eq!(desk.dispatcher.waiting(), 1, "record 0 is still at the old owner");
    let epoch = desk.dispatcher.partitions()[&first(0)].epoch;
    desk.out
        .get_mut(&1)
        .unwrap()
        .retain(|message| message.tag.epoch == epoch);
    desk.confirm(1, 0);
    assert_eq!((desk.at(2), desk.dispatcher.waiting()), (vec![1], 0));
}

#[test]
fn each_ring_change_gives_the_old_owner_its_own_time() {
    let mut desk = Desk::new("123", 50);
    let first = key(&[("123", 1), ("23", 2), ("3", 3)], 0);
    let second = key(&[("123", 2), ("23", 2), ("3", 3)], 0);
    desk.comes(&first);
    desk.comes(&second);
    desk.change(2, "23");
    desk.wait(SECOND / 2);
    desk.change(3, "3");
    let lanes = [(1, desk.out[&1][0].lane), (2, desk.out[&2][0].lane)];
    desk.wait(SECOND / 2);
    assert_eq!(desk.dispatcher.overdue(), lanes[..1]);
    desk.wait(SECOND / 2 - 1);
    assert_eq!(desk.dispatcher.overdue(), []);
    desk.wait(1);
    assert_eq!(desk.dispatcher.overdue(), lanes[1..]);
}

#[test]
fn an_asset_that_is_parked_because_it_moves_takes_no_other_with_it() {
    let mut desk = Desk::new("12", 2);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    let stays = key(&[("12", 2), ("2", 2)], 0);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.comes(&moves);
    assert_eq!(desk.comes(&moves), Admission::Parked, "no more is held");
    assert!(matches!(desk.comes(&stays), Admission::Take(_)));
    desk.confirm(1, 0);
    desk.confirm(2, 1);
    desk.confirm(2, 3);
    assert_eq!(desk.read_again(), [2]);
    desk.confirm(2, 2);
    // That is over: whatever is parked from here on is named by the ring in use alone.
    desk.comes(&stays);
    desk.comes(&moves);
    desk.overflow();
    assert_eq!(desk.comes(&stays), Admission::Parked);
    let classes: Vec<_> = desk.dispatcher.partitions()[&first(0)].backlog.classes().collect();
    assert_eq!(classes[0].0, [2]);
    assert_eq!(desk.comes(&moves), Admission::Parked);
    assert_eq!(desk.dispatcher.parked()[&2].records, 2);
}

#[test]
fn a_hand_over_that_is_done_leaves_no_older_rings() {
    let mut desk = Desk::new("12", 2);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.confirm(1, 0);
    desk.comes(&moves);
    desk.comes(&moves);
    desk.overflow();
    assert_eq!(desk.comes(&moves), Admission::Parked);
    let classes: Vec<_> = desk.dispatcher.partitions()[&first(0)].backlog.classes().collect();
    assert_eq!(classes[0].0, [2]);
}

#[test]
fn what_is_given_back_counts_until_it_is_settled() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    (0..2).for_each(|_| assert!(matches!(desk.comes(&moves), Admission::Take(_))));
    desk.change(2, "2");
    desk.comes(&moves);
    desk.wait(SECOND);
    assert_eq!(desk.dispatcher.overdue().len(), 1);
    for (offset, there) in [(1, 0), (0, 3)] {
        desk.give_back(1, offset);
        assert_eq!((desk.dispatcher.total().records, desk.at(2).len()), (3, there));
    }
    (0..3).for_each(|offset| desk.confirm(2, offset));
    assert!(desk.dispatcher.is_idle() && desk.dispatcher.caps.is_clear());
}

#[test]
fn what_was_given_back_goes_with_its_partition() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.comes(&moves);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.wait(SECOND);
    assert_eq!(desk.dispatcher.overdue().len(), 1);
    desk.give_back(1, 0);
    desk.dispatcher.remove(first(0));
    desk.hand_out();
    assert_eq!(desk.dispatcher.total().records, 1, "record 1 is still at the old owner");
    assert!(desk.at(2).is_empty() && desk.dispatcher.caps.is_clear());
    desk.give_back(1, 1);
    assert!(desk.at(2).is_empty() && desk.dispatcher.is_idle());
}
