//! Flux's own controller with the examples of `charts/gitops/flux`: it installs the operator and resources, waits for their health, upgrades,
//! repairs drift and removes all of it.

use std::fs;
use std::path::Path;

use anyhow::ensure;
use crds::AssetForwarder;
use e2e_rig::flux::Flux;
use e2e_rig::kubernetes::Kubernetes;
use e2e_rig::site::{FORWARDER, PODS, Site, condition, status};
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::argo_cd::gitops;

/// Where the base installs the operator.
const SYSTEM: &str = "fanout-system";

#[tokio::test]
async fn flux_installs_waits_for_health_repairs_and_removes() {
    let plant = Plant::new().await;
    let (site, flux) = (&plant.site, &plant.flux);
    let mut forwarder = site.forwarder(1);
    forwarder["spec"]["sources"][0]["clientConfig"] = json!({"fetch.min.bytes": "a few"});
    let broken = plant.publish(&forwarder).await;
    plant.dry_run("flux/helm.yaml", "source.toolkit.fluxcd.io/").await;
    plant.apply(&plant.kustomizations()).await;

    // It can never work, so Flux does not wait for its timeout.
    plant
        .wait("plant", "its health check failed", |object| {
            let ready = ready(object);
            let message = ready["message"].as_str().unwrap_or_default();
            ensure!(
                ready["reason"] == "HealthCheckFailed"
                    && message.contains(&format!("AssetForwarder/{}/{FORWARDER}", plant.name())),
                "{ready}"
            );
            ensure!(object["status"]["lastAttemptedRevision"] == json!(broken));
            Ok(())
        })
        .await;
    plant.wait_applied("fanout-operator", None).await;

    // A revision that works: done when our own status says so, not before.
    let revision = plant.publish(&site.forwarder(1)).await;
    plant.wait_applied("plant", Some(&revision)).await;
    plant.is_ready().await;

    // One that rolls.
    let mut forwarder = site.forwarder(1);
    let image = site.namespace.kubernetes.cluster.forwarder_image_2.clone();
    forwarder["spec"]["image"] = json!(image);
    let revision = plant.publish(&forwarder).await;
    plant.wait_applied("plant", Some(&revision)).await;
    assert_eq!(status(&plant.is_ready().await).image, Some(image));

    // Nobody changes anything: nobody writes anything.
    site.wait_quiet().await;
    let settled = site.versions().await;
    let corrections = || {
        flux.log()
            .unwrap()
            .matches(&format!("AssetForwarder/{}/{FORWARDER} configured", plant.name()))
            .count()
    };
    let before = corrections();
    for _ in 0..3 {
        plant.reconcile("plant").await;
    }
    assert_eq!(site.versions().await, settled);
    assert_eq!(corrections(), before, "Flux has seen a drift");

    // A person changes what Flux has applied, and what the operator has made.
    let patch = r#"{"spec":{"replicas":0}}"#;
    let by_hand = ["patch", "assetforwarder", FORWARDER, "--type=merge", "--patch", patch];
    site.namespace.kubectl(&by_hand).await.unwrap();
    plant.reconcile("plant").await;
    assert_eq!(plant.is_ready().await.spec.replicas, 1);
    assert!(corrections() > before, "the log does not say what it was asked for");
    site.namespace
        .kubectl(&["scale", "deployment", FORWARDER, "--replicas=0"])
        .await
        .unwrap();
    plant
        .until("the operator puts it back", "deployment", FORWARDER, |found| {
            ensure!(found["spec"]["replicas"] == 1, "{}", found["spec"]["replicas"]);
            Ok(())
        })
        .await;

    // In this order, and each is gone when its Kustomization is.
    plant.delete(&["plant"]).await;
    assert_eq!(
        site.namespace.kubectl(&["get", "fanout", "-o", "name"]).await.unwrap(),
        ""
    );
    plant.delete(&["fanout-operator", "fanout-crds"]).await;
    plant
        .kubectl(&["wait", "--for=delete", &format!("namespace/{SYSTEM}"), "--timeout=60s"])
        .await;
    plant
        .kubectl(&["get", "crd", "assetforwarders.fanout.openfactory.io"])
        .await;
}

/// What Flux gets is what Helm renders; and nobody minds the order at the end.
#[tokio::test]
async fn long_flux_takes_rendered_charts_and_all_of_it_goes_at_once() {
    let plant = Plant::new().await;
    let mut files = vec![namespace()];
    for (chart, path) in [("fanout-crds", "crds"), ("fanout-operator", "operator")] {
        let from = gitops().join("..").join(chart);
        let template = [
            "template",
            chart,
            from.to_str().unwrap(),
            "--namespace",
            SYSTEM,
            "--skip-tests",
        ];
        let rendered = plant.site.namespace.kubernetes.helm(&template).await.unwrap();
        files.push((format!("charts/kustomize/{path}/rendered.yaml"), rendered));
    }
    plant
        .flux
        .publish(plant.name(), "fanout-operator", &files)
        .await
        .unwrap();
    let revision = plant.publish(&plant.site.forwarder(1)).await;
    plant.apply(&plant.kustomizations()).await;
    plant.wait_applied("plant", Some(&revision)).await;
    plant.is_ready().await;
    plant.site.wait_quiet().await;
    let settled = plant.site.versions().await;
    plant.reconcile("fanout-crds").await;
    plant.reconcile("fanout-operator").await;
    plant.reconcile("plant").await;
    assert_eq!(plant.site.versions().await, settled);

    let all = ["delete", "kustomizations", "--all", "--wait=false"];
    plant.site.namespace.kubectl(&all).await.unwrap();
    plant.gone("kustomizations", &["fanout-operator", "fanout-crds"]).await;
    plant
        .kubectl(&["wait", "--for=delete", &format!("namespace/{SYSTEM}"), "--timeout=60s"])
        .await;
    // The operator's rights went with it, so a cluster's finalizer finds nobody; the Kustomization waits for that. An operator is all it needs.
    plant.apply(&plant.kustomizations()[..2]).await;
    plant.gone("natsclusters,kafkachannels,assetforwarders", &[]).await;
    plant.gone("kustomizations", &["plant"]).await;
    plant.wait_applied("fanout-operator", None).await;
    plant.delete(&["fanout-operator", "fanout-crds"]).await;
}

/// Flux, the operator's source, and servers for a plant. Afterwards nothing of it is left in the cluster.
struct Plant {
    // First, so that it does not put back what the cleaner takes away.
    flux: Flux,
    _cleaner: Cleaner,
    site: Site,
}

impl Plant {
    async fn new() -> Self {
        let site = Site::new(PublishMode::Core, 1).await;
        // The one that Flux installs is to do the work.
        site.stop_operator().await;
        let kubernetes = site.namespace.kubernetes.clone();
        let flux = Flux::start(&kubernetes).await.unwrap();
        let plant = Self {
            _cleaner: Cleaner {
                namespace: site.namespace.name.clone(),
                kubernetes,
            },
            site,
            flux,
        };
        let base = files(&gitops().join("../kustomize"), "charts/kustomize");
        plant
            .flux
            .publish(plant.name(), "fanout-operator", &base)
            .await
            .unwrap();
        plant
    }

    fn name(&self) -> &str {
        &self.site.namespace.name
    }

    /// A new revision of the plant's source: a cluster, a channel and this forwarder.
    async fn publish(&self, forwarder: &Value) -> String {
        let objects = [self.site.cluster(0), self.site.channel(), forwarder.clone()];
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        let files = [("plant/plant.yaml".to_owned(), text.join("\n---\n"))];
        self.flux.publish(self.name(), "plant", &files).await.unwrap()
    }

    /// The example's Kustomizations: their source, their namespace and the images are ours.
    fn kustomizations(&self) -> Vec<Value> {
        let text = fs::read_to_string(gitops().join("flux/kustomize.yaml")).unwrap();
        let cluster = &self.site.namespace.kubernetes.cluster;
        let text = text.replace(
            "registry.example.com/fanout/fanout-forwarder:0.1.0",
            &cluster.forwarder_image,
        );
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let (image, tag) = cluster.operator_image.rsplit_once(':').unwrap();
        for object in &mut objects {
            object["metadata"]["namespace"] = json!(self.name());
            object["spec"]["sourceRef"]["kind"] = json!("ExternalArtifact");
            if object["metadata"]["name"] == "plant" {
                object["spec"]["targetNamespace"] = json!(self.name());
            }
            if let Some(images) = object["spec"].get_mut("images") {
                images[0]["newName"] = json!(image);
                images[0]["newTag"] = json!(tag);
            }
        }
        objects
    }

    async fn apply(&self, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        self.site.namespace.apply(&text.join("\n---\n")).await.unwrap();
    }

    /// The API server takes an example's objects of a group as they are, for all that it knows of the group's definitions.
    async fn dry_run(&self, example: &str, group: &str) {
        let text = fs::read_to_string(gitops().join(example)).unwrap();
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        objects.retain(|object| object["apiVersion"].as_str().unwrap().starts_with(group));
        assert!(!objects.is_empty(), "{example} has nothing of {group}");
        for mut object in objects {
            object["metadata"]["namespace"] = json!(self.name());
            let apply = ["apply", "--dry-run=server", "--validate=strict", "--filename=-"];
            let taken = self
                .site
                .namespace
                .kubernetes
                .kubectl(&apply, &object.to_string())
                .await;
            taken.unwrap();
        }
    }

    async fn kubectl(&self, args: &[&str]) -> String {
        self.site.namespace.kubernetes.kubectl(args, "").await.unwrap()
    }

    /// Waits until a Kustomization is as `holds` says.
    async fn wait(&self, name: &str, what: &str, holds: impl Fn(&Value) -> anyhow::Result<()>) -> Value {
        self.until(what, "kustomization", name, holds).await
    }

    async fn until(&self, what: &str, kind: &str, name: &str, holds: impl Fn(&Value) -> anyhow::Result<()>) -> Value {
        let waited = wait::value(PODS, &format!("{kind} {name}: {what}"), || async {
            let object = self.site.namespace.kubectl(&["get", kind, name, "-o", "json"]).await?;
            let object: Value = serde_json::from_str(&object)?;
            holds(&object)?;
            Ok(Some(object))
        })
        .await;
        match waited {
            Ok(found) => found,
            Err(error) => panic!("{error:#}\n{}", self.told().await),
        }
    }

    /// What everybody says who has a part in it, for a test that fails.
    async fn told(&self) -> String {
        let namespace = &self.site.namespace;
        let ours = namespace.kubectl(&["get", "fanout", "-o", "yaml"]).await;
        let operators = [
            "logs",
            "--namespace",
            SYSTEM,
            "--all-containers",
            "--prefix",
            "--tail=40",
        ];
        let operators = [&operators[..], &["--selector=app.kubernetes.io/name=fanout-operator"]].concat();
        let operators = namespace.kubernetes.kubectl(&operators, "").await;
        let pods = ["get", "pods", "--namespace", SYSTEM, "-o", "wide"];
        let pods = namespace.kubernetes.kubectl(&pods, "").await;
        let text = |part: anyhow::Result<String>| part.unwrap_or_else(|error| format!("{error:#}"));
        [text(ours), text(pods), text(operators), self.flux.log_tail()].join("\n")
    }

    /// Waits until Flux says that a revision, or any, is applied and healthy.
    async fn wait_applied(&self, name: &str, revision: Option<&str>) {
        self.wait(name, "it is applied and healthy", |object| {
            let applied = &object["status"]["lastAppliedRevision"];
            let is_it = revision.is_none_or(|revision| applied == revision);
            ensure!(ready(object)["status"] == "True" && is_it, "{}", object["status"]);
            Ok(())
        })
        .await;
    }

    /// The forwarder, which must be ready at this moment.
    async fn is_ready(&self) -> AssetForwarder {
        let forwarder = self.site.get().await;
        let found = status(&forwarder);
        assert_eq!(found.observed_generation, forwarder.metadata.generation, "{found:?}");
        assert_eq!(condition(&forwarder, "Ready").unwrap().status, "True", "{found:?}");
        forwarder
    }

    /// Asks Flux to look again, and waits until it has.
    async fn reconcile(&self, name: &str) {
        let mark = e2e_rig::kafka::unique("look");
        let annotation = format!("reconcile.fluxcd.io/requestedAt={mark}");
        let annotate = ["annotate", "--overwrite", "kustomization", name, &annotation];
        self.site.namespace.kubectl(&annotate).await.unwrap();
        self.wait(name, "it has been looked at again", |object| {
            let done = &object["status"]["lastHandledReconcileAt"];
            ensure!(
                *done == json!(mark) && ready(object)["status"] == "True",
                "{}",
                object["status"]
            );
            Ok(())
        })
        .await;
    }

    /// Waits until these objects, or all of the kinds, are gone.
    async fn gone(&self, kinds: &str, names: &[&str]) {
        let args = [&["get", kinds, "--ignore-not-found", "--output=name"], names].concat();
        let what = format!("{names:?} of {kinds} are gone");
        let gone = wait::eventually(PODS, &what, || async {
            let left = self.site.namespace.kubectl(&args).await?;
            ensure!(left.is_empty(), "{left}");
            Ok(true)
        });
        if let Err(error) = gone.await {
            panic!("{error:#}\n{}", self.told().await);
        }
    }

    /// Deletes Kustomizations at once, and waits until they are gone.
    async fn delete(&self, names: &[&str]) {
        let args = [&["delete", "kustomization", "--timeout=90s"], names].concat();
        let deleted = self.site.namespace.kubectl(&args).await;
        if let Err(error) = deleted {
            panic!("{error:#}\n{}", self.told().await);
        }
    }
}

fn ready(object: &Value) -> &Value {
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .find(|condition| condition["type"] == "Ready")
        .unwrap_or(&Value::Null)
}

fn namespace() -> (String, String) {
    let path = "charts/kustomize/operator/namespace.yaml";
    let text = fs::read_to_string(gitops().join("../..").join(path)).unwrap();
    (path.to_owned(), text)
}

/// All files below a directory, by their paths below `to`.
fn files(from: &Path, to: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{to}/{}", entry.file_name().to_str().unwrap());
        if entry.path().is_dir() {
            found.extend(files(&entry.path(), &name));
        } else {
            found.push((name, fs::read_to_string(entry.path()).unwrap()));
        }
    }
    found
}

/// An operator of all namespaces that a failed test leaves behind would work in those of other tests.
struct Cleaner {
    kubernetes: Kubernetes,
    namespace: String,
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        let kubectl = |args: &[&str]| self.kubernetes.cluster.kubectl(args);
        let kinds = "kustomizations,natsclusters,kafkachannels";
        let names = ["get", kinds, "--namespace", &self.namespace, "--output=name"];
        for name in kubectl(&names).unwrap_or_default().lines() {
            // Nobody will take finalizers off.
            let patch = r#"{"metadata":{"finalizers":null}}"#;
            let release = [
                "patch",
                name,
                "--namespace",
                &self.namespace,
                "--type=merge",
                "--patch",
                patch,
            ];
            drop(kubectl(&release));
        }
        drop(kubectl(&[
            "delete",
            "namespace",
            SYSTEM,
            "--ignore-not-found",
            "--timeout=60s",
        ]));
        let everywhere = "clusterroles,clusterrolebindings";
        let ours = "--selector=app.kubernetes.io/part-of=fanout";
        drop(kubectl(&["delete", everywhere, ours]));
    }
}
