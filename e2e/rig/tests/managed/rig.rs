//! Volumes for servers in pods, and a look at these.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use e2e_rig::cluster::Cluster;
use e2e_rig::observer::tally_stream_of;
use e2e_rig::site::Site;
use e2e_rig::stage::STREAM;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, Pod, Secret, Service};
use kube::ResourceExt;
use kube::api::{Api, ListParams, PostParams};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The cluster's name.
pub(crate) const CLUSTER: &str = "ours";

/// The same server under two names.
pub(crate) const IMAGES: [&str; 2] = ["fanout-e2e-nats:dev", "fanout-e2e-nats:dev2"];

/// Between two looks at the pods: far less than a server takes to end and start.
const LOOK: Duration = Duration::from_millis(50);

/// Volumes on this machine, of a class of their own: the cluster of the tests makes none by itself.
pub(crate) struct Volumes {
    class: String,
    names: Vec<String>,
    cluster: Cluster,
    _dir: TempDir,
}

impl Volumes {
    /// So many.
    pub(crate) async fn new(site: &Site, number: usize) -> Self {
        let client = site.namespace.kubernetes.client.clone();
        let dir = tempfile::Builder::new()
            .prefix("fanout-e2e-volumes-")
            .tempdir()
            .unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let class = site.namespace.name.clone();
        let nodes = Api::<Node>::all(client.clone())
            .list(&ListParams::default())
            .await
            .unwrap();
        let node = nodes.items[0].name_any();
        let api = Api::<PersistentVolume>::all(client);
        let mut names = Vec::new();
        for number in 0..number {
            let path = dir.path().join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            let name = format!("{class}-{number}");
            let on = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
            let volume = json!({
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "1Gi"},
                    "accessModes": ["ReadWriteOnce"],
                    "persistentVolumeReclaimPolicy": "Retain",
                    "storageClassName": class,
                    "local": {"path": path},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on]}]}},
                },
            });
            let volume: PersistentVolume = serde_json::from_value(volume).unwrap();
            api.create(&PostParams::default(), &volume).await.unwrap();
            names.push(name);
        }
        Self {
            class,
            names,
            cluster: site.namespace.kubernetes.cluster.clone(),
            _dir: dir,
        }
    }
}

impl Drop for Volumes {
    fn drop(&mut self) {
        // They belong to no namespace, so nobody else would remove them.
        let mut args = vec!["delete", "persistentvolume", "--wait=false", "--ignore-not-found"];
        args.extend(self.names.iter().map(String::as_str));
        drop(self.cluster.kubectl(&args));
    }
}

/// The manifest of the cluster: what a forwarder of the site chooses.
pub(crate) fn manifest(volumes: &Volumes, replicas: u32, image: &str) -> Value {
    json!({
        "apiVersion": "fanout.openfactory.io/v1alpha1",
        "kind": "NatsCluster",
        "metadata": {"name": CLUSTER, "labels": {"ring": "main"}},
        "spec": {"managed": {
            "replicas": replicas,
            "image": image,
            "jetStream": {"storage": {"size": "1Gi", "storageClassName": volumes.class}},
            // Five of them on a node of two cores.
            "podTemplate": {"resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}}},
        }},
    })
}

/// The servers' pods.
pub(crate) struct Servers {
    pods: Api<Pod>,
    secrets: Api<Secret>,
    services: Api<Service>,
}

/// What a watch has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The most servers that were not ready at once.
    pub(crate) most_away: usize,
    /// The pods that were not ready, or new.
    pub(crate) restarted: BTreeSet<String>,
}

impl Servers {
    pub(crate) fn of(site: &Site) -> Self {
        Self {
            pods: site.namespace.api(),
            secrets: site.namespace.api(),
            services: site.namespace.api(),
        }
    }

    /// Each server's image.
    pub(crate) async fn images(&self) -> BTreeMap<String, String> {
        let pods = list(&self.pods).await.into_iter();
        pods.map(|pod| {
            let image = pod.spec.as_ref().and_then(|spec| spec.containers[0].image.clone());
            (pod.name_any(), image.unwrap_or_default())
        })
        .collect()
    }

    /// The clients' password.
    pub(crate) async fn password(&self) -> String {
        let secret = self.secrets.get(&format!("{CLUSTER}-nats-client")).await.unwrap();
        String::from_utf8(secret.data.unwrap()["password"].0.clone()).unwrap()
    }

    /// A client, by the Service's address.
    pub(crate) async fn client(&self) -> async_nats::Client {
        let service = self.services.get(&format!("{CLUSTER}-nats")).await.unwrap();
        let address = service.spec.unwrap().cluster_ip.unwrap();
        let options = async_nats::ConnectOptions::with_user_and_password("client".to_owned(), self.password().await);
        options.connect(format!("nats://{address}:4222")).await.unwrap()
    }

    /// Looks at the pods until it is stopped.
    pub(crate) fn watch(&self) -> Watch {
        let pods = self.pods.clone();
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            loop {
                let found = list(&pods).await;
                let away = |pod: &&Pod| !is_ready(pod);
                // One that is gone and not there again is away too.
                let missing = 3_usize.saturating_sub(found.len());
                seen.most_away = seen.most_away.max(found.iter().filter(away).count() + missing);
                seen.restarted
                    .extend(found.iter().filter(away).map(ResourceExt::name_any));
                tokio::select! {
                    _ = &mut stopped => return seen,
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        });
        Watch { stop, task }
    }
}

/// A look that goes on.
pub(crate) struct Watch {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Seen>,
}

impl Watch {
    pub(crate) async fn stop(self) -> Seen {
        let Self { stop, task } = self;
        stop.send(()).unwrap();
        task.await.unwrap()
    }
}

async fn list(pods: &Api<Pod>) -> Vec<Pod> {
    let labels = format!("fanout.openfactory.io/nats-cluster={CLUSTER}");
    pods.list(&ListParams::default().labels(&labels)).await.unwrap().items
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.filter(|condition| condition.type_ == "Ready" && condition.status == "True");
    pod.metadata.deletion_timestamp.is_none() && ready.count() == 1
}

/// Everything that Kafka has acknowledged is in the stream, once and in order.
pub(crate) async fn verdict(site: &Site, servers: &Servers) {
    site.stage.wait_committed().await;
    let ledger = site.stage.traffic.ledger();
    let tally = tally_stream_of(&servers.client().await, CLUSTER, STREAM, &ledger)
        .await
        .unwrap();
    tally.verdict(&ledger).check_exactly_once().unwrap();
}
