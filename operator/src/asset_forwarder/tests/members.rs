//! Who is a member.

use super::*;

fn names(pass: &Pass) -> Vec<&str> {
    let members = pass.validated.members.members.iter();
    members.map(|member| member.reference.as_str()).collect()
}

#[test]
fn of_two_clusters_with_one_name_the_member_stays_else_the_oldest_is_taken() {
    let named = |name: &str, made| {
        let mut cluster = cluster(name, made);
        cluster.spec.ring_name = Some("C1".to_owned());
        cluster
    };
    let mut world = World::new([named("young", 9), named("old", 5)]);
    let pass = world.step();
    assert_eq!(names(&pass), ["plant/old"]);
    assert_eq!(world.excluded(), [("young".to_owned(), "DuplicateRingName".to_owned())]);

    world.clusters.push(named("oldest", 1));
    assert_eq!(names(&world.step()), ["plant/old"], "who is a member stays one");
    assert_eq!(world.brief().0, 1);
}

#[test]
fn a_name_is_free_only_when_its_cluster_has_left() {
    let named = |name: &str| {
        let mut cluster = cluster(name, 1);
        cluster.spec.ring_name = Some("C1".to_owned());
        cluster
    };
    let mut world = World::new([named("a"), cluster("c2", 1)]);
    world.step();
    world.pods_follow();
    world.clusters.push(named("b"));
    world.remove("a");
    assert_eq!(names(&world.step()), ["plant/c2"], "the assets go to C2 first");
    assert_eq!(names(&world.step()), ["plant/c2"], "the pods still have the old ring");
    world.pods_follow();
    world.step();
    assert_eq!(world.leaving(), [""; 0]);
    assert_eq!(names(&world.step()), ["plant/b", "plant/c2"]);
    assert_eq!(world.brief().0, 3);
}

#[test]
fn who_is_drained_deleted_or_not_granted_leaves_and_who_is_away_does_not() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 1), cluster("c3", 1), cluster("c4", 1)]);
    world.step();
    world.clusters[0].spec.drain = true;
    world.clusters[1].metadata.deletion_timestamp = Some(yaml("'2026-01-01T00:00:00Z'"));
    world.clusters[3].status = Some(yaml(
        "{conditions: [{type: Ready, status: 'False', reason: Unreachable, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}]}",
    ));
    let mut found = world.dereferenced();
    found.candidates[2].access = Access::Denied;
    let recorded = super::super::recorded::Recorded::read(world.existing.ring.as_ref(), []);
    let members = super::super::members::choose(
        &found.candidates,
        &recorded,
        &credentials::Files::default(),
        RING_DOCUMENT_VERSION,
    );
    let excluded: Vec<_> = members
        .excluded
        .iter()
        .map(|e| (e.name.as_str(), e.reason.as_str()))
        .collect();
    assert_eq!(excluded, [("c1", "Draining"), ("c2", "Deleting"), ("c3", "NotGranted")]);
    assert_eq!(members.members[0].reference, "plant/c4", "health does not matter");
}

#[test]
fn a_newcomer_waits_for_its_secret_and_a_member_goes_on_without() {
    let mut world =
        World::new([cluster_with_token("c1", 1), cluster_with_token("c2", 2)]).with_secret("c1-token", "token", "t1");
    assert_eq!(names(&world.step()), ["plant/c1"]);
    assert_eq!(world.excluded(), [("c2".to_owned(), "SecretMissing".to_owned())]);
    world.put_secret("c2-token", "token", "t2");
    assert_eq!(names(&world.step()), ["plant/c1", "plant/c2"]);
    let before = (world.ring(), world.files());

    world.secrets.remove("c1-token");
    world.pods_follow();
    let pass = world.step();
    assert_eq!(names(&pass), ["plant/c1", "plant/c2"]);
    assert_eq!(
        (world.ring(), world.files()),
        before,
        "with the credentials that it had"
    );
    assert_eq!(pass.validated.members.held[0].reason, "SecretMissing");
}

#[test]
fn a_member_whose_spec_is_broken_goes_on_as_it_was_and_a_newcomer_is_left_out() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    let broken = vec!["http://c:80".to_owned()];
    world.clusters[0]
        .spec
        .external
        .as_mut()
        .unwrap()
        .servers
        .clone_from(&broken);
    world.clusters.push(cluster("c2", 1));
    world.clusters[1].spec.external.as_mut().unwrap().servers = broken;
    let pass = world.step();
    assert_eq!(names(&pass), ["plant/c1"]);
    assert_eq!(world.brief().0, 1);
    let held = &pass.validated.members.held[0];
    assert!(
        held.message.starts_with("spec.external.servers[0]: "),
        "{}",
        held.message
    );
    assert_eq!(world.excluded(), [("c2".to_owned(), "InvalidSpec".to_owned())]);
}

#[test]
fn who_could_vanish_at_once_is_not_taken_in() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 1)]);
    world.clusters[1].metadata.finalizers = None;
    assert_eq!(names(&world.step()), ["plant/c1"]);
    assert_eq!(world.excluded(), [("c2".to_owned(), "NotObserved".to_owned())]);
    world.clusters[0].metadata.finalizers = None;
    assert_eq!(names(&world.step()), ["plant/c1"], "who is in stays in");
}
