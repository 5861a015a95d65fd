//! How many pods measured lag asks for.

use std::time::{Duration, Instant};

use forwarder_core::status::{Assignment, Phase, TopicStatus};

use super::super::autoscale::{Histories, pods};
use super::super::decide::Scale;
use super::*;

/// A forwarder of two pods and four partitions, and a clock.
struct Scaled {
    world: World,
    histories: Histories,
    now: Instant,
}

impl Scaled {
    fn new(autoscaling: &str) -> Self {
        let mut world = World::new([cluster("c1", 1)]);
        world.forwarder.spec.autoscaling = Some(yaml(autoscaling));
        world.step();
        world.pods_follow();
        let mut scaled = Self {
            world,
            histories: Histories::default(),
            now: Instant::now(),
        };
        scaled.lags([10; 4]);
        scaled
    }

    /// The lags of partitions 0 to 3, of which each pod has two.
    fn lags(&mut self, lags: [i64; 4]) {
        for (place, pod) in self.world.existing.pods.iter_mut().enumerate() {
            let report = report(pod);
            report.phase = Phase::Consuming;
            for cluster in report.clusters.values_mut() {
                cluster.connected = true;
            }
            let assignment = |partition: usize| Assignment {
                lag: Some(lags[partition]),
                ..Assignment::default()
            };
            report.assignment = [2 * place, 2 * place + 1]
                .map(|partition| (i32::try_from(partition).unwrap(), assignment(partition)))
                .into();
        }
    }

    /// What it comes to after so many seconds, of which each fifth is looked at.
    fn after(&mut self, seconds: u64) -> i32 {
        let mut pods = self.look();
        for _ in 0..seconds / 5 {
            self.now += Duration::from_secs(5);
            pods = self.look();
        }
        pods
    }

    fn look(&mut self) -> i32 {
        let found = self.world.dereferenced();
        let (before, pods) = (pods(&found).unwrap(), self.histories.decide(&found, self.now).unwrap());
        if pods != before {
            self.histories.taken(&found.forwarder, before, pods, self.now);
            self.has(pods);
        }
        pods
    }

    /// As after an apply.
    fn has(&mut self, pods: i32) {
        let deployment = self.world.existing.deployment.as_mut().unwrap();
        deployment.spec.as_mut().unwrap().replicas = Some(pods);
        *deployment = rolled_out(deployment.clone());
    }
}

const ONE_TO_TEN: &str = "{minReplicas: 1, maxReplicas: 10, lagPerReplica: 100, scaleDownDelaySeconds: 60}";

#[test]
fn lag_that_stays_brings_pods_but_no_more_than_partitions() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    scaled.lags([50, 50, 50, 50]);
    assert_eq!(scaled.after(15), 2, "exactly what two are there for");
    scaled.lags([50, 51, 50, 50]);
    assert_eq!(scaled.after(10), 2, "it may be gone soon");
    assert_eq!(scaled.after(10), 3);
    scaled.lags([1_000_000; 4]);
    assert_eq!(scaled.after(20), 4, "a fifth would be idle");
    let mut scaled = Scaled::new("{minReplicas: 1, maxReplicas: 3, lagPerReplica: 1, scaleDownDelaySeconds: 60}");
    scaled.lags([1_000_000; 4]);
    assert_eq!(scaled.after(20), 3);
}

#[test]
fn a_pod_goes_when_fewer_were_enough_all_the_time() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    assert_eq!(scaled.after(55), 2);
    assert_eq!(scaled.after(5), 1, "after a minute");
    // One that had a use for the second meanwhile.
    let mut scaled = Scaled::new(ONE_TO_TEN);
    assert_eq!(scaled.after(30), 2);
    scaled.lags([101, 0, 0, 0]);
    assert_eq!(scaled.after(5), 2);
    scaled.lags([0; 4]);
    assert_eq!(scaled.after(55), 2, "the peak is less than a minute ago");
    assert_eq!(scaled.after(10), 1);
    let mut scaled = Scaled::new("{minReplicas: 2, maxReplicas: 3, lagPerReplica: 100, scaleDownDelaySeconds: 0}");
    assert_eq!(scaled.after(60), 2, "never below the least");
}

#[test]
fn each_pod_that_goes_is_followed_by_a_whole_delay_and_a_longer_one_when_it_had_to_come_back() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    scaled.has(4);
    assert_eq!(scaled.after(60), 3);
    assert_eq!(scaled.after(55), 3);
    assert_eq!(scaled.after(10), 2);
    scaled.lags([100; 4]);
    assert_eq!(scaled.after(20), 4, "two were too few");
    scaled.lags([0; 4]);
    assert_eq!(scaled.after(100), 4, "so nobody tries so soon again");
    assert_eq!(scaled.after(25), 3);
}

#[test]
fn a_number_that_is_too_small_is_not_tried_for_ever_even_without_a_delay() {
    let mut scaled = Scaled::new("{minReplicas: 1, maxReplicas: 10, lagPerReplica: 100, scaleDownDelaySeconds: 0}");
    assert_eq!(scaled.after(0), 1);
    scaled.lags([50; 4]);
    assert_eq!(scaled.after(20), 2, "one was too few");
    scaled.lags([0; 4]);
    assert_eq!(scaled.after(115), 2);
    assert_eq!(scaled.after(10), 1);
}

#[test]
fn what_more_pods_would_not_help_brings_none() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    scaled.lags([1_000_000; 4]);
    let report = report(&mut scaled.world.existing.pods[0]);
    report.clusters.get_mut("c1").unwrap().connected = false;
    assert_eq!(scaled.after(60), 2, "a cluster is away");
    report_phase(&mut scaled, Phase::Waiting("stopped".to_owned()));
    assert_eq!(scaled.after(60), 2, "a partition waits for a person");
}

fn report_phase(scaled: &mut Scaled, phase: Phase) {
    let report = report(&mut scaled.world.existing.pods[0]);
    report.clusters.get_mut("c1").unwrap().connected = true;
    report.phase = phase;
}

#[test]
fn what_a_hand_makes_of_the_deployment_is_put_back() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    scaled.has(7);
    let deployment = scaled.world.existing.deployment.take().unwrap();
    scaled.world.existing.deployment = Some(managed(deployment, "kubectl"));
    assert_eq!(pods(&scaled.world.dereferenced()), Some(2), "the status knows");
}

#[test]
fn nothing_is_changed_while_the_lag_cannot_be_told() {
    type Unrest = (&'static str, fn(&mut World));
    let unrest: [Unrest; 9] = [
        ("a pod without an answer", |world| world.existing.pods[1].report = None),
        ("a pod on its way out", |world| {
            world.existing.pods[1].terminating = true
        }),
        ("a rebalance", |world| {
            report(&mut world.existing.pods[1]).phase = Phase::Rebalancing;
        }),
        ("a partition without a pod", |world| {
            report(&mut world.existing.pods[1]).assignment.clear();
        }),
        ("a hand-over", |world| {
            report(&mut world.existing.pods[1]).ring.waiting_assets = 1;
        }),
        ("another ring", |world| {
            report(&mut world.existing.pods[1]).ring.epoch = 9;
        }),
        ("an older ring on all pods", |world| {
            for pod in &mut world.existing.pods {
                report(pod).ring.epoch = 0;
            }
        }),
        ("a ring that is announced", |world| {
            report(&mut world.existing.pods[1]).ring.announced = Some(2);
        }),
        ("a rollout", |world| {
            let status = world.existing.deployment.as_mut().unwrap().status.as_mut().unwrap();
            status.updated_replicas = Some(1);
        }),
    ];
    for (what, disturb) in unrest {
        for lags in [[0; 4], [1_000_000; 4]] {
            let mut scaled =
                Scaled::new("{minReplicas: 1, maxReplicas: 9, lagPerReplica: 1, scaleDownDelaySeconds: 0}");
            scaled.lags(lags);
            disturb(&mut scaled.world);
            assert_eq!(scaled.after(60), 2, "{what}");
        }
    }
}

#[test]
fn what_a_rollout_leaves_behind_brings_no_pod() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    assert_eq!(scaled.after(20), 2);
    scaled.lags([100; 4]);
    assert_eq!(scaled.after(10), 2);
    // Sixty seconds of it.
    report(&mut scaled.world.existing.pods[1]).phase = Phase::Rebalancing;
    assert_eq!(scaled.after(60), 2);
    report(&mut scaled.world.existing.pods[1]).phase = Phase::Consuming;
    assert_eq!(scaled.after(10), 2, "it may be gone soon");
    scaled.lags([50; 4]);
    assert_eq!(scaled.after(30), 2);
}

#[test]
fn a_step_that_was_not_taken_is_none() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    assert_eq!(scaled.after(55), 2);
    scaled.now += Duration::from_secs(5);
    for _ in 0..3 {
        let found = scaled.world.dereferenced();
        assert_eq!(
            scaled.histories.decide(&found, scaled.now),
            Some(1),
            "as often as it is asked"
        );
    }
}

#[test]
fn the_history_of_a_forwarder_that_is_gone_is_forgotten() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    assert_eq!(scaled.after(55), 2);
    scaled.histories.retain(|_| false);
    assert_eq!(scaled.after(55), 2, "it begins anew");
    scaled.histories.retain(|uid| uid == "u1");
    assert_eq!(scaled.after(5), 1);
}

#[test]
fn a_time_without_measurements_does_not_count() {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    assert_eq!(scaled.after(0), 2);
    scaled.now += Duration::from_secs(121);
    assert_eq!(scaled.after(0), 2, "nobody knows what was in between");
    assert_eq!(scaled.after(55), 2);
    assert_eq!(scaled.after(5), 1);
}

#[test]
fn the_number_that_lag_asks_for_is_that_of_everything() {
    let mut world = World::new([cluster("c1", 1)]);
    world.forwarder.spec.replicas = 0;
    world.forwarder.spec.autoscaling = Some(yaml(ONE_TO_TEN));
    let histories = Histories::default();
    let scaled = histories.decide(&world.dereferenced(), Instant::now());
    assert_eq!(scaled, Some(1), "the least at first");
    let validated = scaled_to(&world, None, 3);
    assert_eq!(validated.replicas, 3);
    assert!(build(&validated).unwrap().disruption_budget.is_some());
    world.forwarder.spec.autoscaling = None;
    assert_eq!(histories.decide(&world.dereferenced(), Instant::now()), None);
}

/// What becomes of it where lag asks for `to` pods.
fn scaled_to(world: &World, from: Option<i32>, to: i32) -> Validated {
    let decided = Decided {
        found: world.dereferenced(),
        scale: Scale::ByLag { from, to },
    };
    validate::validate(&decided, &world.settings()).unwrap()
}

#[test]
fn a_change_of_the_ring_does_not_change_the_number_of_pods_too() {
    let mut world = World::new([cluster("c1", 1)]);
    let first = scaled_to(&world, Some(2), 3);
    assert_ne!(first.ring.as_ref(), Some(&first.recorded));
    assert_eq!((first.replicas, first.spec.replicas, first.scale.step()), (2, 2, None));
    assert_eq!(scaled_to(&world, None, 3).replicas, 3, "there are none that could stay");
    world.step();
    world.pods_follow();
    let settled = scaled_to(&world, Some(2), 3);
    assert_eq!((settled.replicas, settled.scale.step()), (3, Some((2, 3))));
    assert_eq!(scaled_to(&world, Some(2), 2).scale.step(), None);
}

/// Two pods with a second topic of two partitions, of which each has one.
fn with_a_second_topic(lags: [i64; 2]) -> Scaled {
    let mut scaled = Scaled::new(ONE_TO_TEN);
    sources::add(&mut scaled.world, "b");
    scaled.world.step();
    scaled.world.pods_follow();
    scaled.lags([50; 4]);
    for (partition, pod) in (0..).zip(&mut scaled.world.existing.pods) {
        let assignment = Assignment {
            lag: Some(lags[usize::try_from(partition).unwrap()]),
            ..Assignment::default()
        };
        let topic = TopicStatus {
            assignment: [(partition, assignment)].into(),
        };
        report(pod).topics = [("b".to_owned(), topic)].into();
    }
    scaled
}

#[test]
fn lag_and_partitions_are_those_of_all_topics() {
    assert_eq!(
        with_a_second_topic([0, 0]).after(20),
        2,
        "exactly what two are there for"
    );
    assert_eq!(with_a_second_topic([0, 1]).after(20), 3);
    assert_eq!(
        with_a_second_topic([1_000_000; 2]).after(20),
        6,
        "a seventh would be idle"
    );
}

#[test]
fn nothing_is_changed_while_a_partition_of_a_further_topic_is_unknown() {
    type Unrest = fn(&mut BTreeMap<String, TopicStatus>);
    let unrest: [Unrest; 3] = [
        BTreeMap::clear,
        |topics| topics.get_mut("b").unwrap().assignment.get_mut(&1).unwrap().lag = None,
        |topics| {
            let assignment = &mut topics.get_mut("b").unwrap().assignment;
            let of_the_other = assignment[&1].clone();
            assignment.insert(0, of_the_other);
        },
    ];
    for disturb in unrest {
        let mut scaled = with_a_second_topic([1_000_000; 2]);
        disturb(&mut report(&mut scaled.world.existing.pods[1]).topics);
        assert_eq!(scaled.after(60), 2);
    }
}
