use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

fn ring(names: &[&str], replicas: u32) -> Ring {
    weighted(&names.iter().map(|name| (*name, 1)).collect::<Vec<_>>(), replicas)
}

fn weighted(members: &[(&str, u32)], replicas: u32) -> Ring {
    Ring::new(
        members.iter().map(|(name, weight)| ((*name).to_owned(), *weight)),
        replicas,
    )
    .unwrap()
}

fn error(members: &[(&str, u32)], replicas: u32) -> RingError {
    Ring::new(
        members.iter().map(|(name, weight)| ((*name).to_owned(), *weight)),
        replicas,
    )
    .unwrap_err()
}

fn owner<'r>(ring: &'r Ring, key: &str) -> &'r str {
    ring.name(ring.owner(key.as_bytes()))
}

fn keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("asset-{number}"))
}

#[test]
fn owners_are_those_of_the_golden_vectors() {
    #[derive(Deserialize)]
    struct Vector {
        clusters: Vec<String>,
        replicas: u32,
        expect: BTreeMap<String, String>,
    }
    let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../../tests/data/ring-vectors.json")).unwrap();
    let mut checked = 0;
    for vector in vectors {
        let ring = Ring::new(vector.clusters.iter().map(|name| (name.clone(), 1)), vector.replicas).unwrap();
        for (key, expected) in vector.expect {
            assert_eq!(
                owner(&ring, &key),
                expected,
                "{key} on {:?} × {}",
                vector.clusters,
                vector.replicas
            );
            checked += 1;
        }
    }
    assert_eq!(checked, 275);
}

#[test]
fn three_to_four_clusters_moves_what_the_original_moves() {
    let (old, new) = (ring(&["C1", "C2", "C3"], 128), ring(&["C1", "C2", "C3", "C4"], 128));
    let share: f64 = moved(&old, &new).iter().map(|shift| shift.share).sum();
    let sampled = keys(100_000).filter(|key| owner(&old, key) != owner(&new, key)).count() as f64 / 100_000.0;
    assert!((sampled - share).abs() < 0.005, "{sampled} sampled, {share} computed");
    assert!((share - 0.295).abs() < 0.01, "{share}");
}

#[test]
fn a_key_at_a_node_belongs_to_the_next_node() {
    // The text of a node, taken as a key, hashes to the node's very position.
    let ring = ring(&["C1", "C2", "C3"], 16);
    for (name, replica) in ["C1", "C2", "C3"]
        .iter()
        .flat_map(|name| (0..16).map(move |replica| (name, replica)))
    {
        let key = format!("{name}::{replica}");
        let position: Digest = Sha256::digest(&key).into();
        let node = ring.positions.iter().position(|at| *at == position).unwrap();
        assert_eq!(
            ring.owner(key.as_bytes()),
            ring.owners[(node + 1) % ring.owners.len()] as usize
        );
    }
}

#[test]
fn equal_heads_are_told_apart_by_the_rest() {
    let position = |head: u64, tail: u8| {
        let mut digest = [tail; 32];
        digest[..8].copy_from_slice(&head.to_be_bytes());
        digest
    };
    let nodes = [position(5, 1), position(5, 3), position(u64::MAX, 9)];
    let heads: Vec<_> = nodes.iter().map(head).collect();
    let (index, shift) = index(&heads);
    let names = vec!["a".to_owned(), "b".to_owned(), "c".to_owned()];
    let ring = Ring {
        names,
        heads,
        positions: nodes.to_vec(),
        owners: vec![0, 1, 2],
        index,
        shift,
    };
    for (digest, owner) in [
        (position(0, 0), 0),
        (position(5, 0), 0),
        (position(5, 1), 1),
        (position(5, 2), 1),
        (position(5, 3), 2),
        (position(5, 4), 2),
        (position(u64::MAX, 8), 2),
        (position(u64::MAX, 9), 0),
        (position(u64::MAX, 255), 0),
    ] {
        assert_eq!(ring.owner_at(&digest), owner, "{digest:?}");
    }
}

#[test]
fn what_makes_no_ring_says_why() {
    assert_eq!(error(&[], 128), RingError::NoMembers);
    assert_eq!(error(&[("a", 1)], 0), RingError::ZeroReplicas);
    assert_eq!(error(&[("a", 1), ("", 1)], 128), RingError::EmptyName(1));
    assert_eq!(error(&[("a", 1), ("b", 0)], 128), RingError::ZeroWeight("b".to_owned()));
    assert_eq!(
        error(&[("a", 1), ("b", 1), ("a", 2)], 128),
        RingError::DuplicateName("a".to_owned())
    );
    assert_eq!(
        error(&[("a", u32::MAX), ("b", u32::MAX)], u32::MAX),
        RingError::TooManyNodes(u64::MAX)
    );
    assert_eq!(error(&[("a", 1025)], 1024), RingError::TooManyNodes(1025 * 1024));
}

#[test]
fn weight_is_a_multiple_of_replicas() {
    let (a, b) = (
        weighted(&[("a", 3), ("b", 1)], 100),
        weighted(&[("b", 1), ("a", 3)], 100),
    );
    assert_eq!(a.heads.len(), 400);
    let heavy = keys(20_000).filter(|key| owner(&a, key) == "a").count();
    assert!(
        (13_500..16_500).contains(&heavy),
        "{heavy} of 20,000, three quarters expected"
    );
    assert!(keys(1_000).all(|key| owner(&a, &key) == owner(&b, &key)));
    // More weight adds virtual nodes and leaves the others where they are.
    let lighter = weighted(&[("a", 2), ("b", 1)], 100);
    assert!(moved(&lighter, &a).iter().all(|shift| shift.to == "a"));
}

#[test]
fn a_ring_of_strangers_moves_everything() {
    let shifts = moved(&ring(&["a"], 3), &ring(&["b"], 5));
    assert_eq!(
        shifts,
        [Shift {
            from: "a".to_owned(),
            to: "b".to_owned(),
            share: 1.0
        }]
    );
    assert_eq!(moved(&ring(&["a", "b"], 8), &ring(&["b", "a"], 8)), []);
}

#[test]
fn the_cache_answers_like_the_ring() {
    let ring = Arc::new(ring(&["a", "b", "c"], 128));
    // Fewer slots than keys: slots are shared and taken over.
    let mut cache = OwnerCache::new(Arc::clone(&ring), 64);
    for _ in 0..3 {
        for key in keys(300).chain((0..120).map(|length| "k".repeat(length))) {
            assert_eq!(cache.place(key.as_bytes()), ring.place(key.as_bytes()), "{key}");
            assert_eq!(cache.place(key.as_bytes()), ring.place(key.as_bytes()), "{key}, kept");
        }
    }
}

#[test]
fn a_slot_of_the_cache_is_one_cache_line() {
    assert_eq!(cache::SLOT_BYTES, 64);
}

#[test]
fn the_lane_alone_says_who_owns_it() {
    let ring = ring(&["C1", "C2", "C3"], 128);
    for key in keys(10_000) {
        let place = ring.place(key.as_bytes());
        assert_eq!(ring.owner_of_lane(place.lane), place.owner, "{key}");
    }
}

#[test]
fn the_lean_ring_has_the_same_owner_also_at_a_node() {
    let ring = ring(&["C1", "C2", "C3"], 16);
    let lean = LeanRing::new(ring.names().iter().map(|name| (name.clone(), 1)), 16).unwrap();
    let at_nodes = ring.names().iter();
    let at_nodes = at_nodes.flat_map(|name| (0..16).map(move |replica| format!("{name}::{replica}")));
    for key in at_nodes.chain(keys(1_000)) {
        assert_eq!(lean.owner(key.as_bytes()), ring.owner(key.as_bytes()), "{key}");
    }
    assert_eq!(LeanRing::NODE_BYTES, 16);
    let heavy = LeanRing::new([("C1".to_owned(), 1_000)], 4_096).unwrap_err();
    assert_eq!(heavy, RingError::TooManyNodes(4_096_000));
}

#[test]
fn the_fingerprint_tells_rings_apart_and_not_listings() {
    let print = |names: &[&str]| ring(names, 128).fingerprint();
    assert_eq!(print(&["C1", "C2"]), print(&["C2", "C1"]));
    assert_ne!(print(&["C1", "C2"]), print(&["C1", "C3"]));
    assert_ne!(print(&["C1", "C2"]), print(&["C1"]));
}

#[test]
fn the_lane_does_not_depend_on_the_ring() {
    let (a, b) = (ring(&["a", "b"], 16), ring(&["c"], 128));
    let lanes: BTreeSet<_> = keys(1_000).map(|key| a.place(key.as_bytes()).lane).collect();
    assert!(keys(1_000).all(|key| a.place(key.as_bytes()).lane == b.place(key.as_bytes()).lane));
    assert_eq!(lanes.len(), 1_000);
}

fn members() -> impl Strategy<Value = Vec<(String, u32)>> {
    proptest::collection::btree_map("[a-zA-Z0-9:_ü-]{1,12}", 1u32..4, 2..7).prop_map(|map| map.into_iter().collect())
}

fn build(members: &[(String, u32)], replicas: u32) -> Ring {
    Ring::new(members.iter().cloned(), replicas).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn removing_a_member_moves_only_its_keys(members in members(), replicas in 1u32..64, gone in any::<prop::sample::Index>()) {
        let gone = gone.index(members.len());
        let mut rest = members.clone();
        let (name, _) = rest.remove(gone);
        let (full, less) = (build(&members, replicas), build(&rest, replicas));
        for key in keys(300) {
            if owner(&full, &key) == name {
                prop_assert_ne!(owner(&less, &key), name.as_str());
            } else {
                prop_assert_eq!(owner(&full, &key), owner(&less, &key));
            }
        }
        // Seen the other way round it is added: keys move only to it, by the same shares.
        let (away, back) = (moved(&full, &less), moved(&less, &full));
        prop_assert!(away.iter().all(|shift| shift.from == name));
        prop_assert!(back.iter().all(|shift| shift.to == name));
        let (away, back): (f64, f64) = (away.iter().map(|s| s.share).sum(), back.iter().map(|s| s.share).sum());
        prop_assert!((away - back).abs() < 1e-12);
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(listed in members().prop_shuffle(), replicas in 1u32..64) {
        let mut sorted = listed.clone();
        sorted.sort();
        let (a, b) = (build(&listed, replicas), build(&sorted, replicas));
        for key in keys(200) {
            prop_assert_eq!(owner(&a, &key), owner(&b, &key));
        }
        prop_assert_eq!(moved(&a, &b), vec![]);
    }

    #[test]
    fn computed_shares_are_the_sampled_ones(old in members(), new in members(), replicas in 1u32..32) {
        let (old, new) = (build(&old, replicas), build(&new, replicas));
        let mut sampled = BTreeMap::<(String, String), f64>::new();
        for key in keys(10_000) {
            let pair = (owner(&old, &key).to_owned(), owner(&new, &key).to_owned());
            *sampled.entry(pair).or_default() += 1.0 / 10_000.0;
        }
        let mut stayed = 1.0;
        for Shift { from, to, share } in moved(&old, &new) {
            prop_assert!(share > 0.0 && from != to);
            stayed -= share;
            let seen = sampled.remove(&(from.clone(), to.clone())).unwrap_or_default();
            // Four standard deviations of 10,000 draws are 0.02 at most.
            prop_assert!((seen - share).abs() < 0.025, "{} → {}: {} sampled, {} computed", from, to, seen, share);
        }
        let seen: f64 = sampled.iter().filter(|((from, to), _)| from == to).map(|(_, share)| share).sum();
        prop_assert!((seen - stayed).abs() < 0.025, "{} stayed, {} computed", seen, stayed);
    }

    #[test]
    fn the_lean_ring_says_what_the_ring_says(old in members(), new in members(), replicas in 1u32..64) {
        let lean = |members: &[(String, u32)]| LeanRing::new(members.iter().cloned(), replicas).unwrap();
        let (full, less) = (build(&old, replicas), lean(&old));
        for key in keys(200) {
            prop_assert_eq!(less.owner(key.as_bytes()), full.owner(key.as_bytes()));
        }
        prop_assert_eq!(moved(&less, &lean(&new)), moved(&full, &build(&new, replicas)));
    }

    #[test]
    fn the_index_finds_what_a_search_finds(members in members(), replicas in 1u32..64, key: Vec<u8>) {
        let ring = build(&members, replicas);
        let digest: Digest = Sha256::digest(&key).into();
        let node = ring.positions.partition_point(|position| *position <= digest);
        prop_assert_eq!(ring.owner(&key), ring.owners[node % ring.owners.len()] as usize);
    }
}
