//! What there is of a forwarder, and what its pods say.

mod ask;

use std::sync::Arc;

use crds::AssetForwarder;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::{DereferenceError, Existing};
use crate::context::Context;
use crate::controllers::asset_forwarder::beacon;
use crate::controllers::asset_forwarder::memory::Memory;
use crate::controllers::asset_forwarder::names::{self, Identity};
use crate::controllers::asset_forwarder::pods::{Observed, may_forward, may_make_pods};
use crate::controllers::asset_forwarder::stores::Stores;
use crate::index::version;

/// What there is, by the word of the API server.
pub(super) async fn existing(
    context: &Context,
    stores: &Stores,
    forwarder: &AssetForwarder,
    identity: &Identity,
) -> Result<Existing, DereferenceError> {
    let (ring_map, credentials) = (identity.ring_map(), identity.credentials());
    let selector = identity.selector_text();
    let beacon = async {
        match beacon::is_declared(&forwarder.spec.ring) {
            true => get::<Secret>(context, identity, &identity.beacon()).await,
            false => Ok(None),
        }
    };
    let (deployment, ring, credentials, beacon, pods) = tokio::try_join!(
        get::<Deployment>(context, identity, &identity.name),
        get::<ConfigMap>(context, identity, &ring_map),
        get::<Secret>(context, identity, &credentials),
        beacon,
        // By their labels, whoever owns them: pods whose Deployment is gone drain for a while, or live on as orphans, and publish all the same.
        list::<Pod>(context, identity, &selector),
    )?;
    let is_new = deployment.is_none() && ring.is_none() && pods.is_empty();
    let mut replica_sets = if is_new {
        Vec::new()
    } else {
        list::<ReplicaSet>(context, identity, &selector).await?
    };
    replica_sets.retain(|set| may_make_pods(set, &identity.name));
    let pods = pods.iter().filter(|pod| may_forward(pod, &identity.name));
    Ok(Existing {
        ring,
        credentials,
        beacon,
        deployment,
        replica_sets,
        configs: configs(stores, identity),
        pods: ask::ask(pods.filter_map(Observed::of).collect()).await,
    })
}

/// The same as the watches tell it, without what is needed only where something is let go; none: they are behind our own writes.
pub(super) async fn existing_from_stores(
    context: &Context,
    stores: &Stores,
    memory: &Memory,
    forwarder: &AssetForwarder,
    identity: &Identity,
) -> Option<Existing> {
    let Identity { namespace, name, .. } = identity;
    let children = &context.children;
    let (of_deployments, of_maps) = (Deployment::kind(&()), ConfigMap::kind(&()));
    let deployment = stores.deployments.get(&ObjectRef::new(name).within(namespace));
    let is_current = match &deployment {
        Some(deployment) => {
            let newest = children.current(&of_deployments, namespace, name);
            identity.owns(deployment.as_ref()) && version(deployment.as_ref()) == newest
        }
        None => children.is_absent(&of_deployments, namespace, name),
    };
    if !is_current {
        return None;
    }
    let ring_map = identity.ring_map();
    let ring = if children.is_absent(&of_maps, namespace, &ring_map) {
        None
    } else {
        let newest = children.current(&of_maps, namespace, &ring_map)?;
        Some(memory.ring(forwarder, newest)?)
    };
    let beacon = if beacon::is_declared(&forwarder.spec.ring) {
        let newest = children.current(&Secret::kind(&()), namespace, &identity.beacon())?;
        Some(memory.beacon(forwarder, newest)?)
    } else {
        None
    };
    let pods = pods_of(stores, identity);
    Some(Existing {
        ring,
        credentials: None,
        beacon,
        deployment: deployment.map(|deployment| Deployment::clone(&deployment)),
        replica_sets: Vec::new(),
        configs: configs(stores, identity),
        pods: ask::ask(pods.iter().filter_map(|pod| Observed::of(pod)).collect()).await,
    })
}

/// The pods of a forwarder, by their labels and whoever owns them. Those that are ending are among them.
pub(super) fn pods_of(stores: &Stores, identity: &Identity) -> Vec<Arc<Pod>> {
    let selector = identity.selector();
    stores.pods.state_filter(|pod| {
        let labels = pod.labels();
        pod.namespace().as_ref() == Some(&identity.namespace)
            && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && may_forward(pod, &identity.name)
    })
}

/// The configurations: of old ones it matters only that they go some day.
fn configs(stores: &Stores, identity: &Identity) -> Vec<PartialObjectMeta<ConfigMap>> {
    let configs = stores.config_maps.state_filter(|map| {
        map.namespace().as_ref() == Some(&identity.namespace)
            && map.labels().get(names::COMPONENT).map(String::as_str) == Some(names::CONFIG)
            && identity.owns(map)
    });
    configs.iter().map(|map| PartialObjectMeta::clone(map)).collect()
}

/// A child of that name, unless it belongs to another owner.
pub(super) async fn get<K>(context: &Context, identity: &Identity, name: &str) -> Result<Option<K>, DereferenceError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    if context.children.is_absent(&K::kind(&()), &identity.namespace, name) {
        return Ok(None);
    }
    let api = Api::<K>::namespaced(context.client.clone(), &identity.namespace);
    let found = api
        .get_opt(name)
        .await
        .map_err(DereferenceError::api(format!("the {} {name}", K::kind(&()))))?;
    if found.is_none() {
        context.children.not_found(&K::kind(&()), &identity.namespace, name);
    }
    Ok(found.filter(|found| identity.owns(found)))
}

async fn list<K>(context: &Context, identity: &Identity, labels: &str) -> Result<Vec<K>, DereferenceError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(context.client.clone(), &identity.namespace);
    let listed = api
        .list(&ListParams::default().labels(labels))
        .await
        .map_err(DereferenceError::api(format!(
            "the {}s of {}",
            K::kind(&()),
            identity.name
        )))?;
    Ok(listed.items)
}
