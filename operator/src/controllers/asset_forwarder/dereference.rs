//! Reads all that a forwarder depends on and consists of. Nothing is judged here: what is missing is a value.
//!
//! What a ring depends on is read from the API server itself, in a consistent way, and a failed read is an error: "there are no clusters"
//! must never be the answer of a cache that is still empty. Reconciles that list the same clusters at once share a list. What only needs to converge, the watches tell: channels, labels of namespaces,
//! and Secrets that have not changed since they were read.

mod claim;
mod lists;
mod pods;
mod resources;
mod rivals;

use std::collections::BTreeSet;
use std::sync::Arc;

use crds::kafka_channel::KafkaConnection;
use crds::{AssetForwarder, AssetForwarderStatus, NatsCluster};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use kube::core::PartialObjectMeta;

pub use self::claim::{Claim, Claimed, Read};
pub use self::lists::Lists;
use self::resources::Reading;
pub use self::resources::current;
pub use self::rivals::{begins_in, may_have_rival, rival};
use super::beacon::{self, Key};
use super::candidates::{self, Candidate};
use super::memory::Memory;
use super::names::Identity;
use super::pods::Observed;
use super::recorded::Recorded;
use super::rivals::Rival;
use super::stores::{Stores, Unread};
use crate::context::Context;
use crate::reconcile::credentials::{CredentialsError, KafkaCredentials, SecretsError};
use crate::reconcile::drive::Failure;

/// All that a reconcile looks at.
#[derive(Clone, Debug)]
pub struct Dereferenced {
    /// The resource, as it is now.
    pub forwarder: AssetForwarder,
    /// The channels that are read, in the order of the spec.
    pub sources: Vec<Reference>,
    /// The channel for dead letters, if one is declared.
    pub dead_letter: Option<Reference>,
    /// The clusters that the selector chooses.
    pub candidates: Vec<Candidate>,
    /// What there is of the forwarder.
    pub existing: Existing,
    /// The key of the beacon, a new one if there is none yet; none: no beacon is declared.
    pub beacon: Option<Key>,
    /// Another forwarder that has a source of this one and goes before it.
    pub rival: Option<Rival>,
    /// The Secrets that clusters and channels name, as namespace and name, whether they are there or not.
    pub secrets: BTreeSet<(String, String)>,
}

impl Dereferenced {
    /// The partitions of all topics that are read together; none: they are not known of each.
    #[must_use]
    pub fn partitions(&self) -> Option<i32> {
        let mut partitions = self.sources.iter().map(|source| source.channel()?.partitions);
        partitions.try_fold(0_i32, |sum, partitions| Some(sum.saturating_add(partitions?)))
    }
}

/// A channel that is referred to.
#[derive(Clone, Debug)]
pub struct Reference {
    /// `namespace/name`.
    pub name: String,
    /// What is there.
    pub found: Found,
}

impl Reference {
    /// The channel, if there is one that lets us in.
    #[must_use]
    pub fn channel(&self) -> Option<&Channel> {
        match &self.found {
            Found::Channel(channel) => Some(channel),
            Found::Missing | Found::Denied => None,
        }
    }
}

/// What is behind a reference to a channel.
#[derive(Clone, Debug)]
pub enum Found {
    /// Nothing.
    Missing,
    /// One that does not let our namespace in: its Secrets have not been looked at.
    Denied,
    /// A channel.
    Channel(Box<Channel>),
}

/// A channel with its credentials.
#[derive(Clone, Debug)]
pub struct Channel {
    /// Which version of its spec this is: UID and generation.
    pub revision: String,
    /// The topic's name.
    pub topic: String,
    /// The topic's partitions, once they are known.
    pub partitions: Option<i32>,
    /// How it is reached, as declared.
    pub connection: KafkaConnection,
    /// Why it is not ready; none: it is.
    pub not_ready: Option<String>,
    /// The same with credentials that were read.
    pub credentials: Result<KafkaCredentials, CredentialsError>,
}

/// What there is of a forwarder: only what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Existing {
    /// The ring.
    pub ring: Option<ConfigMap>,
    /// The projected credentials.
    pub credentials: Option<Secret>,
    /// The Secret of the beacon's key. It is read only where a beacon is declared.
    pub beacon: Option<Secret>,
    /// The Deployment.
    pub deployment: Option<Deployment>,
    /// Its ReplicaSets.
    pub replica_sets: Vec<ReplicaSet>,
    /// The configurations, without their contents.
    pub configs: Vec<PartialObjectMeta<ConfigMap>>,
    /// The pods that have not ended.
    pub pods: Vec<Observed>,
}

/// Something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DereferenceError {
    /// The API server refuses, or is not there.
    #[error("failed to read {what}")]
    Api {
        /// What was to be read.
        what: String,
        /// Why not.
        source: Arc<kube::Error>,
    },
    /// A Secret could not be read.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    /// There is no key for the beacon, and none can be made.
    #[error("failed to make the key of the beacon")]
    Key(#[source] nkeys::error::Error),
    /// A watch has not told yet what there is.
    #[error(transparent)]
    Unread(#[from] Unread),
}

impl DereferenceError {
    fn api<E: Into<Arc<kube::Error>>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Api {
            what,
            source: source.into(),
        }
    }

    /// Whether the API server does not let us read it: that ends when a person grants it, not by trying again.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let source = match self {
            Self::Api { source, .. } => source.as_ref(),
            Self::Secrets(SecretsError { source, .. }) => source.as_ref(),
            Self::Key(_) | Self::Unread(_) => return false,
        };
        matches!(source, kube::Error::Api(refusal) if refusal.code == 403)
    }
}

impl Failure for DereferenceError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "read",
            Self::Secrets(_) => "read_secret",
            Self::Key(_) => "make_key",
            Self::Unread(_) => "not_read_yet",
        }
    }
}

/// Whether the members that `known` does not list are there, and are not being deleted, by a new list of the API server.
///
/// # Errors
/// [`DereferenceError`]
pub async fn are_there(
    context: &Context,
    stores: &Stores,
    lists: &Lists,
    known: &AssetForwarderStatus,
    forwarder: &AssetForwarder,
    ring: Option<&Recorded>,
) -> Result<bool, DereferenceError> {
    let known = known
        .ring
        .as_ref()
        .map(|ring| ring.member_refs.as_slice())
        .unwrap_or_default();
    let namespace = &forwarder.namespace().unwrap_or_default();
    let labels = resources::namespace_labels(stores, namespace);
    let us = resources::Us {
        namespace,
        labels: &labels,
        stores,
    };
    let there: BTreeSet<String> = resources::chosen(context, lists, us, &forwarder.spec.clusters)
        .await?
        .iter()
        .filter(|cluster| cluster.metadata.deletion_timestamp.is_none())
        .map(candidates::reference)
        .collect();
    let mut members = ring.iter().flat_map(|ring| ring.members.values());
    Ok(members.all(|member| known.contains(member) || there.contains(member)))
}

/// Reads all that `forwarder` names; none if it is gone by now. Clusters, pods and what holds the ring are read from the API server itself.
///
/// # Errors
/// [`DereferenceError`]
pub async fn dereference(
    context: &Context,
    stores: &Stores,
    lists: &Lists,
    forwarder: &AssetForwarder,
) -> Result<Option<Dereferenced>, DereferenceError> {
    stores.wait_until_ready().await?;
    // The watch may be behind: decisions are about what the resource says now.
    let Some(forwarder) = resources::current(context, forwarder).await? else {
        return Ok(None);
    };
    let identity = Identity::of(&forwarder);
    let labels = resources::namespace_labels(stores, &identity.namespace);
    let us = resources::Us {
        namespace: &identity.namespace,
        labels: &labels,
        stores,
    };
    let (chosen, existing) = tokio::try_join!(
        resources::chosen(context, lists, us, &forwarder.spec.clusters),
        pods::existing(context, stores, &forwarder, &identity),
    )?;
    let secrets = Reading::Asking(context);
    let found = together(secrets, us, forwarder.clone(), chosen, existing).await?;
    found.map(with_key).transpose()
}

/// The same by the word of the watches and of `memory`, without a request to the API server; none: something would have to be read.
/// Credentials that were projected, and what matters only where something is let go, are not in it.
///
/// # Errors
/// [`DereferenceError::Unread`]. What else cannot be had is read.
pub async fn from_stores(
    context: &Context,
    stores: &Stores,
    memory: &Memory,
    forwarder: &AssetForwarder,
) -> Result<Option<Dereferenced>, DereferenceError> {
    stores.wait_until_ready().await?;
    let identity = Identity::of(forwarder);
    let Some(existing) = pods::existing_from_stores(context, stores, memory, forwarder, &identity).await else {
        return Ok(None);
    };
    let labels = resources::namespace_labels(stores, &identity.namespace);
    let us = resources::Us {
        namespace: &identity.namespace,
        labels: &labels,
        stores,
    };
    let chosen = resources::chosen_from_store(context, us, &forwarder.spec.clusters);
    let secrets = Reading::Remembering(context);
    let found = together(secrets, us, forwarder.clone(), chosen, existing).await?;
    // A key that is not there is made on the long way, where it is written.
    Ok(found.filter(|found| found.beacon.is_some() == beacon::is_declared(&found.forwarder.spec.ring)))
}

/// With a new key where a beacon is declared and there is none.
fn with_key(found: Dereferenced) -> Result<Dereferenced, DereferenceError> {
    let is_missing = found.beacon.is_none() && beacon::is_declared(&found.forwarder.spec.ring);
    let made = is_missing.then(Key::make).transpose().map_err(DereferenceError::Key)?;
    Ok(Dereferenced {
        beacon: found.beacon.or(made),
        ..found
    })
}

/// What `seen`, which the watches have told, becomes by a live list of the clusters. With `credentials`, those that are projected are read
/// from the API server too. What else there is of the forwarder stays as it was seen.
///
/// # Errors
/// [`DereferenceError`]
pub async fn with_live_clusters(
    context: &Context,
    stores: &Stores,
    lists: &Lists,
    seen: Dereferenced,
    credentials: bool,
) -> Result<Option<Dereferenced>, DereferenceError> {
    let Dereferenced {
        forwarder,
        mut existing,
        ..
    } = seen;
    let identity = Identity::of(&forwarder);
    let labels = resources::namespace_labels(stores, &identity.namespace);
    let us = resources::Us {
        namespace: &identity.namespace,
        labels: &labels,
        stores,
    };
    let projected = async {
        if credentials {
            pods::get::<Secret>(context, &identity, &identity.credentials()).await
        } else {
            Ok(None)
        }
    };
    let chosen = resources::chosen(context, lists, us, &forwarder.spec.clusters);
    let (chosen, projected) = tokio::try_join!(chosen, projected)?;
    existing.credentials = projected;
    together(Reading::Asking(context), us, forwarder, chosen, existing).await
}

/// None: a Secret would have to be read.
async fn together(
    secrets: Reading<'_>,
    us: resources::Us<'_>,
    forwarder: AssetForwarder,
    chosen: Vec<NatsCluster>,
    existing: Existing,
) -> Result<Option<Dereferenced>, DereferenceError> {
    let mut named = BTreeSet::new();
    let spec = &forwarder.spec;
    let mut sources = Vec::new();
    for source in &spec.sources {
        match resources::channel(&secrets, us, &source.channel_ref, &mut named).await? {
            Some(channel) => sources.push(channel),
            None => return Ok(None),
        }
    }
    let dead_letter = match spec.dead_letter.as_ref().and_then(|letter| letter.channel_ref.as_ref()) {
        Some(reference) => match resources::channel(&secrets, us, reference, &mut named).await? {
            Some(channel) => Some(channel),
            None => return Ok(None),
        },
        None => None,
    };
    let candidates = resources::candidates(&secrets, us, chosen, &mut named).await?;
    let Some(candidates) = candidates else {
        return Ok(None);
    };
    Ok(Some(Dereferenced {
        beacon: Key::read(existing.beacon.as_ref()),
        forwarder,
        sources,
        dead_letter,
        candidates,
        existing,
        rival: None,
        secrets: named,
    }))
}
