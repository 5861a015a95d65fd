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
        credentials::Room::of(&credentials::Files::default()),
        RING_DOCUMENT_VERSION,
    );
    let excluded: Vec<_> = members
        .excluded
        .iter()
        .map(|e| (e.name.as_str(), e.reason.as_str()))
        .collect();
    assert_eq!(
        excluded,
        [("c1", "Draining"), ("c2", "Deleting")],
        "of c3 nothing is told"
    );
    assert_eq!(members.members[0].reference, "plant/c4", "health does not matter");
}

#[test]
fn of_a_cluster_that_lets_nobody_in_nothing_is_told_whatever_it_is_up_to() {
    let changes: [fn(&mut NatsCluster); 4] = [
        |_| {},
        |cluster| cluster.spec.drain = true,
        |cluster| cluster.metadata.deletion_timestamp = Some(yaml("'2026-01-01T00:00:00Z'")),
        |cluster| cluster.metadata.finalizers = None,
    ];
    for change in changes {
        let mut world = World::new([cluster("c1", 1), cluster("secret", 1)]);
        change(&mut world.clusters[1]);
        let mut found = world.dereferenced();
        found.candidates[1].access = Access::Denied;
        let validated = validate(&found, &world.settings()).unwrap();
        let (status, verdict) = status::status(&world.status(), &validated, None, &world.existing);
        let told = format!(
            "{status:?} {verdict:?} {:?}",
            status::further(&validated, &world.existing)
        );
        assert!(told.contains("c1") && !told.contains("secret"), "{told}");
    }
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

/// As many certificates in PEM as have about so many KiB.
fn certificates(kib: usize) -> String {
    let line = format!("{}\n", "A".repeat(64));
    let certificate = format!(
        "-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n",
        line.repeat(15)
    );
    certificate.repeat(kib)
}

fn cluster_with_authorities(name: &str, made: u32) -> NatsCluster {
    let mut cluster = cluster(name, made);
    cluster.spec.tls = Some(yaml(&format!("{{caSecretRef: {{name: {name}-ca}}}}")));
    cluster
}

#[test]
fn the_newest_cluster_without_room_for_its_credentials_is_left_out_and_others_go_on() {
    let mut world = World::new([]);
    for (made, name) in [(1, "c5"), (2, "c4"), (3, "c3"), (4, "c2"), (5, "c1")] {
        world.clusters.push(cluster_with_authorities(name, made));
        world.put_secret(&format!("{name}-ca"), "ca.crt", &certificates(200));
    }
    assert_eq!(names(&world.step()), ["plant/c2", "plant/c3", "plant/c4", "plant/c5"]);
    assert_eq!(world.excluded(), [("c1".to_owned(), "SecretInvalid".to_owned())]);
    let said = &world.validate().unwrap().members.excluded[0].message;
    assert!(said.contains("the limit is 900 KiB"), "{said}");

    // A newcomer without credentials of its own fits, and so does a renewal.
    world.clusters.push(cluster("c6", 6));
    world.put_secret("c5-ca", "ca.crt", &certificates(210));
    world.pods_follow();
    let pass = world.step();
    assert_eq!(
        names(&pass),
        ["plant/c2", "plant/c3", "plant/c4", "plant/c5", "plant/c6"]
    );
    assert_eq!(pass.validated.members.held, []);
}

#[test]
fn a_member_whose_new_credentials_have_no_room_keeps_the_old_ones() {
    let mut world = World::new([]);
    for (made, name) in [(1, "c1"), (2, "c2"), (3, "c3"), (4, "c4")] {
        world.clusters.push(cluster_with_authorities(name, made));
        world.put_secret(&format!("{name}-ca"), "ca.crt", &certificates(200));
    }
    world.step();
    world.pods_follow();
    let before = (world.ring(), world.existing.credentials.clone().unwrap().data.unwrap());
    for name in ["c1", "c2", "c3", "c4"] {
        world.put_secret(&format!("{name}-ca"), "ca.crt", &certificates(250));
    }
    let pass = world.step();
    assert_eq!(world.ring(), before.0, "all of them stay");
    let of = |name: &str| format!("nats_plant_{name}_ca.crt");
    let after = world.existing.credentials.clone().unwrap().data.unwrap();
    let grown = ["c1", "c2", "c3", "c4"].map(|name| after[&of(name)] != before.1[&of(name)]);
    assert_eq!(grown, [true, true, true, false], "the oldest are renewed");
    let held = &pass.validated.members.held;
    assert_eq!((held.len(), held[0].name.as_str()), (1, "c4"));
    assert_eq!(held[0].reason, "SecretInvalid");
    assert_eq!(world.excluded(), []);
    let total: usize = after.values().map(|value| value.0.len()).sum();
    assert!(total < 1 << 20, "{total}");
}

#[test]
fn credentials_of_a_channel_without_room_leave_pods_and_members_as_they_are() {
    let mut world = World::new([]);
    for (made, name) in [(1, "c1"), (2, "c2"), (3, "c3"), (4, "c4")] {
        world.clusters.push(cluster_with_authorities(name, made));
        world.put_secret(&format!("{name}-ca"), "ca.crt", &certificates(220));
    }
    world.step();
    world.pods_follow();
    world.channel.spec.connection.tls = Some(yaml("{caSecretRef: {name: kafka-ca}}"));
    world.put_secret("kafka-ca", "ca.crt", &certificates(250));
    let pass = world.step();
    let Err(verdict) = &pass.validated.config else {
        panic!("there is no room");
    };
    assert_eq!(verdict.words().reason, "SecretInvalid");
    assert_eq!(names(&pass).len(), 4);
    assert!(world.files().iter().all(|name| name.starts_with("nats_")));
}
