//! What is parked, and read again.

use super::*;

#[test]
fn a_pass_ends_where_no_record_follows() {
    let mut desk = Desk::new("12", 4);
    let away = key(&[("12", 1)], 0);
    for _ in 0..4 {
        desk.comes(&away);
    }
    desk.overflow();
    assert_eq!(desk.comes(&away), Admission::Parked);
    desk.dispatcher.reached(first(0), 6);
    (0..4).for_each(|offset| desk.confirm(1, offset));
    desk.wait(1);
    assert_eq!(desk.read_again(), [4]);
    assert_eq!(desk.dispatcher.job(), None);
    desk.confirm(1, 4);
    assert_eq!(desk.position(), 6);
}

#[test]
fn a_pass_that_brings_nothing_gives_way_to_another_partition() {
    let mut desk = Desk::new("12", 50);
    for partition in [0, 1].map(first) {
        desk.resumes(partition, 9, 3);
    }
    let one = desk.dispatcher.job().unwrap();
    desk.wait(10 * SECOND);
    assert_eq!(desk.dispatcher.job(), Some(one));
    desk.wait(60 * SECOND);
    let two = desk.dispatcher.job().unwrap();
    assert_eq!((one.partition, two.partition), (first(0), first(1)));
    desk.wait(60 * SECOND);
    let again = desk.dispatcher.job().unwrap();
    assert_eq!((again.partition, again.from), (first(0), 3));
}

#[test]
fn classes_are_only_those_that_assets_can_have() {
    let mut desk = Desk::new("1234", 4);
    let away = key(&[("1234", 1), ("12345", 1)], 0);
    for _ in 0..4 {
        desk.comes(&away);
    }
    desk.overflow();
    assert_eq!(desk.comes(&away), Admission::Parked);
    let classes = |desk: &Desk| desk.dispatcher.partitions()[&first(0)].backlog.classes().count();
    desk.change(2, "12345");
    assert_eq!(classes(&desk), 2, "C1's assets are C1's or C5's");
    for epoch in 1..10 {
        desk.change(2 * epoch + 1, "1234");
        desk.change(2 * epoch + 2, "12345");
    }
    assert_eq!(classes(&desk), 2, "to and fro is one way");
}

#[test]
fn what_is_parked_is_read_again_in_order_and_then_flows() {
    let mut desk = Desk::new("12", 4);
    let (away, well) = (key(&[("12", 1)], 0), key(&[("12", 2)], 0));
    for _ in 0..4 {
        desk.comes(&away);
    }
    desk.overflow();
    assert!(desk.dispatcher.overflows(1) && desk.dispatcher.has_room());
    for _ in 0..3 {
        assert_eq!(desk.comes(&away), Admission::Parked);
        assert!(matches!(desk.comes(&well), Admission::Take(_)));
    }
    assert_eq!(desk.dispatcher.parked()[&1].records, 3);
    assert_eq!(desk.dispatcher.job(), None, "there is no room for what is parked");
    (0..4).for_each(|offset| desk.confirm(1, offset));
    assert_eq!(desk.position(), 4);
    desk.wait(1);
    assert_eq!(desk.comes(&away), Admission::Parked, "it may not overtake");
    assert_eq!(desk.read_again(), [4, 6], "half of its cap is for what comes in");
    desk.confirm(1, 4);
    desk.confirm(1, 6);
    assert_eq!(desk.read_again(), [8, 10]);
    assert!(desk.dispatcher.parked().is_empty());
    assert!(matches!(desk.comes(&away), Admission::Take(_)));
    assert_eq!(desk.at(1), [8, 10, 11]);
}

#[test]
fn what_is_parked_goes_to_whom_it_belongs_when_it_is_read() {
    for (epoch, next) in [(2, ring_epoch(2, "123")), (3, ring_epoch_with(3, "123", vec![7, 2, 3]))] {
        let mut desk = Desk::new("12", 4);
        let moves = key(&[("12", 1), ("123", 3)], 0);
        let stays = key(&[("12", 1), ("123", 1)], 0);
        for _ in 0..4 {
            desk.comes(&stays);
        }
        desk.overflow();
        desk.comes(&moves);
        desk.comes(&stays);
        desk.comes(&moves);
        let output = next.outputs()[0];
        desk.dispatcher.set_ring(next);
        desk.hand_out();
        let parked: Vec<u32> = desk.dispatcher.parked().into_keys().collect();
        let mut expected = vec![output, 3];
        expected.sort_unstable();
        assert_eq!(parked, expected, "ring {epoch}");
        let mut ahead = desk.ahead().unwrap();
        ahead.away.sort();
        let by_owners_now = [("C1".to_owned(), 0), ("C3".to_owned(), 4)];
        assert_eq!((ahead.upto, ahead.away.as_slice()), (7, by_owners_now.as_slice()));
        assert_eq!(desk.read_again(), [4, 6]);
        assert_eq!(desk.at(3), [4, 6]);
        (0..4).for_each(|offset| desk.confirm(1, offset));
        desk.wait(1);
        assert_eq!(desk.read_again(), [5]);
        assert_eq!((desk.at(output), desk.position()), (vec![5], 4));
    }
}

#[test]
fn parked_records_wait_for_the_dead_letter_too() {
    let mut desk = Desk::new("12", 4);
    let away = key(&[("12", 1)], 0);
    for _ in 0..4 {
        desk.comes(&away);
    }
    desk.overflow();
    desk.comes(&away);
    (0..4).for_each(|offset| desk.confirm(1, offset));
    desk.wait(1);
    for offset in 5..9 {
        if let Admission::Take(tag) = desk.dispatcher.receive_stray(first(0), offset) {
            desk.dispatcher.bury(tag, 10);
        }
    }
    assert_eq!(
        desk.dispatcher.job(),
        None,
        "what is read again may be for the dead letter"
    );
    desk.dispatcher.leave(DEAD_LETTER, 10);
    assert!(desk.dispatcher.job().is_some());
}

#[test]
fn a_class_without_room_goes_on_from_the_record_that_it_has_come_to() {
    let mut desk = Desk::new("12", 4);
    let (away, well) = (key(&[("12", 1)], 0), key(&[("12", 2)], 0));
    for _ in 0..4 {
        desk.comes(&away);
    }
    desk.overflow();
    for _ in 0..3 {
        desk.comes(&away);
        desk.comes(&well);
        desk.comes(&well);
        let last = desk.log.len() as i64 - 1;
        (last - 1..=last).for_each(|offset| desk.confirm(2, offset));
    }
    (0..4).for_each(|offset| desk.confirm(1, offset));
    desk.wait(1);
    assert_eq!(desk.read_again(), [4, 7]);
    desk.wait(SECOND);
    assert!(desk.read_again().is_empty(), "there is still no room");
    desk.confirm(1, 4);
    desk.confirm(1, 7);
    assert_eq!(desk.position(), 10, "8 and 9 need not be looked at again");
    assert_eq!(desk.read_again(), [10]);
}

#[test]
fn what_has_expired_is_not_looked_for() {
    let mut desk = Desk::new("12", 4);
    let resume = Resume {
        offset: 9,
        away: vec![("C1".to_owned(), 3), ("C2".to_owned(), 7)],
        ..Resume::default()
    };
    desk.dispatcher.assign(first(0), &resume, Phase::Active);
    assert_eq!(desk.dispatcher.job().map(|job| job.from), Some(3));
    assert_eq!(desk.dispatcher.expired(first(0), 5), 2);
    assert_eq!(desk.position(), 5);
    assert_eq!(desk.dispatcher.job().map(|job| job.from), Some(5));
    assert_eq!(desk.dispatcher.expired(first(0), 5), 0, "it is told once");
    assert_eq!(desk.dispatcher.expired(first(0), 9), 4);
    assert!(desk.dispatcher.parked().is_empty(), "all that was parked is gone");
    assert_eq!((desk.dispatcher.job(), desk.position()), (None, 9));
}

#[test]
fn a_pass_ends_with_the_partition_where_nothing_has_come_since() {
    let mut desk = Desk::new("12", 50);
    let away = key(&[("12", 1)], 0);
    desk.resumes(first(0), 9, 0);
    desk.log = vec![away; 3];
    assert_eq!(desk.read_again(), [0, 1, 2]);
    assert!(
        desk.dispatcher.job().is_some(),
        "an end before where the intake is must be an old one"
    );
    // From 3 to 8 the partition has what is no record.
    desk.end = 9;
    assert!(desk.read_again().is_empty());
    assert!(desk.dispatcher.parked().is_empty());
    assert_eq!(desk.dispatcher.job(), None);
    (0..3).for_each(|offset| desk.confirm(1, offset));
    assert_eq!(desk.position(), 9);
}

#[test]
fn partitions_have_their_turn_to_be_read_again() {
    let mut desk = Desk::new("12", 50);
    for partition in (0..3).map(first) {
        desk.resumes(partition, 9, 3);
    }
    for partition in [0, 1, 2, 0].map(first) {
        assert_eq!(desk.dispatcher.job().map(|job| job.partition), Some(partition));
        desk.dispatcher.stop_reading();
    }
}

#[test]
fn nothing_is_read_again_of_a_partition_that_is_not_taken() {
    let mut desk = Desk::new("12", 50);
    let away = key(&[("12", 1)], 0);
    let resume = Resume {
        offset: 9,
        away: vec![("C1".to_owned(), 3)],
        ..Resume::default()
    };
    for phase in [
        Phase::Draining,
        Phase::Stopped,
        Phase::Behind(2),
        Phase::Announcing,
        Phase::Contested,
    ] {
        desk.dispatcher.assign(first(0), &resume, phase);
        assert_eq!(desk.dispatcher.job(), None, "{phase:?}");
        desk.dispatcher.set_phase(first(0), Phase::Active);
        let job = desk.dispatcher.job().unwrap();
        desk.dispatcher.set_phase(first(0), phase);
        let again = desk.dispatcher.read_again(job.number, 3, Some(away.as_bytes()));
        assert_eq!(again, Again::Done, "{phase:?}");
        assert_eq!(desk.position(), 3);
    }
}

#[test]
fn a_record_seen_before_is_not_parked() {
    let mut desk = Desk::new("12", 2);
    let away = key(&[("12", 1)], 0);
    desk.comes(&away);
    desk.comes(&away);
    desk.overflow();
    desk.log.pop();
    assert_eq!(desk.comes(&away), Admission::Unwanted);
    assert!(desk.dispatcher.parked().is_empty());
    assert_eq!(desk.comes(&away), Admission::Parked);
}

#[test]
fn a_long_pass_makes_room_for_other_partitions_and_goes_on_later() {
    let mut desk = Desk::new("12", 50);
    let well = key(&[("12", 2)], 0);
    for partition in (0..2).map(first) {
        desk.resumes(partition, 1_000, 3);
    }
    let mut from = 3;
    for partition in [0, 1, 0].map(first) {
        let job = desk.dispatcher.job().unwrap();
        assert_eq!((job.partition, job.from), (partition, from));
        let mut looked_at = (job.from..).take_while(|offset| {
            let again = desk.dispatcher.read_again(job.number, *offset, Some(well.as_bytes()));
            assert!(matches!(again, Again::Skip | Again::Done));
            again == Again::Skip
        });
        let last = looked_at.by_ref().last().unwrap();
        assert!(last < 900, "others have their turn");
        if partition == first(1) {
            from = last + 1;
        }
    }
}

#[test]
fn a_pass_waits_a_moment_for_a_cluster_without_room() {
    let mut desk = Desk::new("12", 4);
    let away = key(&[("12", 1)], 0);
    desk.resumes(first(0), 9, 0);
    let job = desk.dispatcher.job().unwrap();
    let key = Some(away.as_bytes());
    let place = desk.dispatcher.ring_epoch().ring.place(away.as_bytes());
    for offset in 0..2 {
        let Again::Take(tag) = desk.dispatcher.read_again(job.number, offset, key) else {
            panic!("there is room");
        };
        desk.dispatcher.enter(Message { tag, lane: place.lane }, place.owner);
    }
    desk.hand_out();
    assert_eq!(desk.dispatcher.read_again(job.number, 2, key), Again::Wait);
    desk.confirm(1, 0);
    assert!(matches!(desk.dispatcher.read_again(job.number, 2, key), Again::Take(_)));
    assert_eq!(desk.dispatcher.job().map(|job| job.number), Some(job.number));
}

#[test]
fn a_pass_that_brings_something_goes_on() {
    let mut desk = Desk::new("12", 50);
    let well = key(&[("12", 2)], 0);
    desk.resumes(first(0), 9, 3);
    let job = desk.dispatcher.job();
    for offset in 3..8 {
        desk.wait(20 * SECOND);
        let again = desk
            .dispatcher
            .read_again(job.unwrap().number, offset, Some(well.as_bytes()));
        assert_eq!((again, desk.dispatcher.job()), (Again::Skip, job));
    }
}
