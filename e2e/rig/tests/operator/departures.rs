//! A deleted cluster goes by its annotation or at its bound, whatever the operator cannot read.

use std::time::Duration;

use crds::NatsCluster;
use e2e_rig::kubernetes::Verb::{self, Create, Get, List, Watch};
use e2e_rig::kubernetes::{ApiProxy, Fault, Kubernetes, Namespace, Operator, Rule};
use e2e_rig::site::condition;
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use kube::Api;
use serde_json::json;

const CLUSTER: &str = "c1";
const FINALIZER: &str = "fanout.openfactory.io/drain";

/// As long as a cluster waits whose namespace goes, and with it some time for the namespace itself.
const WITH_NAMESPACE: Duration = Duration::from_secs(90);

const fn always(resource: &'static str, verbs: &'static [Verb], fault: Fault) -> Rule {
    Rule {
        verbs,
        resource: Some(resource),
        every: 1,
        fault,
    }
}

/// Forwarders and namespaces may not be read, and events lead nowhere.
const UNREADABLE: [Rule; 3] = [
    always("assetforwarders", &[List], Fault::Refuse(403)),
    always("namespaces", &[Get], Fault::Refuse(403)),
    always("events", &[Create], Fault::Hang),
];

/// As something before the API server answers that does not know where it is. The API server itself goes on saying that it has the kind.
const IN_PASSING: [Rule; 1] = [always("assetforwarders", &[List, Watch], Fault::Refuse(404))];

/// An operator behind a proxy, and a cluster that it has seen, at an address where nobody listens.
struct Scene {
    // Before the namespaces, so that nobody works in them while they go.
    _operator: Operator,
    proxy: ApiProxy,
    namespace: Namespace,
    // Where the operator's Lease is: it does not go with the namespace.
    _home: Namespace,
}

impl Scene {
    async fn new() -> Self {
        let kubernetes = Kubernetes::of_run().await.unwrap();
        kubernetes.install_definitions().await.unwrap();
        let (home, namespace) = (
            Namespace::new(&kubernetes).unwrap(),
            Namespace::new(&kubernetes).unwrap(),
        );
        let proxy = kubernetes.api_proxy().await.unwrap();
        let mut operator =
            Operator::behind_from_elsewhere(&proxy, &kubernetes, &home.name, &namespace.name, "operator").unwrap();
        operator.wait_leads().await.unwrap();
        let cluster = json!({
            "apiVersion": "fanout.openfactory.io/v1alpha1",
            "kind": "NatsCluster",
            "metadata": {"name": CLUSTER},
            "spec": {"external": {"servers": ["nats://127.0.0.1:1"]}},
        });
        namespace.apply(&cluster.to_string()).await.unwrap();
        namespace
            .wait::<NatsCluster>(CLUSTER, SOON, "the operator has seen it", |cluster| {
                let finalizers = cluster.metadata.finalizers.iter().flatten();
                finalizers.into_iter().any(|there| there == FINALIZER)
                    && condition(cluster, "Ready").is_some_and(|ready| ready.reason == "Unreachable")
            })
            .await
            .unwrap();
        Self {
            _operator: operator,
            proxy,
            namespace,
            _home: home,
        }
    }

    async fn delete(&self) {
        let delete = ["delete", "natscluster", CLUSTER, "--wait=false"];
        self.namespace.kubectl(&delete).await.unwrap();
    }

    /// Waits until it says that it cannot tell for whom it waits.
    async fn wait_says_why(&self) {
        let waiting = self
            .namespace
            .wait::<NatsCluster>(CLUSTER, SOON, "it says what it waits for", |cluster| {
                condition(cluster, "Ready").is_some_and(|ready| ready.reason == "Draining")
            })
            .await
            .unwrap();
        let message = &condition(&waiting, "Ready").unwrap().message;
        for part in ["cannot read which forwarders", "at most", "skip-drain"] {
            assert!(message.contains(part), "{message}");
        }
    }

    /// Waits until the operator has looked at the cluster twice more. Each look that lets nobody go asks for the namespace.
    async fn wait_looks(&self) {
        self.proxy.take_requests();
        let mut looks = 0;
        wait::eventually(SOON, "two more looks are over", || {
            let requests = self.proxy.take_requests();
            looks += requests.iter().filter(|call| call.resource == "namespaces").count();
            // The third one has begun only when the second is over.
            let is_over = looks >= 3;
            async move { Ok(is_over) }
        })
        .await
        .unwrap();
    }

    async fn is_there(&self) -> bool {
        let cluster = self.namespace.api::<NatsCluster>().get_opt(CLUSTER).await;
        cluster.unwrap().is_some()
    }

    async fn wait_gone(&self, within: Duration) {
        wait::eventually(within, "the cluster is gone", || async { Ok(!self.is_there().await) })
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_cluster_with_the_skip_annotation_goes_while_forwarders_cannot_be_read() {
    let scene = Scene::new().await;
    scene.proxy.set(&UNREADABLE);
    scene.delete().await;
    scene.wait_says_why().await;
    // Nobody knows that no forwarder publishes to it.
    scene.wait_looks().await;
    assert!(scene.is_there().await);
    let skip = "fanout.openfactory.io/skip-drain=true";
    scene
        .namespace
        .kubectl(&["annotate", "natscluster", CLUSTER, skip])
        .await
        .unwrap();
    scene.wait_gone(SOON).await;
}

#[tokio::test]
async fn a_cluster_goes_with_its_namespace_while_forwarders_cannot_be_read() {
    let scene = Scene::new().await;
    let [forwarders, _, events] = UNREADABLE;
    scene.proxy.set(&[forwarders, events]);
    let name = &scene.namespace.name;
    scene
        .namespace
        .kubernetes
        .kubectl(&["delete", "namespace", name, "--wait=false"], "")
        .await
        .unwrap();
    scene.wait_gone(WITH_NAMESPACE).await;
    let namespaces = Api::<k8s_openapi::api::core::v1::Namespace>::all(scene.namespace.kubernetes.client.clone());
    wait::eventually(WITH_NAMESPACE, "the namespace is gone", || async {
        Ok(namespaces.get_opt(name).await?.is_none())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_answer_in_passing_that_there_is_no_such_kind_lets_no_cluster_go() {
    let scene = Scene::new().await;
    scene.proxy.set(&IN_PASSING);
    scene.delete().await;
    scene.wait_says_why().await;
    scene.wait_looks().await;
    assert!(scene.is_there().await);
    scene.proxy.set(&[]);
    scene.wait_gone(SOON).await;
}
