//! Specs at random: each is refused with a message, or looked at and judged; the operator neither panics nor writes for ever.

use std::time::Duration;

use anyhow::{bail, ensure};
use e2e_rig::kafka::unique;
use e2e_rig::random::Random;
use e2e_rig::site::Site;
use e2e_rig::wait;
use forwarder_core::document::PublishMode;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

mod generate;

/// How many of each kind are there at a time.
const BATCH: usize = 20;

/// Within which a batch is judged: each may have to wait for a server that is not there.
const JUDGED: Duration = Duration::from_secs(120);

/// More writes than these for one object are a loop. A forwarder has nine children, and its status follows them.
const MOST_WRITES: f64 = 30.0;

/// Specs by seed, so that a failure can be looked at again.
async fn specs(seeds: std::ops::Range<u64>) {
    let site = Site::new(PublishMode::Core, 0).await;
    let (mut accepted, mut refused) = (0, 0);
    for seed in seeds {
        let mut random = Random::new(seed);
        let before = site.operator_writes().await;
        let mut made = 0;
        for definition in crds::definition::all() {
            let schema = serde_json::to_value(&definition.spec.versions[0].schema).unwrap();
            let schema = &schema["openAPIV3Schema"]["properties"]["spec"];
            let api = api(&site, &definition.spec.names.plural);
            for number in 0..BATCH {
                let kind = &definition.spec.names.kind;
                let mut spec = generate::value(&mut random, "spec", schema, Some(&base(&site, kind)));
                if spec.is_object() && kind == "AssetForwarder" {
                    // No pods: what is judged is the spec.
                    spec["suspend"] = json!(true);
                }
                let object = json!({
                    "apiVersion": "fanout.openfactory.io/v1alpha1",
                    "kind": kind,
                    "metadata": {"name": format!("random-{number}")},
                    "spec": spec,
                });
                match create(&api, &object).await {
                    Ok(()) => made += 1,
                    Err(message) => {
                        refused += 1;
                        assert!(
                            message.contains("spec"),
                            "seed {seed}: {object}\nis refused so that nobody knows why: {message}"
                        );
                    }
                }
            }
        }
        accepted += made;
        wait::eventually(JUDGED, "every spec is judged", || async {
            for definition in crds::definition::all() {
                for object in list(&api(&site, &definition.spec.names.plural)).await? {
                    let status = &object.data["status"];
                    let about = format!("seed {seed}: {}: {}", object.name_any(), object.data);
                    ensure!(
                        status["observedGeneration"] == json!(object.metadata.generation),
                        "not looked at: {about}"
                    );
                    let ready = status["conditions"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .find(|one| one["type"] == "Ready");
                    ensure!(
                        ready.is_some_and(|ready| ready["message"] != "" && ready["reason"] != ""),
                        "no verdict: {about}"
                    );
                }
            }
            Ok(true)
        })
        .await
        .unwrap();
        site.wait_quiet().await;
        let writes = site.operator_writes().await - before;
        assert!(
            writes <= f64::from(made) * MOST_WRITES,
            "seed {seed}: {writes} writes for {made} objects"
        );
        for definition in crds::definition::all() {
            empty(&site, &definition.spec.names.plural).await;
        }
    }
    assert!(
        accepted * 5 > refused,
        "hardly any of them got as far as the operator: {accepted} of {refused}"
    );
    let (exit, log) = site.end_operator().await;
    assert!(exit.success() && !log.contains("panicked"), "{exit}");
}

/// Something that is accepted, with nothing that reaches out of this machine.
fn base(site: &Site, kind: &str) -> Value {
    match kind {
        "NatsCluster" => json!({"external": {"servers": ["nats://127.0.0.1:1"]}}),
        "KafkaChannel" => json!({
            "connection": {"bootstrapServers": [site.stage.kafka.bootstrap()]},
            "topic": {"name": unique("random")},
        }),
        _ => json!({
            "sources": [{"channelRef": {"name": "random-0"}, "group": "g"}],
            "clusters": {"selector": {"matchLabels": {"ring": "random"}}},
        }),
    }
}

fn api(site: &Site, plural: &str) -> Api<DynamicObject> {
    let kind = match plural {
        "natsclusters" => "NatsCluster",
        "kafkachannels" => "KafkaChannel",
        _ => "AssetForwarder",
    };
    let resource = ApiResource {
        group: "fanout.openfactory.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "fanout.openfactory.io/v1alpha1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    };
    Api::namespaced_with(
        site.namespace.kubernetes.client.clone(),
        &site.namespace.name,
        &resource,
    )
}

/// Creates it, strictly; or what the API server has against it.
async fn create(api: &Api<DynamicObject>, object: &Value) -> Result<(), String> {
    let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
    match api.create(&PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(refusal)) if [400, 422].contains(&refusal.code) => Err(refusal.message.clone()),
        Err(error) => panic!("{object:?}: {error}"),
    }
}

async fn list(api: &Api<DynamicObject>) -> anyhow::Result<Vec<DynamicObject>> {
    Ok(api.list(&ListParams::default()).await?.items)
}

async fn empty(site: &Site, plural: &str) {
    let api = api(site, plural);
    api.delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    wait::eventually(JUDGED, "all are gone", || async {
        let left = list(&api).await?;
        if left.is_empty() {
            return Ok(true);
        }
        // Clusters wait for forwarders.
        let others = list(&self::api(site, "assetforwarders")).await?;
        let left = left.iter().chain(&others);
        let about = left.map(|object| format!("{}: {}", object.name_any(), object.data));
        bail!("{:#?}", about.collect::<Vec<_>>())
    })
    .await
    .unwrap();
}

/// A test for each block, so that they run beside each other, and each within the time that a test has.
macro_rules! blocks {
    ($($name:ident: $seeds:expr,)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                specs($seeds).await;
            }
        )*
    };
}

blocks! {
    a_random_spec_is_refused_or_judged: 0..2,
    long_random_specs_from_2: 2..12,
    long_random_specs_from_12: 12..22,
    long_random_specs_from_22: 22..32,
    long_random_specs_from_32: 32..42,
    long_random_specs_from_42: 42..52,
}
