//! What the status says.

use k8s_openapi::api::core::v1::Pod;

use super::super::rollout::Rollout;
use super::*;

fn told(world: &World) -> (AssetForwarderStatus, Verdict) {
    let validated = world.validate().unwrap();
    status::status(
        &world.status(),
        &validated,
        world.existing.deployment.as_ref(),
        &world.existing,
    )
}

fn reason(world: &World) -> &'static str {
    told(world).1.words().reason.as_str()
}

fn settled() -> World {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2)]);
    world.step();
    world.pods_follow();
    world.step();
    world
}

#[test]
fn ready_means_that_all_pods_run_all_that_is_declared() {
    let world = settled();
    let (status, verdict) = told(&world);
    assert_eq!(
        verdict,
        Verdict::ready(Reason::Forwarding, "2 pods run ring epoch 1 of 2 clusters")
    );
    let ring = status.ring.clone().unwrap();
    assert_eq!(ring.converged.as_deref(), Some("2/2"));
    assert_eq!((ring.epoch, ring.members), (1, 2));
    assert_eq!(ring.names, ["c1", "c2"]);
    assert_eq!(ring.member_refs, ["plant/c1", "plant/c2"]);
    assert_eq!(
        (status.replicas, status.ready_replicas, status.updated_replicas),
        (2, 2, 2)
    );
    assert_eq!(status.image.as_deref(), Some("forwarder:1"));
    assert_eq!(
        status.selector.as_deref(),
        Some("app.kubernetes.io/instance=assets,app.kubernetes.io/name=asset-forwarder")
    );
    assert_eq!(status, world.status(), "a settled forwarder's status stays as it is");
}

#[test]
fn a_ring_on_its_way_says_how_far_it_has_come_and_what_keeps_it() {
    let mut world = settled();
    world.clusters.push(cluster("c3", 3));
    world.step();
    let ring = world.ring();
    world.existing.pods[0] = pod("a", &ring);
    let message = |world: &World| told(world).1.words().message.clone();
    assert_eq!(reason(&world), "RingConverging");
    assert_eq!(message(&world), "1 of 2 pods run epoch 2");
    report(&mut world.existing.pods[1]).ring.waits_for = vec!["x".into()];
    assert_eq!(
        message(&world),
        "1 of 2 pods run epoch 2; pod b waits for its credentials"
    );
    report(&mut world.existing.pods[1]).ring.refused = Some("why".to_owned());
    assert_eq!(message(&world), "1 of 2 pods run epoch 2; pod b refuses this ring: why");
    world.existing.pods[1] = pod("b", &ring);
    report(&mut world.existing.pods[1]).ring.waiting_assets = 3;
    assert_eq!(reason(&world), "RingConverging", "assets wait for their old owner");
}

#[test]
fn each_kind_of_trouble_has_its_reason() {
    type Change = fn(&mut World);
    let cases: [(Change, &str); 10] = [
        (|world| world.clusters.clear(), "NoClusters"),
        (
            |world| world.channel_not_ready = Some("x".to_owned()),
            "ChannelNotReady",
        ),
        (
            |world| world.clusters.push(cluster_with_token("c3", 3)),
            "SecretMissing",
        ),
        (
            |world| world.forwarder.spec.publish.max_attempts = Some(1),
            "InvalidSpec",
        ),
        (|world| world.existing.pods.truncate(1), "RingConverging"),
        (
            |world| report(&mut world.existing.pods[1]).credentials_version = Some("old".to_owned()),
            "CredentialsPropagating",
        ),
        (|world| world.forwarder.spec.suspend = true, "ScalingDown"),
        (
            |world| {
                let deployment = world.existing.deployment.as_mut().unwrap();
                deployment.status.as_mut().unwrap().updated_replicas = Some(1);
            },
            "RollingOut",
        ),
        (
            |world| {
                let deployment = world.existing.deployment.as_mut().unwrap();
                deployment.status.as_mut().unwrap().available_replicas = Some(1);
                world.existing.pods[0].trouble = Some(("ImagePullBackOff".to_owned(), "m".to_owned()));
            },
            "PodsNotReady",
        ),
        (
            |world| {
                let deployment = world.existing.deployment.as_mut().unwrap();
                deployment.metadata.generation = Some(2);
            },
            "RollingOut",
        ),
    ];
    for (change, expected) in cases {
        let mut world = settled();
        change(&mut world);
        let (_, verdict) = told(&world);
        assert_eq!(verdict.words().reason, expected);
        assert_eq!(matches!(verdict, Verdict::Stalled(_)), expected == "InvalidSpec");
        assert!(!verdict.is_ready());
    }
}

#[test]
fn nothing_to_do_by_wish_is_ready_when_the_pods_are_gone() {
    for (change, expected) in [
        (
            (|world| world.forwarder.spec.suspend = true) as fn(&mut World),
            "Suspended",
        ),
        (|world| world.forwarder.spec.replicas = 0, "ScaledToZero"),
    ] {
        let mut world = settled();
        change(&mut world);
        world.step();
        assert_eq!(reason(&world), "ScalingDown");
        world.existing.pods.clear();
        world.step();
        let (status, verdict) = told(&world);
        assert!(verdict.is_ready());
        assert_eq!(verdict.words().reason, expected);
        assert_eq!(status.ring.unwrap().converged.as_deref(), Some("0/0"));
        world.channel_not_ready = Some("x".to_owned());
        assert_eq!(reason(&world), expected, "nothing is asked of it");
    }
}

#[test]
fn who_is_left_out_is_told_unless_it_wants_to_be() {
    let mut world = World::new([cluster("c1", 1), cluster("c2", 2), cluster("c3", 3)]);
    world.clusters[1].spec.drain = true;
    world.clusters[2].spec.ring_name = Some("c1".to_owned());
    let validated = world.validate().unwrap();
    let further = status::further(&validated, &world.existing);
    assert_eq!(further[0].0, "ClustersExcluded");
    assert!(
        further[0]
            .1
            .message
            .starts_with("NatsCluster plant/c3: DuplicateRingName: ")
    );
    assert_eq!(told(&world).0.ring.unwrap().excluded.len(), 2);
}

#[test]
fn a_pod_that_does_not_come_up_says_why() {
    let observed = |status: &str| {
        let pod: Pod = yaml(&format!("{{metadata: {{name: a}}, status: {status}}}"));
        Observed::of(&pod)
    };
    let waiting = |state: &str| {
        let status = "name: forwarder, image: i, imageID: '', ready: false, restartCount: 0";
        let pod = observed(&format!(
            "{{phase: Running, containerStatuses: [{{{status}, {state}}}]}}"
        ))
        .unwrap();
        (pod.process, pod.trouble)
    };
    let (process, trouble) = waiting("state: {waiting: {reason: ErrImagePull, message: 'a; b'}}");
    assert_eq!(process, Process::Absent);
    assert_eq!(
        trouble,
        waiting("state: {waiting: {reason: ImagePullBackOff}}").1,
        "the kubelet turns between them"
    );
    let (_, trouble) = waiting(
        "state: {waiting: {reason: CrashLoopBackOff, message: back-off 20s}}, lastState: {terminated: {exitCode: 1, message: no ring}}",
    );
    assert_eq!(
        trouble,
        Some(("CrashLoopBackOff".to_owned(), "exit code 1: no ring".to_owned()))
    );
    let (process, trouble) = waiting("state: {running: {}}");
    assert_eq!((process, trouble), (Process::Running, None));
    let unscheduled = observed(
        "{phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: Unschedulable, message: no nodes}]}",
    );
    assert_eq!(
        unscheduled.unwrap().trouble,
        Some(("Unschedulable".to_owned(), "no nodes".to_owned()))
    );
    assert_eq!(observed("{phase: Succeeded}"), None);
}

#[test]
fn pods_that_a_quota_refuses_are_told_in_kubernetes_own_words() {
    let refused = |observed: i64| {
        let mut world = settled();
        let deployment = world.existing.deployment.as_mut().unwrap();
        deployment.status = Some(yaml(&format!(
            "
observedGeneration: {observed}
replicas: 0
conditions:
  - {{type: Progressing, status: 'True', reason: NewReplicaSetCreated}}
  - {{type: ReplicaFailure, status: 'True', reason: FailedCreate, message: 'pods \"assets-1\" is forbidden: exceeded quota: none'}}
"
        )));
        world.existing.pods.clear();
        told(&world).1.words().clone()
    };
    let words = refused(1);
    assert_eq!(words.reason, "PodsNotCreated");
    for part in ["0 of 2", "exceeded quota: none"] {
        assert!(words.message.contains(part), "{}", words.message);
    }
    assert_eq!(refused(0).reason, "RollingOut", "it is about the Deployment of before");
}

#[test]
fn a_rollout_that_was_given_up_says_so() {
    let deployment: Deployment = yaml(
        "
metadata: {generation: 3}
spec: {replicas: 3, selector: {}, template: {}}
status:
  observedGeneration: 3
  replicas: 3
  updatedReplicas: 1
  availableReplicas: 2
  conditions: [{type: Progressing, status: 'False', reason: ProgressDeadlineExceeded}]
",
    );
    let expected = Rollout::Progressing {
        updated: 1,
        available: 2,
        desired: 3,
        late: true,
        refused: None,
    };
    assert_eq!(Rollout::of(&deployment), expected);
}
