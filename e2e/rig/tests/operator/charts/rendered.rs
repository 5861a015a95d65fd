//! What Helm makes of the charts, without installing it.

use std::collections::BTreeSet;
use std::fs;

use e2e_rig::cluster::Cluster;
use serde_json::Value;

use super::{Helm, charts, objects, schemas, stdout, text};

/// The variable that has the kustomize base written anew.
const UPDATE: &str = "UPDATE";

/// Values files for the operator's chart; none: its defaults.
const VALUES: [&[&str]; 4] = [
    &[],
    &["--values=fanout-operator/ci/namespaced-values.yaml"],
    &["--values=fanout-operator/ci/everything-values.yaml"],
    &["--values=fanout-operator/ci/bare-values.yaml"],
];

#[test]
fn lint_has_nothing_to_say() {
    let helm = Helm::new();
    for values in VALUES {
        helm.run(&[&["lint", "--strict", "fanout-operator"], values].concat());
    }
    helm.run(&["lint", "--strict", "fanout-crds"]);
}

/// In a namespace that takes restricted pods only. Fields that it does not know are errors.
#[test]
fn the_api_server_takes_what_is_rendered() {
    let helm = Helm::new();
    let namespace = helm.cluster.namespace("rendered").unwrap();
    for values in VALUES {
        let mut args = vec!["template", "y", "fanout-operator", "--namespace", namespace.name()];
        args.extend(values);
        // Their definitions are the Prometheus operator's, which is not there; nor is a namespace for dashboards.
        args.push("--set=podMonitor.enabled=false,prometheusRule.enabled=false,dashboards.namespace=");
        let watched = format!("--set=watchNamespace={}", namespace.name());
        if values.iter().any(|file| file.contains("namespaced")) {
            args.push(&watched);
        }
        takes(&helm.cluster, &helm.run(&args));
    }
    takes(&helm.cluster, &helm.run(&["template", "y", "fanout-crds"]));
}

/// Also where the API server would have to have more than it does: a namespace, a node, another operator.
#[test]
fn all_manifests_follow_the_schemas() {
    let helm = Helm::new();
    super::installed::definitions(&helm);
    let render = |values: &&[&str]| helm.run(&[&["template", "y", "fanout-operator"], *values].concat());
    let mut manifests: Vec<_> = VALUES.iter().map(render).collect();
    for example in fs::read_dir(charts().join("examples")).unwrap() {
        for file in fs::read_dir(example.unwrap().path()).unwrap() {
            let file = file.unwrap().path();
            // Kustomize's own, which no API server knows.
            if !file.ends_with("kustomization.yaml") {
                manifests.push(fs::read_to_string(file).unwrap());
            }
        }
    }
    assert!(manifests.len() > VALUES.len());
    schemas::check(&helm.cluster, &manifests, &["PodMonitor", "PrometheusRule"]);
}

fn takes(cluster: &Cluster, manifest: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), manifest).unwrap();
    let mut apply = cluster.program("kubectl");
    apply
        .args([
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
        ])
        .arg("--filename")
        .arg(file.path());
    let output = apply.output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}\n{manifest}");
    assert!(!said.contains("Warning"), "{said}\n{manifest}");
}

#[test]
fn a_wrong_value_is_refused_by_its_name() {
    let helm = Helm::new();
    for (value, refusal) in [
        ("image.tagg=1", "at '/image': additional properties 'tagg' not allowed"),
        ("imge.tag=1", "additional properties 'imge' not allowed"),
        ("image.repository=fanout@sha256", "at '/image/repository'"),
        ("image.digest=latest", "at '/image/digest'"),
        (
            "image.pullPolicy=Sometimes",
            "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
        ),
        ("forwarderImage.repository=", "at '/forwarderImage/repository'"),
        (
            "imagePullSecrets[0]=registry",
            "at '/imagePullSecrets/0': got string, want object",
        ),
        ("replicas=-1", "at '/replicas': minimum: got -1, want 0"),
        ("replicas=two", "at '/replicas': got string, want integer"),
        (
            "watchNamespace=Plant",
            "at '/watchNamespace': 'Plant' does not match pattern",
        ),
        (
            "requireSecretOptIn=maybe",
            "at '/requireSecretOptIn': got string, want boolean",
        ),
        ("concurrency=0", "at '/concurrency': minimum: got 0, want 1"),
        (
            "log.level=trace",
            "at '/log/level': value must be one of 'error', 'warn', 'info', 'debug'",
        ),
        (
            "log.format=xml",
            "at '/log/format': value must be one of 'json', 'text'",
        ),
        (
            "podSecurity.setIds=maybe",
            "at '/podSecurity/setIds': got string, want boolean",
        ),
        ("extraEnv[0].value=a", "at '/extraEnv/0': missing property 'name'"),
        (
            "extraEnv[0].name=a b",
            "at '/extraEnv/0/name': 'a b' does not match pattern",
        ),
        (
            "extraEnv[0].name=A,extraEnv[0].values=b",
            "at '/extraEnv/0': additional properties 'values' not allowed",
        ),
        (
            "extraEnv[0].name=A,extraEnv[0].value=b,extraEnv[0].valueFrom.fieldRef.fieldPath=c",
            "at '/extraEnv/0'",
        ),
        ("fullnameOverride=1st", "at '/fullnameOverride'"),
        ("commonLabels.a=1", "at '/commonLabels/a': got number, want string"),
        ("commonLabels.a=-b", "at '/commonLabels/a': '-b' does not match pattern"),
        (
            "podSecurityContext=none",
            "at '/podSecurityContext': got string, want object",
        ),
        (
            "containerSecurityContext=none",
            "at '/containerSecurityContext': got string, want object",
        ),
        (
            "services.ipFamilyPolicy=DualStack",
            "at '/services/ipFamilyPolicy': value must be one of",
        ),
        ("services.ipFamilies[0]=ipv6", "at '/services/ipFamilies/0'"),
        (
            "resources.limit.cpu=1",
            "at '/resources': additional properties 'limit' not allowed",
        ),
        ("podAnnotations.a=1", "at '/podAnnotations/a': got number, want string"),
        (
            "serviceAccount.create=maybe",
            "at '/serviceAccount/create': got string, want boolean",
        ),
        ("router.service.type=ExternalName", "at '/router/service/type'"),
        (
            "router.service.port=65536",
            "at '/router/service/port': maximum: got 65,536, want 65,535",
        ),
        (
            "networkPolicy.egress.to=x",
            "at '/networkPolicy/egress': additional properties 'to' not allowed",
        ),
        ("podMonitor.interval=30", "at '/podMonitor/interval'"),
        (
            "prometheusRule.enable=true",
            "at '/prometheusRule': additional properties 'enable' not allowed",
        ),
        (
            "dashboards.labels.a=1",
            "at '/dashboards/labels/a': got number, want string",
        ),
    ] {
        let said = helm.refusal(&["template", "y", "fanout-operator", "--set", value]);
        assert!(said.contains(refusal), "{value}: {said}");
    }
}

/// Helm gives every chart that another one depends on a value `global`, and one named by its condition.
#[test]
fn another_chart_may_depend_on_it() {
    let helm = Helm::new();
    let outer = tempfile::tempdir().unwrap();
    let manifest = "apiVersion: v2
name: outer
version: 1.0.0
dependencies:
  - {name: fanout-operator, version: '*', condition: fanout-operator.enabled}
";
    fs::write(outer.path().join("Chart.yaml"), manifest).unwrap();
    fs::create_dir(outer.path().join("charts")).unwrap();
    std::os::unix::fs::symlink(
        charts().join("fanout-operator").canonicalize().unwrap(),
        outer.path().join("charts/fanout-operator"),
    )
    .unwrap();
    let chart = outer.path().to_str().unwrap();
    let rendered = helm.run(&["template", "y", chart, "--set=fanout-operator.enabled=true,global.a=b"]);
    assert!(kinds(&rendered).contains("Deployment"), "{rendered}");
    let off = helm.run(&["template", "y", chart, "--set=fanout-operator.enabled=false"]);
    assert_eq!(objects(&off), Vec::<Value>::new());
}

#[test]
fn one_namespace_needs_nothing_of_the_cluster() {
    let helm = Helm::new();
    let rendered = helm.run(&[
        "template",
        "y",
        "fanout-operator",
        "--namespace=own",
        "--set=watchNamespace=plant",
    ]);
    assert!(
        !kinds(&rendered).iter().any(|kind| kind.starts_with("Cluster")),
        "{rendered}"
    );
    for object in objects(&rendered) {
        let namespace = &object["metadata"]["namespace"];
        let name = object["metadata"]["name"].as_str().unwrap();
        let rules = object["kind"].as_str().unwrap().starts_with("Role") && !name.ends_with("-lease");
        assert_eq!(namespace, if rules { "plant" } else { "own" }, "{object}");
    }
    let all = kinds(&helm.run(&["template", "y", "fanout-operator"]));
    assert!(
        all.contains("ClusterRole") && all.contains("ClusterRoleBinding"),
        "{all:?}"
    );
}

#[test]
fn names_that_yaml_takes_for_something_else_stay_names() {
    let helm = Helm::new();
    let args = [
        "template",
        "true",
        "fanout-operator",
        "--namespace=12",
        "--set-string=watchNamespace=34,podLabels.a=1",
    ];
    let rendered = objects(&helm.run(&args));
    for object in &rendered {
        let metadata = &object["metadata"];
        assert!(metadata["name"].is_string(), "{object}");
        assert!(metadata["namespace"].is_string(), "{object}");
        assert_eq!(metadata["labels"]["app.kubernetes.io/instance"], "true", "{object}");
    }
    let deployment = deployment(&rendered);
    let template = &deployment["spec"]["template"];
    assert_eq!(template["metadata"]["labels"]["a"], "1");
    assert_eq!(
        template["metadata"]["labels"]["app.kubernetes.io/instance"],
        deployment["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"]
    );
}

/// Both name versions for their own sake, and a chart whose default image does not exist installs nothing.
#[test]
fn the_chart_is_of_the_programs_version() {
    let helm = Helm::new();
    for chart in ["fanout-operator", "fanout-crds"] {
        let about = objects(&helm.run(&["show", "chart", chart])).remove(0);
        assert_eq!(about["version"], env!("CARGO_PKG_VERSION"), "{chart}");
        assert_eq!(about["appVersion"], env!("CARGO_PKG_VERSION"), "{chart}");
    }
}

/// Clap ignores variables that it does not know, so a flag that is renamed would leave the chart without effect.
#[test]
fn the_program_knows_every_variable_that_the_chart_sets() {
    let helm = Helm::new();
    let all = "--set=watchNamespace=plant,requireSecretOptIn=true,podSecurity.setIds=false";
    let rendered = objects(&helm.run(&["template", "y", "fanout-operator", all]));
    let program = e2e_rig::forwarder::binary().unwrap().with_file_name("operator");
    let help = stdout(std::process::Command::new(program).arg("--help"));
    let variables = deployment(&rendered)["spec"]["template"]["spec"]["containers"][0]["env"].clone();
    for variable in variables.as_array().unwrap() {
        let name = variable["name"].as_str().unwrap();
        assert!(help.contains(&format!("[env: {name}=")), "{name} is not in {help}");
    }
}

#[test]
fn the_kustomize_base_is_what_the_chart_renders() {
    let helm = Helm::new();
    let rendered = helm.run(&[
        "template",
        "fanout-operator",
        "fanout-operator",
        "--namespace=fanout-system",
        "--skip-tests",
    ]);
    let base = charts().join("kustomize/operator/operator.yaml");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&base, &rendered).unwrap();
    }
    let committed = fs::read_to_string(&base).unwrap();
    assert!(
        committed == rendered,
        "charts/kustomize/operator/operator.yaml is not what the chart renders: run this test with {UPDATE}=1 and commit it"
    );
    let mut kustomize = helm.cluster.program("kubectl");
    let built = stdout(kustomize.arg("kustomize").arg(charts().join("kustomize")));
    let kinds = kinds(&built);
    for kind in ["CustomResourceDefinition", "Namespace", "Deployment", "ClusterRole"] {
        assert!(kinds.contains(kind), "{kinds:?}");
    }
    for object in objects(&built) {
        let manager = &object["metadata"]["labels"]["app.kubernetes.io/managed-by"];
        assert_ne!(manager, "Helm", "{object}");
    }
}

#[test]
fn a_platform_that_gives_users_and_groups_itself_gets_pods_without_any() {
    let helm = Helm::new();
    let override_ = "podSecurityContext.runAsUser=7,podSecurityContext.fsGroup=7,containerSecurityContext.runAsGroup=7";
    let render = |set: &str| {
        let rendered = objects(&helm.run(&["template", "y", "fanout-operator", "--set", set]));
        deployment(&rendered)["spec"]["template"]["spec"].clone()
    };
    let usual = render("podSecurity.setIds=true");
    assert_eq!(
        variable(&usual, "POD_SECURITY_IDS"),
        Value::Null,
        "the program's default"
    );
    let without = render(&format!("podSecurity.setIds=false,{override_}"));
    assert_eq!(variable(&without, "POD_SECURITY_IDS"), "false");
    assert_eq!(without["securityContext"], usual["securityContext"]);
    let container = |pod: &Value| pod["containers"][0]["securityContext"].clone();
    assert_eq!(container(&without), container(&usual));
    let with = render(override_);
    assert_eq!(
        (
            &with["securityContext"]["runAsUser"],
            &with["securityContext"]["fsGroup"]
        ),
        (&7.into(), &7.into())
    );
    assert_eq!(container(&with)["runAsGroup"], 7);
}

/// One that is given as `false` too, which a merge would pass over.
#[test]
fn a_field_of_a_security_context_replaces_the_charts_own_and_no_other() {
    let helm = Helm::new();
    let set = "--set=podSecurityContext.supplementalGroups[0]=7,containerSecurityContext.readOnlyRootFilesystem=false";
    let rendered = objects(&helm.run(&["template", "y", "fanout-operator", set]));
    let pod = &deployment(&rendered)["spec"]["template"]["spec"];
    let wanted = serde_json::json!({
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
        "supplementalGroups": [7],
    });
    assert_eq!(pod["securityContext"], wanted);
    let wanted = serde_json::json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": false,
        "capabilities": {"drop": ["ALL"]},
    });
    assert_eq!(pod["containers"][0]["securityContext"], wanted);
}

#[test]
fn further_variables_come_after_the_charts_own_and_never_in_their_place() {
    let helm = Helm::new();
    let further = "extraEnv[0].name=RUST_LOG,extraEnv[0].value=debug,\
                   extraEnv[1].name=NODE,extraEnv[1].valueFrom.fieldRef.fieldPath=spec.nodeName";
    let all = "watchNamespace=plant,requireSecretOptIn=true,podSecurity.setIds=false";
    let rendered = objects(&helm.run(&["template", "y", "fanout-operator", "--set", &format!("{further},{all}")]));
    let pod = &deployment(&rendered)["spec"]["template"]["spec"];
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    let (own, theirs) = variables.split_at(variables.len() - 2);
    assert_eq!(theirs[0], serde_json::json!({"name": "RUST_LOG", "value": "debug"}));
    assert_eq!(theirs[1]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
    let ports = ["METRICS_PORT", "ROUTER_PORT"];
    let names = own.iter().map(|variable| variable["name"].as_str().unwrap());
    for name in names.chain(ports) {
        let set = format!("--set=extraEnv[0].name={name},extraEnv[0].value=x");
        let said = helm.refusal(&["template", "y", "fanout-operator", &set]);
        assert!(
            said.contains(&format!("extraEnv: {name} is the chart's own variable")),
            "{said}"
        );
    }
    let said = helm.refusal(&["template", "y", "fanout-operator", "--set=extraEnv[0].name=LOG_LEVEL"]);
    assert!(said.contains("set the value log.level instead"), "{said}");
}

#[test]
fn common_labels_are_everywhere_but_in_selectors_and_in_the_place_of_others() {
    let helm = Helm::new();
    let common = "commonLabels.site=north,commonLabels.team=all,podLabels.team=plant,podMonitor.labels.team=watch,\
                  commonLabels.app\\.kubernetes\\.io/name=mine,\
                  commonLabels.rbac\\.authorization\\.k8s\\.io/aggregate-to-view=all";
    let render = |set: &str| {
        objects(&helm.run(&[
            "template",
            "y",
            "fanout-operator",
            "--set=podMonitor.enabled=true,prometheusRule.enabled=true,dashboards.enabled=true",
            "--set",
            set,
        ]))
    };
    let (plain, labelled) = (render("replicas=2"), render(common));
    assert_eq!(plain.len(), labelled.len());
    for (plain, labelled) in plain.iter().zip(&labelled) {
        let mut wanted = plain["metadata"]["labels"].as_object().unwrap().clone();
        wanted.insert("site".to_owned(), "north".into());
        let team = if plain["kind"] == "PodMonitor" { "watch" } else { "all" };
        wanted.insert("team".to_owned(), team.into());
        assert_eq!(labelled["metadata"]["labels"], Value::Object(wanted), "{labelled}");
        for selector in ["selector", "podSelector"] {
            assert_eq!(labelled["spec"][selector], plain["spec"][selector], "{labelled}");
        }
    }
    let pod = &deployment(&labelled)["spec"]["template"]["metadata"]["labels"];
    assert_eq!((&pod["site"], &pod["team"]), (&"north".into(), &"plant".into()));
    assert_eq!(pod["app.kubernetes.io/name"], "fanout-operator");
}

#[test]
fn services_leave_the_ip_families_to_the_cluster_unless_somebody_chooses() {
    let helm = Helm::new();
    let specs = |set: &str| -> Vec<Value> {
        let rendered = objects(&helm.run(&["template", "y", "fanout-operator", "--set", set]));
        let services = rendered.iter().filter(|object| object["kind"] == "Service");
        services.map(|service| service["spec"].clone()).collect()
    };
    let plain = specs("replicas=2");
    let chosen = specs("services.ipFamilyPolicy=PreferDualStack,services.ipFamilies={IPv6,IPv4}");
    assert_eq!((plain.len(), chosen.len()), (2, 2));
    for (plain, mut chosen) in plain.into_iter().zip(chosen) {
        let chosen_fields = chosen.as_object_mut().unwrap();
        assert_eq!(chosen_fields.remove("ipFamilyPolicy"), Some("PreferDualStack".into()));
        assert_eq!(
            chosen_fields.remove("ipFamilies"),
            Some(serde_json::json!(["IPv6", "IPv4"]))
        );
        assert_eq!(chosen, plain);
    }
}

/// A policy judges the port of the pod behind the Service. Most DNS pods listen at 53, OpenShift's at 5353.
#[test]
fn egress_lets_names_be_resolved_whatever_port_dns_pods_listen_at() {
    let helm = Helm::new();
    let rendered = objects(&helm.run(&[
        "template",
        "y",
        "fanout-operator",
        "--set=networkPolicy.egress.enabled=true",
    ]));
    let policy = rendered
        .iter()
        .find(|object| object["kind"] == "NetworkPolicy")
        .unwrap();
    let first = &policy["spec"]["egress"][0];
    assert_eq!(first.get("to"), None, "{first}");
    let ports = first["ports"].as_array().unwrap().iter();
    let ports: BTreeSet<_> = ports
        .map(|port| (port["port"].as_u64().unwrap(), port["protocol"].as_str().unwrap()))
        .collect();
    assert_eq!(
        ports,
        BTreeSet::from([(53, "TCP"), (53, "UDP"), (5353, "TCP"), (5353, "UDP")])
    );
}

/// The pods' listeners are the program's business; who looks for them by another name finds nothing.
#[test]
fn monitors_choose_the_operators_pods_and_the_forwarders() {
    let helm = Helm::new();
    for (set, chosen) in [
        ("watchNamespace=", serde_json::json!({"any": true})),
        ("watchNamespace=plant", serde_json::json!({"matchNames": ["plant"]})),
    ] {
        let set = format!("--set=podMonitor.enabled=true,podMonitor.labels.release=prometheus,{set}");
        let rendered = objects(&helm.run(&["template", "y", "fanout-operator", &set]));
        let monitors: Vec<_> = rendered
            .iter()
            .filter(|object| object["kind"] == "PodMonitor")
            .collect();
        let [operator, forwarders] = monitors[..] else {
            unreachable!("{monitors:?}")
        };
        assert_eq!(operator["metadata"]["labels"]["release"], "prometheus");
        let template = &deployment(&rendered)["spec"]["template"];
        let labels = template["metadata"]["labels"].as_object().unwrap();
        for (name, value) in operator["spec"]["selector"]["matchLabels"].as_object().unwrap() {
            assert_eq!(labels.get(name), Some(value));
        }
        let port = &operator["spec"]["podMetricsEndpoints"][0]["port"];
        let ports = template["spec"]["containers"][0]["ports"].as_array().unwrap();
        assert!(ports.iter().any(|named| &named["name"] == port), "{ports:?}");
        assert_eq!(forwarders["spec"]["namespaceSelector"], chosen);
        let named = &forwarders["spec"]["podMetricsEndpoints"][0]["relabelings"][0];
        assert_eq!(named["targetLabel"], "asset_forwarder", "the rules go by it");
    }
}

#[test]
fn a_cluster_without_the_definitions_is_told_of() {
    let helm = Helm::new();
    // Without asking a cluster, Helm knows the kinds of Kubernetes itself only.
    let said = helm.run(&["install", "y", "fanout-operator", "--dry-run=client"]);
    assert!(
        said.contains("WARNING: this cluster does not know NatsCluster, KafkaChannel, AssetForwarder"),
        "{said}"
    );
}

fn deployment(rendered: &[Value]) -> &Value {
    rendered.iter().find(|object| object["kind"] == "Deployment").unwrap()
}

/// What a variable of the operator's container is set to.
fn variable(pod: &Value, name: &str) -> Value {
    let variables = pod["containers"][0]["env"].as_array().unwrap();
    let found = variables.iter().find(|variable| variable["name"] == name);
    found.map_or(Value::Null, |variable| variable["value"].clone())
}

fn kinds(manifest: &str) -> BTreeSet<String> {
    objects(manifest)
        .iter()
        .map(|object| object["kind"].as_str().unwrap().to_owned())
        .collect()
}
