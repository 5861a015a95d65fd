//! Many objects, and many more that are none of our business.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e_rig::kubernetes::{Kubernetes, Namespace};
use e2e_rig::site::Site;
use e2e_rig::wait;
use forwarder_core::config::PublishMode;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::figures::tell;

/// Memory that the operator may take for all of it.
const MOST_BYTES: u64 = 200 << 20;

/// How many requests are made at once.
const AT_ONCE: usize = 32;

/// Makes objects `0..count` of a kind.
async fn make<K>(api: &Api<K>, count: usize, object: impl Fn(usize) -> Value) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    futures::stream::iter(0..count)
        .map(|number| {
            let object = serde_json::from_value::<K>(object(number));
            async move {
                let created = api
                    .create(&PostParams::default(), &object.context("no such object")?)
                    .await;
                created.map(drop).context("failed to create an object")
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Secrets of others in a namespace of their own, objects of ours beside the operator; forwarders of replicas 0, a tenth of all.
async fn crowd(secrets: usize, objects: usize, within: Duration) {
    let kubernetes = Kubernetes::of_run().await.unwrap();
    let others = Namespace::new(&kubernetes).unwrap();
    let payload = "x".repeat(1_000);
    let secret = |number| json!({"metadata": {"name": format!("foreign-{number}")}, "stringData": {"a": payload}});
    make(&others.api::<Secret>(), secrets, secret).await.unwrap();

    let site = Site::of_cluster(PublishMode::Core, 1).await;
    let forwarders = objects / 10;
    let (clusters, channels) = ((objects - forwarders) / 2, (objects - forwarders) / 2);
    let begun = Instant::now();
    let cluster = site.cluster(0);
    let of_namespace = |object: &mut Value, name: String| {
        object["metadata"]["name"] = json!(name);
        object.clone()
    };
    make(&site.namespace.api::<crds::NatsCluster>(), clusters, |number| {
        let mut cluster = cluster.clone();
        // The first alone is in rings: each forwarder is written down in the status of those.
        cluster["metadata"]["labels"] = if number == 0 {
            json!({"ring": "main"})
        } else {
            json!({})
        };
        cluster["spec"]["ringName"] = json!(format!("R{number}"));
        of_namespace(&mut cluster, format!("c{number}"))
    })
    .await
    .unwrap();
    make(&site.namespace.api::<crds::KafkaChannel>(), channels, |number| {
        let name = if number == 0 {
            "assets".to_owned()
        } else {
            format!("assets-{number}")
        };
        of_namespace(&mut site.channel(), name)
    })
    .await
    .unwrap();
    make(&site.namespace.api::<crds::AssetForwarder>(), forwarders, |number| {
        of_namespace(&mut site.forwarder(0), format!("plant-{number}"))
    })
    .await
    .unwrap();
    let made = begun.elapsed();

    wait::eventually(within, "every object is ready", || async {
        let ready = [
            "get",
            "fanout",
            "-o",
            "jsonpath={.items[*].status.conditions[?(@.type==\"Ready\")].status}",
        ];
        let said = site.namespace.kubectl(&ready).await?;
        let ready = said.split_whitespace().filter(|status| *status == "True").count();
        ensure!(ready == clusters + channels + forwarders, "{ready} of {objects}");
        Ok(true)
    })
    .await
    .unwrap();
    let settled = begun.elapsed();
    let (now, peak, cpu) = site.operator_usage().await;
    let mebibytes = |bytes: u64| bytes >> 20;
    let figures = format!(
        "{objects} objects ({forwarders} forwarders) beside {secrets} foreign Secrets: made in {made:.0?}, all ready after {settled:.0?}; \
         the operator: {} MiB, {} MiB at its peak, {cpu:.0} s of CPU",
        mebibytes(now),
        mebibytes(peak)
    );
    tell(&figures);
    assert!(peak < MOST_BYTES, "{figures}");
}

#[tokio::test]
async fn memory_stays_small_beside_what_is_not_ours() {
    crowd(500, 100, Duration::from_secs(90)).await;
}

#[tokio::test]
async fn long_ten_thousand_objects_and_thirty_thousand_foreign_secrets() {
    crowd(30_000, 10_000, Duration::from_secs(2_400)).await;
}
