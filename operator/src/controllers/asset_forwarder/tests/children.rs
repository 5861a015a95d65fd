//! The children as they are built, beside fixtures that a person can read.

use k8s_openapi::api::apps::v1::Deployment;
use serde_json::{Value, json};

use super::super::apply::{is_behind, obsolete};
use super::*;

/// All children of a world, as the API would have them in a list.
fn children(world: &World) -> Value {
    let Resources {
        beacon,
        credentials,
        ring,
        service_account,
        role,
        role_binding,
        service,
        network_policy,
        disruption_budget,
        workload,
    } = world.look().resources;
    let Workload::Configured { config, mut deployment } = workload else {
        panic!("there is a configuration");
    };
    // The same once more, which nobody wants to read twice.
    let template = serde_json::to_value(&deployment.spec.as_ref().unwrap().template).unwrap();
    let noted = deployment
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .remove(names::TEMPLATE);
    assert_eq!(noted, Some(template.to_string()));
    assert_eq!(beacon, None, "nobody has declared one");
    json!({
        "credentials": credentials,
        "ring": ring,
        "config": config,
        "serviceAccount": service_account,
        "role": role,
        "roleBinding": role_binding,
        "service": service,
        "networkPolicy": network_policy,
        "disruptionBudget": disruption_budget,
        "deployment": deployment,
    })
}

fn assert_same(made: &Value, fixture: &str, name: &str) {
    let expected: Value = yaml(fixture);
    if *made != expected {
        let text = serde_saphyr::to_string(made).unwrap();
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        panic!(
            "the children are not those of tests/{name}; what is made now is in {}",
            path.display()
        );
    }
}

#[test]
fn a_plain_forwarder_consists_of_these() {
    let world = World::new([cluster_with_token("c1", 1)]).with_secret("c1-token", "token", "t1");
    assert_same(&children(&world), include_str!("live.yaml"), "live.yaml");
}

#[test]
fn one_with_all_its_wishes_consists_of_these() {
    let mut world = World::new([cluster("c1", 1)]);
    let spec = &mut world.forwarder.spec;
    spec.replicas = 1;
    spec.ring.update = crds::asset_forwarder::RingUpdate::Roll;
    spec.dead_letter = Some(yaml("{type: File, file: {claimName: letters}}"));
    spec.limits = Some(yaml("{maxPendingBytes: 134217728, drainTimeoutSeconds: 60}"));
    spec.pod_template = Some(yaml(
        "
labels: {team: a, app.kubernetes.io/name: mine}
annotations: {note: b, fanout.openfactory.io/kafka-credentials: mine}
nodeSelector: {disk: fast}
tolerations: [{key: edge, operator: Exists}]
topologySpreadConstraints: []
priorityClassName: high
imagePullSecrets: [{name: registry}]
",
    ));
    assert_same(&children(&world), include_str!("roll.yaml"), "roll.yaml");
}

/// The security context of the pods, as the API has it.
fn pod_security(world: &World) -> Value {
    let Workload::Configured { deployment, .. } = world.look().resources.workload else {
        panic!("there is a configuration");
    };
    let pod = deployment.spec.unwrap().template.spec.unwrap();
    serde_json::to_value(pod.security_context).unwrap()
}

#[test]
fn a_platform_that_gives_users_and_groups_itself_gets_pods_without_any() {
    let mut world = World::new([cluster("c1", 1)]);
    let mut with = pod_security(&world);
    world.security_ids = false;
    let without = pod_security(&world);
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        assert_eq!(with.as_object_mut().unwrap().remove(id), Some(json!(65532)), "{id}");
    }
    assert_eq!(without, with, "all else stays");
    assert_eq!(without["runAsNonRoot"], true);
    assert_eq!(without["seccompProfile"]["type"], "RuntimeDefault");
}

#[test]
fn no_pod_is_to_run_while_suspended_or_without_clusters() {
    let replicas = |world: &World| {
        let Workload::Configured { deployment, .. } = world.look().resources.workload else {
            panic!("there is a configuration");
        };
        deployment.spec.unwrap().replicas
    };
    let mut world = World::new([cluster("c1", 1)]);
    assert_eq!(replicas(&world), Some(2));
    world.forwarder.spec.suspend = true;
    assert_eq!(replicas(&world), Some(0));
    world.forwarder.spec.suspend = false;
    world.clusters.clear();
    assert_eq!(replicas(&world), Some(0));
    assert!(world.look().resources.ring.is_none());
}

#[test]
fn configurations_in_use_and_the_last_two_are_kept() {
    let config = |name: &str, made: u32| {
        yaml(&format!(
            "{{metadata: {{name: {name}, creationTimestamp: '1970-01-01T00:00:{made:02}Z'}}}}"
        ))
    };
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    world.pods_follow();
    world.existing.configs = (1..=6).map(|n| config(&format!("k{n}"), n)).collect();
    world.existing.pods[0].config_maps.insert("k1".to_owned());
    let mut template = world
        .existing
        .deployment
        .as_ref()
        .unwrap()
        .spec
        .clone()
        .unwrap()
        .template;
    template.spec.as_mut().unwrap().volumes = Some(yaml("[{name: config, configMap: {name: k2}}]"));
    let mut set: k8s_openapi::api::apps::v1::ReplicaSet =
        yaml("{metadata: {name: r}, spec: {replicas: 1, selector: {}}}");
    set.spec.as_mut().unwrap().template = Some(template);
    world.existing.replica_sets = vec![set];
    assert_eq!(obsolete(&world.existing, Some("k3")), ["k4"], "5 and 6 are the newest");
    assert_eq!(obsolete(&world.existing, None), [""; 0], "nobody knows what is current");
    world.existing.replica_sets[0].spec.as_mut().unwrap().replicas = Some(0);
    assert_eq!(obsolete(&world.existing, Some("k3")), ["k4", "k2"]);
}

#[test]
fn a_pod_is_asked_to_look_at_new_credentials_once() {
    let mut world = World::new([cluster("c1", 1)]);
    world.step();
    let mut pod = pod("a", &world.ring());
    assert!(is_behind(&pod, "v2"), "it shows none");
    report(&mut pod).credentials_version = Some("v1".to_owned());
    assert!(is_behind(&pod, "v2"));
    assert!(!is_behind(&pod, "v1"));
    pod.credentials_asked = Some("v2".to_owned());
    assert!(!is_behind(&pod, "v2"), "it was asked");
    let starting = Observed { report: None, ..pod };
    assert!(!is_behind(&starting, "v3"), "it begins with the newest");
}

#[test]
fn the_hash_of_the_configuration_names_its_map_in_the_template() {
    let world = World::new([cluster("c1", 1)]);
    let made = children(&world);
    let name = made["config"]["metadata"]["name"].as_str().unwrap();
    let deployment: Deployment = serde_json::from_value(made["deployment"].clone()).unwrap();
    let volumes = deployment.spec.unwrap().template.spec.unwrap().volumes.unwrap();
    assert_eq!(volumes[0].config_map.as_ref().unwrap().name, name);
}
