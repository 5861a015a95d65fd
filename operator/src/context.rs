//! What every reconcile is given.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

use crate::index::{Children, Readiness, References, SecretCache};
use crate::metrics::Metrics;
use crate::reconcile::apply::Applier;
use crate::reconcile::events::Events;
use crate::reconcile::own_writes::OwnWrites;

/// What every reconcile is given.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// The API server, for what is asked only once. The other client repeats a request that is answered by 429, for minutes.
    pub unretried: Client,
    /// What is watched.
    pub scope: Scope,
    /// What the command line says about forwarders.
    pub settings: Settings,
    /// For people.
    pub events: Arc<Events>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What must have been read before this replica is ready.
    pub readiness: Arc<Readiness>,
    /// Writes children.
    pub applier: Applier,
    /// Which children are as declared.
    pub children: Arc<Children>,
    /// Our own last write of each status.
    pub own_writes: OwnWrites,
    /// The Secrets that resources refer to.
    pub secrets: SecretCache,
    /// Which resources refer to which Secrets.
    pub references: SecretReferences,
}

/// Which resources refer to which Secrets.
#[derive(Debug, Default)]
pub struct SecretReferences {
    /// `NatsCluster`s, by their specs.
    pub clusters: References,
    /// `KafkaChannel`s, by their specs.
    pub channels: References,
    /// `AssetForwarder`s, by what their last reconcile has read: clusters and channels name them, perhaps in other namespaces.
    pub forwarders: References,
}

impl Context {
    /// With nothing known yet.
    #[must_use]
    pub fn new(
        client: Client,
        unretried: Client,
        scope: Scope,
        settings: Settings,
        events: Events,
        metrics: Arc<Metrics>,
        readiness: Arc<Readiness>,
    ) -> Self {
        let children = Arc::new(Children::default());
        let events = Arc::new(events);
        Self {
            applier: Applier::new(
                client.clone(),
                Arc::clone(&metrics),
                Arc::clone(&children),
                Arc::clone(&events),
            ),
            client,
            unretried,
            scope,
            settings,
            events,
            metrics,
            readiness,
            children,
            own_writes: OwnWrites::default(),
            secrets: SecretCache::default(),
            references: SecretReferences::default(),
        }
    }
}

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces.
    Cluster,
    /// One. Namespaces themselves cannot be read then, so no resource refers to another namespace.
    Namespace(String),
}

/// What the command line says about forwarders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The image of forwarders whose resource names none.
    pub forwarder_image: String,
    /// When forwarder pods pull their image.
    pub forwarder_image_pull_policy: &'static str,
    /// Whether a Secret is used only if its label says that it may be.
    pub require_secret_opt_in: bool,
    /// Whether pods name their user and groups by number; else the platform gives them.
    pub pod_security_ids: bool,
    /// The operator's own namespace: its pods may scrape the forwarders'.
    pub namespace: String,
    /// How many resources of a kind are reconciled at once.
    pub concurrency: u16,
}

impl Scope {
    /// The API of a kind, over all that is watched.
    #[must_use]
    pub fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Cluster => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }

    /// Whether a namespace is watched.
    #[must_use]
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(own) => own == namespace,
        }
    }
}
