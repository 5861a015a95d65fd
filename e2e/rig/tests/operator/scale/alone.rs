//! Many objects, and many more that are none of our business.

use std::time::{Duration, Instant};

use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use e2e_rig::crowd::{is_ready, make, make_foreign_secrets, wait_all};
use e2e_rig::kubernetes::{Kubernetes, Namespace};
use e2e_rig::site::Site;
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::figures::tell;

/// Memory that the operator may take for all of it.
const MOST_BYTES: u64 = 200 << 20;

/// Secrets of others in a namespace of their own, objects of ours beside the operator; forwarders of replicas 0, a tenth of all.
async fn crowd(secrets: usize, objects: usize, within: Duration) {
    let kubernetes = Kubernetes::of_run().await.unwrap();
    let others = Namespace::new(&kubernetes).unwrap();
    make_foreign_secrets(&others.api(), secrets).await.unwrap();

    let site = Site::of_cluster(PublishMode::Core, 1).await;
    let forwarders = objects / 10;
    let (clusters, channels) = ((objects - forwarders) / 2, (objects - forwarders) / 2);
    let begun = Instant::now();
    let cluster = site.cluster(0);
    let of_namespace = |object: &mut Value, name: String| {
        object["metadata"]["name"] = json!(name);
        object.clone()
    };
    make(&site.namespace.api::<NatsCluster>(), 0..clusters, |number| {
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
    make(&site.namespace.api::<KafkaChannel>(), 0..channels, |number| {
        let name = if number == 0 {
            "assets".to_owned()
        } else {
            format!("assets-{number}")
        };
        of_namespace(&mut site.channel(), name)
    })
    .await
    .unwrap();
    make(&site.namespace.api::<AssetForwarder>(), 0..forwarders, |number| {
        of_namespace(&mut site.forwarder(0), format!("plant-{number}"))
    })
    .await
    .unwrap();
    let made = begun.elapsed();

    let what = "every object is ready";
    let (all_clusters, all_channels, all_forwarders) =
        (site.namespace.api(), site.namespace.api(), site.namespace.api());
    tokio::try_join!(
        wait_all(&all_clusters, clusters, within, what, is_ready::<NatsCluster>),
        wait_all(&all_channels, channels, within, what, is_ready::<KafkaChannel>),
        wait_all(&all_forwarders, forwarders, within, what, is_ready::<AssetForwarder>),
    )
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
