use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::ring::Ring;

const SECOND: u64 = 1_000_000;

#[derive(Clone, Copy, Debug)]
struct Parcel {
    tag: Tag,
    lane: u64,
}

impl Freight for Parcel {
    fn tag(&self) -> Tag {
        self.tag
    }
    fn lane(&self) -> u64 {
        self.lane
    }
    fn weight(&self) -> usize {
        10
    }
}

/// The ring of some members, named by digits: `12` is C1 and C2, whose outlets are 1 and 2.
fn era(epoch: u64, members: &str) -> Era {
    let outlets: Vec<u32> = members.chars().map(|member| member.to_digit(10).unwrap()).collect();
    era_with(epoch, members, outlets)
}

fn era_with(epoch: u64, members: &str, outlets: Vec<u32>) -> Era {
    let ring = Ring::new(members.chars().map(|member| (format!("C{member}"), 1)), 16).unwrap();
    Era::new(epoch, Arc::new(ring), outlets)
}

/// The `number`-th key that these members own under these rings.
fn key(way: &[(&str, u32)], number: usize) -> String {
    let eras: Vec<_> = way.iter().map(|(members, owner)| (era(0, members), *owner)).collect();
    let mut keys = (0..).map(|number| format!("asset-{number}"));
    keys.by_ref()
        .filter(|key| {
            eras.iter()
                .all(|(era, owner)| era.outlet(era.ring.owner(key.as_bytes())) == *owner)
        })
        .nth(number)
        .unwrap()
}

/// A partition, a dispatcher that forwards it, and what its outlets have.
struct Desk {
    dispatcher: Dispatcher<Parcel>,
    now: u64,
    log: Vec<String>,
    out: BTreeMap<u32, Vec<Parcel>>,
}

impl Desk {
    /// Outlets that overflow as soon as they have so many.
    fn new(members: &str, cap: usize) -> Self {
        let load = |records| Load {
            records,
            bytes: 1 << 20,
        };
        let limits = Limits {
            outlet: load(cap),
            total: load(100),
            queue: 1_000,
        };
        let mut dispatcher = Dispatcher::new(limits, era(1, members), SECOND);
        dispatcher.assign(0, &Resume::default(), Phase::Active);
        Self {
            dispatcher,
            now: 0,
            log: Vec::new(),
            out: BTreeMap::new(),
        }
    }

    /// A record comes that is next in the log.
    fn comes(&mut self, key: &str) -> Admission {
        let offset = self.log.len() as i64;
        self.log.push(key.to_owned());
        let place = self.dispatcher.era().ring.place(key.as_bytes());
        let admission = self.dispatcher.receive(0, offset, key.as_bytes(), place);
        if let Admission::Take(tag) = admission {
            self.dispatcher.enter(Parcel { tag, lane: place.lane }, place.owner);
        }
        self.hand_out();
        admission
    }

    fn hand_out(&mut self) {
        let out = &mut self.out;
        self.dispatcher
            .take_batches(|outlet, batch| out.entry(outlet).or_default().extend(batch));
    }

    /// The offsets that an outlet has, in the order in which it got them.
    fn at(&self, outlet: u32) -> Vec<i64> {
        let parcels = self.out.get(&outlet).into_iter().flatten();
        parcels.map(|parcel| parcel.tag.offset).collect()
    }

    fn leaves(&mut self, outlet: u32, offset: i64) -> Parcel {
        let parcels = self.out.get_mut(&outlet).unwrap();
        let at = parcels.iter().position(|parcel| parcel.tag.offset == offset).unwrap();
        self.dispatcher.leave(outlet, 10);
        parcels.remove(at)
    }

    fn confirm(&mut self, outlet: u32, offset: i64) {
        let parcel = self.leaves(outlet, offset);
        self.dispatcher.settle(parcel.tag);
        self.hand_out();
    }

    fn give_back(&mut self, outlet: u32, offset: i64) {
        let parcel = self.leaves(outlet, offset);
        self.dispatcher.take_back(outlet, parcel);
        self.hand_out();
    }

    fn wait(&mut self, time: u64) {
        self.now += time;
        self.dispatcher.look(self.now, |_| 0);
    }

    /// Time in which outlets at their cap are found to overflow.
    fn overflow(&mut self) {
        self.wait(0);
        self.wait(SECOND);
    }

    fn change(&mut self, epoch: u64, members: &str) {
        self.dispatcher.set_ring(era(epoch, members));
        self.hand_out();
    }

    /// Reads again until a record is to wait or the pass is over; the offsets that were taken.
    fn read_again(&mut self) -> Vec<i64> {
        let mut taken = Vec::new();
        let Some(job) = self.dispatcher.job() else { return taken };
        for offset in job.from..self.log.len() as i64 {
            let key = self.log[offset as usize].clone();
            match self.dispatcher.read_again(job.number, offset, Some(key.as_bytes())) {
                Again::Take(tag) => {
                    let place = self.dispatcher.era().ring.place(key.as_bytes());
                    self.dispatcher.enter(Parcel { tag, lane: place.lane }, place.owner);
                    taken.push(offset);
                }
                Again::Skip => {}
                Again::Wait | Again::Done => break,
            }
        }
        self.dispatcher.saw_end(job.number);
        self.hand_out();
        taken
    }

    fn position(&self) -> i64 {
        self.dispatcher.partitions()[&0].position()
    }

    fn ahead(&self) -> Option<Ahead> {
        self.dispatcher.commit_point(0).unwrap().ahead
    }
}

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
fn a_partition_that_waited_for_a_ring_begins_as_was_told_under_it() {
    let mut desk = Desk::new("12", 50);
    let away = key(&[("12", 2), ("123", 2)], 0);
    let ahead = Ahead {
        members: era(2, "123").fingerprint(),
        upto: 6,
        away: vec![("C2".to_owned(), 4)],
    };
    let resume = Resume {
        offset: 3,
        later: Some(ahead.clone()),
        ..Resume::default()
    };
    desk.dispatcher.assign(0, &resume, Phase::Behind(2));
    desk.log = vec![away.clone(); 7];
    desk.change(2, "123");
    assert_eq!((desk.dispatcher.partitions()[&0].next(), desk.position()), (6, 4));
    assert_eq!(desk.read_again(), [4, 5]);

    // Of a ring that has other members than ours, though it has our epoch.
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.assign(0, &resume, Phase::Behind(2));
    desk.change(2, "124");
    assert_eq!(desk.dispatcher.partitions()[&0].next(), 3);
}

#[test]
fn a_partition_that_another_ring_of_our_epoch_had_waits_for_a_newer_one() {
    let mut desk = Desk::new("12", 50);
    let stays = key(&[("12", 1), ("123", 1)], 0);
    desk.dispatcher.assign(0, &Resume::default(), Phase::Contested);
    assert_eq!(desk.comes(&stays), Admission::Unwanted);
    assert_eq!(desk.dispatcher.commit_point(0), None);
    desk.change(2, "123");
    assert_eq!(desk.dispatcher.partitions()[&0].phase, Phase::Announcing);
    let point = desk.dispatcher.commit_point(0).unwrap();
    assert_eq!((point.ring, point.members), (2, era(2, "123").fingerprint()));
}

#[test]
fn a_pass_ends_where_no_record_follows() {
    let mut desk = Desk::new("12", 4);
    let away = key(&[("12", 1)], 0);
    for _ in 0..4 {
        desk.comes(&away);
    }
    desk.overflow();
    assert_eq!(desk.comes(&away), Admission::Parked);
    desk.dispatcher.reached(0, 6);
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
    for partition in [0, 1] {
        let resume = Resume {
            offset: 9,
            away: vec![("C1".to_owned(), 3)],
            later: None,
        };
        desk.dispatcher.assign(partition, &resume, Phase::Active);
    }
    let first = desk.dispatcher.job().unwrap();
    desk.wait(10 * SECOND);
    assert_eq!(desk.dispatcher.job(), Some(first));
    desk.wait(60 * SECOND);
    let second = desk.dispatcher.job().unwrap();
    assert_eq!((first.partition, second.partition), (0, 1));
    desk.wait(60 * SECOND);
    let again = desk.dispatcher.job().unwrap();
    assert_eq!((again.partition, again.from), (0, 3));
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
    let classes = |desk: &Desk| desk.dispatcher.partitions()[&0].backlog.classes().count();
    desk.change(2, "12345");
    assert_eq!(classes(&desk), 2, "C1's assets are C1's or C5's");
    for epoch in 1..10 {
        desk.change(2 * epoch + 1, "1234");
        desk.change(2 * epoch + 2, "12345");
    }
    assert_eq!(classes(&desk), 2, "to and fro is one way");
}

#[test]
fn a_drain_does_not_wait_for_an_outlet_that_stands_still() {
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
    assert_eq!(desk.dispatcher.awaited(0), 1, "one is at the outlet that answers");
    // What waits for the one that stands still is not waited for, either.
    desk.change(2, "2");
    desk.comes(&stands);
    assert_eq!(desk.dispatcher.awaited(0), 1);
}

#[test]
fn what_was_read_behind_the_last_record_is_committed_only_with_that() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1)], 0);
    desk.dispatcher.reached(0, 7);
    assert_eq!(desk.position(), 0, "who knows what that was read for");
    desk.comes(&moves);
    desk.dispatcher.reached(0, 7);
    assert_eq!(desk.position(), 0, "the record is out");
    desk.confirm(1, 0);
    assert_eq!(desk.position(), 7);
    desk.dispatcher.reached(0, 3);
    assert_eq!(desk.position(), 7);
    desk.dispatcher.set_phase(0, Phase::Draining);
    desk.dispatcher.reached(0, 9);
    assert_eq!(desk.position(), 7, "what came meanwhile was not taken");
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
    let place = desk.dispatcher.era().ring.place(moves.as_bytes());
    let Admission::Take(tag) = desk.dispatcher.receive(0, 0, moves.as_bytes(), place) else {
        panic!("it is taken");
    };
    desk.dispatcher.enter(Parcel { tag, lane: place.lane }, place.owner);
    desk.dispatcher.set_ring(era(2, "2"));
    desk.wait(SECOND);
    assert_eq!(desk.dispatcher.overdue(), []);
    desk.hand_out();
    assert_eq!(desk.dispatcher.overdue(), [(1, place.lane)]);
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
    for (epoch, next) in [(2, era(2, "123")), (3, era_with(3, "123", vec![7, 2, 3]))] {
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
        let outlet = next.outlets()[0];
        desk.dispatcher.set_ring(next);
        desk.hand_out();
        let parked: Vec<u32> = desk.dispatcher.parked().into_keys().collect();
        let mut expected = vec![outlet, 3];
        expected.sort_unstable();
        assert_eq!(parked, expected, "ring {epoch}");
        assert_eq!(desk.ahead(), None, "who owned what is not told in a commit");
        assert_eq!(desk.read_again(), [4, 6]);
        assert_eq!(desk.at(3), [4, 6]);
        (0..4).for_each(|offset| desk.confirm(1, offset));
        desk.wait(1);
        assert_eq!(desk.read_again(), [5]);
        assert_eq!((desk.at(outlet), desk.position()), (vec![5], 4));
    }
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
    let point = desk.dispatcher.commit_point(0).unwrap();
    assert_eq!(
        (point.position, point.ahead.as_ref()),
        (0, None),
        "the window is still short"
    );
    (0..4).for_each(|offset| desk.confirm(1, offset));
    let point = desk.dispatcher.commit_point(0).unwrap();
    let ahead = point.ahead.unwrap();
    assert_eq!((point.position, ahead.upto), (5, 7));
    assert_eq!(ahead.away, [("C1".to_owned(), 5)]);

    let resume = Resume {
        offset: ahead.upto,
        away: ahead.away,
        later: None,
    };
    let (log, now) = (desk.log, desk.now);
    let mut next = Desk::new("12", 4);
    (next.log, next.now) = (log, now);
    next.dispatcher.assign(0, &resume, Phase::Active);
    assert_eq!(next.position(), 5);
    assert_eq!(next.comes(&away), Admission::Parked);
    assert!(matches!(next.comes(&well), Admission::Take(_)));
    assert_eq!(next.read_again(), [5, 7]);
    assert_eq!((next.at(1), next.at(2)), (vec![5, 7], vec![8]));
    next.confirm(1, 5);
    assert_eq!(next.position(), 7);
}

#[test]
fn a_drain_waits_for_no_outlet_that_overflows() {
    let mut desk = Desk::new("12", 2);
    let (away, well) = (key(&[("12", 1)], 0), key(&[("12", 2)], 0));
    desk.comes(&away);
    desk.comes(&away);
    desk.comes(&well);
    assert_eq!(desk.dispatcher.awaited(0), 3);
    desk.overflow();
    desk.dispatcher.set_phase(0, Phase::Draining);
    assert_eq!(desk.dispatcher.awaited(0), 1);
    assert_eq!(desk.comes(&well), Admission::Unwanted);
    desk.confirm(2, 2);
    assert_eq!(desk.dispatcher.awaited(0), 0);
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
    let place = desk.dispatcher.era().ring.place(other.as_bytes());
    if let Admission::Take(tag) = desk.dispatcher.receive(0, 2, other.as_bytes(), place) {
        desk.dispatcher.enter(Parcel { tag, lane: place.lane }, place.owner);
    }
    assert_eq!(desk.dispatcher.total().records, 3);
    desk.dispatcher.remove(0);
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
fn a_partition_of_another_ring_waits_until_both_sides_know() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    let epoch = desk.dispatcher.assign(0, &Resume::default(), Phase::Behind(3));
    assert_eq!(desk.comes(&some), Admission::Unwanted);
    desk.dispatcher.set_phase(0, Phase::Draining);
    assert_eq!(
        desk.dispatcher.to_commit(0),
        None,
        "the next owner needs ring 3 all the same"
    );
    desk.dispatcher.set_phase(0, Phase::Behind(3));
    desk.change(4, "12");
    assert_eq!(desk.dispatcher.partitions()[&0].phase, Phase::Announcing);
    assert_eq!(desk.comes(&some), Admission::Unwanted);
    let point = desk.dispatcher.to_commit(0).unwrap();
    assert_eq!(point.ring, 4);
    desk.dispatcher.committed(0, epoch, point);
    assert!(matches!(desk.comes(&some), Admission::Take(_)));
}

#[test]
fn a_partition_without_a_beginning_is_given_up_without_a_commit() {
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.assign(0, &Resume::default(), Phase::Stopped);
    assert_eq!(desk.dispatcher.to_commit(0), None);
    desk.dispatcher.set_phase(0, Phase::Draining);
    assert_eq!(
        desk.dispatcher.to_commit(0),
        None,
        "where to begin is for a person to say"
    );
}

#[test]
fn a_ring_is_announced_when_the_broker_has_it_for_every_partition() {
    let mut desk = Desk::new("12", 50);
    let other = desk.dispatcher.assign(1, &Resume::default(), Phase::Active);
    desk.dispatcher.announce(2, 0);
    for (partition, epoch) in [(0, 1), (1, other)] {
        assert!(!desk.dispatcher.is_announced());
        let point = desk.dispatcher.to_commit(partition).unwrap();
        assert_eq!(point.ring, 2);
        desk.dispatcher.committed(partition, epoch, point);
    }
    assert!(desk.dispatcher.is_announced());
    assert_eq!(desk.dispatcher.to_commit(0), None);
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
        if let Admission::Take(tag) = desk.dispatcher.receive_stray(0, offset) {
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
fn a_late_report_changes_nothing() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    desk.comes(&some);
    let late = desk.leaves(1, 0);
    desk.dispatcher.assign(0, &Resume::default(), Phase::Active);
    desk.log.clear();
    desk.comes(&some);
    desk.dispatcher.settle(late.tag);
    desk.dispatcher.take_back(1, late);
    desk.hand_out();
    assert_eq!((desk.position(), desk.at(1)), (0, vec![0]));
}

#[test]
fn an_answer_to_what_an_older_ring_asked_begins_nothing() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1), ("123", 1)], 0);
    let epoch = desk.dispatcher.assign(0, &Resume::default(), Phase::Announcing);
    let asked = desk.dispatcher.to_commit(0).unwrap();
    desk.change(2, "123");
    assert!(!desk.dispatcher.committed(0, epoch, asked));
    assert_eq!(
        desk.comes(&some),
        Admission::Unwanted,
        "a successor would not know that ring 2 was in use"
    );
    let asked = desk.dispatcher.to_commit(0).unwrap();
    assert_eq!(asked.ring, 2);
    assert!(desk.dispatcher.committed(0, epoch, asked));
    assert!(matches!(desk.comes(&some), Admission::Take(_)));
}

#[test]
fn a_partition_that_has_to_stop_midway_commits_nothing_until_it_is_given_up() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    desk.comes(&some);
    desk.confirm(1, 0);
    desk.dispatcher.set_phase(0, Phase::Stopped);
    assert_eq!(desk.dispatcher.commit_point(0), None, "that is for a person to say");
    desk.dispatcher.set_phase(0, Phase::Draining);
    assert_eq!(desk.dispatcher.commit_point(0).unwrap().position, 1);
}

#[test]
fn a_record_is_current_as_long_as_its_assignment_lasts() {
    let mut desk = Desk::new("12", 50);
    desk.comes(&key(&[("12", 1)], 0));
    let tag = desk.out[&1][0].tag;
    assert!(desk.dispatcher.is_current(tag));
    desk.dispatcher.assign(0, &Resume::default(), Phase::Active);
    assert!(!desk.dispatcher.is_current(tag));
    desk.dispatcher.remove(0);
    assert!(!desk.dispatcher.is_current(tag));
}

#[test]
fn an_announcement_is_not_taken_back() {
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.announce(3, 3);
    desk.dispatcher.announce(2, 2);
    assert_eq!(desk.dispatcher.to_commit(0).unwrap().ring, 3);
    desk.change(2, "12");
    assert_eq!(desk.dispatcher.to_commit(0).unwrap().ring, 3);
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
    desk.dispatcher.assign(0, &resume, Phase::Active);
    assert_eq!(desk.dispatcher.job().map(|job| job.from), Some(3));
    assert_eq!(desk.dispatcher.expired(0, 5), 2);
    assert_eq!(desk.position(), 5);
    assert_eq!(desk.dispatcher.job().map(|job| job.from), Some(5));
    assert_eq!(desk.dispatcher.expired(0, 5), 0, "it is told once");
    assert_eq!(desk.dispatcher.expired(0, 9), 4);
    assert!(desk.dispatcher.parked().is_empty(), "all that was parked is gone");
    assert_eq!((desk.dispatcher.job(), desk.position()), (None, 9));
}

#[test]
fn a_pass_ends_with_the_partition_where_nothing_has_come_since() {
    let mut desk = Desk::new("12", 50);
    let away = key(&[("12", 1)], 0);
    let resume = Resume {
        offset: 9,
        away: vec![("C1".to_owned(), 0)],
        ..Resume::default()
    };
    desk.dispatcher.assign(0, &resume, Phase::Active);
    desk.log = vec![away; 3];
    // From 3 to 8 the partition has holes.
    assert_eq!(desk.read_again(), [0, 1, 2]);
    assert!(desk.dispatcher.parked().is_empty());
    assert_eq!(desk.dispatcher.job(), None);
    (0..3).for_each(|offset| desk.confirm(1, offset));
    assert_eq!(desk.position(), 9);
}

#[test]
fn partitions_have_their_turn_to_be_read_again() {
    let mut desk = Desk::new("12", 50);
    for partition in 0..3 {
        let resume = Resume {
            offset: 9,
            away: vec![("C1".to_owned(), 3)],
            ..Resume::default()
        };
        desk.dispatcher.assign(partition, &resume, Phase::Active);
    }
    for partition in [0, 1, 2, 0] {
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
        desk.dispatcher.assign(0, &resume, phase);
        assert_eq!(desk.dispatcher.job(), None, "{phase:?}");
        desk.dispatcher.set_phase(0, Phase::Active);
        let job = desk.dispatcher.job().unwrap();
        desk.dispatcher.set_phase(0, phase);
        let again = desk.dispatcher.read_again(job.number, 3, Some(away.as_bytes()));
        assert_eq!(again, Again::Done, "{phase:?}");
        assert_eq!(desk.position(), 3);
    }
}

#[test]
fn an_asset_in_two_partitions_waits_only_for_the_one_that_is_left() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.dispatcher.assign(1, &Resume::default(), Phase::Active);
    let place = desk.dispatcher.era().ring.place(moves.as_bytes());
    let Admission::Take(other) = desk.dispatcher.receive(1, 0, moves.as_bytes(), place) else {
        panic!("it is taken");
    };
    let parcel = Parcel {
        tag: other,
        lane: place.lane,
    };
    desk.dispatcher.enter(parcel, place.owner);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.comes(&moves);
    desk.dispatcher.remove(1);
    desk.hand_out();
    assert_eq!(desk.dispatcher.waiting(), 1, "record 0 is still at the old owner");
    let epoch = desk.dispatcher.partitions()[&0].epoch;
    desk.out.get_mut(&1).unwrap().retain(|parcel| parcel.tag.epoch == epoch);
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
fn a_ring_is_not_announced_before_what_drains_is_committed_with_it() {
    let mut desk = Desk::new("12", 50);
    desk.dispatcher.announce(2, 2);
    desk.dispatcher.set_phase(0, Phase::Draining);
    assert!(!desk.dispatcher.is_announced(), "its successor may have ring 1");
    let epoch = desk.dispatcher.partitions()[&0].epoch;
    let point = desk.dispatcher.to_commit(0).unwrap();
    desk.dispatcher.committed(0, epoch, point);
    assert!(desk.dispatcher.is_announced());
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
    let classes: Vec<_> = desk.dispatcher.partitions()[&0].backlog.classes().collect();
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
    let classes: Vec<_> = desk.dispatcher.partitions()[&0].backlog.classes().collect();
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
fn a_record_of_no_asset_is_not_taken_where_no_other_is() {
    let mut desk = Desk::new("12", 50);
    assert!(matches!(desk.dispatcher.receive_stray(0, 0), Admission::Take(_)));
    assert_eq!(desk.dispatcher.receive_stray(0, 0), Admission::Unwanted, "seen before");
    for phase in [
        Phase::Draining,
        Phase::Stopped,
        Phase::Behind(2),
        Phase::Announcing,
        Phase::Contested,
    ] {
        desk.dispatcher.set_phase(0, phase);
        assert_eq!(desk.dispatcher.receive_stray(0, 1), Admission::Unwanted, "{phase:?}");
    }
    assert_eq!(desk.dispatcher.receive_stray(1, 0), Admission::Unwanted);
}

#[test]
fn a_long_pass_makes_room_for_other_partitions_and_goes_on_later() {
    let mut desk = Desk::new("12", 50);
    let well = key(&[("12", 2)], 0);
    for partition in 0..2 {
        let resume = Resume {
            offset: 1_000,
            away: vec![("C1".to_owned(), 3)],
            ..Resume::default()
        };
        desk.dispatcher.assign(partition, &resume, Phase::Active);
    }
    let mut from = 3;
    for partition in [0, 1, 0] {
        let job = desk.dispatcher.job().unwrap();
        assert_eq!((job.partition, job.from), (partition, from));
        let mut looked_at = (job.from..).take_while(|offset| {
            let again = desk.dispatcher.read_again(job.number, *offset, Some(well.as_bytes()));
            assert!(matches!(again, Again::Skip | Again::Done));
            again == Again::Skip
        });
        let last = looked_at.by_ref().last().unwrap();
        assert!(last < 900, "others have their turn");
        if partition == 1 {
            from = last + 1;
        }
    }
}

#[test]
fn a_pass_waits_a_moment_for_a_cluster_without_room() {
    let mut desk = Desk::new("12", 4);
    let away = key(&[("12", 1)], 0);
    let resume = Resume {
        offset: 9,
        away: vec![("C1".to_owned(), 0)],
        ..Resume::default()
    };
    desk.dispatcher.assign(0, &resume, Phase::Active);
    let job = desk.dispatcher.job().unwrap();
    let key = Some(away.as_bytes());
    let place = desk.dispatcher.era().ring.place(away.as_bytes());
    for offset in 0..2 {
        let Again::Take(tag) = desk.dispatcher.read_again(job.number, offset, key) else {
            panic!("there is room");
        };
        desk.dispatcher.enter(Parcel { tag, lane: place.lane }, place.owner);
    }
    desk.hand_out();
    assert_eq!(desk.dispatcher.read_again(job.number, 2, key), Again::Wait);
    desk.confirm(1, 0);
    assert!(matches!(desk.dispatcher.read_again(job.number, 2, key), Again::Take(_)));
    assert_eq!(desk.dispatcher.job().map(|job| job.number), Some(job.number));
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
    desk.dispatcher.remove(0);
    desk.hand_out();
    assert_eq!(desk.dispatcher.total().records, 1, "record 1 is still at the old owner");
    assert!(desk.at(2).is_empty() && desk.dispatcher.caps.is_clear());
    desk.give_back(1, 1);
    assert!(desk.at(2).is_empty() && desk.dispatcher.is_idle());
}

#[test]
fn what_is_settled_ahead_is_told_only_under_the_ring_that_a_successor_has() {
    let mut desk = Desk::new("12", 50);
    let resume = Resume {
        offset: 9,
        away: vec![("C1".to_owned(), 3)],
        ..Resume::default()
    };
    desk.dispatcher.assign(0, &resume, Phase::Active);
    assert_eq!(desk.ahead().map(|ahead| ahead.upto), Some(9));
    desk.dispatcher.announce(2, 7);
    desk.dispatcher.announce(2, 8);
    let point = desk.dispatcher.commit_point(0).unwrap();
    assert_eq!((point.position, point.ring, point.members), (3, 2, 7));
    assert_eq!(point.ahead, None);
}

#[test]
fn a_partition_that_waited_for_a_ring_begins_nowhere_before_its_commit() {
    let ahead = |upto| {
        Some(Ahead {
            members: era(2, "123").fingerprint(),
            upto,
            away: vec![("C2".to_owned(), 4)],
        })
    };
    for (upto, next) in [(6, 9), (12, 12)] {
        let mut desk = Desk::new("12", 50);
        let resume = Resume {
            offset: 9,
            later: ahead(upto),
            ..Resume::default()
        };
        desk.dispatcher.assign(0, &resume, Phase::Behind(2));
        desk.change(2, "123");
        assert_eq!(
            (desk.dispatcher.partitions()[&0].next(), desk.position()),
            (next, 9),
            "4 to 8 were skipped by hand"
        );
        desk.dispatcher.reached(0, 20);
        assert_eq!(
            desk.dispatcher.partitions()[&0].next(),
            next,
            "no record has come that proves it"
        );
    }
}

#[test]
fn a_pass_that_brings_something_goes_on() {
    let mut desk = Desk::new("12", 50);
    let well = key(&[("12", 2)], 0);
    let resume = Resume {
        offset: 9,
        away: vec![("C1".to_owned(), 3)],
        ..Resume::default()
    };
    desk.dispatcher.assign(0, &resume, Phase::Active);
    let job = desk.dispatcher.job();
    for offset in 3..8 {
        desk.wait(20 * SECOND);
        let again = desk
            .dispatcher
            .read_again(job.unwrap().number, offset, Some(well.as_bytes()));
        assert_eq!((again, desk.dispatcher.job()), (Again::Skip, job));
    }
}

#[test]
fn a_drain_waits_for_what_is_held_as_well() {
    let mut desk = Desk::new("12", 50);
    let moves = key(&[("12", 1), ("2", 2)], 0);
    desk.comes(&moves);
    desk.change(2, "2");
    desk.comes(&moves);
    desk.dispatcher.set_phase(0, Phase::Draining);
    assert_eq!(desk.dispatcher.awaited(0), 2);
    desk.confirm(1, 0);
    assert_eq!(desk.dispatcher.awaited(0), 1);
    desk.confirm(2, 1);
    assert_eq!(desk.dispatcher.awaited(0), 0);
}

#[test]
fn what_is_told_of_clusters_that_nobody_knows_is_not_trusted() {
    let mut desk = Desk::new("12", 50);
    let later = Ahead {
        members: era(2, "123").fingerprint(),
        upto: 12,
        away: vec![("C9".to_owned(), 10)],
    };
    let resume = Resume {
        offset: 9,
        later: Some(later),
        ..Resume::default()
    };
    desk.dispatcher.assign(0, &resume, Phase::Behind(2));
    desk.change(2, "123");
    assert_eq!(desk.dispatcher.partitions()[&0].next(), 9, "10 may be a record of C9's");
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
        desk.dispatcher.assign(0, &resume, Phase::Active);
        assert_eq!(desk.position(), 3);
    }
}
