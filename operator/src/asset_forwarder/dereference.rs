//! Reads all that a forwarder depends on and consists of. Nothing is judged here: what is missing is a value.
//!
//! Everything is read from the API server itself, in a consistent way, and a failed read is an error: "there are no clusters" must
//! never be the answer of a cache that is still empty.

mod pods;
mod resources;

use std::collections::BTreeSet;

use crds::kafka_channel::KafkaConnection;
use crds::{AssetForwarder, AssetForwarderStatus, NatsCluster};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::core::PartialObjectMeta;

pub use self::resources::{Dependencies, current, dependencies};
use super::members::Candidate;
use super::names::Identity;
use super::pods::Observed;
use super::validate::Validated;
use crate::context::Context;
use crate::controller::Failure;
use crate::credentials::{CredentialsError, KafkaCredentials, SecretsError};

/// All that a reconcile looks at.
#[derive(Clone, Debug)]
pub struct Dereferenced {
    /// The resource, as it is now.
    pub forwarder: AssetForwarder,
    /// The channel that is read.
    pub source: Reference,
    /// The channel for dead letters, if one is declared.
    pub dead_letter: Option<Reference>,
    /// The clusters that the selector chooses.
    pub candidates: Vec<Candidate>,
    /// What there is of the forwarder.
    pub existing: Existing,
    /// How many pods there are to be for the lag; none: as many as the spec says.
    pub scaled: Option<i32>,
    /// The Secrets that clusters and channels name, as namespace and name, whether they are there or not.
    pub secrets: BTreeSet<(String, String)>,
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
        source: Box<kube::Error>,
    },
    /// A Secret could not be read.
    #[error(transparent)]
    Secrets(#[from] SecretsError),
}

impl DereferenceError {
    fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api {
            what,
            source: Box::new(source),
        }
    }
}

impl DereferenceError {
    /// Whether the API server does not let us read it: that ends when a person grants it, not by trying again.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let source = match self {
            Self::Api { source, .. } => source,
            Self::Secrets(SecretsError { source, .. }) => source,
        };
        matches!(source.as_ref(), kube::Error::Api(refusal) if refusal.code == 403)
    }
}

impl Failure for DereferenceError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } => "read",
            Self::Secrets(_) => "read_secret",
        }
    }
}

/// Whether the members that `known` does not list are there, and are not being deleted.
///
/// # Errors
/// [`DereferenceError`]
pub async fn are_there(
    context: &Context,
    known: &AssetForwarderStatus,
    validated: &Validated,
) -> Result<bool, DereferenceError> {
    let known = known
        .ring
        .as_ref()
        .map(|ring| ring.member_refs.as_slice())
        .unwrap_or_default();
    let members = validated.ring.iter().flat_map(|ring| ring.members.values());
    for member in members.filter(|member| !known.contains(member)) {
        let Some((namespace, name)) = member.split_once('/') else {
            continue;
        };
        let api = Api::<NatsCluster>::namespaced(context.client.clone(), namespace);
        let found = api
            .get_opt(name)
            .await
            .map_err(DereferenceError::api(format!("the NatsCluster {member}")))?;
        if found.is_none_or(|cluster| cluster.metadata.deletion_timestamp.is_some()) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads all that `forwarder` names; none if it is gone by now.
///
/// # Errors
/// [`DereferenceError`]
pub async fn dereference(
    context: &Context,
    forwarder: &AssetForwarder,
) -> Result<Option<Dereferenced>, DereferenceError> {
    // The watch may be behind: decisions are about what the resource says now.
    let Some(forwarder) = resources::current(context, forwarder).await? else {
        return Ok(None);
    };
    let identity = Identity::of(&forwarder);
    let labels = resources::namespace_labels(context, &identity.namespace).await?;
    let us = resources::Us {
        namespace: &identity.namespace,
        labels: &labels,
    };
    let mut secrets = BTreeSet::new();
    let spec = &forwarder.spec;
    let source = match spec.sources.first() {
        Some(source) => resources::channel(context, us, &source.channel_ref, &mut secrets).await?,
        None => Reference {
            name: String::new(),
            found: Found::Missing,
        },
    };
    let dead_letter = match spec.dead_letter.as_ref().and_then(|letter| letter.channel_ref.as_ref()) {
        Some(reference) => Some(resources::channel(context, us, reference, &mut secrets).await?),
        None => None,
    };
    let candidates = resources::candidates(context, us, &spec.clusters, &mut secrets).await?;
    let existing = pods::existing(context, &identity).await?;
    Ok(Some(Dereferenced {
        forwarder,
        source,
        dead_letter,
        candidates,
        existing,
        scaled: None,
        secrets,
    }))
}
