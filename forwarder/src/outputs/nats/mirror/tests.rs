use forwarder_core::fanout::ring::Ring;

use super::*;
use crate::outputs::Command;
use crate::outputs::nats::ToPublisher;
use crate::outputs::nats::tests::{Rig, Server, message, rig};

const SECOND: u64 = 1_000_000;

/// What a copy of [`message`] is on the wire: its header block is 32 bytes.
const COPY: &str = "HPUB subject 32 36\r\nNATS/1.0\r\nFanout-Mirrored: 1\r\n\r\nbody\r\nPING\r\n";

fn copy(room: &Room, lane: u64) -> MirrorCopy {
    room.copy(Arc::new(message(0, lane))).unwrap()
}

/// The publisher's end without a publisher, and the metrics that it counts in.
fn copies() -> (Copies, MirrorMetrics) {
    let metrics = rig("127.0.0.1:1", "{}").counters.mirror;
    (Copies::new(metrics.clone(), 0), metrics)
}

fn written(copies: &mut Copies, now: u64) -> usize {
    std::iter::from_fn(|| copies.next(1 << 20, &mut Vec::new(), now)).count()
}

#[test]
fn copies_hold_their_room_until_they_are_gone() {
    let room = Room::default();
    let held: Vec<_> = (0..MAX_COPIES as u64).map(|lane| copy(&room, lane)).collect();
    assert!(room.copy(Arc::new(message(0, 1))).is_none(), "too many");
    drop(held);
    let origin = message(0, 1).origin;
    let large = || Arc::new(Message::pack(origin, 1, 0, b"s", b"", &vec![0; MAX_BYTES / 2], b""));
    let first = room.copy(large()).unwrap();
    assert!(room.copy(large()).is_none(), "too large together");
    drop(first);
    assert!(room.copy(large()).is_some());
}

#[test]
fn no_more_is_written_than_a_second_allows() {
    let (mut copies, metrics) = copies();
    let mut pushed = 0;
    for now in [0, 0, 0, 0] {
        let room = Room::default();
        for lane in 0..MAX_COPIES as u64 {
            copies.push(copy(&room, lane), now);
            pushed += 1;
        }
    }
    assert_eq!(written(&mut copies, 0) as u64, PER_SECOND);
    assert_eq!(written(&mut copies, SECOND / 100) as u64, PER_SECOND / 100);
    assert!(!copies.is_empty(), "the others wait");
    assert_eq!(
        written(&mut copies, 10 * SECOND) as u64,
        pushed - PER_SECOND - PER_SECOND / 100
    );
    assert_eq!(metrics.mirrored.get(), 0, "written is not accepted");
}

#[test]
fn what_a_cluster_is_not_to_get_any_more_is_dropped_and_counted() {
    let (mut copies, metrics) = copies();
    let room = Room::default();
    let ring = |members: &[u32]| {
        let names = members.iter().map(|member| (format!("C{member}"), 1));
        RingEpoch::new(1, Arc::new(Ring::new(names, 16).unwrap()), members.to_vec())
    };
    let (large, small) = (ring(&[1, 2]), ring(&[1]));
    let lanes: Vec<u64> = (0..64_u64).map(|number| number << 58).collect();
    let owned = |output| {
        lanes
            .iter()
            .filter(|lane| large.output_of_lane(**lane) == output)
            .count()
    };
    lanes.iter().for_each(|lane| copies.push(copy(&room, *lane), 0));
    copies.ring_used(1, &large);
    assert_eq!(metrics.dropped(MirrorDrop::OwnedAgain).get() as usize, owned(1));
    copies.ring_used(2, &small);
    assert_eq!(metrics.dropped(MirrorDrop::Left).get() as usize, owned(2));
    assert!(copies.is_empty() && owned(1) > 0 && owned(2) > 0);

    copies.push(copy(&room, 1), 0);
    copies.abandon(&[(message(1, 1).origin.partition, 1), (message(0, 1).origin.partition, 2)]);
    assert!(!copies.is_empty(), "others were given up");
    copies.abandon(&[(message(0, 1).origin.partition, 1)]);
    assert_eq!(
        (copies.is_empty(), metrics.dropped(MirrorDrop::Revoked).get()),
        (true, 1),
        "without a connection at once"
    );
    copies.begin();
    copies.push(copy(&room, 1), 0);
    copies.push(copy(&room, 2), 0);
    copies.abandon(&[(message(0, 1).origin.partition, 1)]);
    assert!(copies.next(1 << 20, &mut Vec::new(), 0).is_some(), "one more chance");
    copies.drop_ending();
    assert_eq!(
        (copies.is_empty(), metrics.dropped(MirrorDrop::Revoked).get()),
        (true, 2)
    );

    copies.push(copy(&room, 1), 0);
    assert!(copies.next(35, &mut Vec::new(), 0).is_none());
    assert_eq!(metrics.dropped(MirrorDrop::TooLarge).get(), 1);
}

#[test]
fn a_connection_that_may_have_ended_over_a_copy_pauses_copies_alone() {
    let suspect = || Ended::Unattributed {
        text: "denied".to_owned(),
        suspects: 1,
    };
    let minute = Duration::from_secs(60);
    for (ended, lasted, pauses) in [
        (suspect(), minute, true),
        (Ended::Server("Unknown Protocol Operation".to_owned()), minute, true),
        (Ended::Closed, Duration::from_secs(1), true),
        (Ended::Closed, minute, false),
        (Ended::LameDuck, Duration::ZERO, false),
    ] {
        let (mut copies, metrics) = copies();
        let room = Room::default();
        copies.push(copy(&room, 1), 0);
        copies.push(copy(&room, 2), 0);
        let first = copies.next(1 << 20, &mut Vec::new(), 0).unwrap();
        copies.written(first, 0);
        copies.connection_lost(Some(&ended), lasted, "C1", SECOND);
        assert_eq!(copies.is_empty(), pauses, "{ended:?}");
        copies.push(copy(&room, 3), SECOND);
        let dropped = if pauses { 3 } else { 1 };
        assert_eq!(metrics.dropped(MirrorDrop::Disconnected).get(), dropped, "{ended:?}");
        copies.push(copy(&room, 3), 62 * SECOND);
        assert!(!copies.is_empty());
    }
    let (mut copies, _) = copies();
    copies.connection_lost(Some(&suspect()), Duration::ZERO, "C1", SECOND);
    copies.push(copy(&Room::default(), 1), SECOND);
    assert!(!copies.is_empty(), "no copy was out");
}

#[tokio::test]
async fn a_copy_goes_out_behind_records_and_counts_once_the_server_has_accepted_it() {
    let server = Server::new().await;
    let Rig {
        publisher,
        commands,
        counters,
        ..
    } = rig(&server.address, "{}");
    let room = Room::default();
    let running = tokio::spawn(publisher.run());
    let mut client = server.greet("127.0.0.1:1").await;
    client.say("PONG\r\nPONG\r\n").await;
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    client.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    commands.send(ToPublisher::Copy(copy(&room, 2))).unwrap();
    client.hear(COPY).await;
    client.say("PONG\r\nPING\r\n").await;
    client.hear("PONG\r\n").await;
    assert_eq!((counters.published.get(), counters.mirror.mirrored.get()), (1, 0));
    client.say("PONG\r\nPING\r\n").await;
    client.hear("PONG\r\n").await;
    assert_eq!((counters.published.get(), counters.mirror.mirrored.get()), (1, 1));
    drop(commands);
    running.await.unwrap();
}

#[tokio::test]
async fn a_denied_copy_is_counted_and_is_no_word_about_records() {
    let server = Server::new().await;
    let Rig {
        publisher,
        commands,
        counters,
        ..
    } = rig(&server.address, "{}");
    let room = Room::default();
    let running = tokio::spawn(publisher.run());
    let mut client = server.greet("127.0.0.1:1").await;
    client.say("PONG\r\nPONG\r\n").await;
    commands.send(ToPublisher::Copy(copy(&room, 2))).unwrap();
    client.hear(COPY).await;
    let origin = message(0, 1).origin;
    let record = Message::pack(origin, 1, 0, b"other", b"", b"body", b"");
    commands.send(Command::Deliver(vec![record]).into()).unwrap();
    client.hear("PUB other 4\r\nbody\r\nPING\r\n").await;
    client
        .say("-ERR 'Permissions Violation for Publish to \"subject\"'\r\nPONG\r\nPONG\r\nPING\r\n")
        .await;
    client.hear("PONG\r\n").await;
    assert_eq!((counters.published.get(), counters.publish_failures.get()), (1, 0));
    assert_eq!(counters.mirror.dropped(MirrorDrop::Denied).get(), 1);
    // The asset is not tried again, and others are.
    commands.send(ToPublisher::Copy(copy(&room, 2))).unwrap();
    commands.send(ToPublisher::Copy(copy(&room, 3))).unwrap();
    client.hear(COPY).await;
    assert_eq!(counters.mirror.dropped(MirrorDrop::Denied).get(), 2);
    client.say("PONG\r\nPING\r\n").await;
    client.hear("PONG\r\n").await;
    assert_eq!(
        (counters.mirror.mirrored.get(), counters.reconnects.get()),
        (1, 0),
        "the connection stays"
    );
    drop(commands);
    running.await.unwrap();
}

#[tokio::test]
async fn a_copy_that_may_be_lost_with_its_connection_is_counted_and_not_sent_again() {
    let server = Server::new().await;
    let Rig {
        publisher,
        commands,
        counters,
        ..
    } = rig(&server.address, "{}");
    let room = Room::default();
    let running = tokio::spawn(publisher.run());
    let mut client = server.greet("127.0.0.1:1").await;
    client.say("PONG\r\nPONG\r\n").await;
    commands.send(ToPublisher::Copy(copy(&room, 2))).unwrap();
    client.hear(COPY).await;
    drop(client);
    let mut again = server.greet("127.0.0.1:1").await;
    again.say("PONG\r\nPONG\r\n").await;
    commands.send(Command::Deliver(vec![message(0, 1)]).into()).unwrap();
    again.hear("PUB subject 4\r\nbody\r\nPING\r\n").await;
    assert_eq!(counters.mirror.dropped(MirrorDrop::Disconnected).get(), 1);
    drop(commands);
    let rest = again.hear_out().await;
    assert!(!rest.contains("HPUB"), "{rest}");
    running.await.unwrap();
}
