//! Batches that cannot be read.

use super::*;

#[test]
fn nothing_is_taken_before_the_next_record_was_looked_at() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    desk.comes(&some);
    desk.dispatcher.assign(first(1), &Resume::default(), Phase::Behind(2));
    assert_eq!(
        desk.dispatcher.hold_taken(),
        [first(0)],
        "of the other one nothing is fetched"
    );
    // What librdkafka gives behind the batch that it could not read.
    assert_eq!(desk.comes(&some), Admission::Unwanted);
    desk.dispatcher.reached(first(0), 9);
    assert_eq!(desk.dispatcher.partitions()[&first(0)].next(), 1);
    desk.confirm(1, 0);
    assert_eq!(
        desk.dispatcher.commit_point(first(0)).unwrap().position,
        1,
        "what was read is committed"
    );

    desk.dispatcher.take_again(first(0));
    desk.dispatcher.take_again(first(1));
    assert_eq!(desk.dispatcher.partitions()[&first(1)].phase, Phase::Behind(2));
    desk.dispatcher.reached(first(0), 9);
    assert_eq!(
        desk.dispatcher.partitions()[&first(0)].next(),
        1,
        "that was read before"
    );
    // It is read anew.
    desk.log.truncate(1);
    assert!(matches!(desk.comes(&some), Admission::Take(_)));
    desk.dispatcher.reached(first(0), 9);
    assert_eq!(desk.dispatcher.partitions()[&first(0)].next(), 9);
}

#[test]
fn a_batch_that_is_stepped_over_is_behind_what_is_committed() {
    let mut desk = Desk::new("12", 50);
    let some = key(&[("12", 1)], 0);
    desk.comes(&some);
    desk.dispatcher.step_over(first(0), 9);
    assert_eq!(
        desk.dispatcher.partitions()[&first(0)].next(),
        1,
        "it was not looked at"
    );
    desk.dispatcher.hold_taken();
    desk.dispatcher.step_over(first(0), 9);
    desk.dispatcher.take_again(first(0));
    assert_eq!(desk.position(), 0, "what was read before it is still out");
    desk.confirm(1, 0);
    assert_eq!(desk.position(), 9);
}

#[test]
fn a_partition_that_stops_before_damage_commits_what_was_read() {
    let mut desk = Desk::new("12", 50);
    desk.comes(&key(&[("12", 1)], 0));
    desk.confirm(1, 0);
    desk.dispatcher.set_phase(first(0), Phase::Damaged(1));
    assert_eq!(desk.dispatcher.commit_point(first(0)).unwrap().position, 1);
    assert_eq!(
        Phase::Damaged(1).to_string(),
        "stopped: the batch at offset 1 is damaged in Kafka"
    );
}

#[test]
fn parked_records_that_cannot_be_read_wait_and_those_before_them_stay_parked() {
    let mut desk = Desk::new("12", 50);
    let away = key(&[("12", 1)], 0);
    desk.resumes(first(0), 9, 3);
    desk.resumes(first(1), 9, 3);
    let read = |desk: &mut Desk, offset| {
        let job = desk.dispatcher.job().unwrap();
        desk.dispatcher.read_again(job.number, offset, Some(away.as_bytes()))
    };
    assert!(matches!(read(&mut desk, 3), Again::Take(_)));
    assert_eq!(desk.dispatcher.hold_reading(), Some((first(0), 4)));
    let job = desk.dispatcher.job().unwrap();
    assert_eq!(
        (job.partition, job.from),
        (first(1), 3),
        "the other one goes on meanwhile"
    );
    assert_eq!(desk.dispatcher.hold_reading(), Some((first(1), 3)));
    assert_eq!(desk.dispatcher.job(), None);

    desk.dispatcher.go_on_reading(first(0), None);
    let job = desk.dispatcher.job().unwrap();
    assert_eq!((job.partition, job.from), (first(0), 4), "it could be read after all");
    desk.dispatcher.hold_reading();
    desk.dispatcher.go_on_reading(first(0), Some(4..7));
    let job = desk.dispatcher.job().unwrap();
    assert_eq!((job.partition, job.from), (first(0), 7));
    desk.dispatcher.hold_reading();
    desk.dispatcher.go_on_reading(first(0), Some(7..9));
    assert_eq!(desk.dispatcher.job(), None, "nothing is parked of it any more");
    // What is parked before the gap is not in it.
    desk.dispatcher.go_on_reading(first(1), Some(4..9));
    let job = desk.dispatcher.job().unwrap();
    assert_eq!((job.partition, job.from), (first(1), 3));
}

#[test]
fn a_record_for_nobody_waits_for_no_room() {
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
    assert_eq!(desk.dispatcher.read_again(job.number, 2, key), Again::Wait);
    assert!(matches!(
        desk.dispatcher.read_again_for_nobody(job.number, 2, key),
        Again::Take(_)
    ));
}
