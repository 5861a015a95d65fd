//! What the watches tell.

use std::time::Duration;

use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use tokio::time::{Instant, timeout_at};

use crate::index::Readiness;

/// All that a watch lists is there within moments, or the API server is not.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// Something that the watches tell has not been read from the API server.
#[derive(Debug, thiserror::Error)]
#[error("the operator has not read the {0} from the API server within {READY_WITHIN:?}")]
pub struct Unread(&'static str);

/// What all forwarders depend on, and what they consist of, as the watches tell it. Good for what only needs to converge: before anything
/// is let go, or a ring changes, the API server itself is asked.
#[derive(Clone)]
pub struct Stores {
    /// The forwarders.
    pub forwarders: Store<AssetForwarder>,
    /// All clusters in scope.
    pub clusters: Store<NatsCluster>,
    /// All channels in scope.
    pub channels: Store<KafkaChannel>,
    /// All namespaces; none: one namespace is watched, and labels of namespaces mean nothing.
    pub namespaces: Option<Store<PartialObjectMeta<Namespace>>>,
    /// The forwarders' Deployments.
    pub deployments: Store<Deployment>,
    /// The forwarders' pods.
    pub pods: Store<Pod>,
    /// The forwarders' ConfigMaps, without their contents.
    pub config_maps: Store<PartialObjectMeta<ConfigMap>>,
}

const FORWARDERS: &str = "AssetForwarders";
const CLUSTERS: &str = "NatsClusters";
const CHANNELS: &str = "KafkaChannels";
const NAMESPACES: &str = "Namespaces for the AssetForwarders";
const DEPLOYMENTS: &str = "Deployments of the AssetForwarders";
const PODS: &str = "Pods of the AssetForwarders";
const CONFIG_MAPS: &str = "ConfigMaps of the AssetForwarders";

impl Stores {
    /// From now on the replica is ready only when each watch has told all that there is.
    pub fn wanted_by(&self, readiness: &Readiness) {
        let Self {
            forwarders,
            clusters,
            channels,
            namespaces,
            deployments,
            pods,
            config_maps,
        } = self;
        readiness.wants_store(FORWARDERS, forwarders.clone());
        readiness.wants_store(CLUSTERS, clusters.clone());
        readiness.wants_store(CHANNELS, channels.clone());
        if let Some(namespaces) = namespaces {
            readiness.wants_store(NAMESPACES, namespaces.clone());
        }
        readiness.wants_store(DEPLOYMENTS, deployments.clone());
        readiness.wants_store(PODS, pods.clone());
        readiness.wants_store(CONFIG_MAPS, config_maps.clone());
    }

    /// Waits until each watch has listed everything. The wait is bounded, because it holds a slot.
    ///
    /// # Errors
    /// [`Unread`]: one of them has not, or has ended.
    pub async fn wait_until_ready(&self) -> Result<(), Unread> {
        let Self {
            forwarders,
            clusters,
            channels,
            namespaces,
            deployments,
            pods,
            config_maps,
        } = self;
        let until = Instant::now() + READY_WITHIN;
        filled(FORWARDERS, forwarders, until).await?;
        filled(CLUSTERS, clusters, until).await?;
        filled(CHANNELS, channels, until).await?;
        if let Some(namespaces) = namespaces {
            filled(NAMESPACES, namespaces, until).await?;
        }
        filled(DEPLOYMENTS, deployments, until).await?;
        filled(PODS, pods, until).await?;
        filled(CONFIG_MAPS, config_maps, until).await
    }
}

async fn filled<K>(what: &'static str, store: &Store<K>, until: Instant) -> Result<(), Unread>
where
    K: reflector::Lookup<DynamicType = ()> + Clone + 'static,
{
    match timeout_at(until, store.wait_until_ready()).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Unread(what)),
    }
}
