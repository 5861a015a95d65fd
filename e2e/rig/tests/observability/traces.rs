//! A record's trace goes on through the forwarder, and no collector can hold a record up.

mod collector;

use std::collections::BTreeMap;
use std::time::Duration;

use e2e_rig::forwarder::Forwarder;
use e2e_rig::observer::Message;
use e2e_rig::stage::{PUBLISHED, SOON, Stage};
use e2e_rig::traffic::Raw;
use e2e_rig::wait;
use forwarder_core::document::{Config, PublishMode, Telemetry, Traces};
use opentelemetry_proto::tonic::trace::v1::Span;

use self::collector::{Collector, attribute};

/// By their names these are followed at any rate.
const SAMPLED: &str = "00-4bf92f3577b34da6a3ffffffffffffff-00f067aa0ba902b7-01";
const OF_BAD: &str = "00-6bf92f3577b34da6a3ffffffffffffff-00f067aa0ba902b7-01";
/// By its name this one is followed at no rate but that of all.
const BEYOND_RATE: &str = "00-7bf92f3577b34da6a300000000000000-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const DROPPED: &str = "asset_forwarder_spans_dropped_total";

fn traced(mut config: Config, endpoint: String, samples_per_million: u32) -> Config {
    config.telemetry = Some(Telemetry {
        traces: Some(Traces {
            endpoint,
            samples_per_million,
            tls: None,
        }),
    });
    config
}

/// A record of an asset of its own, with these headers.
async fn send(stage: &Stage, key: &str, value: &str, headers: &[(&str, &str)]) {
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())));
    let record = Raw {
        key: Some(key.as_bytes().to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: headers.collect(),
        ..Raw::default()
    };
    stage.traffic.send_record(record).await.unwrap();
}

/// The messages of both clusters by their assets.
async fn delivered(stage: &Stage) -> BTreeMap<String, Message> {
    stage.wait_committed().await;
    let messages = [stage.stored(0).await, stage.stored(1).await].concat();
    let asset = |message: &Message| message.subject.split('.').next().unwrap_or_default().to_owned();
    messages.into_iter().map(|message| (asset(&message), message)).collect()
}

fn header<'m>(message: &'m Message, name: &str) -> Option<&'m str> {
    message.headers.get(name).map(async_nats::HeaderValue::as_str)
}

async fn wait_spans(collector: &Collector, count: usize) -> BTreeMap<String, Span> {
    wait::eventually(SOON, "the collector has the spans", || async {
        let spans = collector.spans();
        anyhow::ensure!(spans.len() >= count, "{} of {count}", spans.len());
        Ok(true)
    })
    .await
    .unwrap();
    let spans = collector.spans();
    assert_eq!(spans.len(), count, "{spans:?}");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    spans
        .into_iter()
        .map(|span| (format!("{} {}", &hex(&span.trace_id)[..2], span.name), span))
        .collect()
}

#[tokio::test]
async fn a_trace_goes_from_kafka_through_nats_and_to_the_collector() {
    let stage = Stage::new(PublishMode::Core, 2).await;
    let collector = Collector::start().await;
    let good = r#"{"id": "Temperature", "value": 1}"#;
    send(
        &stage,
        "one",
        good,
        &[("traceparent", SAMPLED), ("tracestate", "a=b"), ("other", "c")],
    )
    .await;
    send(&stage, "two", good, &[("traceparent", UNSAMPLED)]).await;
    send(&stage, "three", good, &[]).await;
    send(&stage, "four", "no JSON", &[("traceparent", OF_BAD)]).await;
    send(
        &stage,
        "six",
        good,
        &[("traceparent", BEYOND_RATE), ("tracestate", "a=b")],
    )
    .await;
    let config = traced(stage.config(), collector.url(), 1);
    let mut forwarder = stage.start("traced", &config).await;
    let messages = delivered(&stage).await;
    let spans = wait_spans(&collector, 6).await;

    // The message continues the span of its publishing, which is a child of the record's way, which is a child of its producer's.
    let [consume, route, publish, settle] =
        ["consume", "route", "publish", "settle"].map(|name| &spans[&format!("4b {name}")]);
    let bytes = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    };
    let parts: Vec<&str> = header(&messages["one"], "traceparent").unwrap().split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", &SAMPLED[3..35], "01"));
    assert_eq!(bytes(parts[2]), publish.span_id);
    assert_eq!(bytes(&SAMPLED[36..52]), consume.parent_span_id);
    for child in [route, publish, settle] {
        assert_eq!(child.parent_span_id, consume.span_id, "{child:?}");
        let within = consume.start_time_unix_nano <= child.start_time_unix_nano
            && child.start_time_unix_nano <= child.end_time_unix_nano
            && child.end_time_unix_nano <= consume.end_time_unix_nano;
        assert!(within, "{child:?} is not within {consume:?}");
    }
    let one = &messages["one"];
    assert_eq!(
        (header(one, "tracestate"), header(one, "other")),
        (Some("a=b"), Some("c"))
    );
    assert_eq!(
        attribute(&consume.attributes, "messaging.destination.name").as_ref(),
        Some(&stage.topic)
    );
    assert!(attribute(&consume.attributes, "messaging.kafka.offset").is_some());
    let cluster = attribute(&publish.attributes, "fanout.cluster").unwrap();
    assert!(["C1", "C2"].contains(&cluster.as_str()), "{cluster}");
    let of = |key| attribute(&collector.resource(), key).unwrap();
    assert_eq!(
        (of("service.name").as_str(), of("service.instance.id").as_str()),
        ("asset-forwarder", "traced")
    );

    // Whoever began a trace without keeping it has decided so, and no trace is begun that nobody asked for.
    assert_eq!(header(&messages["two"], "traceparent"), Some(UNSAMPLED));
    assert!(messages["three"].headers.is_empty(), "{:?}", messages["three"].headers);
    // A producer that keeps more than our rate has its header carried on as it is.
    let six = &messages["six"];
    assert_eq!(
        (header(six, "traceparent"), header(six, "tracestate")),
        (Some(BEYOND_RATE), Some("a=b"))
    );
    let bad = &spans["6b consume"];
    assert_eq!(attribute(&bad.attributes, "error.type").as_deref(), Some("not_json"));
    assert_eq!(bad.status.as_ref().map(|status| status.code), Some(2));

    // With a share of its own, a record without a trace begins one.
    assert!(forwarder.terminate(SOON).await.unwrap().success());
    let collector = Collector::start().await;
    let _forwarder = stage
        .start("traced", &traced(stage.config(), collector.url(), 1_000_000))
        .await;
    send(&stage, "five", good, &[]).await;
    let messages = delivered(&stage).await;
    let spans: Vec<Span> = wait_spans(&collector, 4).await.into_values().collect();
    let parent = header(&messages["five"], "traceparent").unwrap();
    for span in &spans {
        assert_eq!(bytes(&parent[3..35]), span.trace_id, "{span:?}");
        assert_eq!(span.parent_span_id.is_empty(), span.name == "consume", "{span:?}");
    }
}

/// One that answers nothing is the worst: it is waited for, and all that comes meanwhile has nowhere to go.
#[tokio::test]
async fn a_collector_that_hangs_or_is_away_loses_no_record() {
    let stage = Stage::new(PublishMode::JetStream, 2).await;
    let hanging = Collector::that_hangs().await;
    let gone = Collector::start().await.url();
    for (url, soon) in [(hanging.url(), false), (gone, true)] {
        let mut forwarder = stage.start("forwarder", &traced(stage.config(), url, 1_000_000)).await;
        // More than the queue holds.
        let flow = stage.flow(4_000);
        stage.wait_published(&forwarder, 12_000.0).await;
        forwarder.wait_metric(DROPPED, 1.0, SOON).await.unwrap();
        flow.stop().await.unwrap();
        stage.wait_committed().await;
        if soon {
            // One that hangs is waited for, each time anew.
            check_counted(&forwarder).await;
        }
        let status = forwarder.terminate(Duration::from_secs(15)).await.unwrap();
        assert!(status.success(), "{status}");
    }
    stage.verdict().await.check_exactly_once().unwrap();
}

/// Whatever was not exported is told.
async fn check_counted(forwarder: &Forwarder) {
    wait::eventually(SOON, "every span is accounted for", || async {
        let metrics = forwarder.metrics().await?;
        let all = metrics.sum(PUBLISHED, &[]) * 4.0;
        let dropped = metrics.sum(DROPPED, &[]);
        let exported = metrics.sum("asset_forwarder_spans_exported_total", &[]);
        anyhow::ensure!(exported == 0.0, "{exported} went to nobody");
        anyhow::ensure!(dropped == all, "{dropped} of {all} are counted");
        Ok(true)
    })
    .await
    .unwrap();
}
