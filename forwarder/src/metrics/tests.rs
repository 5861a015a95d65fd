use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A metric as the text shows it: its type, its labels' names, and the bounds of its buckets.
#[derive(Debug, Default, PartialEq)]
struct Shown {
    kind: String,
    labels: BTreeSet<String>,
    buckets: Vec<String>,
}

fn metrics() -> Metrics {
    let admin = Admin {
        forwarder: Some("f1".to_owned()),
        version: Some("1.2".to_owned()),
        node: Some("n1".to_owned()),
        ..Admin::default()
    };
    Metrics::new(&admin).unwrap()
}

fn text(metrics: &Metrics) -> String {
    String::from_utf8(metrics.text().unwrap()).unwrap()
}

fn parse(text: &str) -> BTreeMap<String, Shown> {
    let mut shown: BTreeMap<String, Shown> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            shown.entry(name.to_owned()).or_default().kind = kind.to_owned();
        }
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').unwrap().0;
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        let base = base.filter(|base| shown.contains_key(*base)).unwrap_or(name);
        let metric = shown.get_mut(base).unwrap();
        for label in labels
            .trim_end_matches('}')
            .split(',')
            .filter(|label| !label.is_empty())
        {
            let (key, value) = label.split_once('=').unwrap();
            let value = value.trim_matches('"').to_owned();
            if key != "le" {
                metric.labels.insert(key.to_owned());
            } else if !metric.buckets.contains(&value) {
                metric.buckets.push(value);
            }
        }
    }
    shown
}

#[test]
fn the_names_labels_and_buckets_of_the_original_are_kept() {
    let metrics = metrics();
    drop(metrics.cluster("C1"));
    let shown = parse(&text(&metrics));
    let queue_time = "0.0001 0.0005 0.001 0.002 0.005 0.01 0.025 0.05 0.1 0.25 0.5 +Inf";
    let latency = "0.0001 0.0005 0.001 0.002 0.005 0.01 0.025 0.05 0.1 0.25 +Inf";
    let queue_size = "0 1 2 5 10 20 50 100 500 1000 2500 5000 10000 +Inf";
    for (name, kind, labels, buckets) in [
        (
            "fan_out_layer_forwarder_build_info",
            "gauge",
            &["version", "swarm_node"][..],
            "",
        ),
        (
            "asset_forwarder_kafka_messages_consumed_total",
            "counter",
            &["forwarder"],
            "",
        ),
        ("asset_forwarder_kafka_errors_total", "counter", &["forwarder"], ""),
        ("asset_forwarder_invalid_messages_total", "counter", &["forwarder"], ""),
        (
            "asset_forwarder_kafka_consume_calls_total",
            "counter",
            &["forwarder"],
            "",
        ),
        (
            "asset_forwarder_nats_messages_published_total",
            "counter",
            &["cluster"],
            "",
        ),
        (
            "asset_forwarder_nats_publish_failures_total",
            "counter",
            &["cluster"],
            "",
        ),
        (
            "asset_forwarder_queue_time_seconds",
            "histogram",
            &["forwarder"],
            queue_time,
        ),
        (
            "asset_forwarder_message_processing_latency_seconds",
            "histogram",
            &["forwarder"],
            latency,
        ),
        ("asset_forwarder_queue_size", "gauge", &["forwarder"], ""),
        (
            "asset_forwarder_queue_size_histogram",
            "histogram",
            &["forwarder"],
            queue_size,
        ),
    ] {
        let expected = Shown {
            kind: kind.to_owned(),
            labels: labels.iter().map(ToString::to_string).collect(),
            buckets: buckets.split_whitespace().map(str::to_owned).collect(),
        };
        assert_eq!(shown.get(name), Some(&expected), "{name}");
    }
    assert!(text(&metrics).contains(r#"fan_out_layer_forwarder_build_info{swarm_node="n1",version="1.2"} 1"#));
}

#[test]
fn what_is_known_at_the_start_is_there_at_zero() {
    let metrics = metrics();
    drop(metrics.cluster("C1"));
    let text = text(&metrics);
    for reason in Invalid::ALL {
        for name in ["invalid", "dead_letters"] {
            let line = format!("asset_forwarder_{name}_total{{reason=\"{}\"}} 0\n", reason.reason());
            assert!(text.contains(&line), "{line}");
        }
    }
    for line in [
        "asset_forwarder_rebalances_total{kind=\"lost\"} 0\n",
        "asset_forwarder_retries_total{cluster=\"C1\",reason=\"refused\"} 0\n",
        "asset_forwarder_stream_faults_total{cluster=\"C1\",reason=\"missing\"} 0\n",
        "asset_forwarder_stream_faults_total{cluster=\"C1\",reason=\"unconfirmed\"} 0\n",
        "asset_forwarder_reconnects_total{cluster=\"C1\"} 0\n",
        "asset_forwarder_connected{cluster=\"C1\"} 0\n",
        "asset_forwarder_repeats_possible_total{cluster=\"C1\"} 0\n",
        "asset_forwarder_confirmed_latency_seconds_count{cluster=\"C1\"} 0\n",
        "asset_forwarder_commits_total 0\n",
        "asset_forwarder_ring_epoch 0\n",
        "asset_forwarder_ring_epoch_declared 0\n",
        "asset_forwarder_handover_waiting 0\n",
        "asset_forwarder_ready 0\n",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn a_record_that_cannot_be_forwarded_counts_in_all_and_by_reason() {
    let metrics = metrics();
    metrics.invalid(Invalid::NoId);
    metrics.invalid(Invalid::BadKey);
    let text = text(&metrics);
    assert!(text.contains("asset_forwarder_invalid_messages_total{forwarder=\"f1\"} 2\n"));
    assert!(text.contains("asset_forwarder_invalid_total{reason=\"no_id\"} 1\n"));
}

#[test]
fn handles_of_one_cluster_are_one_and_each_reason_has_its_own() {
    let metrics = metrics();
    metrics.cluster("C1").retries(RetryReason::Disconnected).inc();
    metrics.cluster("C1").retries(RetryReason::Disconnected).inc();
    metrics.cluster("C1").published.inc_by(5);
    let text = text(&metrics);
    assert!(text.contains("asset_forwarder_retries_total{cluster=\"C1\",reason=\"disconnected\"} 2\n"));
    assert!(text.contains("asset_forwarder_retries_total{cluster=\"C1\",reason=\"timeout\"} 0\n"));
    assert!(text.contains("asset_forwarder_nats_messages_published_total{cluster=\"C1\"} 5\n"));
}

#[test]
fn what_is_given_up_is_reported_no_longer() {
    let metrics = metrics();
    metrics.set_lag("t", 3, 17);
    metrics.cluster("C1").pending_records.set(4);
    assert!(text(&metrics).contains("asset_forwarder_lag{partition=\"3\",topic=\"t\"} 17\n"));
    metrics.forget_partition("t", 3);
    metrics.forget_partition("t", 4);
    metrics.forget_cluster("C1");
    let text = text(&metrics);
    assert!(!text.contains("asset_forwarder_lag{"));
    assert!(!text.contains("asset_forwarder_pending_records{"));
    assert!(text.contains("asset_forwarder_nats_messages_published_total{cluster=\"C1\"} 0\n"));
}
