use forwarder_core::document::Config;

use super::pods::{LIFE, LIFE_IN_A_CHANGE, MAX_PARTITIONS, MAX_PODS};
use super::reach::PATIENCE;
use super::rhythm::{JITTER, LATE, RHYTHM};
use super::views::plain;
use super::*;

mod grace;

const SECOND: u64 = 1_000_000;

/// Some time after the start, so that nothing is at zero by chance.
const NOW: u64 = 100 * SECOND;

fn ring(epoch: u64, clusters: &[&str]) -> Arc<RingConfig> {
    let clusters: Vec<String> = clusters
        .iter()
        .map(|name| format!("{{name: {name}, servers: ['nats://{name}:4222']}}"))
        .collect();
    let config = Config::from_yaml(&format!(
        "
source: {{connection: {{bootstrapServers: ['k:9092']}}, topic: t, group: g}}
ring:
  epoch: {epoch}
  beacon: {{subject: _FANOUT.a.b, ring: r, keyFile: /key, graceMs: 3000}}
  clusters: [{}]
",
        clusters.join(", ")
    ));
    Arc::new(config.unwrap().ring)
}

fn seven() -> Arc<RingConfig> {
    ring(7, &["C1", "C2", "C3"])
}

fn eight() -> Arc<RingConfig> {
    ring(8, &["C1", "C2", "C4"])
}

/// What the intake says: of one topic, each of our partitions with its oldest ring.
fn told(using: Arc<RingConfig>, announced: Option<Arc<RingConfig>>, oldest: &[(i32, u64)]) -> Told {
    Told {
        using,
        is_used: true,
        announced,
        grace_left_ms: 0,
        oldest: BTreeMap::from([("t".to_owned(), oldest.to_vec())]),
        partitions: BTreeMap::from([("t".to_owned(), 4)]),
        topics: Arc::from(["t".to_owned()]),
        answers: BTreeMap::new(),
        stopping: false,
    }
}

fn coordinator(pod: &str) -> Coordinator {
    let identity = Identity {
        ring: "r".to_owned(),
        pod: pod.to_owned(),
        process: format!("{pod}-1"),
    };
    let publishing = Publishing {
        subject: "{key}.{id}".to_owned(),
        stream: None,
        origin: true,
    };
    Coordinator::new(identity, publishing)
}

fn statement(pod: &str, sequence: u64, using: u64, oldest: &[(i32, u64)]) -> Statement {
    Statement {
        ring: "r".to_owned(),
        pod: pod.to_owned(),
        process: format!("{pod}-1"),
        sequence,
        using,
        announced: None,
        partitions: BTreeMap::from([("t".to_owned(), 4)]),
        oldest: BTreeMap::from([("t".to_owned(), oldest.to_vec())]),
        stopping: false,
    }
}

/// Every post connects.
fn connect_all(coordinator: &mut Coordinator, now: u64) {
    let names: Vec<String> = coordinator.clusters().keys().map(|name| (*name).to_owned()).collect();
    for name in names {
        coordinator.connected(&name, None, now);
    }
}

fn phases(coordinator: &Coordinator, now: u64) -> Vec<(u64, Phase)> {
    let rings = coordinator.announcement(now).rings;
    rings.iter().map(|ring| (ring.epoch, ring.phase)).collect()
}

fn living(coordinator: &Coordinator, now: u64) -> Vec<&str> {
    coordinator.living(now).into_iter().collect()
}

fn names(coordinator: &Coordinator) -> Vec<&str> {
    coordinator.clusters().into_keys().collect()
}

#[test]
fn a_ring_goes_from_announced_to_used_to_left() {
    let mut alone = coordinator("a");
    let of = |ring| [(0, ring), (1, ring), (2, ring), (3, ring)];
    alone.tell(&told(seven(), None, &of(7)), NOW);
    assert_eq!((alone.left(), phases(&alone, NOW)), (7, vec![(7, Phase::InUse)]));
    let announced = told(seven(), Some(eight()), &of(7));
    alone.tell(&announced, NOW);
    assert_eq!(phases(&alone, NOW), [(7, Phase::InUse), (8, Phase::Announced)]);
    assert_eq!(names(&alone), ["C1", "C2", "C3", "C4"]);
    // Something of the third partition is still at an old owner.
    alone.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 7), (3, 8)]), NOW);
    assert_eq!(phases(&alone, NOW), [(7, Phase::Leaving), (8, Phase::InUse)]);
    assert_eq!(
        (alone.left(), names(&alone).len()),
        (7, 4),
        "the one that leaves hears of it too"
    );
    alone.tell(&told(eight(), None, &of(8)), NOW);
    assert_eq!((alone.left(), phases(&alone, NOW)), (8, vec![(8, Phase::InUse)]));
    assert_eq!(names(&alone), ["C1", "C2", "C4"]);
}

#[test]
fn nothing_is_left_before_every_partition_of_every_topic_is_known() {
    let mut new = coordinator("a");
    let mut own = told(eight(), None, &[(0, 8), (1, 8)]);
    new.tell(&own, NOW);
    assert_eq!(new.left(), 0, "two partitions are unknown");
    new.hear(statement("b", 1, 8, &[(2, 8)]), NOW);
    assert_eq!(new.left(), 0, "one is");
    new.hear(statement("c", 1, 8, &[(3, 8)]), NOW);
    assert_eq!(new.left(), 8);

    // Another topic, of which nobody knows how many partitions it has.
    let mut new = coordinator("a");
    own.topics = Arc::from(["t".to_owned(), "u".to_owned()]);
    own.oldest = BTreeMap::from([("t".to_owned(), (0..4).map(|number| (number, 8)).collect())]);
    new.tell(&own, NOW);
    assert_eq!(new.left(), 0);
    own.partitions.insert("u".to_owned(), 1);
    new.tell(&own, NOW);
    assert_eq!(new.left(), 0, "its partition is nobody's");
    own.oldest.insert("u".to_owned(), vec![(0, 8)]);
    new.tell(&own, NOW);
    assert_eq!(new.left(), 8);

    // Somebody knows before us that the topic has grown.
    let mut new = coordinator("a");
    let grown = Statement {
        partitions: BTreeMap::from([("t".to_owned(), 5)]),
        ..statement("b", 1, 8, &[])
    };
    new.hear(grown, NOW);
    new.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 8), (3, 8)]), NOW);
    assert_eq!(new.left(), 0);
}

#[test]
fn a_dead_pods_partitions_keep_what_was_said_until_somebody_else_speaks_for_them() {
    let mut witness = coordinator("a");
    witness.hear(statement("b", 1, 7, &[(3, 7)]), NOW);
    witness.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 8)]), NOW);
    assert_eq!(witness.left(), 7);
    let later = NOW + LIFE + SECOND;
    witness.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 8)]), later);
    assert_eq!(living(&witness, later), ["a"]);
    assert_eq!(witness.left(), 7, "what it had may be anywhere");
    witness.hear(statement("c", 1, 8, &[(3, 8)]), later);
    assert_eq!(witness.left(), 8);
}

#[test]
fn what_a_dead_pod_said_long_ago_does_not_undo_what_was_said_since() {
    let mut witness = coordinator("a");
    witness.hear(statement("c", 1, 8, &[(3, 8)]), NOW);
    // Somebody sends it again. The pod began and died before this one began, so it looks like a newcomer.
    witness.hear(statement("b", 1, 7, &[(3, 7)]), NOW);
    witness.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 8)]), NOW);
    assert_eq!(witness.left(), 7);
    let later = NOW + LIFE + SECOND;
    witness.due(later);
    assert_eq!(
        (witness.left(), living(&witness, later)),
        (8, vec!["a"]),
        "both are gone"
    );
}

#[test]
fn who_takes_a_partition_over_does_not_speak_for_who_still_has_it() {
    let mut third = coordinator("a");
    third.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 8)]), NOW);
    third.hear(statement("b", 1, 8, &[(3, 7)]), NOW);
    third.hear(statement("c", 1, 8, &[(3, 8)]), NOW);
    assert_eq!(third.left(), 7, "both have it, as far as they say");
    third.hear(statement("b", 2, 8, &[]), NOW);
    assert_eq!(third.left(), 8);
}

#[test]
fn a_pod_that_uses_an_older_ring_holds_it_back_while_it_is_alive() {
    let all = [(0, 8), (1, 8), (2, 8), (3, 8)];
    let mut ahead = coordinator("a");
    ahead.hear(statement("idle", 1, 7, &[]), NOW);
    ahead.tell(&told(eight(), None, &all), NOW);
    assert_eq!(ahead.left(), 7);
    ahead.due(NOW + LIFE - 1);
    assert_eq!(ahead.left(), 7);
    ahead.due(NOW + LIFE);
    assert_eq!(ahead.left(), 8, "it has nothing, and is gone");
    // What was claimed stays claimed, whoever comes.
    ahead.hear(statement("idle", 2, 7, &[(0, 7)]), NOW + LIFE);
    assert_eq!(ahead.left(), 8);
}

#[test]
fn who_speaks_each_second_is_missed_sooner_and_who_says_farewell_at_once() {
    let mut witness = coordinator("a");
    witness.tell(&told(seven(), None, &[]), NOW);
    let changing = Statement {
        announced: Some(8),
        ..statement("b", 1, 7, &[])
    };
    witness.hear(changing, NOW);
    witness.hear(statement("c", 1, 7, &[]), NOW);
    assert_eq!(living(&witness, NOW), ["a", "b", "c"]);
    let later = NOW + LIFE_IN_A_CHANGE;
    assert_eq!(living(&witness, later), ["a", "c"]);
    let last = Statement {
        stopping: true,
        ..statement("c", 2, 7, &[])
    };
    witness.hear(last, later);
    assert_eq!(living(&witness, later), ["a"]);
}

#[test]
fn who_has_no_partition_is_not_asked_for_a_proof() {
    let mut idle = coordinator("a");
    let without = Told {
        oldest: BTreeMap::new(),
        ..told(seven(), None, &[])
    };
    idle.tell(&without, NOW);
    idle.hear(statement("b", 1, 7, &[(0, 7)]), NOW);
    let other = Statement {
        oldest: BTreeMap::new(),
        ..statement("c", 1, 7, &[])
    };
    idle.hear(other, NOW);
    assert_eq!(idle.announcement(NOW).pods, ["b"]);
    idle.tell(&told(seven(), None, &[(1, 7)]), NOW);
    assert_eq!(idle.announcement(NOW).pods, ["a", "b"]);
    let ending = Told {
        stopping: true,
        ..told(seven(), None, &[(1, 7)])
    };
    idle.tell(&ending, NOW);
    assert_eq!(idle.announcement(NOW).pods, ["b"]);
    assert!(idle.due(NOW).statement.is_none_or(|(said, _)| said.stopping));
}

#[test]
fn what_is_sent_again_and_what_is_of_another_ring_changes_nothing() {
    let mut ours = coordinator("a");
    ours.hear(statement("b", 5, 8, &[(3, 7)]), NOW);
    ours.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 8)]), NOW);
    for old in [statement("b", 5, 8, &[(3, 8)]), statement("b", 4, 8, &[(3, 8)])] {
        ours.hear(old, NOW);
    }
    let other = Statement {
        ring: "other".to_owned(),
        ..statement("c", 9, 8, &[(3, 8)])
    };
    ours.hear(other, NOW);
    // Our own words come back from each cluster.
    ours.hear(statement("a", 9, 8, &[(3, 8)]), NOW);
    assert_eq!((ours.left(), living(&ours, NOW)), (7, vec!["a", "b"]));
    // An old word keeps nobody alive.
    ours.hear(statement("b", 5, 8, &[(3, 7)]), NOW + LIFE);
    assert_eq!(living(&ours, NOW + LIFE), ["a"]);
    // A new process of the same name counts from anew.
    let anew = Statement {
        process: "b-2".to_owned(),
        ..statement("b", 1, 8, &[(3, 8)])
    };
    ours.hear(anew, NOW + LIFE);
    assert_eq!((ours.left(), living(&ours, NOW + LIFE).len()), (8, 2));
}

#[test]
fn pods_and_partitions_have_bounds_beyond_which_nothing_is_claimed() {
    let mut crowded = coordinator("a");
    crowded.tell(&told(eight(), None, &[]), NOW);
    for number in 0..2 * MAX_PODS {
        crowded.hear(statement(&format!("p{number}"), 1, 8, &[]), NOW);
    }
    assert_eq!(living(&crowded, NOW).len(), MAX_PODS + 1);
    crowded.hear(statement("late", 1, 8, &[]), NOW + LIFE);
    assert_eq!(living(&crowded, NOW + LIFE), ["a", "late"], "the dead give room");

    let mut large = coordinator("a");
    let mut own = told(eight(), None, &[]);
    let most = i32::try_from(MAX_PARTITIONS).unwrap();
    own.partitions.insert("t".to_owned(), most);
    own.oldest
        .insert("t".to_owned(), (0..most).map(|number| (number, 8)).collect());
    large.tell(&own, NOW);
    assert_eq!(large.left(), 8);
    let mut larger = coordinator("a");
    own.partitions.insert("t".to_owned(), most + 1);
    own.oldest
        .insert("t".to_owned(), (0..=most).map(|number| (number, 8)).collect());
    larger.tell(&own, NOW);
    assert_eq!(larger.left(), 0);
}

/// A coordinator that announces ring 8 at [`NOW`], and every post is connected.
fn announcing() -> Coordinator {
    let mut announcing = coordinator("a");
    announcing.tell(&told(seven(), None, &[(0, 7)]), NOW - PATIENCE);
    connect_all(&mut announcing, NOW - PATIENCE);
    announcing.tell(&told(seven(), Some(eight()), &[(0, 7)]), NOW);
    connect_all(&mut announcing, NOW);
    announcing
}

#[test]
fn an_announcement_is_heard_when_each_cluster_has_brought_its_digest_back() {
    let mut announcing = announcing();
    let (digest, clusters) = announcing.due(NOW).digest.unwrap();
    assert_eq!((digest.epoch, digest.hash), (8, announcing.announcement(NOW).hash));
    assert_eq!(clusters, ["C1", "C2", "C3", "C4"]);
    for cluster in ["C1", "C2", "C3"] {
        announcing.echoed(cluster, 8, NOW);
    }
    announcing.echoed("C4", 7, NOW);
    assert_eq!(announcing.heard(NOW), None, "an old digest is none");
    // It is sent again only where it was not heard, besides the rhythm of the others.
    let again = announcing.due(NOW + SECOND - 1).digest;
    assert_eq!(again, None);
    let (_, again) = announcing.due(NOW + SECOND).digest.unwrap();
    assert!(again.contains(&"C4".to_owned()), "{again:?}");
    announcing.echoed("C4", 8, NOW);
    assert_eq!(announcing.heard(NOW), Some(8));
}

#[test]
fn what_cannot_be_reached_is_not_waited_for() {
    let mut announcing = announcing();
    for cluster in ["C1", "C2"] {
        announcing.echoed(cluster, 8, NOW);
    }
    announcing.fault("C3", Some("a reason".to_owned()));
    assert_eq!(announcing.heard(NOW), None);
    announcing.connected("C4", Some("away".to_owned()), NOW);
    assert_eq!(announcing.heard(NOW + PATIENCE - 1), None);
    assert_eq!(announcing.heard(NOW + PATIENCE), Some(8), "it is away for so long");

    // It comes and goes, and never brings the digest back.
    let mut flapping = self::announcing();
    for cluster in ["C1", "C2", "C3"] {
        flapping.echoed(cluster, 8, NOW);
    }
    for second in 1..10 {
        let away = (second % 2 == 0).then(|| "away".to_owned());
        flapping.connected("C4", away, NOW + second * SECOND);
        assert_eq!(flapping.heard(NOW + second * SECOND), None);
    }
    assert_eq!(flapping.heard(NOW + PATIENCE), Some(8));

    // One that was away long before is not waited for at all.
    let mut gone = coordinator("a");
    gone.tell(&told(seven(), None, &[(0, 7)]), NOW - PATIENCE);
    gone.tell(&told(seven(), Some(ring(8, &["C1", "C2", "C3"])), &[(0, 7)]), NOW);
    assert_eq!(gone.heard(NOW), Some(8));
}

#[test]
fn one_pod_keeps_the_rhythm_of_a_cluster_and_another_one_takes_its_place() {
    let of = |pod: &str, other: &str| {
        let mut coordinator = coordinator(pod);
        coordinator.tell(&told(seven(), None, &[(0, 7), (1, 7), (2, 7), (3, 7)]), NOW);
        coordinator.hear(statement(other, 1, 7, &[]), NOW);
        connect_all(&mut coordinator, NOW);
        let (first, _) = coordinator.due(NOW).digest.unwrap();
        assert_eq!(first.next_ms, 11_500);
        for cluster in ["C1", "C2", "C3"] {
            coordinator.echoed(cluster, 7, NOW);
        }
        coordinator
    };
    let mut pods = [of("a", "b"), of("b", "a")];
    assert!(pods.iter_mut().all(|pod| pod.due(NOW + RHYTHM - 1).digest.is_none()));
    let later = NOW + RHYTHM + RHYTHM / JITTER;
    let sent: Vec<Vec<String>> = pods
        .iter_mut()
        .map(|pod| pod.due(later).digest.map_or_else(Vec::new, |(_, clusters)| clusters))
        .collect();
    let mut all = sent.concat();
    all.sort();
    assert_eq!(all, ["C1", "C2", "C3"], "each cluster hears one of them: {sent:?}");

    // The one whose turn it is cannot reach the cluster, so nobody hears it.
    let late = later + LATE + RHYTHM;
    let mut silent = of("a", "b");
    silent.hear(statement("b", 2, 7, &[]), late - SECOND);
    let (_, clusters) = silent.due(late).digest.unwrap();
    assert_eq!(clusters, ["C1", "C2", "C3"]);
}

#[test]
fn in_a_change_each_second_counts_and_otherwise_each_tenth() {
    let mut coordinator = announcing();
    let statements = |coordinator: &mut Coordinator, from: u64| {
        let seconds = (1..=20).map(|second| from + second * SECOND);
        seconds.filter(|now| coordinator.due(*now).statement.is_some()).count()
    };
    coordinator.due(NOW);
    assert_eq!(statements(&mut coordinator, NOW), 20);
    let settled = [(0, 8), (1, 8), (2, 8), (3, 8)];
    let later = NOW + 30 * SECOND;
    coordinator.tell(&told(eight(), None, &settled), later);
    let (news, clusters) = coordinator.due(later).statement.unwrap();
    assert_eq!(
        (news.using, news.announced, clusters.len()),
        (8, None, 3),
        "a change is told at once"
    );
    assert_eq!(statements(&mut coordinator, later), 2);
    let (last, _) = coordinator.farewell(later + 21 * SECOND).statement.unwrap();
    assert!(last.stopping && last.sequence > news.sequence);
}

#[test]
fn a_newcomer_hears_everybody_soon_and_a_new_connection_at_once() {
    let mut coordinator = coordinator("a");
    coordinator.tell(&told(seven(), None, &[(0, 7), (1, 7), (2, 7), (3, 7)]), NOW);
    connect_all(&mut coordinator, NOW);
    coordinator.due(NOW);
    for cluster in ["C1", "C2", "C3"] {
        coordinator.echoed(cluster, 7, NOW);
    }
    coordinator.hear(statement("b", 1, 7, &[]), NOW + 2 * SECOND);
    assert!(coordinator.due(NOW + 2 * SECOND).statement.is_some());
    coordinator.hear(statement("b", 2, 7, &[]), NOW + 4 * SECOND);
    assert_eq!(
        coordinator.due(NOW + 4 * SECOND).statement,
        None,
        "it is no newcomer any more"
    );
    coordinator.connected("C2", Some("away".to_owned()), NOW + 4 * SECOND);
    coordinator.connected("C2", None, NOW + 5 * SECOND);
    let Due { digest, statement } = coordinator.due(NOW + 5 * SECOND);
    assert_eq!(digest.unwrap().1, ["C2"]);
    assert_eq!(statement.unwrap().1, ["C2"]);
    assert_eq!(coordinator.due(NOW + 5 * SECOND), Due::default());
}

#[test]
fn subscribers_are_told_no_password() {
    for (server, shown) in [
        ("nats://h:1", "nats://h:1"),
        ("tls://u:p@h:1", "tls://h:1"),
        ("u:p@ss@h:1", "nats://h:1"),
    ] {
        assert_eq!(plain(server), shown);
    }
}
