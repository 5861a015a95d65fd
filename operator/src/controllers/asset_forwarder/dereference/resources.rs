//! Channels, clusters and their Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use crds::asset_forwarder::Clusters;
use crds::reference::ObjectRef;
use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::ListParams;
use kube::core::{ParseExpressionError, Selector};
use kube::runtime::reflector::ObjectRef as StoreRef;
use kube::{Api, ResourceExt as _};

use super::lists::{Lists, Wanted};
use super::{Channel, DereferenceError, Found, Reference};
use crate::context::{Context, Scope};
use crate::controllers::asset_forwarder::candidates::{Access, Candidate};
use crate::controllers::asset_forwarder::names;
use crate::controllers::asset_forwarder::stores::Stores;
use crate::reconcile::conditions;
use crate::reconcile::credentials::{self, ClusterAccess, Secrets};
use crate::reconcile::reference::{chooses, grants};

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Us<'a> {
    pub(super) namespace: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    pub(super) stores: &'a Stores,
}

impl Us<'_> {
    fn looks_into(&self, selector: &LabelSelector, namespace: &str) -> bool {
        namespace == self.namespace || chooses(selector, &namespace_labels(self.stores, namespace))
    }
}

/// Where Secrets come from.
#[derive(Clone, Copy)]
pub(super) enum Reading<'a> {
    /// From memory, else from the API server.
    Asking(&'a Context),
    /// From memory alone.
    Remembering(&'a Context),
}

impl Reading<'_> {
    /// None: they are not in memory. `of`: the UID of the resource that refers to them.
    async fn read(
        &self,
        namespace: &str,
        names: BTreeSet<String>,
        of: Option<&str>,
    ) -> Result<Option<Secrets>, DereferenceError> {
        Ok(match self {
            Self::Asking(context) => Some(context.secrets.read(context, namespace, names, of).await?),
            Self::Remembering(context) => context.secrets.known(namespace, &names, of),
        })
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

/// The labels of a namespace, for which others let us in; none where namespaces cannot be read.
pub(super) fn namespace_labels(stores: &Stores, namespace: &str) -> BTreeMap<String, String> {
    let found = stores
        .namespaces
        .as_ref()
        .and_then(|namespaces| namespaces.get(&StoreRef::new(namespace)));
    found.map(|found| found.labels().clone()).unwrap_or_default()
}

/// A channel, as its watch tells it: nothing is let go by it.
pub(super) async fn channel(
    secrets: &Reading<'_>,
    us: Us<'_>,
    reference: &ObjectRef,
    named: &mut BTreeSet<(String, String)>,
) -> Result<Option<Reference>, DereferenceError> {
    let namespace = reference.namespace.as_deref().unwrap_or(us.namespace);
    let name = format!("{namespace}/{}", reference.name);
    let found = us
        .stores
        .channels
        .get(&StoreRef::new(&reference.name).within(namespace));
    let Some(channel) = found else {
        return Ok(Some(Reference {
            name,
            found: Found::Missing,
        }));
    };
    if !grants(
        channel.spec.allowed_namespaces.as_ref(),
        namespace,
        us.namespace,
        us.labels,
    ) {
        return Ok(Some(Reference {
            name,
            found: Found::Denied,
        }));
    }
    let connection = &channel.spec.connection;
    let names = credentials::secrets_of_kafka(connection);
    named.extend(names.iter().map(|name| (namespace.to_owned(), name.clone())));
    let Some(read) = secrets.read(namespace, names, channel.metadata.uid.as_deref()).await? else {
        return Ok(None);
    };
    let prefix = credentials::prefix("kafka", namespace, &reference.name);
    let found = Channel {
        revision: revision(&channel),
        topic: channel.spec.topic.name.clone(),
        partitions: channel.status.as_ref().and_then(|status| status.partitions),
        connection: connection.clone(),
        not_ready: not_ready(&channel),
        credentials: credentials::kafka(connection, &read, &prefix, Path::new(names::CREDENTIALS_FOLDER)),
    };
    Ok(Some(Reference {
        name,
        found: Found::Channel(Box::new(found)),
    }))
}

fn revision(channel: &KafkaChannel) -> String {
    let generation = channel.metadata.generation.unwrap_or_default();
    format!("{}@{generation}", channel.uid().unwrap_or_default())
}

/// Why a channel is not ready, as of its present generation.
fn not_ready(channel: &KafkaChannel) -> Option<String> {
    let status = channel.status.clone().unwrap_or_default();
    if status.observed_generation != channel.metadata.generation {
        return Some("the operator has not reconciled it yet".to_owned());
    }
    match conditions::ready(&status.conditions) {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(format!("{}: {}", ready.reason, ready.message)),
        None => Some("the operator has not reconciled it yet".to_owned()),
    }
}

/// All clusters that the selectors choose, by a list of the API server itself that begins now or later.
pub(super) async fn chosen(
    context: &Context,
    lists: &Lists,
    us: Us<'_>,
    clusters: &Clusters,
) -> Result<Vec<NatsCluster>, DereferenceError> {
    // A selector that cannot be read chooses nothing; the validation says so.
    let Ok(params) = params(&clusters.selector) else {
        return Ok(Vec::new());
    };
    let (Scope::Cluster, Some(selector)) = (&context.scope, &clusters.namespace_selector) else {
        let api = Api::namespaced(context.client.clone(), us.namespace);
        let listed = list(lists, api, Some(us.namespace), params).await?;
        return Ok(listed.to_vec());
    };
    // One list, however many namespaces are chosen.
    let listed = list(lists, Api::all(context.client.clone()), None, params).await?;
    let chosen = listed
        .iter()
        .filter(|cluster| us.looks_into(selector, &cluster.namespace().unwrap_or_default()));
    Ok(chosen.cloned().collect())
}

/// The same as the watches tell it.
pub(super) fn chosen_from_store(context: &Context, us: Us<'_>, clusters: &Clusters) -> Vec<NatsCluster> {
    let namespaces = match context.scope {
        Scope::Cluster => clusters.namespace_selector.as_ref(),
        Scope::Namespace(_) => None,
    };
    let chosen = us.stores.clusters.state_filter(|cluster| {
        let namespace = cluster.namespace().unwrap_or_default();
        let is_looked_into =
            namespace == us.namespace || namespaces.is_some_and(|selector| us.looks_into(selector, &namespace));
        is_looked_into && chooses(&clusters.selector, cluster.labels())
    });
    chosen.iter().map(|cluster| NatsCluster::clone(cluster)).collect()
}

/// The clusters with their credentials, in the order of namespaces and names; none: a Secret would have to be read.
pub(super) async fn candidates(
    secrets: &Reading<'_>,
    us: Us<'_>,
    mut chosen: Vec<NatsCluster>,
    named: &mut BTreeSet<(String, String)>,
) -> Result<Option<Vec<Candidate>>, DereferenceError> {
    chosen.sort_by_key(|cluster| (cluster.namespace(), cluster.name_any()));
    let mut candidates = Vec::new();
    for cluster in chosen {
        let namespace = cluster.namespace().unwrap_or_default();
        let allowed = cluster.spec.allowed_namespaces.as_ref();
        let access = if grants(allowed, &namespace, us.namespace, us.labels) {
            let reached = ClusterAccess::of(&cluster);
            let names = credentials::secrets_of_nats(&reached);
            named.extend(names.iter().map(|name| (namespace.clone(), name.clone())));
            let Some(read) = secrets.read(&namespace, names, cluster.metadata.uid.as_deref()).await? else {
                return Ok(None);
            };
            let prefix = credentials::prefix("nats", &namespace, &cluster.name_any());
            let folder = Path::new(names::CREDENTIALS_FOLDER);
            Access::Granted(credentials::nats(&reached, &read, &prefix, folder))
        } else {
            Access::Denied
        };
        candidates.push(Candidate { cluster, access });
    }
    Ok(Some(candidates))
}

async fn list(
    lists: &Lists,
    api: Api<NatsCluster>,
    namespace: Option<&str>,
    params: ListParams,
) -> Result<Arc<[NatsCluster]>, DereferenceError> {
    let wanted = Wanted {
        namespace: namespace.map(str::to_owned),
        labels: params.label_selector.clone(),
    };
    let of = namespace.unwrap_or("all namespaces");
    lists
        .of(wanted, || async move {
            let mut listed = api.list(&params).await?.items;
            for cluster in &mut listed {
                // Nobody asks who has written which field, and each who shares the list copies what it chooses.
                cluster.metadata.managed_fields = None;
            }
            Ok(listed)
        })
        .await
        .map_err(DereferenceError::api(format!("the NatsClusters of {of}")))
}

fn params(selector: &LabelSelector) -> Result<ListParams, ParseExpressionError> {
    Ok(ListParams::default().labels_from(&Selector::try_from(selector.clone())?))
}
