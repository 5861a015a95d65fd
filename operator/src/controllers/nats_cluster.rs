//! The controller of `NatsCluster`: checks whether the cluster can be used, and lets it be removed only when no forwarder publishes
//! to it.
//!
//! ```text
//! dereference ─▶ validate ─▶ probe ───────▶ status
//! (Secrets,      (pure)      (a connection) (pure, then one write)
//!  forwarders)
//! ```
//! Servers that the operator runs are looked after before: see `managed`. A cluster that is being deleted goes another way: see `drain`.
//! What is found here never changes a ring: an owner that is away keeps its assets.

mod dereference;
mod drain;
mod managed;
mod membership;
mod probe;
mod status;
#[cfg(test)]
mod tests;
mod validate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crds::nats_cluster::Managed;
use crds::{AssetForwarder, NatsCluster};
use forwarder_service::shutdown::Shutdown;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, future, stream};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use tracing::warn;

pub use self::dereference::members_of;
pub use self::validate::{Validated, validate};

use self::dereference::{DereferenceError, PATIENCE, Remaining, dereference};
use self::drain::{Departure, Leaving};
use self::status::{Facts, Served};
use crate::context::Context;
use crate::error::describe;
use crate::index::Name;
use crate::owner::controlling;
use crate::reconcile::cluster::DRAIN;
use crate::reconcile::credentials::{ClusterAccess, secrets_of_nats};
use crate::reconcile::drive::{self, Failure, Slots, drive};
use crate::reconcile::finalizer::{self, FinalizerError};
use crate::reconcile::invalid_spec::InvalidSpec;
use crate::reconcile::own_writes::{LATER, Newest, SOON};
use crate::watch::{Subscription, changes, declared, hash, metadata, watching};

/// The annotation that lets a deleted cluster go at once, with the value `true`: records that wait for it go to others.
pub const SKIP_DRAIN: &str = "fanout.openfactory.io/skip-drain";

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
    #[error("failed to read the NatsCluster again")]
    Cluster(#[source] Box<kube::Error>),
    #[error(transparent)]
    Finalizer(#[from] FinalizerError),
    #[error(transparent)]
    Managed(#[from] managed::ManagedError),
    #[error("failed to keep credentials in a private folder")]
    Folder(#[from] std::io::Error),
    #[error("failed to write the status")]
    Status(#[source] Box<kube::Error>),
}

impl Failure for ReconcileError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Dereference(_) | Self::Cluster(_) => "dereference",
            Self::Finalizer(_) => "finalizer",
            Self::Managed(_) => "managed",
            Self::Folder(_) => "folder",
            Self::Status(_) => "status",
        }
    }

    fn is_contended(&self) -> bool {
        matches!(self, Self::Managed(managed::ManagedError::Contended(_)))
    }
}

/// How many clusters are looked at together at least: most of a look is waiting for somebody else's servers, and one that answers nothing
/// must not hold up the others.
const LOOKS: u16 = 64;

/// Runs the controller until `stop`. `of_secrets` says whose Secrets have changed.
pub async fn run(
    context: Arc<Context>,
    clusters: Subscription<NatsCluster>,
    forwarders: Subscription<AssetForwarder>,
    of_secrets: impl Stream<Item = ObjectRef<NatsCluster>> + Send + 'static,
    stop: Shutdown,
) {
    let Subscription {
        store: clusters,
        events: own,
    } = clusters;
    context.metrics.show_ready(clusters.clone(), |cluster: &NatsCluster| {
        let status = cluster.status.as_ref()?;
        Some((status.observed_generation, &status.conditions))
    });
    let own = own.inspect({
        let context = Arc::clone(&context);
        move |event| context.references.clusters.hear(event, secrets_of)
    });
    let own = changes(own.map(Ok), |cluster| {
        Some(hash(&(declared(cluster), cluster.annotations().get(SKIP_DRAIN))))
    });
    let Subscription {
        store: forwarders,
        events: of_forwarders,
    } = forwarders;
    let of_forwarders = membership::wakes(of_forwarders, clusters.clone());
    let wakes = stream::select_all([
        own.map(|cluster| ObjectRef::from_obj(&cluster)).boxed(),
        of_secrets.boxed(),
        of_forwarders.boxed(),
        of_children(&context),
    ]);
    let controller = drive::controller(clusters, wakes);
    let began = Timestamp::now();
    let slots = Slots::new(context.settings.concurrency.max(LOOKS));
    let reconcile = move |cluster, context| reconcile(cluster, context, forwarders.clone(), began);
    drive("NatsCluster", controller, slots, context, reconcile, stop).await;
}

fn secrets_of(cluster: &NatsCluster) -> BTreeSet<Name> {
    let namespace = cluster.namespace().unwrap_or_default();
    let secrets = secrets_of_nats(&ClusterAccess::of(cluster)).into_iter();
    secrets.map(|name| (namespace.clone(), name)).collect()
}

/// The clusters of which a managed one's parts have changed. Of these only the metadata is watched: what is needed of them is read at the
/// reconcile.
fn of_children(context: &Context) -> BoxStream<'static, ObjectRef<NatsCluster>> {
    let labelled = || watching().labels(managed::names::CLUSTER);
    let pods = changes(metadata::<Pod>(context, labelled()), |pod| {
        pod.resource_version().map(|version| hash(&version))
    });
    let pods = pods.filter_map(|pod| {
        let name = pod.labels().get(managed::names::CLUSTER);
        let namespace = pod.namespace().unwrap_or_default();
        future::ready(name.map(|name| ObjectRef::new(name).within(&namespace)))
    });
    stream::select_all([
        owners(metadata::<StatefulSet>(context, labelled())),
        owners(metadata::<ConfigMap>(context, labelled())),
        owners(metadata::<Secret>(context, labelled())),
        owners(metadata::<Service>(context, labelled())),
        owners(metadata::<PodDisruptionBudget>(context, labelled())),
        owners(metadata::<NetworkPolicy>(context, labelled())),
        pods.boxed(),
    ])
    .boxed()
}

/// The clusters that own what has changed.
fn owners<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
) -> BoxStream<'static, ObjectRef<NatsCluster>>
where
    K: Resource<DynamicType = ()> + std::fmt::Debug + Send + 'static,
{
    let changed = changes(events, |child| child.resource_version().map(|version| hash(&version)));
    changed.filter_map(|child| future::ready(controlling(&child))).boxed()
}

async fn reconcile(
    cluster: Arc<NatsCluster>,
    context: Arc<Context>,
    forwarders: Store<AssetForwarder>,
    began: Timestamp,
) -> Result<Action, ReconcileError> {
    let api = Api::<NatsCluster>::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    let now = Timestamp::now();
    // Before anything that can fail.
    if let Some(leaving) = Leaving::of(&cluster, began) {
        return depart(&context, &api, leaving, now).await;
    }
    let newest = context.own_writes.newest(&api, cluster).await;
    let cluster = match newest.map_err(|error| ReconcileError::Cluster(Box::new(error)))? {
        Newest::Known(cluster) => cluster,
        Newest::Behind => return Ok(Action::requeue(SOON)),
        Newest::Gone => return Ok(Action::requeue(LATER)),
    };
    let found = dereference(&cluster, &context, &forwarders).await?;
    finalizer::set(&context, &api, &cluster, DRAIN, true).await?;
    let facts = match &cluster.spec.managed {
        Some(declared) => Facts::Managed(serve(&context, &cluster, declared).await?),
        None => look(&cluster, &found).await?,
    };
    let status = status::status(&cluster, &found.member_of, None, &facts, now);
    crate::reconcile::status::write(&context, &api, &cluster, cluster.status.as_ref(), &status)
        .await
        .map_err(|error| ReconcileError::Status(Box::new(error)))?;
    Ok(Action::requeue(status::again_after(&cluster, &status, &facts, now)))
}

/// How long a cluster that goes in any case waits for the names of those who may still publish to it.
const MOMENT: Duration = Duration::from_secs(5);

/// Lets a deleted cluster go, or says for whom it waits. Nothing but the write of its finalizers can fail.
async fn depart(
    context: &Context,
    api: &Api<NatsCluster>,
    mut leaving: Leaving<'_>,
    now: Timestamp,
) -> Result<Action, ReconcileError> {
    let cluster = leaving.cluster;
    if !cluster.finalizers().iter().any(|there| there == DRAIN) {
        return Ok(Action::await_change());
    }
    let patience = leaving.forced(now).map_or(PATIENCE, |_| MOMENT);
    let remaining = dereference::remaining(cluster, context, patience).await;
    let mut next = leaving.departure(&remaining, now);
    if matches!(next, Departure::Waits { .. }) {
        leaving.namespace_goes = dereference::namespace_goes(cluster, context).await;
        next = leaving.departure(&remaining, now);
    }
    let until = match next {
        Departure::Waits { until } => until,
        Departure::Goes(farewell) => {
            drain::tell(context, cluster, farewell).await;
            finalizer::set(context, api, cluster, DRAIN, false).await?;
            return Ok(Action::await_change());
        }
    };
    let (member_of, facts) = match remaining {
        Remaining::Known(forwarders) => (forwarders, Facts::Leaving),
        Remaining::Unknown(why) => (Vec::new(), Facts::Unread(why)),
    };
    let status = status::status(cluster, &member_of, Some(until), &facts, now);
    let written = crate::reconcile::status::write(context, api, cluster, cluster.status.as_ref(), &status);
    // The pauses after failures grow beyond the bound, so this is none.
    match tokio::time::timeout(PATIENCE, written).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => warn!(error = describe(&error), "failed to write the status"),
        Err(_) => warn!("failed to write the status within {PATIENCE:?}"),
    }
    Ok(Action::requeue(status::again_after(cluster, &status, &facts, now)))
}

/// Brings a managed cluster on, and when all is well looks whether clients are let in.
async fn serve(context: &Context, cluster: &NatsCluster, declared: &Managed) -> Result<Served, ReconcileError> {
    let mut outcome = managed::bring_on(context, cluster, declared).await?;
    let mut seen = None;
    if outcome.verdict.is_ready() {
        let names = secrets_of_nats(&ClusterAccess::of(cluster));
        let namespace = cluster.namespace().unwrap_or_default();
        let of = cluster.meta().uid.as_deref();
        let secrets = context
            .secrets
            .read(context, &namespace, names, of)
            .await
            .map_err(DereferenceError::from)?;
        let folder = tempfile::tempdir()?;
        match validate(cluster, &secrets, folder.path()) {
            Ok(mut validated) => {
                validated.files.write(folder.path())?;
                // By the servers' own addresses: whether names resolve here says nothing about them.
                validated.cluster.servers = outcome
                    .addresses
                    .iter()
                    .map(|address| managed::names::url(*address))
                    .collect();
                seen = Some(probe::probe(&validated.cluster, folder.path()).await);
            }
            Err(refused) => outcome.verdict = refused.verdict(),
        }
    }
    Ok(Served { outcome, seen })
}

/// What can be learnt about the cluster now.
async fn look(cluster: &NatsCluster, found: &dereference::Dereferenced) -> Result<Facts, ReconcileError> {
    let folder = tempfile::tempdir()?;
    let validated = match validate(cluster, &found.secrets, folder.path()) {
        Ok(_) | Err(InvalidSpec::Credentials(_)) if cluster.spec.drain => return Ok(Facts::Leaving),
        Ok(validated) => validated,
        Err(refused) => return Ok(Facts::Refused(refused)),
    };
    validated.files.write(folder.path())?;
    Ok(match probe::probe(&validated.cluster, folder.path()).await {
        Ok(seen) => Facts::Connected(seen),
        Err(failure) => Facts::Failed(failure),
    })
}
