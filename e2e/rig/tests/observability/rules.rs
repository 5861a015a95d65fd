//! Rules and dashboard: each alert fires when it should and only then, and everything in them names metrics and labels that there are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e_rig::kubernetes::Kubernetes;
use e2e_rig::prometheus::{Prometheus, Target};
use e2e_rig::site::Site;
use e2e_rig::stage::SOON;
use e2e_rig::{tools, wait};
use forwarder_core::document::PublishMode;
use serde_json::Value;

/// Metrics whose series begin with their first fault, with the labels and the source that says so: a system in health shows none.
const OF_FAULTS: [(&str, &[&str], &str); 3] = [
    (
        "asset_forwarder_missing_offsets_total",
        &["topic", "partition"],
        include_str!("../../../../forwarder/src/metrics.rs"),
    ),
    (
        "asset_forwarder_damaged_batches_total",
        &["topic", "partition"],
        include_str!("../../../../forwarder/src/metrics.rs"),
    ),
    (
        "fanout_operator_reconcile_errors_total",
        &["controller", "reason"],
        include_str!("../../../../operator/src/metrics.rs"),
    ),
];

/// Panels that are empty in health beside those of [`OF_FAULTS`]: they list what is not ready.
const LISTS_OF_FAULTS: [&str; 1] = ["fanout_operator_resource_ready == 0"];

/// Of the forwarder's own labels and of what the chart's PodMonitors set, the latter.
const OF_THE_SCRAPE: [&str; 4] = ["job", "instance", "namespace", "asset_forwarder"];

const RULES: [&str; 3] = ["forwarder-alerts", "forwarder-recording", "operator-alerts"];

#[test]
fn each_alert_fires_when_it_should_and_only_then() {
    let promtool = |args: &[&str], files: &[PathBuf]| {
        let mut promtool = Command::new(tools::prometheus("promtool").unwrap());
        let output = promtool.args(args).args(files).output().unwrap();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{}", said.concat());
    };
    promtool(&["check", "rules"], &RULES.map(rule_file));
    promtool(&["test", "rules"], &RULES.map(test_file));
}

/// A rule without a test, or one that tells nobody what to do, is not finished.
#[test]
fn each_rule_is_tested_both_ways_and_says_what_to_do() {
    for name in RULES {
        let tests = yaml(&test_file(name));
        let mut expected = BTreeMap::<&str, Vec<&Value>>::new();
        for test in list(&tests["tests"])
            .iter()
            .flat_map(|test| list(&test["promql_expr_test"]))
        {
            let subject = text(&test["expr"]).trim_start_matches("ALERTS{alertname=\"");
            let subject = subject.split('"').next().unwrap_or_default();
            expected.entry(subject).or_default().push(&test["exp_samples"]);
        }
        for rule in rules(&yaml(&rule_file(name))) {
            let Some(alert) = rule["alert"].as_str() else {
                let recorded = text(&rule["record"]);
                assert!(expected.contains_key(recorded), "{recorded} has no test");
                continue;
            };
            let samples = expected.get(alert).map(Vec::as_slice).unwrap_or_default();
            let firing: Vec<_> = samples.iter().flat_map(|samples| list(samples)).collect();
            assert!(!firing.is_empty(), "no test has {alert} fire");
            assert!(
                samples.iter().any(|samples| list(samples).is_empty()),
                "no test has {alert} stay quiet"
            );
            let severity = text(&rule["labels"]["severity"]);
            assert!(["critical", "warning", "info"].contains(&severity), "{alert}");
            for said in ["summary", "description", "runbook"] {
                let said = text(&rule["annotations"][said]);
                assert!(said.len() > 20, "{alert} says {said:?}");
                for label in said.split("$labels.").skip(1) {
                    let label = label
                        .split(|c: char| !c.is_alphanumeric() && c != '_')
                        .next()
                        .unwrap_or_default();
                    let has = firing
                        .iter()
                        .all(|sample| text(&sample["labels"]).contains(&format!("{label}=")));
                    assert!(has, "{alert} speaks of {label}, which it does not have");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_the_chart_brings_is_what_the_files_say() {
    let chart = chart();
    let kubernetes = Kubernetes::of_run().await.unwrap();
    let set = "--set=prometheusRule.enabled=true,prometheusRule.labels.release=p,dashboards.enabled=true";
    let args = ["template", "y", chart.to_str().unwrap(), set];
    let rendered: Vec<Value> = serde_saphyr::from_multiple(&kubernetes.helm(&args).await.unwrap()).unwrap();
    let of = |kind: &str| rendered.iter().find(|object| object["kind"] == kind).unwrap();
    let groups: Vec<Value> = RULES
        .iter()
        .flat_map(|name| list(&yaml(&rule_file(name))["groups"]).to_vec())
        .collect();
    assert_eq!(of("PrometheusRule")["spec"]["groups"], Value::from(groups));
    assert_eq!(of("PrometheusRule")["metadata"]["labels"]["release"], "p");
    let dashboard = of("ConfigMap");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let shown: Value = serde_json::from_str(text(&dashboard["data"]["fanout.json"])).unwrap();
    assert_eq!(shown, dashboard_file());
    let off = kubernetes
        .helm(&["template", "y", chart.to_str().unwrap()])
        .await
        .unwrap();
    for kind in ["kind: PrometheusRule", "kind: ConfigMap"] {
        assert!(!off.contains(kind), "{kind} is there by default");
    }
}

/// In a healthy system every panel shows something, no alert fires, and what the rules' tests feed looks like what is really there.
#[tokio::test]
async fn every_expression_is_answered_by_a_real_prometheus() {
    let site = Site::new(PublishMode::Core, 2).await;
    // The operator has resources to look at; what forwards is a process, for pods cannot be reached from here.
    site.apply(&[site.cluster(0), site.cluster(1), site.channel(), site.forwarder(0)])
        .await;
    let forwarder = site.stage.start("forwarder", &site.stage.config()).await;
    let target = |address: String, further: &[(&str, &str)]| Target {
        address,
        labels: further
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    };
    let targets = [
        target(
            forwarder.admin_address(),
            &[("namespace", "plant"), ("asset_forwarder", "assets")],
        ),
        target(site.operator_metrics_address().await, &[("namespace", "fanout-system")]),
    ];
    let files = RULES.map(rule_file);
    let prometheus = Prometheus::start(&targets, &files.each_ref().map(PathBuf::as_path))
        .await
        .unwrap();
    let flow = site.stage.flow(500);
    site.wait_ready().await;
    wait::eventually(SOON, "there are samples of a settled system", || async {
        let scraped = prometheus
            .query("min(count_over_time(up[1m])) >= 8 and min(up) == 1")
            .await?;
        let ready =
            prometheus.query("min(fanout_operator_resource_ready) == 1 and count(fanout_operator_resource_ready) == 4");
        let flows = prometheus.query("min(rate(asset_forwarder_nats_messages_published_total[5s])) > 0");
        Ok(!scraped.is_empty() && !ready.await?.is_empty() && !flows.await?.is_empty())
    })
    .await
    .unwrap();

    let of_faults = |expression: &str| OF_FAULTS.iter().any(|(name, ..)| expression.contains(name));
    let mut faults = Vec::new();
    for expression in expressions(&dashboard_file()) {
        let answer = prometheus.query(&as_grafana_would(&expression)).await;
        match answer {
            Err(error) => faults.push(format!("{expression}: {error:#}")),
            Ok(series) if series.is_empty() => {
                if !of_faults(&expression) && !LISTS_OF_FAULTS.contains(&expression.as_str()) {
                    faults.push(format!("{expression}: shows nothing"));
                }
            }
            Ok(_) => {}
        }
    }
    for name in RULES {
        for rule in rules(&yaml(&rule_file(name))) {
            let (is_alert, expression) = (rule["alert"].is_string(), text(&rule["expr"]));
            match prometheus.query(expression).await {
                Err(error) => faults.push(format!("{expression}: {error:#}")),
                Ok(series) if series.is_empty() != is_alert => faults.push(format!("{rule} yields {series:?}")),
                Ok(_) => {}
            }
        }
        for series in tested_series(name) {
            faults.extend(unlike_reality(&prometheus, &series).await);
        }
    }
    for rule in prometheus.rules().await.unwrap() {
        if rule["health"] == "err" || rule["state"].as_str().is_some_and(|state| state == "firing") {
            faults.push(rule.to_string());
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    flow.stop().await.unwrap();
    site.stage.verdict().await.check().unwrap();
}

/// What is wrong with a series of a rule's test: no metric of that name is there, or not with these labels.
async fn unlike_reality(prometheus: &Prometheus, series: &str) -> Option<String> {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let labels: BTreeSet<&str> = labels
        .split(", ")
        .filter_map(|label| label.split_once('=').map(|(name, _)| name))
        .filter(|label| !OF_THE_SCRAPE.contains(label) && !["pod", "le"].contains(label))
        .collect();
    if let Some((_, known, source)) = OF_FAULTS.iter().find(|(of, ..)| *of == name) {
        let same = labels == known.iter().copied().collect();
        return (!same || !source.contains(&format!("\"{name}\""))).then(|| format!("{series} is unlike {known:?}"));
    }
    let found = match prometheus.query(name).await {
        Ok(found) => found,
        Err(error) => return Some(format!("{series}: {error:#}")),
    };
    let matches = found
        .iter()
        .any(|(real, _)| labels.iter().all(|label| real.contains_key(*label)));
    (!matches).then(|| format!("{series} is like nothing that is there: {:?}", found.first()))
}

fn tested_series(name: &str) -> BTreeSet<String> {
    let tests = yaml(&test_file(name));
    let inputs = list(&tests["tests"])
        .iter()
        .flat_map(|test| list(&test["input_series"]));
    inputs.map(|input| text(&input["series"]).to_owned()).collect()
}

/// The expressions of all panels.
fn expressions(dashboard: &Value) -> BTreeSet<String> {
    let targets = list(&dashboard["panels"])
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let expressions: BTreeSet<String> = targets
        .flatten()
        .map(|target| text(&target["expr"]).to_owned())
        .collect();
    assert!(expressions.len() > 30, "{expressions:?}");
    expressions
}

fn as_grafana_would(expression: &str) -> String {
    let filled = expression
        .replace("$__rate_interval", "10s")
        .replace("$__range", "1m")
        .replace("$namespace", ".*")
        .replace("$asset_forwarder", "assets|others");
    assert!(
        !filled.contains('$'),
        "{expression} has a variable that this does not know"
    );
    filled
}

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/fanout-operator")
}

fn rule_file(name: &str) -> PathBuf {
    chart().join(format!("rules/{name}.yaml"))
}

fn test_file(name: &str) -> PathBuf {
    chart().join(format!("rules/tests/{name}.yaml"))
}

fn dashboard_file() -> Value {
    serde_json::from_str(&fs::read_to_string(chart().join("dashboards/fanout.json")).unwrap()).unwrap()
}

fn yaml(file: &Path) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn rules(file: &Value) -> Vec<Value> {
    let groups = list(&file["groups"]).iter();
    groups.flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
