mod model;

use std::collections::BTreeSet;

use super::*;
use crate::delivery::offsets::Tag;
use crate::delivery::partition::{PartitionId, first};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    lane: u64,
    number: u32,
    subject: String,
    assignment: (PartitionId, u32),
}

impl Deliverable for Record {
    fn tag(&self) -> Tag {
        let (partition, epoch) = self.assignment;
        Tag {
            partition,
            epoch,
            offset: i64::from(self.number),
            sequence: u64::from(self.number),
        }
    }
    fn lane(&self) -> u64 {
        self.lane
    }
    fn weight(&self) -> usize {
        self.subject.len()
    }
    fn subject(&self) -> &[u8] {
        self.subject.as_bytes()
    }
}

fn record(lane: u64, number: u32, subject: &str) -> Record {
    Record {
        lane,
        number,
        subject: subject.to_owned(),
        assignment: (first(0), 1),
    }
}

const BACKOFF: Backoff = Backoff {
    initial: 100,
    max: 1_000,
    attempts: None,
};

fn outbox(confirmation: Confirmation) -> Outbox<Record> {
    Outbox::new(confirmation, BACKOFF)
}

fn send_all(outbox: &mut Outbox<Record>) -> Vec<(Ticket, u32)> {
    std::iter::from_fn(|| outbox.next(0).map(|(ticket, record)| (ticket, record.number))).collect()
}

fn numbers(sent: &[(Ticket, u32)]) -> Vec<u32> {
    sent.iter().map(|(_, number)| *number).collect()
}

/// Brings lane 1's subject `a` to "accepted on this connection".
fn prove(outbox: &mut Outbox<Record>, outcome: &mut Outcome<Record>) {
    outbox.push(record(1, 0, "a"));
    send_all(outbox);
    assert!(outbox.fence());
    outbox.fence_passed(0, outcome);
    assert_eq!(outcome.confirmed.len(), 1);
    outcome.confirmed.clear();
}

#[test]
fn with_acks_a_lane_has_one_record_out() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Ack), Outcome::default());
    for number in 5..8 {
        outbox.push(record(1, number, "a"));
    }
    outbox.push(record(2, 1, "b"));
    let sent = send_all(&mut outbox);
    assert_eq!(numbers(&sent), [5, 1]);
    outbox.refused(sent[0].0, Refusal::Denied, 0, &mut outcome);
    assert!(
        send_all(&mut outbox).is_empty(),
        "5 was not stored for sure: 6 must wait"
    );
    outbox.wake(1_000);
    let again = send_all(&mut outbox);
    assert_eq!(numbers(&again), [5]);
    outbox.acked(again[0].0, &mut outcome);
    assert_eq!(numbers(&send_all(&mut outbox)), [6]);
}

#[test]
fn an_ack_that_comes_after_its_timeout_still_counts() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Ack), Outcome::default());
    outbox.push(record(1, 5, "a"));
    outbox.push(record(1, 6, "a"));
    let sent = send_all(&mut outbox);
    outbox.refused(sent[0].0, Refusal::Denied, 0, &mut outcome);
    outbox.acked(sent[0].0, &mut outcome);
    assert_eq!(outcome.confirmed.len(), 1);
    assert_eq!(numbers(&send_all(&mut outbox)), [6]);
}

#[test]
fn an_overdue_ack_is_found_and_a_stale_one_is_not() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Ack), Outcome::default());
    outbox.push(record(1, 1, "a"));
    outbox.push(record(2, 2, "a"));
    let sent = send_all(&mut outbox);
    outbox.acked(sent[0].0, &mut outcome);
    let mut overdue = Vec::new();
    outbox.overdue(4_999, 5_000, &mut overdue);
    assert!(overdue.is_empty());
    outbox.overdue(5_000, 5_000, &mut overdue);
    assert_eq!(overdue, [sent[1].0]);
}

#[test]
fn with_fences_an_accepted_subject_is_pipelined() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    for number in 1..4 {
        outbox.push(record(1, number, "a"));
    }
    assert_eq!(numbers(&send_all(&mut outbox)), [1, 2, 3]);
    outbox.fence();
    outbox.fence_passed(0, &mut outcome);
    assert_eq!(outcome.confirmed.len(), 3);
    assert!(outbox.is_empty());
}

#[test]
fn a_denied_subject_holds_its_lane_and_no_other() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    outbox.push(record(1, 1, "denied"));
    outbox.push(record(1, 2, "allowed"));
    outbox.push(record(2, 9, "allowed"));
    assert_eq!(numbers(&send_all(&mut outbox)), [1, 9]);
    outbox.fence();
    assert!(outbox.denied(b"denied"));
    assert!(!outbox.denied(b"never sent"));
    outbox.fence_passed(0, &mut outcome);
    assert_eq!(outcome.confirmed, [(record(2, 9, "allowed"), 0)]);
    assert_eq!(outbox.paused_lanes(), 1);
    assert!(!outbox.has_ready());
    outbox.wake(outbox.next_wake().unwrap());
    assert_eq!(
        numbers(&send_all(&mut outbox)),
        [1],
        "2 waits for 1 for as long as that takes"
    );
    assert_eq!(outbox.overtaken(), 0);
}

#[test]
fn a_denial_counts_only_for_its_own_fence() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    outbox.push(record(1, 1, "a"));
    send_all(&mut outbox);
    outbox.fence();
    outbox.push(record(1, 2, "a"));
    send_all(&mut outbox);
    outbox.fence();
    outbox.denied(b"a");
    outbox.fence_passed(0, &mut outcome);
    assert!(outcome.confirmed.is_empty());
    outbox.fence_passed(0, &mut outcome);
    assert_eq!(outcome.confirmed, [(record(1, 2, "a"), 0)]);
    assert_eq!(
        outbox.overtaken(),
        1,
        "the server changed its mind between the two: 2 went ahead of 1"
    );
}

#[test]
fn a_lost_connection_sends_all_unconfirmed_again_in_order() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    for number in 1..5 {
        outbox.push(record(1, number, "a"));
    }
    outbox.next(0);
    outbox.next(0);
    outbox.fence();
    assert_eq!(outbox.connection_lost(&mut outcome), 2);
    // A fence of the old connection means nothing any more.
    outbox.fence_passed(0, &mut outcome);
    assert!(outcome.confirmed.is_empty());
    assert_eq!(
        numbers(&send_all(&mut outbox)),
        [1],
        "the new server has not been seen to accept the subject"
    );
    outbox.fence();
    outbox.fence_passed(0, &mut outcome);
    assert_eq!(numbers(&send_all(&mut outbox)), [2, 3, 4]);
}

#[test]
fn what_was_out_behind_a_denied_record_goes_before_what_waits() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    for number in 1..3 {
        outbox.push(record(1, number, "a"));
        outbox.next(0);
        outbox.fence();
    }
    outbox.denied(b"a");
    outbox.fence_passed(0, &mut outcome);
    outbox.push(record(1, 3, "a"));
    outbox.connection_lost(&mut outcome);
    outbox.wake(outbox.next_wake().unwrap());
    assert_eq!(numbers(&send_all(&mut outbox)), [1]);
    outbox.fence();
    outbox.fence_passed(0, &mut outcome);
    assert_eq!(numbers(&send_all(&mut outbox)), [2, 3]);
}

#[test]
fn what_is_denied_after_it_was_accepted_goes_again_in_order_before_what_follows() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    for number in 1..5 {
        outbox.push(record(1, number, "a"));
    }
    (0..3).for_each(|_| assert!(outbox.next(0).is_some()));
    outbox.fence();
    assert!(outbox.denied(b"a"));
    outbox.fence_passed(0, &mut outcome);
    assert!(!outbox.has_ready(), "4 was not sent yet: it waits");
    outbox.wake(1_000);
    assert_eq!(numbers(&send_all(&mut outbox)), [1]);
    outbox.fence();
    outbox.fence_passed(1_000, &mut outcome);
    assert_eq!(numbers(&send_all(&mut outbox)), [2, 3, 4]);
}

#[test]
fn a_subject_that_was_denied_is_accepted_anew_before_it_is_pipelined() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    outbox.push(record(1, 1, "a"));
    send_all(&mut outbox);
    for now in [0, 1_000] {
        outbox.wake(now);
        send_all(&mut outbox);
        outbox.fence();
        assert!(outbox.denied(b"a"));
        outbox.fence_passed(now, &mut outcome);
    }
    assert_eq!(
        outbox.overtaken(),
        1,
        "the second time nothing can have gone ahead of it"
    );
    for number in 5..7 {
        outbox.push(record(2, number, "a"));
    }
    assert_eq!(numbers(&send_all(&mut outbox)), [5]);
}

#[test]
fn what_comes_back_goes_before_what_waits_also_behind_another_head() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    outbox.push(record(2, 0, "b"));
    outbox.push(record(1, 1, "a"));
    outbox.push(record(1, 2, "a"));
    send_all(&mut outbox);
    outbox.fence();
    assert!(outbox.denied(b"a"));
    outbox.fence_passed(0, &mut outcome);
    for (number, subject) in [(3, "b"), (4, "c"), (5, "b")] {
        outbox.push(record(1, number, subject));
    }
    outbox.wake(1_000);
    assert_eq!(numbers(&send_all(&mut outbox)), [1]);
    outbox.fence();
    outbox.fence_passed(1_000, &mut outcome);
    assert_eq!(numbers(&send_all(&mut outbox)), [2, 3, 4], "4 is a probe");
    outbox.fence();
    assert!(outbox.denied(b"b"));
    outbox.fence_passed(1_000, &mut outcome);
    outbox.wake(2_000);
    assert_eq!(numbers(&send_all(&mut outbox)), [3]);
    outbox.fence();
    outbox.fence_passed(2_000, &mut outcome);
    assert_eq!(numbers(&send_all(&mut outbox)), [5]);
}

#[test]
fn what_is_abandoned_has_no_place_among_what_comes_back() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    let other = |number| Record {
        assignment: (first(1), 1),
        ..record(1, number, "a")
    };
    outbox.push(record(1, 1, "a"));
    outbox.push(record(1, 2, "a"));
    send_all(&mut outbox);
    outbox.fence();
    outbox.push(other(3));
    send_all(&mut outbox);
    outbox.fence();
    assert!(outbox.denied(b"a"));
    outbox.fence_passed(0, &mut outcome);
    outbox.wake(1_000);
    assert_eq!(numbers(&send_all(&mut outbox)), [1]);
    outbox.fence();
    assert_eq!(outbox.abandon(&[(first(0), 1)], &mut outcome), 1);
    outbox.push(other(4));
    assert!(outbox.denied(b"a"));
    outbox.fence_passed(1_000, &mut outcome);
    outbox.fence_passed(1_000, &mut outcome);
    assert_eq!(numbers(&send_all(&mut outbox)), [3]);
}

#[test]
fn a_lane_pauses_for_its_own_head_and_to_the_end() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Ack), Outcome::default());
    outbox.push(record(1, 1, "a"));
    outbox.push(record(1, 2, "a"));
    let sent = send_all(&mut outbox);
    outbox.refused(sent[0].0, Refusal::Denied, 1, &mut outcome);
    let first = outbox.next_wake().unwrap();
    outbox.wake(first - 1);
    assert!(!outbox.has_ready());
    // It was stored all the same; now the next one is refused, when the first one's pause is not over yet.
    outbox.acked(sent[0].0, &mut outcome);
    let sent = send_all(&mut outbox);
    assert_eq!(numbers(&sent), [2]);
    outbox.refused(sent[0].0, Refusal::Denied, 90, &mut outcome);
    outbox.wake(90 + BACKOFF.initial / 2 - 1);
    assert!(!outbox.has_ready(), "that was the first one's pause");
    outbox.wake(90 + BACKOFF.initial);
    assert_eq!(numbers(&send_all(&mut outbox)), [2]);
}

#[test]
fn what_was_given_up_by_others_is_not_awaited() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Ack), Outcome::default());
    for lane in 1..4 {
        outbox.push(record(lane, 1, "a"));
    }
    outbox.push(Record {
        assignment: (first(1), 1),
        ..record(4, 1, "a")
    });
    let sent = send_all(&mut outbox);
    assert!(sent.iter().all(|(ticket, _)| outbox.is_awaited(*ticket)));
    outbox.acked(sent[0].0, &mut outcome);
    outbox.recall(&[2], &mut outcome);
    outbox.abandon(&[(first(1), 1)], &mut outcome);
    let awaited: Vec<bool> = sent.iter().map(|(ticket, _)| outbox.is_awaited(*ticket)).collect();
    assert_eq!(awaited, [false, false, true, false]);
}

#[test]
fn refusals_are_counted_for_each_record_anew() {
    let backoff = Backoff {
        attempts: Some(2),
        ..BACKOFF
    };
    let (mut outbox, mut outcome) = (Outbox::new(Confirmation::Ack, backoff), Outcome::default());
    for number in 1..4 {
        outbox.push(record(1, number, "a"));
        let sent = send_all(&mut outbox);
        outbox.refused(sent[0].0, Refusal::Denied, 0, &mut outcome);
        outbox.wake(1_000);
        let sent = send_all(&mut outbox);
        assert_eq!(numbers(&sent), [number]);
        outbox.acked(sent[0].0, &mut outcome);
    }
    assert_eq!((outcome.confirmed.len(), outcome.given_up.len()), (3, 0));
}

#[test]
fn refusals_end_in_the_dead_letter_where_that_is_declared() {
    let mut outbox = Outbox::new(
        Confirmation::Ack,
        Backoff {
            attempts: Some(2),
            ..BACKOFF
        },
    );
    let mut outcome = Outcome::default();
    outbox.push(record(1, 1, "a"));
    outbox.push(record(1, 2, "a"));
    let first = send_all(&mut outbox);
    outbox.refused(first[0].0, Refusal::Denied, 0, &mut outcome);
    assert!(outcome.given_up.is_empty());
    outbox.wake(10_000);
    let second = send_all(&mut outbox);
    outbox.refused(second[0].0, Refusal::Denied, 0, &mut outcome);
    assert_eq!(outcome.given_up, [record(1, 1, "a")]);
    assert_eq!(numbers(&send_all(&mut outbox)), [2]);
}

#[test]
fn an_overdue_ack_is_no_refusal() {
    let mut outbox = Outbox::new(
        Confirmation::Ack,
        Backoff {
            attempts: Some(1),
            ..BACKOFF
        },
    );
    let mut outcome = Outcome::default();
    outbox.push(record(1, 1, "a"));
    for _ in 0..5 {
        let sent = send_all(&mut outbox);
        outbox.expired(sent[0].0, 0, &mut outcome);
        outbox.wake(10_000);
    }
    assert!(outcome.given_up.is_empty());
    assert_eq!(numbers(&send_all(&mut outbox)), [1]);
}

#[test]
fn a_record_that_can_never_be_sent_leaves_at_once() {
    for confirmation in [Confirmation::Ack, Confirmation::Fence] {
        let mut outbox = outbox(confirmation);
        outbox.push(record(1, 1, "a"));
        outbox.push(record(1, 2, "a"));
        let (ticket, _) = outbox.next(0).unwrap();
        assert_eq!(outbox.reject(ticket), Some(record(1, 1, "a")));
        assert_eq!(numbers(&send_all(&mut outbox)), [2]);
        assert_eq!(outbox.in_flight(), 1);
    }
}

#[test]
fn what_is_abandoned_is_never_sent_again() {
    for confirmation in [Confirmation::Ack, Confirmation::Fence] {
        let (mut outbox, mut outcome) = (outbox(confirmation), Outcome::default());
        for number in 1..4 {
            outbox.push(record(1, number, "a"));
        }
        let mut kept = record(1, 4, "a");
        kept.assignment = (first(0), 2);
        outbox.push(kept);
        outbox.next(0);
        assert_eq!(outbox.abandon(&[(first(0), 1)], &mut outcome), 1);
        assert_eq!(outcome.dropped.len(), 2);
        outbox.connection_lost(&mut outcome);
        assert_eq!(outcome.dropped.len(), 3);
        assert_eq!(numbers(&send_all(&mut outbox)), [4]);
        assert_eq!(outbox.len(), 1);
    }
}

#[test]
fn what_is_recalled_comes_back_whether_it_was_sent_or_not() {
    for confirmation in [Confirmation::Ack, Confirmation::Fence] {
        let (mut outbox, mut outcome) = (outbox(confirmation), Outcome::default());
        for number in 1..4 {
            outbox.push(record(1, number, "a"));
        }
        outbox.push(record(2, 9, "b"));
        let (ticket, _) = outbox.next(0).unwrap();
        outbox.recall(&[1], &mut outcome);
        let mut recalled: Vec<(u32, bool)> = outcome.recalled.iter().map(|(one, sent)| (one.number, *sent)).collect();
        recalled.sort_unstable();
        assert_eq!(recalled, [(1, true), (2, false), (3, false)]);
        // Its lane may come back, and is free.
        outbox.push(record(1, 1, "a"));
        let sent = send_all(&mut outbox);
        assert_eq!(numbers(&sent), [9, 1]);
        // What the server says of the first one is nobody's any more.
        match confirmation {
            Confirmation::Ack => outbox.acked(ticket, &mut outcome),
            Confirmation::Fence => {
                outbox.fence();
                outbox.fence_passed(0, &mut outcome);
            }
        }
        let confirmed = outcome.confirmed.len();
        assert_eq!(confirmed, if confirmation == Confirmation::Ack { 0 } else { 2 });
        assert_eq!((outbox.in_flight(), outbox.len()), (2 - confirmed, 2 - confirmed));
        assert!(outcome.dropped.is_empty(), "it has come out once");
    }
}

#[test]
fn what_is_recalled_is_not_sent_again_by_the_next_connection() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    for number in 1..4 {
        outbox.push(record(1, number, "a"));
    }
    outbox.next(0);
    outbox.fence();
    outbox.denied(b"a");
    outbox.recall(&[1], &mut outcome);
    assert_eq!(outcome.recalled.len(), 3);
    assert_eq!(outbox.connection_lost(&mut outcome), 0);
    assert!(!outbox.has_ready() && outbox.is_empty());
    assert!(outcome.dropped.is_empty());
}

#[test]
fn what_an_ended_assignment_has_sent_is_not_recalled() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    prove(&mut outbox, &mut outcome);
    outbox.push(record(1, 1, "a"));
    send_all(&mut outbox);
    outbox.fence();
    assert_eq!(outbox.abandon(&[(first(0), 1)], &mut outcome), 1);
    outbox.recall(&[1], &mut outcome);
    assert!(outcome.recalled.is_empty());
    outbox.fence_passed(0, &mut outcome);
    assert_eq!((outcome.dropped.len(), outcome.confirmed.len()), (1, 0));
    assert!(outbox.is_empty());
}

#[test]
fn a_lane_that_pauses_is_recalled_with_all_that_waits() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Ack), Outcome::default());
    outbox.push(record(1, 1, "a"));
    outbox.push(record(1, 2, "a"));
    let sent = send_all(&mut outbox);
    outbox.refused(sent[0].0, Refusal::Denied, 0, &mut outcome);
    outbox.recall(&[1], &mut outcome);
    assert_eq!(outcome.recalled.len(), 2);
    assert_eq!((outbox.paused_lanes(), outbox.len()), (0, 0));
    outbox.wake(1_000_000);
    assert!(!outbox.has_ready());
}

#[test]
fn a_closed_lane_keeps_its_head_alone_until_it_is_opened() {
    for confirmation in [Confirmation::Fence, Confirmation::Ack] {
        let (mut outbox, mut outcome) = (outbox(confirmation), Outcome::default());
        for number in 1..4 {
            outbox.push(record(1, number, "a"));
        }
        outbox.push(record(2, 9, "b"));
        let sent = send_all(&mut outbox);
        assert_eq!(numbers(&sent), [1, 9]);
        deny_first(&mut outbox, &sent, &mut outcome);
        assert_eq!(outcome.denied, [1]);
        assert_eq!(outbox.close(1, &mut outcome), Some(&record(1, 1, "a")));
        let returned: Vec<u32> = outcome.returned.drain(..).map(|(record, _)| record.number).collect();
        assert_eq!(returned, [2, 3]);
        assert_eq!(
            outbox.push(record(1, 4, "a")),
            Some(record(1, 4, "a")),
            "it takes nothing more"
        );
        assert_eq!(outbox.push(record(3, 7, "c")), None, "other lanes do");
        // A new connection changes nothing of that.
        outbox.connection_lost(&mut outcome);
        outbox.wake(1_000);
        let again = send_all(&mut outbox);
        let head = again.iter().find(|(_, number)| *number == 1).unwrap().0;
        match confirmation {
            Confirmation::Fence => {
                outbox.fence();
                outbox.fence_passed(0, &mut outcome);
            }
            Confirmation::Ack => outbox.acked(head, &mut outcome),
        }
        assert!(outcome.confirmed.iter().any(|(record, _)| record.number == 1));
        assert!(outbox.push(record(1, 4, "a")).is_some(), "not before it is told");
        outbox.open(1);
        assert_eq!(outbox.push(record(1, 2, "a")), None);
    }
}

/// The server denies the first of what was sent.
fn deny_first(outbox: &mut Outbox<Record>, sent: &[(Ticket, u32)], outcome: &mut Outcome<Record>) {
    match outbox.written.confirmation() {
        Confirmation::Fence => {
            outbox.fence();
            assert!(outbox.denied(b"a"));
            outbox.fence_passed(0, outcome);
        }
        Confirmation::Ack => outbox.refused(sent[0].0, Refusal::Denied, 0, outcome),
    }
}

#[test]
fn what_is_impossible_leaves_at_once_and_what_passes_is_never_given_up() {
    let backoff = Backoff {
        attempts: Some(1),
        ..BACKOFF
    };
    let (mut outbox, mut outcome) = (Outbox::new(Confirmation::Ack, backoff), Outcome::default());
    outbox.push(record(1, 1, "a"));
    outbox.push(record(2, 2, "b"));
    outbox.push(record(3, 3, "c"));
    outbox.push(record(4, 4, "d"));
    let sent = send_all(&mut outbox);
    outbox.refused(sent[0].0, Refusal::Impossible, 0, &mut outcome);
    outbox.refused(sent[1].0, Refusal::Transient, 0, &mut outcome);
    outbox.refused(sent[2].0, Refusal::Unattributed, 0, &mut outcome);
    outbox.refused(sent[3].0, Refusal::Denied, 0, &mut outcome);
    assert_eq!(outcome.impossible, [record(1, 1, "a")]);
    assert_eq!(outcome.given_up, [record(4, 4, "d")]);
    assert_eq!(
        outcome.denied,
        [3],
        "only what is refused for longer than now may be closed"
    );
    outbox.wake(10_000);
    assert_eq!(numbers(&send_all(&mut outbox)), [2, 3]);
}

#[test]
fn suspects_are_sent_alone_and_the_one_to_blame_is_found() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Fence), Outcome::default());
    for lane in 1..4 {
        outbox.push(record(lane, lane as u32, "a"));
    }
    send_all(&mut outbox);
    outbox.fence();
    outbox.push(record(4, 4, "a"));
    send_all(&mut outbox);
    assert_eq!(outbox.suspect(), 3, "those of the oldest fence");
    outbox.connection_lost(&mut outcome);
    for expected in 1..4 {
        assert!(outbox.next_is_alone());
        let (ticket, number) = outbox.next(0).map(|(ticket, record)| (ticket, record.number)).unwrap();
        assert_eq!(number, expected);
        outbox.fence();
        if number == 2 {
            assert!(outbox.blame(ticket, 0, &mut outcome));
        }
        outbox.fence_passed(0, &mut outcome);
    }
    let confirmed: Vec<u32> = outcome.confirmed.iter().map(|(record, _)| record.number).collect();
    assert_eq!((confirmed, outcome.denied.as_slice()), (vec![1, 3], [2].as_slice()));
    assert!(!outbox.next_is_alone(), "the fourth was behind");
    assert_eq!(numbers(&send_all(&mut outbox)), [4]);
    outbox.wake(1_000);
    assert!(outbox.next_is_alone(), "whoever was blamed once is sent alone again");
}

#[test]
fn pauses_double_up_to_the_longest_and_differ() {
    let pauses: Vec<u64> = (1..10).map(|refusals| BACKOFF.pause(refusals, 7)).collect();
    assert!((50..=100).contains(&pauses[0]), "{pauses:?}");
    assert!((100..=200).contains(&pauses[1]), "{pauses:?}");
    assert!((500..=1_000).contains(&pauses[8]), "{pauses:?}");
    assert!(
        (0..20)
            .map(|lane| BACKOFF.pause(5, lane))
            .collect::<BTreeSet<_>>()
            .len()
            > 10
    );
}

#[test]
fn a_ticket_of_another_record_is_harmless() {
    let (mut outbox, mut outcome) = (outbox(Confirmation::Ack), Outcome::default());
    outbox.push(record(1, 1, "a"));
    let sent = send_all(&mut outbox);
    outbox.acked(sent[0].0, &mut outcome);
    outbox.push(record(1, 2, "a"));
    send_all(&mut outbox);
    outbox.acked(sent[0].0, &mut outcome);
    outbox.acked(Ticket::from_u64(u64::MAX), &mut outcome);
    assert_eq!(outcome.confirmed.len(), 1);
    assert_eq!(Ticket::from_u64(sent[0].0.to_u64()), sent[0].0);
}
