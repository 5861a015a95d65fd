//! The charts in a cluster: installed, tested, upgraded, uninstalled.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use e2e_rig::cluster::Cluster;
use e2e_rig::wait;
use serde_json::{Value, json};

use super::{Helm, objects, stdout, text};

/// Images that are there start within seconds; a machine of two cores that does other things as well needs longer.
const START: Duration = Duration::from_secs(90);

#[tokio::test]
async fn the_operator_is_installed_tested_upgraded_and_uninstalled() {
    let helm = Helm::new();
    definitions(&helm);
    let namespace = helm.cluster.namespace("chart").unwrap();
    // One namespace: an operator that watches all would meddle with the other tests.
    let own = format!(
        "--set=watchNamespace={},{},{}",
        namespace.name(),
        image("image", &helm.cluster.operator_image),
        image("forwarderImage", &helm.cluster.forwarder_image)
    );
    let place = format!("--namespace={}", namespace.name());
    let timeout = format!("--timeout={}s", START.as_secs());
    let common = ["fan", "fanout-operator", &place, &own, "--wait", &timeout];

    let said = helm.run(&[&["install"], &common[..]].concat());
    assert!(!said.contains("WARNING"), "{said}");
    namespace
        .wait(
            "deployment/fan-fanout-operator",
            "jsonpath={.status.readyReplicas}=2",
            START,
        )
        .unwrap();
    // One of its two pods leads.
    let holder = [
        "get",
        "lease",
        "fan-fanout-operator",
        "--output=jsonpath={.spec.holderIdentity}",
    ];
    namespace
        .wait("lease/fan-fanout-operator", "jsonpath={.spec.holderIdentity}", START)
        .unwrap();
    let leader = namespace.kubectl(&holder).unwrap();
    namespace.kubectl(&["get", "pod", &leader]).unwrap();

    let tested = helm.output(&["test", "fan", &place, &timeout]);
    assert!(
        tested.status.success(),
        "{}\nthe pod: {:?}",
        text(&tested.stderr),
        namespace.kubectl(&["logs", "fan-fanout-operator-test"])
    );

    // What a person declared is not the release's.
    namespace
        .apply(
            "apiVersion: fanout.openfactory.io/v1alpha1
kind: KafkaChannel
metadata: {name: stays}
spec:
  connection: {bootstrapServers: ['kafka.invalid:9092']}
  topic: {name: assets}
",
        )
        .unwrap();

    // Nor is the ring, here one with what older pods do not read.
    namespace
        .apply(
            "apiVersion: fanout.openfactory.io/v1alpha1
kind: NatsCluster
metadata: {name: c1, labels: {ring: main}}
spec:
  external: {servers: ['nats://c1.invalid:4222']}
  discoverServers: false
---
apiVersion: fanout.openfactory.io/v1alpha1
kind: AssetForwarder
metadata: {name: plant}
spec:
  replicas: 0
  sources: [{channelRef: {name: stays}, group: plant}]
  clusters: {selector: {matchLabels: {ring: main}}}
",
        )
        .unwrap();
    namespace.wait("configmap/plant-ring", "create", START).unwrap();
    let ring = ["get", "configmap", "plant-ring", "--output=jsonpath={.data}"];
    let declared = namespace.kubectl(&ring).unwrap();
    assert!(declared.contains("discoverServers: false"), "{declared}");

    helm.run(&[&["upgrade"], &common[..], &["--set=replicas=1,log.level=debug"]].concat());
    namespace
        .wait("deployment/fan-fanout-operator", "jsonpath={.status.replicas}=1", START)
        .unwrap();
    let budgets = ["get", "poddisruptionbudget", "--output=name"];
    assert_eq!(namespace.kubectl(&budgets).unwrap(), "");
    // The pod that led has released the Lease, and the new one takes it.
    wait::eventually(START, "an operator leads after the upgrade", || async {
        let leads = namespace.kubectl(&holder)?;
        anyhow::ensure!(!leads.is_empty() && leads != leader, "the holder is {leads:?}");
        Ok(true)
    })
    .await
    .unwrap();

    helm.run(&["rollback", "fan", "1", &place, "--wait", &timeout]);
    namespace
        .wait("deployment/fan-fanout-operator", "jsonpath={.status.replicas}=2", START)
        .unwrap();
    assert_eq!(namespace.kubectl(&ring).unwrap(), declared);
    let gone = ["delete", "assetforwarders,natsclusters", "--all", "--timeout=60s"];
    namespace.kubectl(&gone).unwrap();

    helm.run(&["uninstall", "fan", &place, "--wait", &timeout]);
    let selector = "--selector=app.kubernetes.io/instance=fan";
    // Helm does not wait for what its objects' deletion takes with it.
    namespace
        .kubectl(&["wait", "--for=delete", "pod", selector, "--timeout=60s"])
        .unwrap();
    for kinds in [
        "all",
        "rolebinding,role,serviceaccount,networkpolicy,poddisruptionbudget",
    ] {
        let left = namespace.kubectl(&["get", kinds, selector, "--output=name"]).unwrap();
        assert_eq!(left, "", "left behind");
    }
    namespace
        .kubectl(&["get", "kafkachannels.fanout.openfactory.io", "stays"])
        .unwrap();
}

/// The image by repository and tag.
fn image(value: &str, image: &str) -> String {
    let (repository, tag) = image.rsplit_once(':').unwrap();
    format!("{value}.repository={repository},{value}.tag={tag}")
}

/// Brings the definitions to the cluster that the tests share. The release is nobody's: other tests may do the same.
pub(super) fn definitions(helm: &Helm) {
    let rendered = helm.run(&["template", "fanout-crds", "fanout-crds"]);
    apply(&helm.cluster, &rendered);
    for object in objects(&rendered) {
        established(&helm.cluster, name(&object));
    }
}

fn apply(cluster: &Cluster, manifest: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), manifest).unwrap();
    let mut apply = cluster.program("kubectl");
    apply.args(["apply", "--server-side", "--force-conflicts", "--filename"]);
    stdout(apply.arg(file.path()));
}

fn established(cluster: &Cluster, name: &str) {
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=30s",
            &format!("crd/{name}"),
        ])
        .unwrap();
}

/// The chart under other names, so that the other tests' definitions stay as they are.
///
/// Its previous version is the present one without a field: a version taken from the repository's history would be missing from a shallow
/// checkout, and would have to be chosen anew after each release.
#[test]
fn an_upgrade_of_the_definitions_brings_new_fields_and_an_uninstall_leaves_them() {
    let helm = Helm::new();
    let namespace = helm.cluster.namespace("crds").unwrap();
    let group = format!("{}.example.com", namespace.name());
    let new = renamed(&helm, &group);
    let _guard = Definitions {
        cluster: helm.cluster.clone(),
        names: new.iter().map(|object| name(object).to_owned()).collect(),
    };
    let definition = format!("othernatsclusters.{group}");
    let work = tempfile::tempdir().unwrap();
    let (old_chart, new_chart) = (work.path().join("old"), work.path().join("new"));
    chart(&old_chart, "0.0.1", &older(&new, &definition));
    chart(&new_chart, "0.0.2", &new);
    let place = format!("--namespace={}", namespace.name());
    let release = |verb: &'static str, chart: &Path| {
        helm.run(&[verb, "crds", chart.to_str().unwrap(), &place, "--wait", "--timeout=60s"]);
        established(&helm.cluster, &definition);
    };

    release("install", &old_chart);
    let cluster = |drain: &str| {
        format!(
            "apiVersion: {group}/v1alpha1
kind: OtherNatsCluster
metadata: {{name: c1}}
spec: {{external: {{servers: ['nats://c1.invalid:4222']}}{drain}}}
"
        )
    };
    namespace.apply(&cluster("")).unwrap();
    let refusal = format!("{:#}", namespace.apply(&cluster(", drain: true")).unwrap_err());
    assert!(refusal.contains("unknown field \"spec.drain\""), "{refusal}");

    release("upgrade", &new_chart);
    namespace.apply(&cluster(", drain: true")).unwrap();

    helm.run(&["uninstall", "crds", &place, "--wait", "--timeout=60s"]);
    let drain = ["get", &definition, "c1", "--output=jsonpath={.spec.drain}"];
    assert_eq!(namespace.kubectl(&drain).unwrap(), "true");
    // And who comes back finds them again.
    release("install", &new_chart);
    assert_eq!(namespace.kubectl(&drain).unwrap(), "true");
}

/// Definitions of a group of a test's own; they go with it.
struct Definitions {
    cluster: Cluster,
    names: Vec<String>,
}

impl Drop for Definitions {
    fn drop(&mut self) {
        let mut delete = self.cluster.program("kubectl");
        delete.args(["delete", "crd", "--wait=false", "--ignore-not-found"]);
        delete.args(&self.names);
        // The cluster goes anyway.
        drop(delete.stdout(Stdio::null()).stderr(Stdio::null()).status());
    }
}

/// What the chart of the definitions renders, in another group. The words of the kinds are others too: kubectl takes the first group that
/// knows a word, and other tests mean ours.
fn renamed(helm: &Helm, group: &str) -> Vec<Value> {
    let mut objects = objects(&helm.run(&["template", "crds", "fanout-crds"]));
    for object in &mut objects {
        let spec = object["spec"].as_object_mut().unwrap();
        spec["group"] = group.into();
        let names = spec["names"].as_object_mut().unwrap();
        names.remove("shortNames");
        names.remove("categories");
        for word in ["plural", "singular"] {
            names[word] = format!("other{}", names[word].as_str().unwrap()).into();
        }
        names["kind"] = format!("Other{}", names["kind"].as_str().unwrap()).into();
        object["metadata"]["name"] = format!("{}.{group}", names["plural"].as_str().unwrap()).into();
    }
    objects
}

/// The same, without a field of one of them.
fn older(new: &[Value], definition: &str) -> Vec<Value> {
    let mut objects = new.to_vec();
    let object = objects.iter_mut().find(|object| name(object) == definition).unwrap();
    let schema = &mut object["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let fields = schema["properties"]["spec"]["properties"].as_object_mut().unwrap();
    assert!(fields.remove("drain").is_some(), "{fields:?}");
    objects
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

/// Writes a chart of these objects.
fn chart(dir: &Path, version: &str, objects: &[Value]) {
    fs::create_dir_all(dir.join("templates")).unwrap();
    let about = json!({"apiVersion": "v2", "name": "fanout-crds", "version": version});
    fs::write(dir.join("Chart.yaml"), about.to_string()).unwrap();
    for object in objects {
        // JSON is YAML, and without `{{` it is a template too.
        let content = object.to_string();
        assert!(!content.contains("{{"), "{content}");
        fs::write(dir.join(format!("templates/{}.yaml", name(object))), content).unwrap();
    }
}
