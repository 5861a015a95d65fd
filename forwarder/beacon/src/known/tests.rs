use super::*;
use crate::body::{ClusterView, Phase};

fn view(epoch: u64, phase: Phase, clusters: &[&str]) -> RingView {
    let cluster = |name: &&str| ClusterView {
        name: (*name).to_owned(),
        weight: 1,
        servers: vec![format!("nats://{name}-{epoch}")],
    };
    RingView {
        epoch,
        phase,
        replicas: 64,
        clusters: clusters.iter().map(cluster).collect(),
    }
}

fn told(left: u64, rings: Vec<RingView>) -> Announcement {
    Announcement {
        ring: "r".to_owned(),
        nonce: String::new(),
        hash: String::new(),
        left,
        rings,
        pods: vec!["a".to_owned()],
        publishing: Publishing {
            subject: "{key}.{id}".to_owned(),
            stream: None,
            origin: true,
        },
    }
}

const THREE: [&str; 3] = ["C1", "C2", "C3"];
const FOUR: [&str; 4] = ["C1", "C2", "C3", "C4"];

fn epochs(known: &Known) -> Vec<(u64, Phase)> {
    known.rings().map(|ring| (ring.view.epoch, ring.view.phase)).collect()
}

#[test]
fn a_change_is_learned_in_its_steps() {
    let mut known = Known::of("r");
    let first = known.learn(&told(7, vec![view(7, Phase::InUse, &THREE)])).unwrap();
    assert_eq!((first.new, first.in_use, first.publishing), (vec![7], vec![7], true));

    let both = vec![view(7, Phase::InUse, &THREE), view(8, Phase::Announced, &FOUR)];
    let announced = known.learn(&told(7, both.clone())).unwrap();
    assert_eq!((announced.new, announced.in_use), (vec![8], vec![]));
    assert_eq!(known.in_use().unwrap().view.epoch, 7);
    let moved = (0..1_000)
        .map(|n| format!("a{n}"))
        .find(|asset| known.owners(asset).len() == 2)
        .unwrap();
    assert_eq!(known.owners(&moved)[1], "C4", "only the new member takes assets");

    let used = vec![view(7, Phase::Leaving, &THREE), view(8, Phase::InUse, &FOUR)];
    let in_use = known.learn(&told(7, used)).unwrap();
    assert_eq!((in_use.new, in_use.in_use, in_use.left), (vec![], vec![8], vec![]));
    assert_eq!(known.servers("C1").unwrap(), ["nats://C1-8"]);

    let left = known.learn(&told(8, vec![view(8, Phase::InUse, &FOUR)])).unwrap();
    assert_eq!(left.left, [7]);
    assert_eq!(known.owners(&moved), ["C4"]);

    // What somebody sends again changes nothing.
    assert!(known.learn(&told(7, both)).unwrap().is_nothing());
    assert_eq!(epochs(&known), [(8, Phase::InUse)]);
}

#[test]
fn answers_of_pods_that_know_different_things_come_to_the_same_in_any_order() {
    let ahead = told(7, vec![view(7, Phase::Leaving, &THREE), view(8, Phase::InUse, &FOUR)]);
    let behind = told(7, vec![view(7, Phase::InUse, &THREE), view(8, Phase::Announced, &FOUR)]);
    // A pod that has just started knows only what is declared, and claims nothing of older rings.
    let new = told(0, vec![view(8, Phase::Announced, &FOUR)]);
    for order in [
        [&ahead, &behind, &new],
        [&new, &behind, &ahead],
        [&behind, &new, &ahead],
    ] {
        let mut known = Known::of("r");
        for told in order {
            known.learn(told).unwrap();
        }
        assert_eq!(epochs(&known), [(7, Phase::Leaving), (8, Phase::InUse)]);
    }
}

#[test]
fn another_ring_and_another_content_of_one_epoch_teach_nothing() {
    let mut known = Known::of("r");
    known.learn(&told(0, vec![view(7, Phase::InUse, &THREE)])).unwrap();
    let other = Announcement {
        ring: "x".to_owned(),
        ..told(9, vec![view(9, Phase::InUse, &FOUR)])
    };
    assert!(matches!(known.learn(&other), Err(LearnError::Other { .. })));
    let learned = known.learn(&told(0, vec![view(7, Phase::InUse, &FOUR)])).unwrap();
    assert_eq!(learned.contradicted, Some(7));
    let twice = told(9, vec![view(9, Phase::InUse, &["C1", "C1"])]);
    assert_eq!(known.learn(&twice), Err(LearnError::Ring(9)));
    assert_eq!(epochs(&known), [(7, Phase::InUse)]);
    assert_eq!(known.rings().next().unwrap().view.clusters.len(), 3);
}

#[test]
fn what_is_kept_has_a_bound() {
    let mut known = Known::of("r");
    for epoch in 1..=200 {
        known.learn(&told(0, vec![view(epoch, Phase::InUse, &THREE)])).unwrap();
    }
    assert_eq!(known.rings().count(), MAX_RINGS);
    assert_eq!(known.current().unwrap().view.epoch, 200);
}
