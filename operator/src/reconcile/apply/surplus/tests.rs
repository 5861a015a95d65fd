use super::*;

/// An object after a JSON patch, which may replace and remove. Its version must be the one that is named.
pub(in super::super) fn patched(mut object: Value, patch: &Value) -> Option<Value> {
    let version = object["metadata"]["resourceVersion"].clone();
    for operation in patch.as_array().unwrap() {
        let pointer = operation["path"].as_str().unwrap();
        let (parent, last) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap();
        match (operation["op"].as_str().unwrap(), parent) {
            ("replace", Value::Object(fields)) => *fields.get_mut(last).unwrap() = operation["value"].clone(),
            ("remove", Value::Object(fields)) => drop(fields.remove(last).unwrap()),
            ("remove", Value::Array(items)) => drop(items.remove(last.parse().unwrap())),
            other => unreachable!("{other:?}"),
        }
    }
    (object["metadata"]["resourceVersion"] == version).then_some(object)
}

/// What is found, and the object without it.
fn found(live: &Value, declared: &Value) -> (Vec<String>, Value) {
    let mut live = live.clone();
    live["metadata"]["resourceVersion"] = json!("7");
    let surplus = Surplus::of(&live, declared);
    let mut without = patched(live, &surplus.patch(Some("7"))).unwrap();
    without["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    assert!(Surplus::of(&without, declared).is_empty(), "{without}");
    (surplus.items, without)
}

fn deployment(pod: Value) -> Value {
    json!({"kind": "Deployment", "metadata": {"name": "plant"}, "spec": {"template": {"spec": pod}}})
}

fn forwarder() -> Value {
    json!({
        "name": "forwarder",
        "ports": [{"name": "http", "containerPort": 4000, "protocol": "TCP"}],
        "env": [{"name": "POD_NAME", "value": "a"}],
        "volumeMounts": [{"name": "config", "mountPath": "/etc/config"}],
    })
}

fn declared() -> Value {
    deployment(json!({"containers": [forwarder()], "volumes": [{"name": "config", "configMap": {"name": "c"}}]}))
}

#[test]
fn what_the_api_server_fills_in_and_what_others_may_write_is_no_surplus() {
    let mut live = declared();
    live["metadata"] = json!({"name": "plant", "labels": {"a": "b"}, "annotations": {"c": "d"}, "finalizers": ["e/f"]});
    let pod = &mut live["spec"]["template"]["spec"];
    pod["restartPolicy"] = json!("Always");
    pod["imagePullSecrets"] = json!([{"name": "registry"}]);
    pod["volumes"][0]["configMap"]["defaultMode"] = json!(420);
    pod["containers"][0]["imagePullPolicy"] = json!("Always");
    assert_eq!(found(&live, &declared()), (vec![], live));

    let ports = |port: Value| json!({"kind": "Service", "metadata": {}, "spec": {"ports": [port]}});
    let live = ports(json!({"port": 4222, "protocol": "TCP", "nodePort": 30_000, "targetPort": 4222}));
    assert_eq!(found(&live, &ports(json!({"port": 4222}))), (vec![], live));

    let account = json!({"kind": "ServiceAccount", "metadata": {}, "imagePullSecrets": [{"name": "registry"}]});
    assert_eq!(found(&account, &json!({"kind": "ServiceAccount"})), (vec![], account));
}

#[test]
fn whatever_another_hand_adds_to_a_template_is_one() {
    let mut live = declared();
    let pod = &mut live["spec"]["template"]["spec"];
    pod["hostname"] = json!("a-field-of-others");
    pod["containers"] = json!([{"name": "first"}, forwarder(), {"name": "last", "env": [{"name": "A"}]}]);
    let ours = &mut pod["containers"][1];
    ours["ports"] = json!([{"containerPort": 4000, "protocol": "UDP"}, ours["ports"][0]]);
    ours["env"] = json!([{"name": "LD_PRELOAD", "value": "x"}, ours["env"][0], {"name": "POD_NAME", "value": "b"}]);
    ours["envFrom"] = json!([{"secretRef": {"name": "s"}}]);
    ours["volumeMounts"] = json!([ours["volumeMounts"][0], {"name": "v", "mountPath": "/usr/bin"}]);
    ours["volumeDevices"] = json!([{"name": "v", "devicePath": "/dev/a"}]);
    pod["initContainers"] = json!([{"name": "init"}]);
    pod["volumes"] = json!([{"name": "v", "hostPath": {"path": "/"}}, pod["volumes"][0]]);
    let (items, without) = found(&live, &declared());
    let containers = "spec.template.spec.containers";
    assert_eq!(
        items,
        [
            format!("first in {containers}"),
            format!("4000/UDP in {containers}[forwarder].ports"),
            format!("LD_PRELOAD in {containers}[forwarder].env"),
            format!("POD_NAME in {containers}[forwarder].env"),
            format!("{{\"secretRef\":{{\"name\":\"s\"}}}} in {containers}[forwarder].envFrom"),
            format!("/usr/bin in {containers}[forwarder].volumeMounts"),
            format!("/dev/a in {containers}[forwarder].volumeDevices"),
            format!("last in {containers}"),
            "init in spec.template.spec.initContainers".to_owned(),
            "v in spec.template.spec.volumes".to_owned(),
        ]
    );
    let mut wanted = declared();
    wanted["spec"]["template"]["spec"]["hostname"] = json!("a-field-of-others");
    wanted["spec"]["template"]["spec"]["initContainers"] = json!([]);
    wanted["spec"]["template"]["spec"]["containers"][0]["volumeDevices"] = json!([]);
    assert_eq!(without, wanted);
}

#[test]
fn what_stands_in_the_place_of_ours_gives_it_back() {
    let service =
        |ports: Value| json!({"kind": "Service", "metadata": {}, "spec": {"clusterIP": "None", "ports": ports}});
    let declared = service(json!([{"name": "http", "port": 4000}]));
    let live = service(json!([{"name": "http", "port": 5000, "protocol": "TCP"}]));
    assert_eq!(
        found(&live, &declared),
        (vec!["5000/TCP in spec.ports".to_owned()], declared)
    );
}

#[test]
fn a_subject_or_rule_that_differs_in_any_field_is_another_one() {
    let ours = json!({"kind": "ServiceAccount", "name": "plant", "namespace": "n"});
    let binding = |subjects: Value| json!({"kind": "RoleBinding", "metadata": {}, "subjects": subjects});
    let declared = binding(json!([ours]));
    for theirs in [
        json!({"kind": "User", "name": "plant", "apiGroup": "rbac.authorization.k8s.io"}),
        json!({"kind": "ServiceAccount", "name": "plant", "namespace": "another"}),
        ours.clone(),
    ] {
        let (items, without) = found(&binding(json!([ours, theirs])), &declared);
        assert_eq!(
            (items, without),
            (vec![format!("{theirs} in subjects")], declared.clone())
        );
    }

    let role = |rule: Value| json!({"kind": "Role", "metadata": {}, "rules": [rule]});
    let declared = role(json!({"resources": ["configmaps"], "resourceNames": ["ring"], "verbs": ["get"]}));
    let live = role(json!({"resources": ["configmaps"], "verbs": ["get"]}));
    let (items, without) = found(&live, &declared);
    assert_eq!((items.len(), without), (1, declared));
}

#[test]
fn a_network_policy_lets_in_and_out_what_is_declared_alone() {
    let policy = |spec: Value| json!({"kind": "NetworkPolicy", "metadata": {}, "spec": spec});
    let declared = policy(json!({"policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {"a": "b"}}]}]}));
    let live = policy(json!({
        "policyTypes": ["Ingress", "Egress"],
        // Empty, it means every namespace.
        "ingress": [{"from": [{"podSelector": {"a": "b"}, "namespaceSelector": {}}]}, {}],
        "egress": [{}],
    }));
    let (items, without) = found(&live, &declared);
    assert_eq!(items[0], "\"Egress\" in spec.policyTypes");
    assert_eq!(items[2..], ["{} in spec.ingress", "{} in spec.egress"]);
    assert_eq!(without, declared);
}

#[test]
fn a_long_item_is_cut_between_two_characters() {
    let item = json!({"name": "é".repeat(300)});
    assert!(short(&item).ends_with("é…"));
    assert_eq!(short(&json!({"a": 1})), "{\"a\":1}");
}
