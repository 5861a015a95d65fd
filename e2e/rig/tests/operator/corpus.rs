//! The definitions on a real API server: what it takes, what it refuses, and by which words.
//!
//! The manifests are in `crds/corpus`. Those in `refused` say in their first line what the refusal must hold. Of a file with two documents the
//! first is there already, and the second is its update. The same manifests are judged without a server by `crds/tests/manifests.rs`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e_rig::cluster::{Cluster, Namespace};
use e2e_rig::process::{Process, Spec};
use e2e_rig::{http, wait};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A definition is served within a second; a machine of two cores that does other things as well needs longer.
const START: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_api_server_takes_what_is_accepted() {
    let server = Server::start("accepted").await;
    let files = manifests("accepted");
    let mut wrong = Vec::new();
    for path in &files {
        if let Err(refusal) = server.judge(path).await {
            wrong.push(format!("{}: {refusal}", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(files.len() > 40, "{}", files.len());
}

#[tokio::test]
async fn the_api_server_refuses_what_can_never_work_and_says_why() {
    let server = Server::start("refused").await;
    let files = manifests("refused");
    let mut wrong = Vec::new();
    for path in &files {
        let reason = reason(path);
        match server.judge(path).await {
            Ok(()) => wrong.push(format!("{} is taken", path.display())),
            Err(refusal) if refusal.contains(&reason) => {}
            Err(refusal) => wrong.push(format!("{}: should say {reason:?}, and says {refusal}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(files.len() > 150, "{}", files.len());
}

#[tokio::test]
async fn the_examples_are_taken_as_they_are() {
    let server = Server::start("examples").await;
    for folder in ["quickstart", "joining", "full"] {
        for path in files(&charts().join("examples").join(folder)) {
            for mut document in documents(&path) {
                document["metadata"]["namespace"] = server.namespace.name().into();
                let (status, answer) = server.send("POST", &server.all(&document), STRICT, &document).await;
                assert_eq!(status, 201, "{}: {}", path.display(), answer["message"]);
            }
        }
    }
}

#[tokio::test]
async fn a_new_forwarder_says_that_nobody_has_looked_at_it_and_can_be_scaled() {
    let server = Server::start("scaled").await;
    let [forwarder] = &documents(&charts().join("examples/quickstart/asset-forwarder.yaml"))[..] else {
        panic!("the example holds one forwarder");
    };
    let mut forwarder = forwarder.clone();
    forwarder["metadata"]["namespace"] = server.namespace.name().into();
    forwarder["spec"].as_object_mut().unwrap().remove("replicas");
    let (_, answer) = server.send("POST", &server.all(&forwarder), CHANGE, &forwarder).await;
    assert_eq!(answer["status"], json!({"observedGeneration": -1}));
    // What was not written is not there, but for what autoscalers read.
    let mut expected = forwarder["spec"].clone();
    expected["replicas"] = 1.into();
    assert_eq!(answer["spec"], expected);

    server
        .namespace
        .kubectl(&["scale", "assetforwarder/assets", "--replicas=5"])
        .unwrap();
    let replicas = ["get", "af", "assets", "--output=jsonpath={.spec.replicas}"];
    assert_eq!(server.namespace.kubectl(&replicas).unwrap(), "5");
}

/// Nothing is stored, and unknown fields are refused: as kubectl asks for it.
const STRICT: &str = "?dryRun=All&fieldValidation=Strict";
/// What is sent is stored.
const CHANGE: &str = "?fieldValidation=Strict";

/// The API server with our definitions. kubectl speaks TLS with it for us: a request is then a matter of milliseconds.
struct Server {
    address: String,
    namespace: Namespace,
    _proxy: Process,
    _logs: TempDir,
}

impl Server {
    async fn start(name: &str) -> Self {
        let cluster = Cluster::of_this_run().unwrap();
        let definitions = charts().join("kustomize/crds");
        let definitions = definitions.to_str().unwrap();
        // Other tests do the same, under names of their own.
        let apply = [
            "apply",
            "--server-side",
            "--force-conflicts",
            "--kustomize",
            definitions,
        ];
        cluster.kubectl(&apply).unwrap();

        let logs = tempfile::tempdir().unwrap();
        let spec = Spec::new(
            "kubectl proxy",
            cluster.bin.join("kubectl"),
            logs.path().join("proxy.log"),
        )
        .args(["proxy", "--port=0"])
        .env("KUBECONFIG", &cluster.kubeconfig);
        let proxy = Process::start(spec).unwrap();
        let address = wait::value(START, "kubectl proxy serves", || {
            let log = proxy.log();
            async move {
                let log = log?;
                let line = log.lines().find_map(|line| line.strip_prefix("Starting to serve on "));
                Ok(line.map(str::to_owned))
            }
        })
        .await
        .unwrap();
        let namespace = cluster.namespace(name).unwrap();
        let server = Self {
            address,
            namespace,
            _proxy: proxy,
            _logs: logs,
        };
        for kind in ["NatsCluster", "KafkaChannel", "AssetForwarder"] {
            let path = server.all(&json!({"kind": kind}));
            wait::eventually(START, "the definitions are served", || async {
                Ok(http::get(&server.address, &path).await?.0 == 200)
            })
            .await
            .unwrap();
        }
        server
    }

    /// Whether the last document of a file is taken, after the ones before it; else what the API server says.
    async fn judge(&self, path: &Path) -> Result<(), String> {
        let documents = documents(path);
        let (last, before) = documents.split_last().unwrap();
        let Some(before) = before.last() else {
            let (status, answer) = self.send("POST", &self.all(last), STRICT, last).await;
            return verdict(status, &answer);
        };
        let (status, stored) = self.send("POST", &self.all(before), CHANGE, before).await;
        assert_eq!(status, 201, "{}: {}", path.display(), stored["message"]);
        let mut update = last.clone();
        update["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
        let one = format!("{}/{}", self.all(last), last["metadata"]["name"].as_str().unwrap());
        let (status, answer) = self.send("PUT", &one, STRICT, &update).await;
        let (deleted, _) = self.send("DELETE", &one, "", &json!({})).await;
        assert_eq!(deleted, 200, "{}", path.display());
        verdict(status, &answer)
    }

    async fn send(&self, method: &str, path: &str, query: &str, object: &Value) -> (u16, Value) {
        let (status, answer) = http::send(method, &self.address, &format!("{path}{query}"), &object.to_string())
            .await
            .unwrap();
        (status, serde_json::from_str(&answer).unwrap())
    }

    /// Where the objects of a document's kind are.
    fn all(&self, document: &Value) -> String {
        format!(
            "/apis/fanout.openfactory.io/v1alpha1/namespaces/{}/{}s",
            self.namespace.name(),
            document["kind"].as_str().unwrap().to_lowercase()
        )
    }
}

fn verdict(status: u16, answer: &Value) -> Result<(), String> {
    match status {
        200 | 201 => Ok(()),
        _ => Err(answer["message"].as_str().unwrap_or_default().to_owned()),
    }
}

fn charts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts")
}

fn manifests(folder: &str) -> Vec<PathBuf> {
    files(
        &Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../crds/corpus")
            .join(folder),
    )
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn documents(path: &Path) -> Vec<Value> {
    serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap()
}

fn reason(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let first = text.lines().next().unwrap();
    first.strip_prefix("# refused: ").unwrap().to_owned()
}
