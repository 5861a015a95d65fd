//! What people of a namespace may do with our resources by Kubernetes' own roles, tried with a token of theirs.

use std::collections::BTreeSet;
use std::path::Path;

use e2e_rig::cluster::Cluster;
use e2e_rig::kubernetes::{Kubernetes, Namespace};
use e2e_rig::manifests::{asset_forwarder, kafka_channel, nats_cluster};
use e2e_rig::stage::SOON;
use e2e_rig::wait;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use self::Act::{
    Change, Create, Delete, DeleteAll, Get, GetScale, GetStatus, List, PatchFinalizers, PatchScale, PatchStatus,
    Replace, ReplaceStatus, Watch,
};

/// What somebody tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Get,
    List,
    Watch,
    GetStatus,
    GetScale,
    Create,
    Change,
    Replace,
    Delete,
    DeleteAll,
    PatchScale,
    PatchStatus,
    ReplaceStatus,
    PatchFinalizers,
}

/// All of them: what nobody of a namespace may do is in none of the lists below.
const ALL: [Act; 14] = [
    Get,
    List,
    Watch,
    GetStatus,
    GetScale,
    Create,
    Change,
    Replace,
    Delete,
    DeleteAll,
    PatchScale,
    PatchStatus,
    ReplaceStatus,
    PatchFinalizers,
];
const READS: &[Act] = &[Get, List, Watch, GetStatus];
const WRITES: &[Act] = &[Create, Change, Replace, Delete, DeleteAll];

/// Kubernetes' roles, and whether they write.
const ROLES: [(&str, bool); 3] = [("view", false), ("edit", true), ("admin", true)];

/// A kind of ours, and an object of it that is in each namespace.
struct Kind {
    resource: ApiResource,
    object: Value,
}

impl Kind {
    fn all() -> [Self; 3] {
        [
            Self {
                resource: ApiResource::erase::<crds::NatsCluster>(&()),
                object: nats_cluster("there", "C1", "nats://127.0.0.1:1"),
            },
            Self {
                resource: ApiResource::erase::<crds::KafkaChannel>(&()),
                object: kafka_channel("there", "127.0.0.1:1", "assets"),
            },
            Self {
                resource: ApiResource::erase::<crds::AssetForwarder>(&()),
                object: asset_forwarder("there", "group", 0),
            },
        ]
    }

    fn has_scale(&self) -> bool {
        self.resource.kind == "AssetForwarder"
    }

    fn acts(&self) -> impl Iterator<Item = Act> + '_ {
        let is_of_scale = |act: &Act| matches!(act, GetScale | PatchScale);
        ALL.into_iter().filter(move |act| self.has_scale() || !is_of_scale(act))
    }

    /// What a role promises for it in its own namespace.
    fn promised(&self, writes: bool) -> BTreeSet<Act> {
        let mut promised: BTreeSet<Act> = READS.iter().copied().collect();
        promised.extend(self.has_scale().then_some(GetScale));
        if writes {
            promised.extend(WRITES);
            promised.extend(self.has_scale().then_some(PatchScale));
        }
        promised
    }

    /// What of all that is allowed to somebody in a namespace. Nothing is changed.
    async fn allowed(&self, client: &Client, namespace: &str) -> BTreeSet<Act> {
        let api = Api::namespaced_with(client.clone(), namespace, &self.resource);
        let mut allowed = BTreeSet::new();
        for act in self.acts() {
            if is_allowed(self.attempt(&api, act).await) {
                allowed.insert(act);
            }
        }
        allowed
    }

    async fn attempt(&self, api: &Api<DynamicObject>, act: Act) -> kube::Result<()> {
        let name = "there";
        let post = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let patch = PatchParams::default().dry_run();
        let delete = DeleteParams::default().dry_run();
        let labels = Patch::Merge(json!({"metadata": {"labels": {"tried": "yes"}}}));
        match act {
            Get => api.get(name).await.map(drop),
            List => api.list(&ListParams::default()).await.map(drop),
            Watch => api.watch(&WatchParams::default().timeout(1), "0").await.map(drop),
            GetStatus => api.get_subresource("status", name).await.map(drop),
            GetScale => api.get_subresource("scale", name).await.map(drop),
            Create => api.create(&post, &self.named("another")).await.map(drop),
            Change => api.patch(name, &patch, &labels).await.map(drop),
            // Somebody who may read nothing has no version to name; what they try is refused before it is looked at.
            Replace => {
                let object = api.get(name).await.unwrap_or_else(|_| self.named(name));
                api.replace(name, &post, &object).await.map(drop)
            }
            Delete => api.delete(name, &delete).await.map(drop),
            DeleteAll => api.delete_collection(&delete, &ListParams::default()).await.map(drop),
            PatchScale => {
                let scale = Patch::Merge(json!({"spec": {"replicas": 2}}));
                api.patch_subresource("scale", name, &patch, &scale).await.map(drop)
            }
            PatchStatus => {
                let status = Patch::Merge(json!({"status": {"observedGeneration": 7}}));
                api.patch_subresource("status", name, &patch, &status).await.map(drop)
            }
            ReplaceStatus => {
                let object = api.get(name).await.unwrap_or_else(|_| self.named(name));
                api.replace_subresource("status", name, &post, &object).await.map(drop)
            }
            PatchFinalizers => {
                let finalizers = Patch::Merge(json!({"metadata": {"finalizers": []}}));
                let patched = api.patch_subresource("finalizers", name, &patch, &finalizers).await;
                patched.map(drop)
            }
        }
    }

    fn named(&self, name: &str) -> DynamicObject {
        let mut object = self.object.clone();
        object["metadata"]["name"] = json!(name);
        serde_json::from_value(object).unwrap()
    }
}

/// Whether the API server lets somebody do what they have tried. It looks at their rights first: any other refusal is a fault of the try.
fn is_allowed(tried: kube::Result<()>) -> bool {
    match tried {
        Ok(()) => true,
        Err(kube::Error::Api(refusal)) if refusal.code == 403 => false,
        Err(error) => panic!("{error}"),
    }
}

/// What the chart adds to Kubernetes' roles, under names of this test's own. It goes when this is dropped.
struct Aggregated {
    cluster: Cluster,
    manifest: String,
}

impl Aggregated {
    async fn apply(kubernetes: &Kubernetes, release: &str) -> Self {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/fanout-operator");
        let template = [
            "template",
            release,
            chart.to_str().unwrap(),
            "--show-only=templates/aggregated-roles.yaml",
        ];
        let manifest = kubernetes.helm(&template).await.unwrap();
        kubernetes.kubectl(&["apply", "-f", "-"], &manifest).await.unwrap();
        Self {
            cluster: kubernetes.cluster.clone(),
            manifest,
        }
    }
}

impl Drop for Aggregated {
    fn drop(&mut self) {
        let delete = ["delete", "--wait=false", "--ignore-not-found", "-f", "-"];
        // The cluster goes anyway.
        drop(self.cluster.kubectl_with(&delete, &self.manifest));
    }
}

/// An account for each role, bound in the namespace alone.
async fn bind(namespace: &Namespace) {
    for (role, _) in ROLES {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": role}});
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": role, "namespace": namespace.name}],
        });
        namespace.apply(&format!("{account}\n---\n{binding}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_tenant_may_do_what_its_role_says_in_its_own_namespace_and_nothing_elsewhere() {
    let kubernetes = Kubernetes::of_run().await.unwrap();
    kubernetes.install_definitions().await.unwrap();
    let (own, other) = (
        Namespace::new(&kubernetes).unwrap(),
        Namespace::new(&kubernetes).unwrap(),
    );
    let _roles = Aggregated::apply(&kubernetes, &own.name).await;
    let kinds = Kind::all();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"}});
    for namespace in [&own, &other] {
        let mut all: Vec<String> = kinds.iter().map(|kind| kind.object.to_string()).collect();
        all.push(secret.to_string());
        namespace.apply(&all.join("\n---\n")).await.unwrap();
    }
    bind(&own).await;
    for (role, writes) in ROLES {
        let client = kubernetes.client_of(&own.name, role).await.unwrap();
        for kind in &kinds {
            let (of, promised) = (&kind.resource.kind, kind.promised(writes));
            // A controller puts Kubernetes' roles together, soon after ours are there.
            let allowed = wait::value(SOON, "the roles are put together", || async {
                let allowed = kind.allowed(&client, &own.name).await;
                Ok(allowed.is_superset(&promised).then_some(allowed))
            })
            .await
            .unwrap();
            assert_eq!(allowed, promised, "{role}, {of}, in its own namespace");
            assert_eq!(
                kind.allowed(&client, &other.name).await,
                BTreeSet::new(),
                "{role}, {of}, in another namespace"
            );
            let everywhere = Api::<DynamicObject>::all_with(client.clone(), &kind.resource);
            assert!(
                !is_allowed(everywhere.list(&ListParams::default()).await.map(drop)),
                "{role} may list the {of}s of all namespaces"
            );
        }
        // Kubernetes' own roles let those who write in a namespace read its Secrets; ours add nothing to that.
        for (namespace, may) in [(&own, writes), (&other, false)] {
            let secrets = Api::<Secret>::namespaced(client.clone(), &namespace.name);
            assert_eq!(is_allowed(secrets.get("there").await.map(drop)), may, "{role}");
            let listed = secrets.list(&ListParams::default()).await;
            assert_eq!(is_allowed(listed.map(drop)), may, "{role}");
        }
    }
}
