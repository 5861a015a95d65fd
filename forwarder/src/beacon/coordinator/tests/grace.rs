//! A pod that begins in the grace of a ring owes that grace: nothing goes by its ring yet.

use super::*;

/// A pod that has begun with ring 8, and has partitions of which nothing can be said yet.
fn owing() -> Told {
    Told {
        is_used: false,
        grace_left_ms: 3_000,
        ..told(eight(), None, &[])
    }
}

/// What such a pod states.
fn owing_statement(pod: &str) -> Statement {
    Statement {
        announced: Some(8),
        ..statement(pod, 1, 8, &[])
    }
}

#[test]
fn a_ring_whose_grace_is_owed_is_announced_until_records_go_by_it() {
    let mut alone = coordinator("a");
    alone.tell(&owing(), NOW);
    connect_all(&mut alone, NOW);
    let announcement = alone.announcement(NOW);
    assert_eq!(phases(&alone, NOW), [(8, Phase::Announced)]);
    assert_eq!(announcement.pods, ["a"], "it is going to publish");
    let Due { digest, statement } = alone.due(NOW);
    let (digest, (said, _)) = (digest.unwrap().0, statement.unwrap());
    assert_eq!((digest.epoch, digest.hash), (8, announcement.hash));
    assert_eq!((said.using, said.announced), (8, Some(8)));
    assert!(
        alone.due(NOW + SECOND).statement.is_some(),
        "a change is told each second"
    );
    for cluster in ["C1", "C2", "C4"] {
        alone.echoed(cluster, 8, NOW + SECOND);
    }
    assert_eq!(alone.heard(NOW + SECOND), Some(8), "the grace may begin");

    let later = NOW + 20 * SECOND;
    alone.due(later);
    alone.tell(&told(eight(), None, &[(0, 8)]), later);
    assert_eq!(phases(&alone, later), [(8, Phase::InUse)]);
    let Due { digest, statement } = alone.due(later);
    assert_eq!(
        digest.unwrap().0.hash,
        alone.announcement(later).hash,
        "it is told at once"
    );
    assert_eq!(statement.unwrap().0.announced, None);
}

#[test]
fn a_ring_is_in_use_when_records_of_another_pod_go_by_it() {
    let mut new = coordinator("a");
    new.tell(&owing(), NOW);
    new.hear(statement("b", 1, 7, &[(0, 7)]), NOW);
    new.hear(owing_statement("c"), NOW);
    // It has no partition.
    new.hear(statement("d", 1, 8, &[]), NOW);
    new.hear(statement("e", 1, 9, &[(1, 8)]), NOW);
    assert_eq!(phases(&new, NOW), [(8, Phase::Announced)]);
    new.hear(statement("b", 2, 8, &[(0, 7)]), NOW);
    assert_eq!(phases(&new, NOW), [(8, Phase::InUse)]);
    // It does not go back.
    let later = NOW + 2 * LIFE;
    new.tell(&owing(), later);
    assert_eq!(
        (living(&new, later), phases(&new, later)),
        (vec!["a"], vec![(8, Phase::InUse)])
    );
}

#[test]
fn an_older_ring_is_in_use_until_records_go_by_the_newer_one() {
    let mut running = coordinator("a");
    running.tell(&told(seven(), None, &[]), NOW);
    running.tell(&owing(), NOW);
    assert_eq!(phases(&running, NOW), [(7, Phase::InUse), (8, Phase::Announced)]);
    running.tell(&told(eight(), None, &[]), NOW);
    assert_eq!(phases(&running, NOW), [(7, Phase::Leaving), (8, Phase::InUse)]);
}

#[test]
fn no_ring_is_left_while_a_pod_owes_the_grace_of_the_next_one() {
    let mut witness = coordinator("a");
    let last = Statement {
        stopping: true,
        ..statement("b", 1, 7, &[(3, 7)])
    };
    witness.hear(last, NOW);
    witness.hear(owing_statement("c"), NOW);
    witness.tell(&told(eight(), None, &[(0, 8), (1, 8), (2, 8)]), NOW);
    assert_eq!(witness.left(), 7, "its successor has not begun");
    witness.hear(statement("c", 2, 8, &[(3, 8)]), NOW);
    assert_eq!(witness.left(), 8);

    // The one that owes it claims nothing of its own partitions, and learns from others that all is left.
    let mut owes = coordinator("a");
    owes.tell(&owing(), NOW);
    owes.hear(statement("b", 1, 8, &[(0, 8), (1, 8), (2, 8)]), NOW);
    assert_eq!(owes.left(), 0);
    owes.hear(statement("c", 1, 8, &[(3, 8)]), NOW);
    assert_eq!((owes.left(), phases(&owes, NOW)), (8, vec![(8, Phase::InUse)]));
}
