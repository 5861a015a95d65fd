//! A cluster has left when no pod publishes to it any more, and its credentials go after it.

use super::*;

fn left_c2() -> World {
    let mut world = World::new([cluster_with_token("c1", 1), cluster_with_token("c2", 2)])
        .with_secret("c1-token", "token", "t1")
        .with_secret("c2-token", "token", "t2");
    world.step();
    world.pods_follow();
    world.remove("c2");
    world.step();
    assert_eq!(world.brief(), (2, vec!["c1".to_owned()]));
    assert_eq!(world.leaving(), ["plant/c2"]);
    world
}

const BOTH: [&str; 2] = ["nats_plant_c1_auth", "nats_plant_c2_auth"];

#[test]
fn a_cluster_is_leaving_until_each_pod_has_done_with_it() {
    let behind: [fn(&mut Observed); 7] = [
        |pod| report(pod).ring.epoch = 1,
        |pod| report(pod).ring.waiting_assets = 1,
        |pod| {
            let c2 = ClusterStatus {
                pending_records: 1,
                ..ClusterStatus::default()
            };
            report(pod).clusters.insert("c2".to_owned(), c2);
        },
        |pod| {
            let c2 = ClusterStatus {
                parked_records: 1,
                ..ClusterStatus::default()
            };
            report(pod).clusters.insert("c2".to_owned(), c2);
        },
        |pod| pod.report = None,
        |pod| {
            pod.terminating = true;
            pod.report = None;
        },
        |pod| {
            pod.terminating = true;
            report(pod).ring.epoch = 1;
        },
    ];
    for (index, behind) in behind.into_iter().enumerate() {
        let mut world = left_c2();
        world.pods_follow();
        behind(&mut world.existing.pods[1]);
        world.step();
        assert_eq!(world.leaving(), ["plant/c2"], "case {index}");
        assert_eq!(world.files(), BOTH);
        world.pods_follow();
        world.step();
        assert_eq!(world.leaving(), [""; 0], "case {index}");
        assert_eq!(world.files(), BOTH, "in the next step, when that is written");
        world.step();
        assert_eq!(world.files(), BOTH[..1]);
        assert_eq!(world.brief().0, 2);
    }
}

#[test]
fn a_cluster_leaves_at_the_next_look_at_the_earliest() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.remove("c2");
    world.step();
    assert_eq!(
        world.leaving(),
        ["plant/c2"],
        "a pod may have begun before the new ring was written"
    );
    world.step();
    assert_eq!(
        world.leaving(),
        [""; 0],
        "there are no pods, and new ones begin with the new ring"
    );
}

#[test]
fn a_pod_that_does_not_run_holds_nobody_up() {
    let mut world = left_c2();
    world.pods_follow();
    let pod = &mut world.existing.pods[0];
    (pod.process, pod.report) = (Process::Absent, None);
    world.step();
    assert_eq!(world.leaving(), [""; 0]);
}

#[test]
fn only_what_never_began_or_has_ended_for_good_does_not_run() {
    let crashed = "{name: forwarder, restartCount: 1, state: {waiting: {reason: CrashLoopBackOff}}, image: i, imageID: i, ready: false}";
    let ended =
        "{name: forwarder, restartCount: 0, state: {terminated: {exitCode: 1}}, image: i, imageID: i, ready: false}";
    let begins = "{name: forwarder, restartCount: 0, state: {waiting: {reason: ContainerCreating}}, image: i, imageID: i, ready: false}";
    let deleted = "deletionTimestamp: '1970-01-01T00:00:01Z', ";
    for (metadata, phase, container, process) in [
        ("", "Pending", "", Process::Absent),
        ("", "Pending", begins, Process::Absent),
        // The kubelet may have begun it again, with whatever ring it found, and not said so yet.
        ("", "Running", crashed, Process::Running),
        ("", "Running", ended, Process::Running),
        (deleted, "Running", crashed, Process::Running),
        (deleted, "Running", ended, Process::Absent),
        ("", "Running", "", Process::Running),
    ] {
        let text = format!(
            "{{metadata: {{{metadata}name: a}}, status: {{phase: {phase}, containerStatuses: [{container}]}}}}"
        );
        let observed = Observed::of(&yaml(&text)).unwrap();
        assert_eq!(observed.process, process, "{text}");
    }
}

#[test]
fn who_comes_back_is_no_longer_leaving() {
    let mut world = left_c2();
    world.clusters.push(cluster_with_token("c2", 2));
    world.step();
    assert_eq!(world.leaving(), [""; 0]);
    assert_eq!(world.brief(), (3, vec!["c1".to_owned(), "c2".to_owned()]));
}

#[test]
fn who_was_leaving_is_remembered_without_the_config_map() {
    let mut world = left_c2();
    world.existing.ring = None;
    world.step();
    assert_eq!(world.leaving(), ["plant/c2"]);
    world.pods_follow();
    world.step();
    assert_eq!(world.leaving(), [""; 0]);
}

#[test]
fn without_members_the_pods_go_first_and_the_document_stays() {
    let mut world = left_c2();
    world.pods_follow();
    world.remove("c1");
    let pass = world.step();
    assert_eq!(pass.validated.replicas, 0, "an empty ring is no ring");
    assert_eq!(world.brief(), (2, vec!["c1".to_owned()]), "pods that end need one");
    assert_eq!(world.leaving(), ["plant/c1"], "c2 has left by now");
    world.step();
    assert_eq!(world.leaving(), ["plant/c1"], "pods still end");
    world.existing.pods.clear();
    world.step();
    assert_eq!(world.leaving(), [""; 0]);

    let other = world.clusters.clone();
    world.clusters = vec![cluster_with_token("c1", 1)];
    let pass = world.step();
    assert_eq!(
        (world.brief().0, pass.validated.replicas),
        (2, 2),
        "nothing has changed"
    );
    world.clusters = other;
    world.step();
    world.clusters = vec![cluster("c3", 1)];
    world.step();
    assert_eq!(world.brief(), (3, vec!["c3".to_owned()]));
}

#[test]
fn with_roll_a_pod_that_may_still_begin_with_the_old_ring_is_waited_for() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.forwarder.spec.ring.update = crds::asset_forwarder::RingUpdate::Roll;
    world.step();
    let set = |replicas: i32, deployment: &Deployment| {
        let template = deployment.spec.as_ref().unwrap().template.clone();
        let mut set: k8s_openapi::api::apps::v1::ReplicaSet = yaml("{metadata: {name: r}, spec: {selector: {}}}");
        let spec = set.spec.as_mut().unwrap();
        spec.replicas = Some(replicas);
        spec.template = Some(template);
        set
    };
    let old = world.existing.deployment.clone().unwrap();
    world.remove("c2");
    world.step();
    world.existing.replica_sets = vec![set(1, &old), set(1, world.existing.deployment.as_ref().unwrap())];
    world.existing.pods = vec![pod("b", &world.ring())];
    world.step();
    assert_eq!(world.leaving(), ["plant/c2"]);
    world.existing.replica_sets[0].spec.as_mut().unwrap().replicas = Some(0);
    world.step();
    assert_eq!(world.leaving(), [""; 0]);
}

#[test]
fn who_keeps_a_cluster_is_named_with_what_it_still_holds() {
    let said = |change: fn(&mut World)| {
        let mut world = left_c2();
        world.pods_follow();
        report(&mut world.existing.pods[1]).ring.epoch = 1;
        change(&mut world);
        let validated = world.validate().unwrap();
        let deployment = world.existing.deployment.clone();
        let (_, verdict) = status::status(&world.status(), &validated, deployment.as_ref(), &world.existing);
        verdict.words().message.clone()
    };
    assert_eq!(
        said(|_| {}),
        "1 of 2 pods run epoch 2; pods may still publish to clusters that have left the ring: plant/c2: pod b still runs epoch 1"
    );
    let parked = said(|world| {
        world.pods_follow();
        let pod = report(&mut world.existing.pods[1]);
        let holds = ClusterStatus {
            pending_records: 3,
            parked_records: 4_321,
            ..ClusterStatus::default()
        };
        pod.clusters.insert("c2".to_owned(), holds);
    });
    assert_eq!(
        parked,
        "pods may still publish to clusters that have left the ring: plant/c2: pod b has fewer than 10 records unconfirmed and \
         fewer than 10000 records parked"
    );
    let silent = said(|world| {
        world.pods_follow();
        let mut lost = world.existing.pods[0].clone();
        lost.name = "lost".to_owned();
        lost.report = None;
        lost.terminating = true;
        world.existing.pods.push(lost);
        let mut gone = cluster_with_token("c2", 2);
        gone.metadata.deletion_timestamp = Some(yaml("'2026-01-01T00:00:00Z'"));
        world.clusters.push(gone);
    });
    for part in ["plant/c2", "being deleted", "until when", "pod lost does not answer"] {
        assert!(silent.contains(part), "{silent}");
    }
}
