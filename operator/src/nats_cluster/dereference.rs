//! Reads what a cluster refers to, and who refers to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::{AssetForwarder, AssetForwarderStatus, NatsCluster};
use kube::api::ListParams;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};

use super::access::ClusterAccess;
use crate::context::Context;
use crate::credentials::{Secrets, SecretsError, secrets_of_nats};
use crate::reference::namespace_is_deleted;

/// The list of forwarders is there within moments, or the API server is not.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// What belongs to a cluster.
#[derive(Clone, Debug)]
pub(super) struct Dereferenced {
    pub(super) secrets: Secrets,
    /// The forwarders that have it in their ring, or are still leaving it, as `namespace/name`, sorted.
    pub(super) member_of: Vec<String>,
    /// Whether its whole namespace is being deleted.
    pub(super) namespace_goes: bool,
}

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DereferenceError {
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("the list of AssetForwarders is not there yet: an empty one would let clusters go that are in use")]
    Forwarders,
    #[error("failed to list the AssetForwarders")]
    List(#[source] Box<kube::Error>),
    #[error("failed to read the namespace {name}")]
    Namespace { name: String, source: Box<kube::Error> },
}

pub(super) async fn dereference(
    cluster: &NatsCluster,
    context: &Context,
    forwarders: &Store<AssetForwarder>,
) -> Result<Dereferenced, DereferenceError> {
    match tokio::time::timeout(READY_WITHIN, forwarders.wait_until_ready()).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) | Err(_) => return Err(DereferenceError::Forwarders),
    }
    let namespace = cluster.namespace().unwrap_or_default();
    let is_deleted = cluster.meta().deletion_timestamp.is_some();
    // The store may be behind a forwarder that has just taken the cluster into its ring: who lets it go must know.
    let forwarders = if is_deleted {
        listed(context).await?
    } else {
        forwarders.state()
    };
    // Nothing is asked of a cluster that leaves, so a Secret that cannot be read does not hold it.
    let names = if is_deleted {
        BTreeSet::new()
    } else {
        secrets_of_nats(&ClusterAccess::of(cluster))
    };
    Ok(Dereferenced {
        secrets: Secrets::read(&context.client, &namespace, names).await?,
        member_of: members_of(&forwarders, &named(cluster)),
        namespace_goes: is_deleted && namespace_goes(context, &namespace).await?,
    })
}

async fn listed(context: &Context) -> Result<Vec<Arc<AssetForwarder>>, DereferenceError> {
    let api = context.scope.api::<AssetForwarder>(&context.client);
    let listed = api.list(&ListParams::default()).await;
    let listed = listed.map_err(|error| DereferenceError::List(Box::new(error)))?;
    Ok(listed.items.into_iter().map(Arc::new).collect())
}

async fn namespace_goes(context: &Context, name: &str) -> Result<bool, DereferenceError> {
    namespace_is_deleted(context, name)
        .await
        .map_err(|source| DereferenceError::Namespace {
            name: name.to_owned(),
            source: Box::new(source),
        })
}

/// The forwarders in whose rings a cluster (`namespace/name`) is, or that are still leaving it, as `namespace/name`, sorted.
#[must_use]
pub fn members_of(forwarders: &[Arc<AssetForwarder>], cluster: &str) -> Vec<String> {
    let mut members: Vec<String> = forwarders
        .iter()
        .filter(|forwarder| lists(forwarder, cluster))
        .map(|forwarder| named(forwarder.as_ref()))
        .collect();
    members.sort();
    members
}

/// Whether a forwarder says that its pods publish to a cluster, or may.
pub(super) fn lists(forwarder: &AssetForwarder, cluster: &str) -> bool {
    let Some(status) = &forwarder.status else { return false };
    status.ring.as_ref().is_some_and(|ring| {
        let mut all = ring.member_refs.iter().chain(&ring.leaving);
        all.any(|listed| listed == cluster) && !(ring.epoch == 0 && has_never_run(status))
    })
}

/// A forwarder names its members before it makes its first pods. One whose Deployment the API server refuses has none that could publish,
/// and a cluster would wait for it until somebody mends its spec.
fn has_never_run(status: &AssetForwarderStatus) -> bool {
    let mut conditions = status.conditions.iter();
    let is_refused = conditions.any(|condition| condition.type_ == "Ready" && condition.reason == "ApplyFailed");
    is_refused && status.replicas == 0 && status.desired_replicas.is_none()
}

/// `namespace/name`.
pub(super) fn named<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
