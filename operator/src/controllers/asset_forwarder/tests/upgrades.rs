//! What a new operator makes of forwarders that run.

use k8s_openapi::api::core::v1::PodTemplateSpec;

use super::*;

/// The template that would be written, and whether it is one of before.
fn template(world: &World) -> (PodTemplateSpec, bool) {
    let (deployment, is_kept) = match world.look().resources.workload {
        Workload::Configured { deployment, .. } => (deployment, false),
        Workload::Kept { deployment } => (deployment, true),
        Workload::Scaled(_) => panic!("there is a configuration"),
    };
    (deployment.spec.unwrap().template, is_kept)
}

fn image(world: &World) -> String {
    let (template, _) = template(world);
    template.spec.unwrap().containers[0].image.clone().unwrap()
}

/// As an operator has written it whose probes were others, and whose configuration had another text.
fn by_an_older_operator(world: &mut World) -> PodTemplateSpec {
    let mut deployment = world.existing.deployment.clone().unwrap();
    let template = &mut deployment.spec.as_mut().unwrap().template;
    let pod = template.spec.as_mut().unwrap();
    pod.containers[0].liveness_probe = None;
    for volume in pod.volumes.iter_mut().flatten() {
        if let Some(map) = volume.config_map.as_mut().filter(|map| map.name.contains("-config-")) {
            map.name = "assets-config-old".to_owned();
        }
    }
    let template = template.clone();
    let text = serde_json::to_value(&template).unwrap().to_string();
    let annotations = deployment.metadata.annotations.as_mut().unwrap();
    annotations.insert(names::TEMPLATE.to_owned(), text);
    world.existing.deployment = Some(deployment);
    world.existing.configs[0].metadata.name = Some("assets-config-old".to_owned());
    template
}

#[test]
fn a_new_default_image_rolls_nothing_that_nobody_asked_for() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.default_image = "forwarder:2";
    assert_eq!(image(&world), "forwarder:1");

    world.forwarder.metadata.generation = Some(2);
    world.forwarder.spec.replicas = 5;
    assert_eq!(image(&world), "forwarder:1", "scaling is no reason");
    world.forwarder.spec.sources[0].protocol = Some(crds::asset_forwarder::GroupProtocol::Consumer);
    assert_eq!(image(&world), "forwarder:2", "the pods roll anyway");
    world.step();

    world.default_image = "forwarder:3";
    world.forwarder.spec.upgrade_policy = crds::asset_forwarder::UpgradePolicy::Automatic;
    assert_eq!(image(&world), "forwarder:3");
    world.forwarder.spec.image = Some("mine:1".to_owned());
    assert_eq!(image(&world), "mine:1");
}

#[test]
fn what_a_new_operator_would_build_in_another_way_stays_as_it_was() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    let old = by_an_older_operator(&mut world);
    assert_eq!(template(&world), (old.clone(), true));
    // Another version may serialize a spec in another way: the generations are the same.
    let deployment = world.existing.deployment.as_mut().unwrap();
    let annotations = deployment.metadata.annotations.as_mut().unwrap();
    annotations.insert(names::SPEC.to_owned(), "of another version".to_owned());
    assert_eq!(template(&world), (old.clone(), true));
    // From now on the hash is ours, and so scaling finds it.
    world.step();
    world.forwarder.metadata.generation = Some(2);
    world.forwarder.spec.replicas = 5;
    assert_eq!(template(&world), (old.clone(), true));
    assert_eq!(world.status().config_hash.as_deref(), Some("old"), "what the pods run");

    // What a person does to the pods is put back all the same.
    let deployment = world.existing.deployment.as_mut().unwrap();
    let live = &mut deployment.spec.as_mut().unwrap().template;
    live.spec.as_mut().unwrap().containers[0].image = Some("a-persons:1".to_owned());
    assert_eq!(template(&world), (old, true));
}

#[test]
fn what_pods_read_at_their_start_rolls_them_with_all_that_is_new() {
    let sasl = "{mechanism: PLAIN, secretRef: {name: kafka}}";
    let start = || {
        let mut world = World::new([cluster("c1", 1)]).with_secret("kafka", "password", "p");
        world.put_secret("kafka", "username", "u");
        world.channel.spec.connection.sasl = Some(yaml(sasl));
        world.step();
        by_an_older_operator(&mut world);
        assert!(template(&world).1);
        world
    };
    let mut world = start();
    world.put_secret("kafka", "password", "another");
    assert!(!template(&world).1);

    let mut world = start();
    world.put_secret("kafka", "username", "another");
    assert!(!template(&world).1, "it is in the document");

    let mut world = start();
    world.channel.metadata.generation = Some(2);
    assert!(template(&world).1, "a change that is nothing to pods");
    world.channel.spec.connection.bootstrap_servers = vec!["elsewhere:9092".to_owned()];
    assert!(!template(&world).1);
}

#[test]
fn what_running_pods_take_up_rolls_nothing_that_is_new() {
    let mut world = World::new([cluster("c1", 1), cluster_with_token("c2", 2)]).with_secret("c2-token", "token", "t");
    world.step();
    world.pods_follow();
    let old = by_an_older_operator(&mut world);
    world.forwarder.metadata.generation = Some(2);
    world.forwarder.spec.ring.handover_timeout_seconds = 30;
    world.forwarder.spec.clusters.selector = yaml("{matchLabels: {ring: plant}, matchExpressions: []}");
    world.forwarder.spec.autoscaling = Some(yaml("{minReplicas: 1, maxReplicas: 2, lagPerReplica: 1}"));
    assert_eq!(template(&world), (old, true));
    // A cluster that leaves takes its token along, whatever the template is.
    assert_eq!(world.files().len(), 1);
    world.remove("c2");
    for _ in 0..4 {
        world.step();
        world.pods_follow();
    }
    assert_eq!(world.files(), [""; 0]);
}

#[test]
fn a_template_that_cannot_be_relied_upon_is_not_kept() {
    let start = || {
        let mut world = World::new([cluster("c1", 1)]);
        world.step();
        by_an_older_operator(&mut world);
        world
    };
    let mut world = start();
    let deployment = world.existing.deployment.take().unwrap();
    world.existing.deployment = Some(managed(deployment, "kubectl-edit"));
    assert!(!template(&world).1, "another hand has written it");
    let mut world = start();
    world.existing.configs.clear();
    assert!(!template(&world).1, "its configuration is gone");
}

#[test]
fn what_admission_refuses_is_replaced_by_what_the_operator_makes_now() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.security_ids = false;
    let user = |world: &World| template(world).0.spec.unwrap().security_context.unwrap().run_as_user;
    assert_eq!(user(&world), Some(65532), "pods that run keep what they have");
    let refused = |replicas: u32| {
        yaml(&format!(
            "{{replicas: {replicas}, conditions: [{{type: ReplicaFailure, status: 'True', reason: FailedCreate}}]}}"
        ))
    };
    world.existing.deployment.as_mut().unwrap().status = Some(refused(1));
    assert_eq!(user(&world), Some(65532), "one runs");
    world.existing.deployment.as_mut().unwrap().status = Some(refused(0));
    assert_eq!(user(&world), None);
}
