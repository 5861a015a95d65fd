//! Reads what a cluster refers to, and who refers to it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::{AssetForwarder, AssetForwarderStatus, NatsCluster};
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};
use tracing::warn;

use crate::context::Context;
use crate::error::describe;
use crate::reconcile::conditions;
use crate::reconcile::credentials::{ClusterAccess, Secrets, SecretsError, secrets_of_nats};
use crate::reconcile::reason::Reason;
use crate::reconcile::reference::namespace_is_deleted;
use crate::watch::listed as list;

/// The list of forwarders is there within moments, or the API server is not.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// For each answer about a cluster that is being deleted. Together they must leave time for what follows.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What belongs to a cluster that stays.
#[derive(Clone, Debug)]
pub(super) struct Dereferenced {
    pub(super) secrets: Secrets,
    /// The forwarders that have it in their ring, or are still leaving it, as `namespace/name`, sorted.
    pub(super) member_of: Vec<String>,
}

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DereferenceError {
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("failed to list the AssetForwarders, so the operator cannot know which of them use the cluster")]
    Forwarders(#[source] Box<kube::Error>),
}

/// Reads what belongs to a cluster that is not being deleted.
pub(super) async fn dereference(
    cluster: &NatsCluster,
    context: &Context,
    forwarders: &Store<AssetForwarder>,
) -> Result<Dereferenced, DereferenceError> {
    let forwarders = match tokio::time::timeout(READY_WITHIN, forwarders.wait_until_ready()).await {
        Ok(Ok(())) => forwarders.state(),
        // Where the kind is not installed, the store is never filled. Only a list tells that from an API server that is away.
        Ok(Err(_)) | Err(_) => all(context)
            .await
            .map_err(|error| DereferenceError::Forwarders(Box::new(error)))?,
    };
    let namespace = cluster.namespace().unwrap_or_default();
    let names = secrets_of_nats(&ClusterAccess::of(cluster));
    Ok(Dereferenced {
        secrets: context
            .secrets
            .read(context, &namespace, names, cluster.meta().uid.as_deref())
            .await?,
        member_of: members_of(&forwarders, &named(cluster)),
    })
}

async fn all(context: &Context) -> kube::Result<Vec<Arc<AssetForwarder>>> {
    let forwarders = list::<AssetForwarder>(context).await?;
    Ok(forwarders.into_iter().map(Arc::new).collect())
}

/// Who may still publish to a cluster that is being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    /// These forwarders (`namespace/name`), and no others.
    Known(Vec<String>),
    /// It could not be read, for this reason.
    Unknown(String),
}

/// Who may still publish to a cluster, as the API server says within `patience`. The store may be behind a forwarder that has just taken
/// the cluster into its ring.
pub(super) async fn remaining(cluster: &NatsCluster, context: &Context, patience: Duration) -> Remaining {
    let why = match tokio::time::timeout(patience, all(context)).await {
        Ok(Ok(forwarders)) => return Remaining::Known(members_of(&forwarders, &named(cluster))),
        Ok(Err(kube::Error::Api(refusal))) => refusal.message.clone(),
        Ok(Err(error)) => describe(&error),
        Err(_) => format!("no answer within {} s", patience.as_secs()),
    };
    warn!(
        error = why,
        "failed to list the AssetForwarders for a NatsCluster that is being deleted"
    );
    Remaining::Unknown(why)
}

/// Whether the cluster's whole namespace is being deleted. Who cannot tell goes by the longer bound.
pub(super) async fn namespace_goes(cluster: &NatsCluster, context: &Context) -> bool {
    let name = cluster.namespace().unwrap_or_default();
    let why = match tokio::time::timeout(PATIENCE, namespace_is_deleted(context, &name)).await {
        Ok(Ok(goes)) => return goes,
        Ok(Err(error)) => describe(&error),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    warn!(
        error = why,
        namespace = name,
        "failed to read the namespace of a NatsCluster that is being deleted"
    );
    false
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
fn lists(forwarder: &AssetForwarder, cluster: &str) -> bool {
    references(forwarder).any(|listed| listed == cluster)
}

/// The clusters (`namespace/name`) to which a forwarder says that its pods publish, or may.
pub(super) fn listed(forwarder: &AssetForwarder) -> BTreeSet<String> {
    references(forwarder).cloned().collect()
}

fn references(forwarder: &AssetForwarder) -> impl Iterator<Item = &String> {
    let status = forwarder.status.as_ref();
    let ring = status.and_then(|status| {
        let ring = status.ring.as_ref()?;
        (ring.epoch != 0 || !has_never_run(status)).then_some(ring)
    });
    ring.into_iter()
        .flat_map(|ring| ring.member_refs.iter().chain(&ring.leaving))
}

/// A forwarder names its members before it makes its first pods. If the API server refuses its Deployment, no pod can publish.
/// Without this check, a cluster would wait for that forwarder until its spec is corrected.
fn has_never_run(status: &AssetForwarderStatus) -> bool {
    let is_refused = conditions::ready(&status.conditions)
        .is_some_and(|ready| Reason::parse(&ready.reason) == Some(Reason::ApplyFailed));
    is_refused && status.replicas == 0 && status.desired_replicas.is_none()
}

/// `namespace/name`.
pub(super) fn named<K: Resource<DynamicType = ()>>(object: &K) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
