//! Channels, clusters and their Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crds::asset_forwarder::Clusters;
use crds::reference::ObjectRef;
use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::{ParseExpressionError, PartialObjectMeta, Selector};
use kube::{Api, ResourceExt as _};

use super::{Channel, DereferenceError, Found, Reference};
use crate::asset_forwarder::members::{Access, Candidate};
use crate::asset_forwarder::names;
use crate::context::{Context, Scope};
use crate::credentials::{self, Secrets};
use crate::nats_cluster::ClusterAccess;
use crate::reference::grants;

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Us<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
}

/// What a change of other objects is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dependencies {
    /// Channels, as namespace and name.
    pub channels: BTreeSet<(String, String)>,
}

/// What a forwarder's spec names.
#[must_use]
pub fn dependencies(forwarder: &AssetForwarder) -> Dependencies {
    let spec = &forwarder.spec;
    let own = forwarder.namespace().unwrap_or_default();
    let letters = spec.dead_letter.iter().filter_map(|letter| letter.channel_ref.as_ref());
    let references = spec.sources.iter().map(|source| &source.channel_ref).chain(letters);
    let channels = references.map(|reference| {
        let namespace = reference.namespace.clone().unwrap_or_else(|| own.clone());
        (namespace, reference.name.clone())
    });
    Dependencies {
        channels: channels.collect(),
    }
}

/// The resource as it is now; none if it is gone or going.
///
/// # Errors
/// [`DereferenceError`]
pub async fn current(
    context: &Context,
    forwarder: &AssetForwarder,
) -> Result<Option<AssetForwarder>, DereferenceError> {
    let api = Api::<AssetForwarder>::namespaced(context.client.clone(), &forwarder.namespace().unwrap_or_default());
    let current = api
        .get_opt(&forwarder.name_any())
        .await
        .map_err(DereferenceError::api("the AssetForwarder itself"))?;
    Ok(current.filter(|current| current.metadata.deletion_timestamp.is_none()))
}

/// The labels of our namespace, for which others let us in; none where namespaces cannot be read.
pub(super) async fn namespace_labels(
    context: &Context,
    namespace: &str,
) -> Result<BTreeMap<String, String>, DereferenceError> {
    match context.scope {
        Scope::Namespace(_) => Ok(BTreeMap::new()),
        Scope::Cluster => {
            let api = Api::<PartialObjectMeta<Namespace>>::all(context.client.clone());
            let found = api
                .get_opt(namespace)
                .await
                .map_err(DereferenceError::api(format!("the Namespace {namespace}")))?;
            Ok(found.map(|found| found.labels().clone()).unwrap_or_default())
        }
    }
}

pub(super) async fn channel(
    context: &Context,
    us: Us<'_>,
    reference: &ObjectRef,
    secrets: &mut BTreeSet<(String, String)>,
) -> Result<Reference, DereferenceError> {
    let namespace = reference.namespace.as_deref().unwrap_or(us.namespace);
    let name = format!("{namespace}/{}", reference.name);
    let found = if context.scope.includes(namespace) {
        let api = Api::<KafkaChannel>::namespaced(context.client.clone(), namespace);
        api.get_opt(&reference.name)
            .await
            .map_err(DereferenceError::api(format!("the KafkaChannel {name}")))?
    } else {
        None
    };
    let Some(channel) = found else {
        return Ok(Reference {
            name,
            found: Found::Missing,
        });
    };
    if !grants(
        channel.spec.allowed_namespaces.as_ref(),
        namespace,
        us.namespace,
        us.labels,
    ) {
        return Ok(Reference {
            name,
            found: Found::Denied,
        });
    }
    let connection = &channel.spec.connection;
    let names = credentials::secrets_of_kafka(connection);
    secrets.extend(names.iter().map(|name| (namespace.to_owned(), name.clone())));
    let read = Secrets::read(&context.client, namespace, names).await?;
    let prefix = credentials::prefix("kafka", namespace, &reference.name);
    let found = Channel {
        revision: revision(&channel),
        topic: channel.spec.topic.name.clone(),
        partitions: channel.status.as_ref().and_then(|status| status.partitions),
        connection: connection.clone(),
        not_ready: not_ready(&channel),
        credentials: credentials::kafka(connection, &read, &prefix, Path::new(names::CREDENTIALS_FOLDER)),
    };
    Ok(Reference {
        name,
        found: Found::Channel(Box::new(found)),
    })
}

fn revision(channel: &KafkaChannel) -> String {
    let generation = channel.metadata.generation.unwrap_or_default();
    format!("{}@{generation}", channel.uid().unwrap_or_default())
}

/// Why a channel is not ready, as of its present generation.
fn not_ready(channel: &KafkaChannel) -> Option<String> {
    let status = channel.status.clone().unwrap_or_default();
    if status.observed_generation != channel.metadata.generation {
        return Some("it has not been looked at yet".to_owned());
    }
    match status.conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(format!("{}: {}", ready.reason, ready.message)),
        None => Some("it has not been looked at yet".to_owned()),
    }
}

/// All clusters that the selectors choose, in the order of namespaces and names.
pub(super) async fn candidates(
    context: &Context,
    us: Us<'_>,
    clusters: &Clusters,
    secrets: &mut BTreeSet<(String, String)>,
) -> Result<Vec<Candidate>, DereferenceError> {
    // A selector that cannot be read chooses nothing; the validation says so.
    let Ok(params) = params(&clusters.selector) else {
        return Ok(Vec::new());
    };
    let mut chosen = list(context, us.namespace, &params).await?;
    if let (Scope::Cluster, Some(selector)) = (&context.scope, &clusters.namespace_selector)
        && let Ok(namespaces) = self::params(selector)
    {
        let api = Api::<PartialObjectMeta<Namespace>>::all(context.client.clone());
        let namespaces = api
            .list(&namespaces)
            .await
            .map_err(DereferenceError::api("the Namespaces"))?;
        for namespace in namespaces {
            let namespace = namespace.name_any();
            if namespace != us.namespace {
                chosen.extend(list(context, &namespace, &params).await?);
            }
        }
    }
    let mut candidates = Vec::new();
    for cluster in chosen {
        let namespace = cluster.namespace().unwrap_or_default();
        let allowed = cluster.spec.allowed_namespaces.as_ref();
        let access = if grants(allowed, &namespace, us.namespace, us.labels) {
            let reached = ClusterAccess::of(&cluster);
            let names = credentials::secrets_of_nats(&reached);
            secrets.extend(names.iter().map(|name| (namespace.clone(), name.clone())));
            let read = Secrets::read(&context.client, &namespace, names).await?;
            let prefix = credentials::prefix("nats", &namespace, &cluster.name_any());
            let folder = Path::new(names::CREDENTIALS_FOLDER);
            Access::Granted(credentials::nats(&reached, &read, &prefix, folder))
        } else {
            Access::Denied
        };
        candidates.push(Candidate { cluster, access });
    }
    candidates.sort_by_key(|candidate| (candidate.cluster.namespace(), candidate.cluster.name_any()));
    Ok(candidates)
}

async fn list(context: &Context, namespace: &str, params: &ListParams) -> Result<Vec<NatsCluster>, DereferenceError> {
    let api = Api::<NatsCluster>::namespaced(context.client.clone(), namespace);
    let listed = api
        .list(params)
        .await
        .map_err(DereferenceError::api(format!("the NatsClusters of {namespace}")))?;
    Ok(listed.items)
}

fn params(selector: &LabelSelector) -> Result<ListParams, ParseExpressionError> {
    Ok(ListParams::default().labels_from(&Selector::try_from(selector.clone())?))
}
