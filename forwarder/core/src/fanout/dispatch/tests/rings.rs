//! Rings announced, waited for and told of.

use super::*;

#[test]
fn a_partition_that_waited_for_a_ring_begins_as_was_told_under_it() {
    let mut desk = Desk::new("12", 50);
    let away = key(&[("12", 2), ("123", 2)], 0);
    let ahead = Ahead {
        members: ring_epoch(2, "123").fingerprint(),
        upto: 6,
        away: vec![("C2".to_owned(), 4)],
        lanes: Vec::new(),
    };
    let resume = Resume {
        offset: 3,
        members: Some(ahead.members),
        later: Some(ahead.clone()),
        ..Resume::default()
    };
    desk.dispatcher.assign(first(0), &resume, Phase::Behind(2));
    desk.log = vec![away.clone(); 7];
    desk.change(2, "123");
    assert_eq!(
        (desk.dispatcher.partitions()[&first(0)].next(), desk.position()),
        (6, 4)
    );
    assert_eq!(desk.read_again(), [4, 5]);

    // Of a ring that has other members than ours, though it has our epoch.
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.assign(first(0), &resume, Phase::Behind(2));
    desk.change(2, "124");
    let state = &desk.dispatcher.partitions()[&first(0)];
    assert_eq!((state.phase, state.next()), (Phase::Contested, 3));
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(desk.dispatcher.commit_point(first(0)), None);
}

#[test]
fn a_partition_that_waits_for_a_ring_says_which_epoch_is_enough() {
    let awaited = [Phase::Behind(9), Phase::Contested, Phase::Announcing, Phase::Active].map(|phase| phase.awaits(7));
    assert_eq!(awaited, [Some(9), Some(8), None, None]);
}

#[test]
fn a_partition_that_another_ring_of_our_epoch_had_waits_for_a_newer_one() {
    let mut desk = Desk::new("12", 50);
    let stays = key(&[("12", 1), ("123", 1)], 0);
    desk.dispatcher.assign(first(0), &Resume::default(), Phase::Contested);
    assert_eq!(desk.comes(&stays), Admission::Unwanted);
    assert_eq!(desk.dispatcher.commit_point(first(0)), None);
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(
        desk.dispatcher.commit_point(first(0)),
        None,
        "what others have committed stays, whoever comes next"
    );
    desk.dispatcher.set_phase(first(0), Phase::Contested);
    desk.change(2, "123");
    assert_eq!(desk.dispatcher.partitions()[&first(0)].phase, Phase::Announcing);
    let point = desk.dispatcher.commit_point(first(0)).unwrap();
    assert_eq!((point.ring, point.members), (2, ring_epoch(2, "123").fingerprint()));
}

#[test]
fn a_partition_of_another_ring_waits_until_both_sides_know() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    let epoch = desk.dispatcher.assign(first(0), &Resume::default(), Phase::Behind(3));
    assert_eq!(desk.comes(&some), Admission::Unwanted);
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert_eq!(
        desk.dispatcher.to_commit(first(0)),
        None,
        "the next owner needs ring 3 all the same"
    );
    desk.dispatcher.announce(3, 0);
    assert_eq!(
        desk.dispatcher.to_commit(first(0)),
        None,
        "what was told under ring 3 is not ours to overwrite before we use it"
    );
    desk.dispatcher.set_phase(first(0), Phase::Behind(3));
    desk.change(4, "12");
    assert_eq!(desk.dispatcher.partitions()[&first(0)].phase, Phase::Announcing);
    assert_eq!(desk.comes(&some), Admission::Unwanted);
    let point = desk.dispatcher.to_commit(first(0)).unwrap();
    assert_eq!(point.ring, 4);
    desk.dispatcher.committed(first(0), epoch, point);
    assert!(matches!(desk.comes(&some), Admission::Take(_)));
}

#[test]
fn a_ring_is_announced_when_the_broker_has_it_for_every_partition() {
    let mut desk = Desk::new("12", 50);
    let other = desk.dispatcher.assign(first(1), &Resume::default(), Phase::Active);
    desk.dispatcher.announce(2, 0);
    for (partition, epoch) in [(first(0), 1), (first(1), other)] {
        assert!(!desk.dispatcher.is_announced());
        let point = desk.dispatcher.to_commit(partition).unwrap();
        assert_eq!(point.ring, 2);
        desk.dispatcher.committed(partition, epoch, point);
    }
    assert!(desk.dispatcher.is_announced());
    assert_eq!(desk.dispatcher.to_commit(first(0)), None);
}

#[test]
fn an_answer_to_what_an_older_ring_asked_begins_nothing() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1), ("123", 1)], 0);
    let epoch = desk.dispatcher.assign(first(0), &Resume::default(), Phase::Announcing);
    let asked = desk.dispatcher.to_commit(first(0)).unwrap();
    desk.change(2, "123");
    assert!(!desk.dispatcher.committed(first(0), epoch, asked));
    assert_eq!(
        desk.comes(&some),
        Admission::Unwanted,
        "a successor would not know that ring 2 was in use"
    );
    let asked = desk.dispatcher.to_commit(first(0)).unwrap();
    assert_eq!(asked.ring, 2);
    assert!(desk.dispatcher.committed(first(0), epoch, asked));
    assert!(matches!(desk.comes(&some), Admission::Take(_)));
}

#[test]
fn an_announcement_is_not_taken_back() {
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.announce(3, 3);
    desk.dispatcher.announce(2, 2);
    assert_eq!(desk.dispatcher.to_commit(first(0)).unwrap().ring, 3);
    desk.change(2, "12");
    assert_eq!(desk.dispatcher.to_commit(first(0)).unwrap().ring, 3);
}

#[test]
fn a_ring_is_not_announced_before_what_drains_is_committed_with_it() {
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.announce(2, 2);
    desk.dispatcher.set_phase(first(0), Phase::Draining);
    assert!(!desk.dispatcher.is_announced(), "its successor may have ring 1");
    let epoch = desk.dispatcher.partitions()[&first(0)].epoch;
    let point = desk.dispatcher.to_commit(first(0)).unwrap();
    desk.dispatcher.committed(first(0), epoch, point);
    assert!(desk.dispatcher.is_announced());
}

#[test]
fn what_is_settled_ahead_is_told_only_under_the_ring_that_a_successor_has() {
    let mut desk = Desk::new("12", 50);
    desk.resumes(first(0), 9, 3);
    assert_eq!(desk.ahead().map(|ahead| ahead.upto), Some(9));
    desk.dispatcher.announce(2, 7);
    desk.dispatcher.announce(2, 8);
    let point = desk.dispatcher.commit_point(first(0)).unwrap();
    assert_eq!((point.position, point.ring, point.members), (3, 2, 7));
    assert_eq!(point.ahead, None);
}

#[test]
fn a_partition_that_waited_for_a_ring_begins_nowhere_before_its_commit() {
    let ahead = |upto| {
        Some(Ahead {
            members: ring_epoch(2, "123").fingerprint(),
            upto,
            away: vec![("C2".to_owned(), 4)],
            lanes: Vec::new(),
        })
    };
    for (upto, next) in [(6, 9), (12, 12)] {
        let mut desk = Desk::new("12", 50);
        let resume = Resume {
            offset: 9,
            later: ahead(upto),
            ..Resume::default()
        };
        desk.dispatcher.assign(first(0), &resume, Phase::Behind(2));
        desk.change(2, "123");
        assert_eq!(
            (desk.dispatcher.partitions()[&first(0)].next(), desk.position()),
            (next, 9),
            "4 to 8 were skipped by hand"
        );
        desk.dispatcher.reached(first(0), 20);
        assert_eq!(
            desk.dispatcher.partitions()[&first(0)].next(),
            next,
            "no record has come that proves it"
        );
    }
}

#[test]
fn what_is_told_of_clusters_that_nobody_knows_is_not_trusted() {
    let mut desk = Desk::new("12", 50);
    let later = Ahead {
        members: ring_epoch(2, "123").fingerprint(),
        upto: 12,
        away: vec![("C9".to_owned(), 10)],
        lanes: Vec::new(),
    };
    let resume = Resume {
        offset: 9,
        later: Some(later),
        ..Resume::default()
    };
    desk.dispatcher.assign(first(0), &resume, Phase::Behind(2));
    desk.change(2, "123");
    assert_eq!(
        desk.dispatcher.partitions()[&first(0)].next(),
        9,
        "10 may be a record of C9's"
    );
}

#[test]
fn a_cluster_that_is_told_twice_is_away_from_the_first_on() {
    for offsets in [[3, 5], [5, 3]] {
        let mut desk = Desk::new("12", 50);
        let resume = Resume {
            offset: 9,
            away: offsets.map(|from| ("C1".to_owned(), from)).into(),
            ..Resume::default()
        };
        desk.dispatcher.assign(first(0), &resume, Phase::Active);
        assert_eq!(desk.position(), 3);
    }
}
