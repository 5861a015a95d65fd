//! Pods claim epochs. Whatever they say, there is always a next epoch, and it is not far.

use proptest::prelude::*;

use super::*;
use crate::controllers::asset_forwarder::ring::claims::{Ignored, LAST, LEAP, MOST_UNKNOWN, judge};

/// Two pods of a forwarder whose ring has epoch 1.
fn served() -> World {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.pods_follow();
    world
}

fn said(world: &World) -> Option<String> {
    let further = status::further(&world.validate().unwrap(), &world.existing);
    let found = further
        .into_iter()
        .find(|(type_, _)| *type_ == status::EPOCH_CLAIM_IGNORED);
    found.map(|(_, words)| words.message)
}

#[test]
fn a_claim_that_is_far_too_high_changes_nothing_and_names_its_pod() {
    let claims: [fn(&mut RingStatus, u64); 4] = [
        |ring, epoch| ring.epoch = epoch,
        |ring, epoch| ring.announced = Some(epoch),
        |ring, epoch| ring.declared = Some(epoch),
        |ring, epoch| ring.awaits = Some(epoch),
    ];
    for (case, claim) in claims.into_iter().enumerate() {
        for epoch in [LEAP + 2, MOST_UNKNOWN, LAST - 1, LAST, u64::MAX] {
            let mut world = served();
            assert_eq!(said(&world), None);
            claim(&mut report(&mut world.existing.pods[1]).ring, epoch);
            let pass = world.step();
            assert_eq!(world.brief().0, 1, "case {case}, {epoch}");
            let pod = "b".to_owned();
            assert_eq!(pass.validated.ignored, [Ignored { pod, epoch }]);
            let words = said(&world).unwrap();
            assert!(words.contains("claim: b.") && words.contains("assets-ring"), "{words}");
            world.clusters.push(cluster("c2", 2));
            world.step();
            assert_eq!(world.brief().0, 2, "case {case}, {epoch}");
        }
    }
}

#[test]
fn only_a_few_pods_are_named() {
    let mut world = served();
    let ring = world.ring();
    world.existing.pods = ["a", "b", "c", "d", "e"].map(|name| pod(name, &ring)).into();
    for pod in &mut world.existing.pods {
        report(pod).ring.epoch = LAST;
    }
    let words = said(&world).unwrap();
    assert!(words.contains("claim: a, b, c, 2 more."), "{words}");
}

#[test]
fn a_near_claim_is_believed() {
    let mut world = served();
    report(&mut world.existing.pods[0]).ring.epoch = 1 + LEAP;
    world.step();
    assert_eq!((world.brief().0, said(&world)), (2 + LEAP, None));
}

#[test]
fn where_nothing_else_is_known_pods_are_believed_up_to_a_bound() {
    for (claim, declared) in [(17, 18), (MOST_UNKNOWN - 1, MOST_UNKNOWN), (MOST_UNKNOWN, 1), (LAST, 1)] {
        let mut world = served();
        (world.existing.ring, world.forwarder.status) = (None, None);
        report(&mut world.existing.pods[0]).ring.epoch = claim;
        world.existing.pods.truncate(1);
        world.step();
        assert_eq!(world.brief().0, declared, "{claim}");
    }
}

#[test]
fn a_pod_of_a_higher_epoch_proves_nothing_about_the_declared_ring() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.pods_follow();
    world.remove("c2");
    world.step();
    world.pods_follow();
    report(&mut world.existing.pods[1]).ring.epoch = LAST;
    world.step();
    assert_eq!(world.leaving(), ["plant/c2"]);
    let (_, verdict) = status::status(
        &world.status(),
        &world.validate().unwrap(),
        world.existing.deployment.as_ref(),
        &world.existing,
    );
    assert_eq!(
        verdict.words().message,
        "1 of 2 pods run epoch 2; pod b reports a higher ring epoch, which the operator has not declared; \
         pods may still publish to clusters that have left the ring: plant/c2: pod b has assets that wait for their old owner"
    );
    world.pods_follow();
    world.step();
    assert_eq!(world.leaving(), [""; 0]);
}

#[test]
fn an_epoch_that_leaves_no_other_one_is_left_behind_with_the_next_change() {
    for by_hand in [
        "0",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
    ] {
        let mut world = served();
        let data = world.existing.ring.as_mut().unwrap().data.as_mut().unwrap();
        let text = data[names::RING_FILE].replace("epoch: 1", &format!("epoch: {by_hand}"));
        data.insert(names::RING_FILE.to_owned(), text);
        world.clusters.push(cluster("c2", 2));
        world.step();
        assert_eq!(world.brief().0, 2, "{by_hand}: the status knows of 1");
    }
}

#[test]
fn a_ring_that_has_the_last_epoch_goes_on() {
    let mut world = served();
    let data = world.existing.ring.as_mut().unwrap().data.as_mut().unwrap();
    let text = data[names::RING_FILE].replace("epoch: 1", &format!("epoch: {LAST}"));
    data.insert(names::RING_FILE.to_owned(), text);
    world.pods_follow();
    let pass = world.step();
    assert_eq!(world.brief().0, LAST);
    assert_eq!(pass.validated.ignored, [], "pods say what the document says");
}

fn claims() -> impl Strategy<Value = (u64, Option<u64>, Option<u64>, Option<u64>)> {
    // All magnitudes alike, and what is near to their ends.
    let epoch = || {
        (0u32..64, any::<u64>(), -2i64..3).prop_map(|(bits, low, by)| {
            let power = 1u64 << bits;
            (power | (low & (power - 1))).saturating_add_signed(by)
        })
    };
    let maybe = || proptest::option::of(epoch());
    (epoch(), maybe(), maybe(), maybe())
}

/// What the ring's ConfigMap or the status knows: nothing, a usual epoch, or any.
fn known() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), 1u64..1_000, 0u64..1 << 50]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_pods_claim_the_epoch_grows_by_little(
        recorded in known(),
        status in known(),
        claims in proptest::collection::vec(claims(), 0..6),
    ) {
        let ring = RingConfig { epoch: 1, replicas: 1, handover_timeout_ms: 1_000, clusters: vec![], beacon: None, mirror: None };
        let pods: Vec<Observed> = claims.iter().map(|(epoch, announced, declared, awaits)| {
            let mut pod = pod("a", &ring);
            let status = &mut report(&mut pod).ring;
            (status.epoch, status.announced) = (*epoch, *announced);
            (status.declared, status.awaits) = (*declared, *awaits);
            pod
        }).collect();
        let (seen, ignored) = judge(recorded, status, &pods);
        let known = recorded.max(status);
        let next = recorded.max(seen.declared).max(seen.awaited) + 1;
        prop_assert!(next > known, "epochs only grow");
        let most = if known == 0 { MOST_UNKNOWN } else { known + LEAP + 1 };
        prop_assert!(next <= most, "{} after {}", next, known);
        prop_assert!(next < LAST);
        // Each pod is believed as a whole, or named.
        let highest = |pod: &Observed| pod.epochs_known().chain(pod.awaits()).max().unwrap_or(0);
        let above = pods.iter().filter(|pod| highest(pod) >= next).count();
        prop_assert_eq!(ignored.len(), above);
    }

    #[test]
    fn many_changes_under_false_claims_never_use_the_epochs_up(
        rounds in proptest::collection::vec(claims(), 1..12),
    ) {
        let mut world = served();
        for (round, (epoch, announced, declared, awaits)) in rounds.into_iter().enumerate() {
            world.pods_follow();
            let ring = &mut report(&mut world.existing.pods[0]).ring;
            (ring.epoch, ring.announced, ring.declared, ring.awaits) = (epoch, announced, declared, awaits);
            let before = world.brief().0;
            world.forwarder.spec.ring.handover_timeout_seconds = 10 + u32::try_from(round).unwrap();
            world.step();
            let after = world.brief().0;
            prop_assert!(after > before && after <= before + LEAP + 1, "{} after {}", after, before);
        }
    }
}
