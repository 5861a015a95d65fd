//! The plugin of kubectl: each command, run as a person runs it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::ensure;
use e2e_rig::cluster::Cluster;
use e2e_rig::forwarder::built;
use e2e_rig::site::{FORWARDER, PODS, Site, status};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;

use crate::judge;

/// What is pending in a second of a test's traffic.
const PENDING: u64 = 500;

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

    /// The output of a run that must have gone well.
    fn fine(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self
    }
}

/// Runs `kubectl fanout` in the site's namespace, as whoever the kubeconfig says.
async fn run_as(site: &Site, kubeconfig: Option<&Path>, args: &[&str]) -> Told {
    let mut kubectl = site.namespace.kubernetes.cluster.program("kubectl");
    kubectl
        .args(["fanout", "--namespace", &site.namespace.name])
        .args(args)
        .env("PATH", path());
    if let Some(kubeconfig) = kubeconfig {
        kubectl.env("KUBECONFIG", kubeconfig);
    }
    let Output { status, stdout, stderr } = spawn_blocking(move || kubectl.output()).await.unwrap().unwrap();
    Told {
        code: status.code(),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

async fn run(site: &Site, args: &[&str]) -> Told {
    run_as(site, None, args).await
}

/// The PATH, on which kubectl finds the plugin of this checkout first.
fn path() -> OsString {
    let plugin = built("kubectl-fanout").unwrap();
    let first = plugin.parent().map(Path::to_owned);
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = first.into_iter().chain(std::env::split_paths(&others)).collect();
    std::env::join_paths(all).unwrap()
}

/// What `where` says of the only forwarder.
async fn owner(site: &Site, asset: &str) -> Value {
    let told = run(site, &["where", asset, FORWARDER, "--output=json"]).await.fine();
    told.json()["owners"][0].clone()
}

#[tokio::test]
async fn where_and_ring_say_what_the_ring_says_and_where_records_went() {
    let site = Site::new(PublishMode::Core, 3).await;
    let forwarder = site.start(2).await;
    site.stage.traffic.send(300).await.unwrap();
    judge::exactly_once(&site).await;

    let declared = status(&forwarder).ring.unwrap();
    let ring = wait::value(SOON, "all is told as committed", || async {
        let told = run(&site, &["ring", FORWARDER, "--output=json"]).await;
        ensure!(told.code == Some(0), "{}{}", told.out, told.err);
        let ring = told.json();
        Ok((ring["lag"] == 0).then_some(ring))
    })
    .await
    .unwrap();
    assert_eq!(ring["epoch"], declared.epoch);
    assert_eq!(ring["podsByEpoch"], json!({declared.epoch.to_string(): 2}));
    let clusters = ring["clusters"].as_array().unwrap();
    let names: Vec<&str> = clusters
        .iter()
        .map(|cluster| cluster["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, declared.names);
    let shares: f64 = clusters.iter().map(|cluster| cluster["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{ring}");
    assert_eq!((&ring["parkedRecords"], &ring["notRead"]), (&json!(0), &json!([])));

    let (ledger, tally) = (site.stage.traffic.ledger(), site.stage.tally().await);
    let sent: Vec<u32> = (0..ledger.assets())
        .filter(|asset| tally.of_asset(*asset) > 0)
        .take(3)
        .collect();
    assert_eq!(sent.len(), 3);
    for asset in sent {
        let key = ledger.key(asset);
        let owner = owner(&site, &key).await;
        let place = usize::from(tally.clusters_of(asset)[0]);
        let (name, nats) = &site.stage.clusters[place];
        assert_eq!(owner["cluster"], name.as_str(), "{key} went there");
        assert_eq!(owner["urls"], json!([nats.url()]));
        assert_eq!(owner["change"]["state"], "done");
        let (code, answer) = site.route(&format!("/asset/{key}")).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((code, &answer["cluster_name"]), (200, &owner["cluster"]));
        assert_eq!(answer["ring_epoch"], owner["ringEpoch"]);
    }

    let version = run(&site, &["version"]).await.fine();
    assert!(version.out.starts_with("kubectl-fanout "), "{}", version.out);
    let bash = run(&site, &["completions", "bash"]).await.fine();
    assert!(bash.out.contains("kubectl-fanout"), "{}", bash.out);
    assert_eq!(run(&site, &["ring", "nobody"]).await.code, Some(3));
    assert_eq!(run(&site, &["ring"]).await.code, Some(2));
}

#[tokio::test]
async fn what_diff_says_is_what_moves() {
    let site = Site::new(PublishMode::Core, 3).await;
    site.apply(&[site.cluster(0), site.cluster(1), site.channel(), site.forwarder(1)])
        .await;
    let forwarder = site.wait_ring(&["C1", "C2"], 0).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;
    let ledger = site.stage.traffic.ledger();
    let keys: String = (0..ledger.assets()).map(|asset| ledger.key(asset) + "\n").collect();
    let sample = NamedTempFile::new().unwrap();
    fs::write(sample.path(), keys).unwrap();
    let file = format!("--sample={}", sample.path().display());
    let join = ["diff", FORWARDER, "--add=C3", &file, "--examples=1000", "--output=json"];
    let diff = run(&site, &join).await.fine().json();
    assert_eq!(diff["ringEpoch"], epoch);
    let examples = diff["sample"]["examples"].as_array().unwrap().clone();
    assert!(!examples.is_empty(), "{diff}");
    for example in examples.iter().take(2) {
        let owner = owner(&site, example["asset"].as_str().unwrap()).await;
        assert_eq!(owner["cluster"], example["from"], "before");
    }

    site.apply(&[site.cluster(2)]).await;
    let forwarder = site.wait_ring(&["C1", "C2", "C3"], epoch).await;
    let moved = format!("{:.1}", diff["movedShare"].as_f64().unwrap() * 100.0);
    let ring = status(&forwarder).ring.unwrap();
    assert_eq!(ring.moved_percent, Some(moved), "the operator has measured the same");
    for example in examples.iter().take(2) {
        let owner = owner(&site, example["asset"].as_str().unwrap()).await;
        assert_eq!(
            (&owner["cluster"], &example["to"]),
            (&json!("C3"), &json!("C3")),
            "after"
        );
    }

    // Back again, by the name of the object.
    let leave = ["diff", FORWARDER, "--remove=c3", "--output=json"];
    let back = run(&site, &leave).await.fine().json();
    assert_eq!(back["movedShare"], diff["movedShare"]);
    let unknown = run(&site, &["diff", FORWARDER, "--remove=C9"]).await;
    assert_eq!(unknown.code, Some(3));
    assert!(unknown.err.contains("C1, C2, C3"), "{}", unknown.err);
}

#[tokio::test]
async fn suspend_resume_and_drain_end_when_it_is_done() {
    let site = Site::new(PublishMode::Core, 2).await;
    site.start(1).await;
    let flow = site.stage.flow(500);
    run(&site, &["suspend", FORWARDER, "--wait", "--timeout=2m"])
        .await
        .fine();
    let pods = site.namespace.pods(FORWARDER).await.unwrap();
    assert_eq!(pods.len(), 0, "no pod is left");
    assert_eq!(
        run(&site, &["ring", FORWARDER]).await.code,
        Some(0),
        "nobody uses another ring"
    );
    run(&site, &["resume", FORWARDER, "--wait", "--timeout=2m"])
        .await
        .fine();
    let forwarder = site.wait_ready().await;
    let epoch = status(&forwarder).ring.unwrap().epoch;

    // By its name in rings.
    let told = run(&site, &["drain", "C1", "--wait", "--timeout=2m", "--output=json"]).await;
    let told = told.fine();
    let drain = told.json();
    assert_eq!((&drain["drained"], &drain["name"]), (&json!(true), &json!("c1")));
    site.wait_ring(&["C2"], epoch).await;
    let statuses = judge::pod_statuses(&site).await.unwrap();
    for status in &statuses {
        let held = &status["clusters"]["C1"]["pendingRecords"];
        assert!(held.is_null() || held == 0, "{status}");
    }
    flow.stop().await.unwrap();
    judge::repeated_at_most(&site, PENDING).await;

    // Nobody does what is declared.
    site.stop_operator().await;
    let told = run(&site, &["suspend", FORWARDER, "--wait", "--timeout=3s"]).await;
    assert_eq!(told.code, Some(5), "{}", told.err);
    assert!(told.err.contains("not done within 3 s"), "{}", told.err);
}

/// A kubeconfig with the token of an account, which the manifest declares with its rights.
async fn account(site: &Site, rules: Value) -> NamedTempFile {
    let (namespace, name) = (&site.namespace.name, "few");
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules,
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    });
    site.apply(&[account, role, binding]).await;
    let token = site.namespace.kubectl(&["create", "token", name]).await.unwrap();
    let cluster: &Cluster = &site.namespace.kubernetes.cluster;
    let text = fs::read_to_string(&cluster.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), config.to_string()).unwrap();
    file
}

#[tokio::test]
async fn who_lacks_rights_is_told_which_and_sees_the_rest() {
    let site = Site::new(PublishMode::Core, 1).await;
    let forwarder = site.start(1).await;
    let epoch = status(&forwarder).ring.unwrap().epoch;
    let mut rules = vec![
        json!({"apiGroups": ["fanout.openfactory.io"], "resources": ["assetforwarders"], "verbs": ["get"]}),
        json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}),
    ];
    let namespace = &site.namespace.name;
    for (further, missing) in [
        (None, "list on pods in the namespace"),
        (
            Some(json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]})),
            "get and create on pods/portforward in the namespace",
        ),
    ] {
        rules.extend(further);
        let kubeconfig = account(&site, json!(rules)).await;
        let missing = format!("you lack the right {missing} {namespace}");
        // The API server reads roles from a cache of its own.
        let ring = wait::value(SOON, "the right is named, and the rest is shown", || async {
            let told = run_as(&site, Some(kubeconfig.path()), &["ring", FORWARDER, "--output=json"]).await;
            ensure!(told.code == Some(0), "{:?}: {}{}", told.code, told.out, told.err);
            ensure!(told.err.contains(&missing), "{}", told.err);
            Ok(Some(told.json()))
        })
        .await
        .unwrap();
        assert_eq!((&ring["epoch"], &ring["lag"]), (&json!(epoch), &Value::Null));
        assert_eq!(ring["clusters"][0]["share"], 1.0);
        let told = run_as(&site, Some(kubeconfig.path()), &["where", "any", FORWARDER]).await;
        assert!(told.fine().out.contains("C1"));
    }
    let kubeconfig = account(&site, json!(rules)).await;
    for (args, missing) in [
        (["suspend", FORWARDER], "patch on assetforwarders.fanout.openfactory.io"),
        (["drain", "c1"], "patch on natsclusters.fanout.openfactory.io"),
        (["where", "any"], "list on assetforwarders.fanout.openfactory.io"),
    ] {
        let told = run_as(&site, Some(kubeconfig.path()), &args).await;
        assert_eq!(told.code, Some(4), "{args:?}: {}{}", told.out, told.err);
        assert!(told.err.contains(missing), "{}", told.err);
    }
}

/// What a page of `watch` begins with, and what ends all of them.
const PAGE: &str = "\u{1b}[H";
const CLOSE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// Watches the forwarder on a terminal of so many columns until a page is as `holds` says, then interrupts. Yields the pages.
fn watch(cluster: &Cluster, namespace: &str, columns: u16, holds: impl Fn(&str) -> bool) -> Vec<String> {
    let size = Winsize {
        ws_row: 40,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
    let (sender, shown) = mpsc::channel();
    thread::spawn(move || {
        let (mut master, mut buffer) = (File::from(master), [0; 4096]);
        // It fails when the other side is gone.
        while let Ok(read @ 1..) = master.read(&mut buffer) {
            drop(sender.send(buffer[..read].to_vec()));
        }
    });
    let mut program = Command::new(built("kubectl-fanout").unwrap());
    program
        .args(["--namespace", namespace, "watch", FORWARDER, "--interval=1s"])
        .env("KUBECONFIG", &cluster.kubeconfig)
        .stdin(Stdio::null())
        .stdout(slave);
    let mut child = program.spawn().unwrap();
    // It has its own copy of the terminal.
    drop(program);
    let (deadline, mut told, mut is_interrupted) = (Instant::now() + PODS, Vec::new(), false);
    while let Ok(more) = shown.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        told.extend(more);
        let text = String::from_utf8_lossy(&told);
        if !is_interrupted && text.split(PAGE).skip(1).any(&holds) {
            kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
            is_interrupted = true;
        }
    }
    if !is_interrupted {
        child.kill().unwrap();
    }
    let exit = child.wait().unwrap();
    let told = String::from_utf8(told).unwrap();
    assert_eq!(exit.code(), Some(0), "{told}");
    assert!(told.ends_with(CLOSE), "{told:?}");
    told.split(PAGE).skip(1).map(str::to_owned).collect()
}

#[tokio::test]
async fn watch_shows_rates_on_a_terminal_and_gives_it_back() {
    const COLUMNS: u16 = 60;
    let site = Site::new(PublishMode::Core, 2).await;
    site.start(1).await;
    let flow = site.stage.flow(500);
    let (cluster, namespace) = (site.namespace.kubernetes.cluster.clone(), site.namespace.name.clone());
    let has_rate = |page: &str| {
        let rate = page.split_once("rate ").and_then(|(_, rest)| rest.split_once("/s"));
        rate.is_some_and(|(rate, _)| rate.parse::<f64>().is_ok_and(|rate| rate > 100.0))
    };
    let pages = spawn_blocking(move || watch(&cluster, &namespace, COLUMNS, has_rate))
        .await
        .unwrap();
    for line in pages.iter().flat_map(|page| page.split("\r\n")) {
        let text = line.split('\u{1b}').next().unwrap();
        assert!(text.chars().count() <= usize::from(COLUMNS), "{line:?}");
    }
    let last = pages.last().unwrap();
    assert!(last.contains("C1 ") && last.contains("C2 "), "{last}");

    let lines = run(&site, &["watch", FORWARDER, "--interval=1s", "--count=2"])
        .await
        .fine();
    assert_eq!(lines.out.lines().count(), 2, "{}", lines.out);
    let second = lines.out.lines().last().unwrap();
    assert!(second.contains("converged=1/1") && !second.contains('?'), "{second}");
    flow.stop().await.unwrap();
    judge::exactly_once(&site).await;
}
