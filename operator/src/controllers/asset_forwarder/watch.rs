//! What a change of another object means for which forwarders.

use std::collections::HashSet;
use std::sync::Arc;

use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::ObjectMeta;
use kube::core::{PartialObjectMeta, PartialObjectMetaExt as _};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{Controller, WatchStreamExt as _};
use kube::{Api, Resource, ResourceExt as _};

use super::autoscale::Histories;
use super::candidates::reference;
use super::memory::Memory;
use super::names;
use super::pods::Observed;
use super::rivals;
use super::rollout::REPLICAS;
use super::stores::Stores;
use crate::context::{Context, Scope};
use crate::index::{Children, WATCHED, version};
use crate::owner::controlling;
use crate::reconcile::apply::{MANAGER, keep_ownership};
use crate::reconcile::cluster::DRAIN;
use crate::reconcile::conditions;
use crate::reconcile::drive;
use crate::reconcile::reference::{channels_of, chooses, grants};
use crate::watch::{Subscription, changes, changes_of, declared, hash, metadata, stored, watch, watching};

/// Whose turn it is.
type Wakes = BoxStream<'static, ObjectRef<AssetForwarder>>;

/// Forgets what is remembered of a forwarder, unless the store still has it. What its name refers to stays while another one has the name.
pub(super) fn forget_if_gone(
    context: &Context,
    memory: &Memory,
    histories: &Histories,
    forwarders: &Store<AssetForwarder>,
    forwarder: &AssetForwarder,
) {
    let there = forwarders.get(&key(forwarder));
    if there
        .as_ref()
        .is_some_and(|there| there.metadata.uid == forwarder.metadata.uid)
    {
        return;
    }
    memory.forget(forwarder);
    context.own_writes.forget(forwarder);
    histories.forget(forwarder);
    if there.is_none() {
        context.references.forwarders.forget(forwarder);
    }
}

/// Forgets what is remembered of all forwarders that the store does not have. Of those that were deleted in a gap of the watch no event tells.
pub(super) fn forget_all_gone(
    context: &Context,
    memory: &Memory,
    histories: &Histories,
    forwarders: &Store<AssetForwarder>,
) {
    let uids: HashSet<String> = forwarders
        .state()
        .iter()
        .filter_map(|forwarder| forwarder.uid())
        .collect();
    histories.retain(|uid| uids.contains(uid));
    for (uid, gone) in memory.retain(|uid| uids.contains(uid)) {
        context.own_writes.forget_uid(&uid);
        let (namespace, name) = &gone;
        if forwarders.get(&ObjectRef::new(name).within(namespace)).is_none() {
            context.references.forwarders.forget_name(&gone);
        }
    }
}

/// Our own resources, as they are watched for all controllers.
pub struct Resources {
    /// The forwarders.
    pub forwarders: Subscription<AssetForwarder>,
    /// The same once more: what it tells wakes others.
    pub rivals: Subscription<AssetForwarder>,
    /// All clusters in scope.
    pub clusters: Subscription<NatsCluster>,
    /// All channels in scope.
    pub channels: Subscription<KafkaChannel>,
}

/// The controller with all its watches, and what they tell. Of most children, and of namespaces, only the metadata is read.
pub fn controller(
    context: &Arc<Context>,
    resources: Resources,
    memory: &Arc<Memory>,
    histories: &Arc<Histories>,
    of_secrets: impl Stream<Item = ObjectRef<AssetForwarder>> + Send + 'static,
) -> (Controller<AssetForwarder>, Stores) {
    let labelled = children_alone;
    let Resources {
        forwarders: Subscription {
            store: forwarders,
            events: own,
        },
        rivals: Subscription {
            store: _,
            events: rivals,
        },
        clusters: Subscription {
            store: clusters,
            events: cluster_events,
        },
        channels: Subscription {
            store: channels,
            events: channel_events,
        },
    } = resources;
    // All that a list by a forwarder's selector has, whoever has made them.
    let [(kind, value), _] = WATCHED;
    let (pods, pod_events) = stored::<Pod>(context, watching().labels(&format!("{kind}={value}")));
    let (deployments, deployment_events) = deployments(context);
    let (config_maps, map_events) = stored_metadata::<ConfigMap>(context, labelled());
    let (namespaces, namespace_events) = match context.scope {
        Scope::Namespace(_) => (None, None),
        Scope::Cluster => {
            let (store, writer) = reflector::store();
            let api = Api::<PartialObjectMeta<Namespace>>::all(context.client.clone());
            let events = reflector::reflector(writer, watch(api, watching()));
            (Some(store), Some(events))
        }
    };
    let stores = Stores {
        forwarders: forwarders.clone(),
        clusters,
        channels,
        namespaces,
        deployments,
        pods,
        config_maps,
    };

    // The store has been told before: see `reflector`.
    let own = own.inspect({
        let (context, memory, histories) = (Arc::clone(context), Arc::clone(memory), Arc::clone(histories));
        let forwarders = forwarders.clone();
        move |event| match event {
            Event::Delete(forwarder) => forget_if_gone(&context, &memory, &histories, &forwarders, forwarder),
            Event::InitDone => forget_all_gone(&context, &memory, &histories, &forwarders),
            Event::Init | Event::InitApply(_) | Event::Apply(_) => {}
        }
    });
    let own = changes_of(
        own.map(Ok),
        |forwarder| Some(forwarder_facts(forwarder)),
        |forwarder| key(&forwarder),
    );
    let of_rivals = changes_of(
        rivals.map(Ok),
        |forwarder| Some(rival_facts(forwarder)),
        |forwarder| (rivals::group(&forwarder).map(str::to_owned), forwarder.metadata.uid),
    );
    let mut wakes: Vec<Wakes> = vec![
        own.boxed(),
        concerned(of_rivals, {
            let forwarders = forwarders.clone();
            move |(group, uid)| of_rival(group.as_deref(), uid.as_deref(), &forwarders)
        }),
        of_secrets.boxed(),
        of_children(context, deployment_events),
        of_children(context, map_events),
        of_children(context, metadata::<Secret>(context, labelled())),
        of_children(context, metadata::<Service>(context, labelled())),
        of_children(context, metadata::<ServiceAccount>(context, labelled())),
        of_children(context, metadata::<Role>(context, labelled())),
        of_children(context, metadata::<RoleBinding>(context, labelled())),
        of_children(context, metadata::<PodDisruptionBudget>(context, labelled())),
        of_children(context, metadata::<NetworkPolicy>(context, labelled())),
        of_pods(pod_events),
    ];
    // One that is new is a member only after it was looked at, which puts the finalizer on it.
    let is_observed = |cluster: &NatsCluster| cluster.finalizers().iter().any(|finalizer| finalizer == DRAIN);
    let clusters = changes(cluster_events.map(Ok), move |cluster| {
        is_observed(cluster).then(|| declared(cluster))
    });
    wakes.push(concerned(clusters, {
        let stores = stores.clone();
        move |cluster| of_cluster(cluster, &stores)
    }));
    let channels = changes(channel_events.map(Ok), |channel| Some(channel_facts(channel)));
    wakes.push(concerned(channels, {
        let forwarders = forwarders.clone();
        move |channel| of_channel(channel, &forwarders)
    }));
    if let Some(events) = namespace_events {
        let namespaces = changes(events, |namespace| Some(hash(namespace.labels())));
        wakes.push(concerned(namespaces, {
            let forwarders = forwarders.clone();
            move |namespace| of_namespace(namespace, &forwarders)
        }));
    }
    (drive::controller(forwarders, stream::select_all(wakes)), stores)
}

/// A watch of what is a forwarder's own.
fn children_alone() -> watcher::Config {
    let labels = WATCHED.map(|(name, value)| format!("{name}={value}"));
    watching().labels(&labels.join(","))
}

/// What is asked about who has written which field of a Deployment.
const OWNERSHIP: [&[&str]; 2] = [REPLICAS, &["f:metadata", "f:annotations"]];

/// The Deployments in full: their status is what a rollout waits for. Of who has written which field only [`OWNERSHIP`] stays.
fn deployments(
    context: &Context,
) -> (
    Store<Deployment>,
    impl Stream<Item = watcher::Result<Event<Deployment>>> + Send + 'static,
) {
    let (store, writer) = reflector::store();
    let api = context.scope.api::<Deployment>(&context.client);
    let events = kube::runtime::watcher(api, children_alone())
        .default_backoff()
        .modify(|deployment| keep_ownership(deployment, MANAGER, &OWNERSHIP));
    (store, reflector::reflector(writer, events))
}

fn stored_metadata<K>(
    context: &Context,
    config: watcher::Config,
) -> (
    Store<PartialObjectMeta<K>>,
    impl Stream<Item = watcher::Result<Event<PartialObjectMeta<K>>>> + Send + 'static,
)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    // The ring's annotations are as long as its members are many, and nobody reads them here.
    let events = metadata::<K>(context, config).modify(|object| object.annotations_mut().clear());
    (store, reflector::reflector(writer, events))
}

/// The owners of children that somebody else has changed.
fn of_children<K>(
    context: &Arc<Context>,
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> Wakes
where
    K: Resource<DynamicType = ()> + std::fmt::Debug + Send + Sync + 'static,
{
    let children = Arc::clone(&context.children);
    let heard = events.inspect({
        let children = Arc::clone(&children);
        move |told| children.hear(told)
    });
    let facts = |child: &K| Some(version(child).unwrap_or_default());
    let changed = changes_of(heard, facts, |mut child| {
        let metadata = ObjectMeta {
            annotations: None,
            ..std::mem::take(child.meta_mut())
        };
        metadata.into_response_partial::<K>()
    });
    concerned(changed, move |child| owners(child, &children))
}

fn owners<K: Resource<DynamicType = ()>>(child: &K, children: &Children) -> Vec<ObjectRef<AssetForwarder>> {
    if child.meta().deletion_timestamp.is_none() && children.knows(child) {
        return Vec::new();
    }
    controlling(child).into_iter().collect()
}

fn of_pods(events: impl Stream<Item = watcher::Result<Event<Pod>>> + Send + 'static) -> Wakes {
    // Kubelets write more about a pod than anybody here reads.
    let facts = |pod: &Pod| Some(hash(&format!("{:?}", Observed::of(pod))));
    let forwarder = |pod: Pod| {
        let name = pod.labels().get(names::INSTANCE);
        let namespace = pod.namespace().unwrap_or_default();
        name.map(|name| ObjectRef::new(name).within(&namespace))
    };
    changes_of(events, facts, forwarder).flat_map(stream::iter).boxed()
}

fn concerned<K: Send + 'static>(
    changed: impl Stream<Item = K> + Send + 'static,
    of: impl Fn(&K) -> Vec<ObjectRef<AssetForwarder>> + Send + 'static,
) -> Wakes {
    changed.flat_map(move |object| stream::iter(of(&object))).boxed()
}

/// By name alone: what is in a key besides differs between an object and a reference to it.
fn key(forwarder: &AssetForwarder) -> ObjectRef<AssetForwarder> {
    ObjectRef::new(&forwarder.name_any()).within(&forwarder.namespace().unwrap_or_default())
}

/// Those that may choose it and are let in, and those of whose ring it is, or was.
fn of_cluster(cluster: &NatsCluster, stores: &Stores) -> Vec<ObjectRef<AssetForwarder>> {
    let reference = reference(cluster);
    let namespace = cluster.namespace().unwrap_or_default();
    of(&stores.forwarders, |forwarder| {
        let ring = forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
        ring.is_some_and(|ring| ring.member_refs.contains(&reference) || ring.leaving.contains(&reference))
            || (is_let_in(cluster, &namespace, forwarder, stores)
                && chooses(&forwarder.spec.clusters.selector, cluster.labels()))
    })
}

/// Whether a forwarder looks into the namespace of a cluster that lets it in.
fn is_let_in(cluster: &NatsCluster, namespace: &str, forwarder: &AssetForwarder, stores: &Stores) -> bool {
    let own = forwarder.namespace().unwrap_or_default();
    if own == namespace {
        return true;
    }
    let allowed = cluster.spec.allowed_namespaces.as_ref();
    let (Some(_), Some(selector), Some(namespaces)) =
        (allowed, &forwarder.spec.clusters.namespace_selector, &stores.namespaces)
    else {
        return false;
    };
    let labels = |name: &str| {
        let found = namespaces.get(&ObjectRef::new(name));
        found.map(|found| found.labels().clone()).unwrap_or_default()
    };
    grants(allowed, namespace, &own, &labels(&own)) && chooses(selector, &labels(namespace))
}

/// What of a forwarder it depends on itself.
fn forwarder_facts(forwarder: &AssetForwarder) -> u64 {
    let status = forwarder.status.as_ref();
    hash(&(
        declared(forwarder),
        status.map(|status| (status.replicas, status.desired_replicas)),
        rivals::waits(forwarder),
    ))
}

/// What of a forwarder those depend on that wait for it: when it is ready, its pods read no more than it declares.
fn rival_facts(forwarder: &AssetForwarder) -> u64 {
    hash(&(
        forwarder_facts(forwarder),
        rivals::is_observed(forwarder),
        rivals::is_ready(forwarder),
    ))
}

/// What of a channel forwarders depend on.
fn channel_facts(channel: &KafkaChannel) -> u64 {
    let status = channel.status.as_ref();
    let ready = status.and_then(|status| conditions::ready(&status.conditions));
    hash(&(
        declared(channel),
        status.and_then(|status| status.observed_generation),
        status.and_then(|status| status.partitions),
        ready.map(|ready| (&ready.status, &ready.reason, &ready.message)),
    ))
}

fn of_channel(channel: &KafkaChannel, forwarders: &Store<AssetForwarder>) -> Vec<ObjectRef<AssetForwarder>> {
    let key = (channel.namespace().unwrap_or_default(), channel.name_any());
    of(forwarders, |forwarder| channels_of(forwarder).contains(&key))
}

/// Those that wait for the forwarder of this group and UID to let their source go.
fn of_rival(group: Option<&str>, uid: Option<&str>, store: &Store<AssetForwarder>) -> Vec<ObjectRef<AssetForwarder>> {
    of(store, |other| {
        rivals::waits(other) && rivals::group(other) == group && other.metadata.uid.as_deref() != uid
    })
}

/// Those in it, which others let in by its labels, and those who choose namespaces by labels.
fn of_namespace(
    namespace: &PartialObjectMeta<Namespace>,
    forwarders: &Store<AssetForwarder>,
) -> Vec<ObjectRef<AssetForwarder>> {
    let name = namespace.name_any();
    of(forwarders, |forwarder| {
        forwarder.spec.clusters.namespace_selector.is_some() || forwarder.namespace().as_ref() == Some(&name)
    })
}

fn of(
    forwarders: &Store<AssetForwarder>,
    is_concerned: impl Fn(&AssetForwarder) -> bool,
) -> Vec<ObjectRef<AssetForwarder>> {
    let forwarders = forwarders.state_filter(|forwarder| is_concerned(forwarder));
    forwarders.iter().map(|forwarder| key(forwarder)).collect()
}
