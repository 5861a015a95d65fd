//! All that can become of our resources, seen version by version, and judged by conventions, by kstatus and by Argo CD's scripts.

use std::collections::BTreeMap;

use e2e_rig::kafka::unique;
use e2e_rig::port::Port;
use e2e_rig::proxy::Proxy;
use e2e_rig::site::{FORWARDER, PODS, Site};
use e2e_rig::transitions::{Health, Recorder, Version, expected, faults, kstatus};
use forwarder_core::document::PublishMode;
use serde_json::{Value, json};

use crate::argo_cd;

const AF: (&str, &str) = ("AssetForwarder", FORWARDER);
const CHANNEL: (&str, &str) = ("KafkaChannel", "assets");
const CLUSTER: (&str, &str) = ("NatsCluster", "c1");

#[tokio::test]
async fn no_version_of_any_resource_is_called_done_before_it_is() {
    let mut site = Site::new(PublishMode::Core, 1).await;
    let film = Film {
        recorder: Recorder::start(&site.namespace.kubernetes.client, &site.namespace.name)
            .await
            .unwrap(),
        image: site.namespace.kubernetes.cluster.forwarder_image.clone(),
    };
    nobody_has_looked(&site, &film).await;
    tokio::join!(what_is_missing_comes(&site, &film), channels(&site, &film));
    pods_change(&site, &film).await;
    a_spec_that_cannot_work(&site, &film).await;
    a_cluster_is_away(&mut site, &film).await;
    everything_goes(&site, &film).await;
    film.judge();
}

/// What was seen, and what it is judged by.
struct Film {
    recorder: Recorder,
    /// What pods run whose forwarder names no image.
    image: String,
}

impl Film {
    /// Waits until an object is healthy, or is not, for a reason, in a version after the first `from`; yields the position behind that.
    async fn wait(&self, key: (&str, &str), from: usize, health: Health, reason: &str) {
        let what = format!("{health:?} for {reason}");
        let holds = |object: &Value| {
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
            let about = object["status"]["observedGeneration"] == object["metadata"]["generation"];
            about && expected(object) == health && ready.any(|ready| ready["reason"] == reason)
        };
        self.recorder.wait(key, from, PODS, &what, holds).await.unwrap();
    }

    fn now(&self) -> usize {
        self.recorder.position()
    }

    fn judge(&self) {
        let versions = self.recorder.versions().unwrap();
        let histories = self.recorder.histories().unwrap();
        let mut wrong: Vec<String> = histories.iter().flat_map(|history| faults(history)).collect();
        wrong.extend(too_early(&versions, &self.image));

        let ours: Vec<Value> = histories
            .into_iter()
            .flatten()
            .filter(|version| !version.gone)
            .map(|version| version.object)
            .collect();
        let mut seen = BTreeMap::<String, usize>::new();
        for (object, verdict) in ours.iter().zip(kstatus(&ours).unwrap()) {
            let health = expected(object);
            let argo_cd = argo_cd::health(object);
            *seen
                .entry(format!("{} {health:?} {}", object["kind"], argo_cd.status))
                .or_default() += 1;
            if verdict.status != health.word() {
                wrong.push(format!("kstatus says {verdict:?}, not {health:?}, of {object}"));
            }
            let is_right = match health {
                Health::Current if object["spec"]["suspend"] == true => argo_cd.status == "Suspended",
                Health::Current => argo_cd.status == "Healthy",
                Health::InProgress | Health::Terminating => argo_cd.status == "Progressing",
                Health::Failed => argo_cd.status == "Degraded",
            };
            if !is_right {
                wrong.push(format!("Argo CD says {argo_cd:?}, for {health:?}, of {object}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        // Every state was there, so that none was judged for want of it.
        for kind in argo_cd::KINDS {
            for state in [
                "Current Healthy",
                "InProgress Progressing",
                "Failed Degraded",
                "Terminating Progressing",
            ] {
                assert!(
                    seen.contains_key(&format!("\"{kind}\" {state}")),
                    "{kind} {state}: {seen:#?}"
                );
            }
        }
        assert!(seen.contains_key("\"AssetForwarder\" Current Suspended"), "{seen:#?}");
    }
}

/// Forwarders that were called done when their pods were not: from the pods alone, as they were when that status was written.
fn too_early(versions: &[Version], image: &str) -> Vec<String> {
    let mut pods = BTreeMap::<String, &Value>::new();
    let of = |pod: &Value, forwarder: &Value| {
        pod["metadata"]["labels"]["app.kubernetes.io/instance"] == forwarder["metadata"]["name"]
    };
    let mut was = BTreeMap::<String, (Health, Option<i64>)>::new();
    let mut wrong = Vec::new();
    for version in versions {
        let (object, (kind, name)) = (&version.object, version.key());
        match kind.as_str() {
            "Pod" if version.gone => drop(pods.remove(&name)),
            "Pod" => drop(pods.insert(name, object)),
            "AssetForwarder" if !version.gone => {
                let now = (expected(object), object["metadata"]["generation"].as_i64());
                let before = was.insert(name, now);
                if now.0 == Health::Current
                    && before != Some(now)
                    && let Err(why) = is_done(object, pods.values().copied().filter(|pod| of(pod, object)), image)
                {
                    wrong.push(format!("called done at {}, but {why}: {object}", version.revision()));
                }
            }
            _ => {}
        }
    }
    wrong
}

fn is_done<'a>(forwarder: &Value, pods: impl Iterator<Item = &'a Value>, image: &str) -> Result<(), String> {
    let spec = &forwarder["spec"];
    let desired = if spec["suspend"] == true {
        0
    } else {
        spec["replicas"].as_u64().unwrap_or(1)
    };
    let image = spec["image"].as_str().unwrap_or(image);
    let mut ready = 0;
    for pod in pods {
        let has_ended = ["Succeeded", "Failed"].contains(&pod["status"]["phase"].as_str().unwrap_or_default());
        let is_leaving = !pod["metadata"]["deletionTimestamp"].is_null();
        if has_ended || (is_leaving && desired > 0) {
            continue;
        }
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let mut true_ones = conditions.filter(|condition| condition["status"] == "True");
        let runs = pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default();
        if !true_ones.any(|condition| condition["type"] == "Ready") || runs != image {
            return Err(format!(
                "{} of {runs} is {}",
                pod["metadata"]["name"], pod["status"]["conditions"]
            ));
        }
        ready += 1;
    }
    if ready == desired {
        Ok(())
    } else {
        Err(format!("{ready} of {desired} pods are ready"))
    }
}

fn secret(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name},
        "stringData": {"username": "plant", "password": "any"},
    })
}

fn cluster(site: &Site) -> Value {
    let mut cluster = site.cluster(0);
    cluster["spec"]["drain"] = json!(false);
    // The server asks nobody for a password, and takes any.
    cluster["spec"]["auth"] = json!({"type": "UserPassword", "secretRef": {"name": "login"}});
    cluster
}

/// A change that is no change of the spec: the operator looks at once. A label, for a ring may be chosen by it; what others annotate is no
/// matter of the operator's.
async fn look_again(site: &Site, (kind, name): (&str, &str)) {
    let mark = format!("look={}", unique("again"));
    let label = ["label", "--overwrite", kind, name, &mark];
    site.namespace.kubectl(&label).await.unwrap();
}

async fn nobody_has_looked(site: &Site, film: &Film) {
    site.stop_operator().await;
    let mut channel = site.channel();
    channel["metadata"]["name"] = json!("distant");
    site.apply(&[site.forwarder(1), cluster(site), channel]).await;
    for key in [AF, CLUSTER, ("KafkaChannel", "distant")] {
        let new = film.recorder.wait(key, 0, PODS, "new", |_| true).await.unwrap();
        assert_eq!(new["status"], json!({"observedGeneration": -1}));
        assert_eq!(expected(&new), Health::InProgress);
    }
    site.start_operator_again().await;
}

/// The channel, the cluster's Secret; then the forwarder is ready.
async fn what_is_missing_comes(site: &Site, film: &Film) {
    film.wait(CLUSTER, 0, Health::InProgress, "SecretMissing").await;
    film.wait(AF, 0, Health::InProgress, "ChannelMissing").await;
    site.apply(&[site.channel()]).await;
    film.wait(CHANNEL, 0, Health::Current, "TopicReady").await;
    film.wait(AF, 0, Health::InProgress, "SecretMissing").await;
    let drain = [
        "patch",
        "natscluster",
        "c1",
        "--type=merge",
        "--patch",
        r#"{"spec":{"drain":true}}"#,
    ];
    site.namespace.kubectl(&drain).await.unwrap();
    film.wait(AF, 0, Health::InProgress, "NoClusters").await;
    site.apply(&[secret("login"), cluster(site)]).await;
    film.wait(CLUSTER, 0, Health::Current, "Connected").await;
    film.wait(AF, 0, Health::Current, "Forwarding").await;
}

/// Channels that no forwarder reads: Kafka is away, a Secret is, the spec cannot work.
async fn channels(site: &Site, film: &Film) {
    let channel = |name: &str, spec: Value| {
        let mut channel = site.channel();
        channel["metadata"]["name"] = json!(name);
        for (field, value) in spec.as_object().unwrap() {
            channel["spec"][field] = value.clone();
        }
        channel
    };
    let (distant, locked, managed) = (
        ("KafkaChannel", "distant"),
        ("KafkaChannel", "locked"),
        ("KafkaChannel", "managed"),
    );
    let proxy = Proxy::start(site.stage.kafka.bootstrap()).await.unwrap();
    let through = |address: String| json!({"connection": {"bootstrapServers": [address]}});
    let nobody = Port::reserve().unwrap();
    let sasl = json!({"connection": {
        "bootstrapServers": [nobody.address()],
        "sasl": {"mechanism": "PLAIN", "secretRef": {"name": "kafka-login"}},
    }});
    let name = unique("managed");
    let topic = |config: Value| json!({"topic": {"name": name, "managed": true, "partitions": 1, "deletionPolicy": "Delete", "config": config}});
    film.wait(distant, 0, Health::Current, "TopicReady").await;
    let applied = film.now();
    site.apply(&[
        channel("distant", through(proxy.address())),
        channel("locked", sasl),
        channel("managed", topic(json!({"no.such.setting": "1"}))),
    ])
    .await;
    film.wait(locked, 0, Health::InProgress, "SecretMissing").await;
    film.wait(managed, 0, Health::Failed, "TopicInvalid").await;
    let from = film.now();
    site.apply(&[channel("managed", topic(json!({})))]).await;
    film.wait(managed, from, Health::Current, "TopicReady").await;

    film.wait(distant, applied, Health::Current, "TopicReady").await;
    proxy.cut().await.unwrap();
    let from = film.now();
    look_again(site, distant).await;
    film.wait(distant, from, Health::InProgress, "Unreachable").await;
    proxy.heal().await.unwrap();
    let from = film.now();
    look_again(site, distant).await;
    film.wait(distant, from, Health::Current, "TopicReady").await;
}

/// A roll that takes long, one that is repaired, no pods, suspended.
async fn pods_change(site: &Site, film: &Film) {
    let mut manifest = site.forwarder(1);
    manifest["spec"]["image"] = json!("fanout-forwarder:nowhere");
    let from = film.now();
    site.apply(&[manifest.clone()]).await;
    film.wait(AF, from, Health::InProgress, "PodsNotReady").await;
    manifest["spec"]["image"] = json!(site.namespace.kubernetes.cluster.forwarder_image_2);
    let from = film.now();
    site.apply(&[manifest.clone()]).await;
    film.wait(AF, from, Health::Current, "Forwarding").await;

    let from = film.now();
    site.namespace
        .kubectl(&["scale", "assetforwarder", FORWARDER, "--replicas=0"])
        .await
        .unwrap();
    film.wait(AF, from, Health::Current, "ScaledToZero").await;
    manifest["spec"]["suspend"] = json!(true);
    let from = film.now();
    site.apply(&[manifest]).await;
    film.wait(AF, from, Health::Current, "Suspended").await;
    // One whose channel and clusters are there before it: what it has to say first is not that something is missing.
    let mut second = site.forwarder(0);
    second["metadata"]["name"] = json!("second");
    second["spec"]["sources"][0]["group"] = json!(unique("second"));
    let from = film.now();
    site.apply(&[site.forwarder(1), second]).await;
    film.wait(("AssetForwarder", "second"), from, Health::Current, "ScaledToZero")
        .await;
    film.wait(AF, from, Health::Current, "Forwarding").await;
}

async fn a_spec_that_cannot_work(site: &Site, film: &Film) {
    let mut forwarder = site.forwarder(1);
    forwarder["spec"]["sources"][0]["clientConfig"] = json!({"fetch.min.bytes": "a few"});
    let mut cluster = cluster(site);
    // The definition lets it pass; it is no address.
    cluster["spec"]["external"]["servers"] = json!(["nats://[::::]:4222"]);
    let from = film.now();
    site.apply(&[forwarder]).await;
    film.wait(AF, from, Health::Failed, "InvalidSpec").await;
    site.apply(&[cluster.clone()]).await;
    film.wait(CLUSTER, from, Health::Failed, "InvalidSpec").await;
    let from = film.now();
    site.apply(&[self::cluster(site), site.forwarder(1)]).await;
    film.wait(CLUSTER, from, Health::Current, "Connected").await;
    film.wait(AF, from, Health::Current, "Forwarding").await;
}

/// An outage is waited for: it is no fault of the spec.
async fn a_cluster_is_away(site: &mut Site, film: &Film) {
    site.stage.clusters[0].1.shut_down().unwrap();
    let from = film.now();
    look_again(site, CLUSTER).await;
    film.wait(CLUSTER, from, Health::InProgress, "Unreachable").await;
    site.stage.clusters[0].1.start_again().await.unwrap();
    let from = film.now();
    look_again(site, CLUSTER).await;
    film.wait(CLUSTER, from, Health::Current, "Connected").await;
}

/// The cluster first, which waits until the forwarder has let it go.
async fn everything_goes(site: &Site, film: &Film) {
    let from = film.now();
    site.delete_cluster(0).await;
    film.wait(CLUSTER, from, Health::Terminating, "Draining").await;
    // As Argo CD deletes: the pods first.
    let foreground = [
        "delete",
        "assetforwarder",
        FORWARDER,
        "--cascade=foreground",
        "--timeout=60s",
    ];
    site.namespace.kubectl(&foreground).await.unwrap();
    let all = [
        "delete",
        "assetforwarders,natsclusters,kafkachannels",
        "--all",
        "--timeout=60s",
    ];
    site.namespace.kubectl(&all).await.unwrap();
    e2e_rig::wait::eventually(PODS, "the ends of all are seen", || async {
        let histories = film.recorder.histories()?;
        let is_over = |history: &Vec<Version>| history.last().is_some_and(|version| version.gone);
        Ok(histories.iter().all(is_over))
    })
    .await
    .unwrap();
}
