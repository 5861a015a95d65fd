//! What a change of another object means for which forwarders.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::PartialObjectMeta;
use kube::runtime::Controller;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Resource as _, ResourceExt as _};

use super::dereference::dependencies;
use super::members::reference;
use super::names;
use crate::context::{Context, Scope};
use crate::controller::{self, metadata, watch, watching};
use crate::reference::chooses;

/// Which Secrets the last reconcile of each forwarder has read. The Secrets are named by clusters and channels, perhaps in other
/// namespaces, so a forwarder's own spec does not tell.
#[derive(Debug, Default)]
pub struct SecretIndex(Mutex<ReadBy>);

/// Secrets by namespace and name, of each forwarder.
type ReadBy = HashMap<ObjectRef<AssetForwarder>, BTreeSet<(String, String)>>;

impl SecretIndex {
    /// A forwarder reads these, as namespace and name.
    pub fn note(&self, forwarder: &AssetForwarder, secrets: BTreeSet<(String, String)>) {
        self.lock().insert(key(forwarder), secrets);
    }

    /// A forwarder is gone.
    pub fn forget(&self, forwarder: &AssetForwarder) {
        self.lock().remove(&key(forwarder));
    }

    fn readers(&self, namespace: &str, name: &str) -> Vec<ObjectRef<AssetForwarder>> {
        let secret = (namespace.to_owned(), name.to_owned());
        let index = self.lock();
        let readers = index.iter().filter(|(_, secrets)| secrets.contains(&secret));
        readers.map(|(forwarder, _)| forwarder.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, ReadBy> {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// By name alone: what is in a key besides differs between an object and a reference to it.
fn key(forwarder: &AssetForwarder) -> ObjectRef<AssetForwarder> {
    ObjectRef::new(&forwarder.name_any()).within(&forwarder.namespace().unwrap_or_default())
}

/// The controller with all its watches. Of children, Secrets, pods and namespaces only the metadata is read: whatever is needed
/// of them is read at the reconcile.
pub fn controller(context: &Context, index: &Arc<SecretIndex>) -> Controller<AssetForwarder> {
    let (client, scope) = (&context.client, &context.scope);
    let labelled =
        || watching().labels("app.kubernetes.io/name=asset-forwarder,app.kubernetes.io/managed-by=fanout-operator");
    let controller = controller::controller::<AssetForwarder>(context);
    let store = controller.store();
    let mut controller = controller
        .owns_stream(metadata::<Deployment>(context, labelled()))
        .owns_stream(metadata::<ConfigMap>(context, labelled()))
        .owns_stream(metadata::<Service>(context, labelled()))
        .owns_stream(metadata::<ServiceAccount>(context, labelled()))
        .owns_stream(metadata::<Role>(context, labelled()))
        .owns_stream(metadata::<RoleBinding>(context, labelled()))
        .owns_stream(metadata::<PodDisruptionBudget>(context, labelled()))
        .owns_stream(metadata::<NetworkPolicy>(context, labelled()))
        .watches_stream(metadata::<Pod>(context, labelled()), |pod| {
            let name = pod.labels().get(names::FORWARDER)?;
            Some(ObjectRef::new(name).within(&pod.namespace()?))
        })
        .watches_stream(metadata(context, watching()), {
            let index = Arc::clone(index);
            move |secret| of_secret(&secret, &index)
        })
        .watches_stream(watch(scope.api::<NatsCluster>(client), watching()), {
            let store = store.clone();
            move |cluster| of_cluster(&cluster, &store)
        })
        .watches_stream(watch(scope.api::<KafkaChannel>(client), watching()), {
            let store = store.clone();
            move |channel| of_channel(&channel, &store)
        });
    if *scope == Scope::Cluster {
        let namespaces = watch(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), watching());
        controller = controller.watches_stream(namespaces, move |namespace| of_namespace(&namespace, &store));
    }
    controller
}

fn of_secret(secret: &PartialObjectMeta<Secret>, index: &SecretIndex) -> Vec<ObjectRef<AssetForwarder>> {
    let namespace = secret.namespace().unwrap_or_default();
    let owners = secret.owner_references().iter();
    let owners = owners.filter(|owner| {
        owner.kind == AssetForwarder::kind(&()) && owner.api_version == AssetForwarder::api_version(&())
    });
    let mut forwarders: Vec<_> = owners
        .map(|owner| ObjectRef::new(&owner.name).within(&namespace))
        .collect();
    forwarders.extend(index.readers(&namespace, &secret.name_any()));
    forwarders
}

/// Those whose selector chooses it, and those of whose ring it is, or was.
fn of_cluster(cluster: &NatsCluster, store: &Store<AssetForwarder>) -> Vec<ObjectRef<AssetForwarder>> {
    let reference = reference(cluster);
    concerned(store, |forwarder| {
        let ring = forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
        chooses(&forwarder.spec.clusters.selector, cluster.labels())
            || ring.is_some_and(|ring| ring.member_refs.contains(&reference) || ring.leaving.contains(&reference))
    })
}

fn of_channel(channel: &KafkaChannel, store: &Store<AssetForwarder>) -> Vec<ObjectRef<AssetForwarder>> {
    let key = (channel.namespace().unwrap_or_default(), channel.name_any());
    concerned(store, |forwarder| dependencies(forwarder).channels.contains(&key))
}

/// Those in it, which others let in by its labels, and those who choose namespaces by labels.
fn of_namespace(
    namespace: &PartialObjectMeta<Namespace>,
    store: &Store<AssetForwarder>,
) -> Vec<ObjectRef<AssetForwarder>> {
    let name = namespace.name_any();
    concerned(store, |forwarder| {
        forwarder.spec.clusters.namespace_selector.is_some() || forwarder.namespace().as_ref() == Some(&name)
    })
}

fn concerned(
    store: &Store<AssetForwarder>,
    is_concerned: impl Fn(&AssetForwarder) -> bool,
) -> Vec<ObjectRef<AssetForwarder>> {
    let forwarders = store.state_filter(|forwarder| is_concerned(forwarder));
    forwarders.iter().map(|forwarder| key(forwarder)).collect()
}
