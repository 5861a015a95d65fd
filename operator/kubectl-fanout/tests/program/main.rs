//! The program against an API server that we play, with pods behind its port-forward.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests fail by panicking; clippy lets only functions marked as tests do so, not their helpers"
)]

mod fake_api;
mod terminal;

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use self::fake_api::FakeApi;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// What a run has told.
struct Told {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

async fn run(api: &FakeApi, args: &[&str]) -> Told {
    let mut program = Command::new(env!("CARGO_BIN_EXE_kubectl-fanout"));
    program
        .args(["-n", "plant"])
        .args(args)
        .env("KUBECONFIG", api.kubeconfig())
        .kill_on_drop(true);
    let Output { status, stdout, stderr } = tokio::time::timeout(LONG, program.output()).await.unwrap().unwrap();
    Told {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

#[tokio::test]
async fn a_ring_is_shown_with_what_its_pods_say() {
    let api = FakeApi::start().await;
    let told = run(&api, &["ring", "assets", "-o", "json"]).await;
    assert_eq!((told.code, told.err.as_str()), (Some(0), ""), "{}", told.out);
    let ring = told.json();
    assert_eq!(ring["epoch"], 7);
    assert_eq!(ring["podsByEpoch"], json!({"7": 2}));
    assert_eq!((&ring["lag"], &ring["parkedRecords"]), (&json!(24), &json!(4)));
    assert_eq!(ring["pods"][1]["name"], "assets-5-b");
    assert_eq!(ring["clusters"][1]["connectedPods"], 2);

    let table = run(&api, &["ring", "assets"]).await.out;
    assert!(table.contains("epoch 7, converged: yes (2 × epoch 7"), "{table}");
    let yaml = run(&api, &["ring", "assets", "-o", "yaml"]).await.out;
    assert!(
        yaml.contains("\nepoch: 7\n") || yaml.starts_with("epoch: 7\n"),
        "{yaml}"
    );
}

#[tokio::test]
async fn a_ring_that_has_not_converged_is_an_exit_code() {
    let api = FakeApi::start().await;
    api.change(|state| state.epochs = [7, 6]);
    let told = run(&api, &["ring", "assets"]).await;
    assert_eq!(told.code, Some(5), "{}", told.out);
    assert!(told.out.contains("1 × epoch 6, 1 × epoch 7"), "{}", told.out);
}

#[tokio::test]
async fn the_owner_is_told_of_one_forwarder_and_of_all() {
    let api = FakeApi::start().await;
    let one = run(&api, &["where", "WTVB01-0001", "assets", "-o", "json"])
        .await
        .json();
    let all = run(&api, &["where", "WTVB01-0001", "-o", "json"]).await.json();
    assert_eq!(one, all, "there is one forwarder");
    let owner = &one["owners"][0];
    assert_eq!(owner["forwarder"], "plant/assets");
    let cluster = owner["cluster"].as_str().unwrap();
    assert_eq!(owner["urls"], json!([format!("nats://{cluster}:4222")]));
    assert_eq!(owner["change"], json!({"state": "done"}));
}

#[tokio::test]
async fn what_is_not_there_is_an_exit_code() {
    let api = FakeApi::start().await;
    for args in [
        &["ring", "other"][..],
        &["where", "a", "other"],
        &["diff", "assets", "--remove", "C9"],
        &["drain", "c9"],
    ] {
        let told = run(&api, args).await;
        assert_eq!(told.code, Some(3), "{args:?}: {}", told.err);
        assert!(told.err.starts_with("error: "), "{}", told.err);
    }
    assert_eq!(run(&api, &["diff", "assets"]).await.code, Some(2));
}

#[tokio::test]
async fn a_diff_takes_the_weight_of_the_cluster_that_is_declared() {
    let api = FakeApi::start().await;
    let diff = run(&api, &["diff", "assets", "--add", "C3", "-o", "json"]).await.json();
    assert_eq!(diff["after"][2], json!({"name": "C3", "weight": 2}));
    assert!(
        diff["moves"]
            .as_array()
            .unwrap()
            .iter()
            .all(|shift| shift["to"] == "C3"),
        "{diff}"
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a-1\na-2\na-3\n").unwrap();
    let sample = file.path().to_str().unwrap();
    let diff = run(
        &api,
        &["diff", "assets", "--remove", "c2", "--sample", sample, "-o", "json"],
    )
    .await
    .json();
    assert_eq!(diff["sample"]["assets"], 3);
    let none = run(&api, &["diff", "assets", "--remove", "C2", "--sample", "/none"]).await;
    assert_eq!(none.code, Some(1));
    assert!(none.err.contains("failed to read /none"), "{}", none.err);
}

#[tokio::test]
async fn who_lacks_rights_is_told_which_and_sees_the_rest() {
    let api = FakeApi::start().await;
    api.change(|state| state.forbidden = vec!["portforward"]);
    let told = run(&api, &["ring", "assets", "-o", "json"]).await;
    assert_eq!(
        told.code,
        Some(0),
        "the operator says that it has converged: {}",
        told.err
    );
    assert_eq!(told.err.lines().count(), 1, "not once for each pod: {}", told.err);
    assert!(
        told.err
            .contains("get and create on pods/portforward in the namespace plant"),
        "{}",
        told.err
    );
    let ring = told.json();
    assert_eq!((&ring["lag"], &ring["epoch"]), (&Value::Null, &json!(7)));
    assert_eq!(ring["notRead"][0]["missingRight"]["resource"], "pods/portforward");

    api.change(|state| state.forbidden = vec!["configmaps", "pods"]);
    let told = run(&api, &["ring", "assets"]).await;
    assert_eq!(told.code, Some(0), "{}", told.err);
    for right in ["get on configmaps", "list on pods"] {
        assert!(told.err.contains(right), "{}", told.err);
    }
    assert!(told.out.contains("lag ?") && told.out.contains("C1"), "{}", told.out);
    let told = run(&api, &["where", "a", "assets"]).await;
    assert_eq!(told.code, Some(4), "{}", told.err);

    api.change(|state| state.forbidden = vec!["assetforwarders"]);
    let told = run(&api, &["ring", "assets"]).await;
    assert_eq!(told.code, Some(4));
    assert!(
        told.err.contains("get on assetforwarders.fanout.openfactory.io"),
        "{}",
        told.err
    );
}

#[tokio::test]
async fn a_pod_that_never_answers_is_not_waited_for() {
    let api = FakeApi::start().await;
    api.change(|state| state.mute = Some("assets-5-b"));
    let told = run(&api, &["ring", "assets", "-o", "json"]).await;
    let ring = told.json();
    assert_eq!(ring["pods"][1]["problem"], "no answer within 3 s");
    assert_eq!((&ring["silentPods"], &ring["waitingAssets"]), (&json!(1), &Value::Null));
    assert_eq!(ring["pods"][0]["epoch"], 7);
}

#[tokio::test]
async fn a_forwarder_is_suspended_and_goes_on() {
    let api = FakeApi::start().await;
    let told = run(&api, &["suspend", "assets", "--wait", "--timeout", "30s"]).await;
    assert_eq!(told.code, Some(0), "{}", told.err);
    assert_eq!(told.out, "plant/assets is suspended: no pods run, and offsets stay\n");
    assert_eq!(api.forwarder()["spec"]["suspend"], true);
    let told = run(&api, &["resume", "assets", "--wait"]).await;
    assert_eq!(
        (told.code, told.out.as_str()),
        (Some(0), "plant/assets goes on and is ready\n")
    );
    assert_eq!(api.forwarder()["spec"]["suspend"], false);
    api.change(|state| state.operator_works = false);
    let told = run(&api, &["suspend", "assets", "--wait", "--timeout", "2s"]).await;
    assert_eq!(told.code, Some(5), "{}", told.err);
    assert!(told.err.contains("not done within 2 s"), "{}", told.err);
}

#[tokio::test]
async fn a_cluster_is_drained_by_either_name() {
    let api = FakeApi::start().await;
    for name in ["c2", "C2"] {
        let told = run(&api, &["drain", name, "--wait", "-o", "json"]).await;
        assert_eq!(told.code, Some(0), "{}", told.err);
        assert_eq!(told.json()["drained"], true);
    }
    api.change(|state| state.operator_works = false);
    let told = run(&api, &["drain", "c1", "--wait", "--timeout", "2s"]).await;
    assert_eq!(told.code, Some(5), "{}", told.err);
    assert!(
        told.err.contains("plant/assets holds 8 records for it (2 × epoch 7)"),
        "{}",
        told.err
    );
}

#[tokio::test]
async fn readings_of_a_watch_are_lines_where_there_is_no_terminal() {
    let api = FakeApi::start().await;
    let told = run(&api, &["watch", "assets", "--interval", "1s", "--count", "2"]).await;
    assert_eq!(told.code, Some(0), "{}", told.err);
    let lines: Vec<&str> = told.out.lines().collect();
    assert_eq!(lines.len(), 2, "{}", told.out);
    assert!(lines[0].contains(" rate=?/s lag=24 "), "{}", lines[0]);
    // Each request for metrics finds ten more records of each cluster.
    assert!(!lines[1].contains("?/s"), "{}", lines[1]);
    let documents = run(&api, &["watch", "assets", "--count", "1", "-o", "json"]).await;
    assert_eq!(documents.json()["clusters"][0]["name"], "C1");
}
