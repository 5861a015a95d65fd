//! What every reconcile is given.

use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

use crate::apply::Applier;
use crate::events::Events;
use crate::metrics::Metrics;

/// What every reconcile is given.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// What is watched.
    pub scope: Scope,
    /// What the command line says about forwarders.
    pub settings: Settings,
    /// For people.
    pub events: Events,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Writes children.
    pub applier: Applier,
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
