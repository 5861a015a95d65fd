//! The controller of `NatsCluster`: looks whether the cluster can be used, and lets it go only when nobody publishes to it.
//!
//! ```text
//! dereference ─▶ validate ─▶ probe ───────▶ assess ─▶ status
//! (Secrets,      (pure)      (a connection)  (pure)    (one write)
//!  forwarders)
//! ```
//! Servers that the operator runs are looked after before: see `managed`.
//! What is found here never changes a ring: an owner that is away keeps its assets.

mod access;
mod assess;
mod dereference;
mod drain;
mod managed;
mod probe;
#[cfg(test)]
mod tests;
mod validate;

use std::sync::Arc;

use crds::nats_cluster::Managed;
use crds::{AssetForwarder, NatsCluster};
use forwarder::shutdown::Shutdown;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Resource as _, ResourceExt as _};

pub use self::access::{ClusterAccess, spec_field};
pub use self::dereference::members_of;
pub use self::validate::{InvalidSpec, Validated, ring_name, validate};

use self::assess::{Facts, Served};
use self::dereference::{DereferenceError, dereference};
use self::drain::Departure;
use crate::context::Context;
use crate::controller::{self, Failure, drive, metadata};
use crate::credentials::{Secrets, referrers, secrets_of_nats};
use crate::finalizer::{self, FinalizerError};
use crate::status;

/// On every cluster, before it joins a ring: it must not go while pods publish to it.
pub const FINALIZER: &str = "fanout.openfactory.io/drain";

/// The annotation that lets a deleted cluster go at once, with the value `true`: records that wait for it go to others.
pub const SKIP_DRAIN: &str = "fanout.openfactory.io/skip-drain";

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum ReconcileError {
    #[error(transparent)]
    Dereference(#[from] DereferenceError),
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
            Self::Dereference(_) => "dereference",
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

/// Runs the controller until `stop`.
pub async fn run(context: Arc<Context>, stop: Shutdown) {
    let controller = controller::controller::<NatsCluster>(&context);
    let clusters = controller.store();
    context.metrics.show_ready(clusters.clone(), |cluster: &NatsCluster| {
        let status = cluster.status.as_ref()?;
        Some((status.observed_generation, &status.conditions))
    });
    let (forwarders, writer) = reflector::store();
    // Through one stream, so that a reconcile that a change has caused finds it in the store.
    let watch = watcher(
        context.scope.api::<AssetForwarder>(&context.client),
        controller::watching(),
    );
    let changes = reflector::reflector(writer, watch).default_backoff().touched_objects();
    let secrets = metadata(&context, controller::watching());
    let controller = controller
        .watches_stream(secrets, {
            let clusters = clusters.clone();
            move |secret| {
                referrers(&clusters, &secret, |cluster: &NatsCluster| {
                    secrets_of_nats(&ClusterAccess::of(cluster))
                })
            }
        })
        .watches_stream(changes, {
            let forwarders = forwarders.clone();
            move |forwarder| concerned(&forwarder, &forwarders, &clusters)
        });
    let controller = owned(&context, controller);
    let began = Timestamp::now();
    let reconcile = move |cluster, context| reconcile(cluster, context, forwarders.clone(), began);
    drive("NatsCluster", controller, context, reconcile, stop).await;
}

/// With watches of what a managed cluster consists of, as metadata: what is needed of it is read at the reconcile.
fn owned(context: &Context, controller: Controller<NatsCluster>) -> Controller<NatsCluster> {
    let labelled = || controller::watching().labels(managed::names::CLUSTER);
    controller
        .owns_stream(metadata::<StatefulSet>(context, labelled()))
        .owns_stream(metadata::<ConfigMap>(context, labelled()))
        .owns_stream(metadata::<Secret>(context, labelled()))
        .owns_stream(metadata::<Service>(context, labelled()))
        .owns_stream(metadata::<PodDisruptionBudget>(context, labelled()))
        .owns_stream(metadata::<NetworkPolicy>(context, labelled()))
        .watches_stream(metadata::<Pod>(context, labelled()), |pod| {
            let name = pod.labels().get(managed::names::CLUSTER)?;
            Some(ObjectRef::new(name).within(&pod.namespace()?))
        })
}

/// The clusters whose membership a forwarder's change has changed. A forwarder writes its status often; few of these writes
/// concern a cluster.
fn concerned(
    seen: &AssetForwarder,
    forwarders: &Store<AssetForwarder>,
    clusters: &Store<NatsCluster>,
) -> Vec<ObjectRef<NatsCluster>> {
    let key = ObjectRef::from_obj(seen);
    let forwarder = dereference::named(seen);
    // Of one that was deleted only the store tells; while a list is read, the store is still the old one.
    let stored = forwarders.get(&key);
    let differs = |cluster: &NatsCluster| {
        let cluster_ref = dereference::named(cluster);
        let known = cluster
            .status
            .as_ref()
            .is_some_and(|status| status.member_of.contains(&forwarder));
        let in_store = stored
            .as_ref()
            .is_some_and(|stored| dereference::lists(stored, &cluster_ref));
        dereference::lists(seen, &cluster_ref) != known || in_store != known
    };
    let concerned = clusters.state_filter(|cluster| differs(cluster));
    concerned
        .iter()
        .map(|cluster| ObjectRef::from_obj(cluster.as_ref()))
        .collect()
}

async fn reconcile(
    cluster: Arc<NatsCluster>,
    context: Arc<Context>,
    forwarders: Store<AssetForwarder>,
    began: Timestamp,
) -> Result<Action, ReconcileError> {
    let api = Api::<NatsCluster>::namespaced(context.client.clone(), &cluster.namespace().unwrap_or_default());
    let now = Timestamp::now();
    let found = dereference(&cluster, &context, &forwarders).await?;
    match drain::departure(&cluster, &found, began, now) {
        Departure::Stays => finalizer::set(&context, &api, &cluster, FINALIZER, true).await?,
        Departure::Waits => {}
        Departure::Goes(farewell) => {
            if cluster.finalizers().iter().any(|there| there == FINALIZER) {
                drain::tell(&context, &cluster, farewell).await;
                finalizer::set(&context, &api, &cluster, FINALIZER, false).await?;
            }
            return Ok(Action::await_change());
        }
    }
    let facts = match &cluster.spec.managed {
        Some(declared) if cluster.meta().deletion_timestamp.is_none() => {
            Facts::Managed(serve(&context, &cluster, declared).await?)
        }
        _ => look(&cluster, &found).await?,
    };
    let status = assess::status(&cluster, &found.member_of, &facts, now);
    status::write(&context, &api, &cluster, cluster.status.as_ref(), &status)
        .await
        .map_err(|error| ReconcileError::Status(Box::new(error)))?;
    Ok(Action::requeue(assess::again_after(&cluster, &status, now)))
}

/// Brings a managed cluster on, and when all is well looks whether clients are let in.
async fn serve(context: &Context, cluster: &NatsCluster, declared: &Managed) -> Result<Served, ReconcileError> {
    let mut outcome = managed::bring_on(context, cluster, declared).await?;
    let mut seen = None;
    if outcome.verdict.is_ready() {
        let names = secrets_of_nats(&ClusterAccess::of(cluster));
        let secrets = Secrets::read(&context.client, &cluster.namespace().unwrap_or_default(), names)
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
            Err(refused) => outcome.verdict = assess::refused(&refused),
        }
    }
    Ok(Served { outcome, seen })
}

/// What can be learnt about the cluster now.
async fn look(cluster: &NatsCluster, found: &dereference::Dereferenced) -> Result<Facts, ReconcileError> {
    let folder = tempfile::tempdir()?;
    let leaving = cluster.spec.drain || cluster.meta().deletion_timestamp.is_some();
    let validated = match validate(cluster, &found.secrets, folder.path()) {
        Ok(_) | Err(InvalidSpec::Credentials(_)) if leaving => return Ok(Facts::Leaving),
        Ok(validated) => validated,
        Err(refused) => return Ok(Facts::Refused(refused)),
    };
    validated.files.write(folder.path())?;
    Ok(match probe::probe(&validated.cluster, folder.path()).await {
        Ok(seen) => Facts::Connected(seen),
        Err(failure) => Facts::Failed(failure),
    })
}
