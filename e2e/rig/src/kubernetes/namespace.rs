//! A namespace of a test's own.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Kubernetes;
use crate::{cluster, wait};

/// A namespace; see [`cluster::Namespace`].
pub struct Namespace {
    /// The cluster.
    pub kubernetes: Kubernetes,
    /// Its name.
    pub name: String,
    _own: cluster::Namespace,
}

impl Namespace {
    /// A new one, with pod security as strict as it gets.
    pub fn new(kubernetes: &Kubernetes) -> Result<Self> {
        Self::with_labels(kubernetes, &[])
    }

    /// A new one with further labels.
    pub fn with_labels(kubernetes: &Kubernetes, labels: &[(&str, &str)]) -> Result<Self> {
        let own = kubernetes.cluster.namespace_with("test", labels)?;
        Ok(Self {
            kubernetes: kubernetes.clone(),
            name: own.name().to_owned(),
            _own: own,
        })
    }

    /// The API of a kind here.
    pub fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.kubernetes.client.clone(), &self.name)
    }

    /// Runs kubectl with `--namespace`.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.kubectl_with(args, "").await
    }

    /// `kubectl apply` of these documents.
    pub async fn apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_with(&["apply", "-f", "-"], manifests).await
    }

    /// Writes an object, as it was read and then changed, in the operator's name: what an operator of another version would have written.
    pub async fn apply_as_operator(&self, mut object: Value) -> Result<String> {
        let metadata = object["metadata"].as_object_mut().context("an object has metadata")?;
        metadata.retain(|field, _| ["name", "labels", "annotations", "ownerReferences"].contains(&field.as_str()));
        let apply = [
            "apply",
            "--server-side",
            "--field-manager=fanout-operator",
            "--force-conflicts",
            "-f",
            "-",
        ];
        self.kubectl_with(&apply, &object.to_string()).await
    }

    /// Runs kubectl with this as its input.
    pub async fn kubectl_with(&self, args: &[&str], input: &str) -> Result<String> {
        let args: Vec<&str> = ["--namespace", &self.name]
            .into_iter()
            .chain(args.iter().copied())
            .collect();
        self.kubernetes.kubectl(&args, input).await
    }

    /// An object.
    pub async fn get<K>(&self, name: &str) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>()
            .get(name)
            .await
            .with_context(|| format!("failed to read {} {name}", K::kind(&())))
    }

    /// Waits until an object is as `holds` says, and yields it. What it was last is in the error.
    pub async fn wait<K>(&self, name: &str, within: Duration, what: &str, holds: impl Fn(&K) -> bool) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + serde::Serialize,
    {
        wait::value(within, what, || async {
            let object = self.get::<K>(name).await?;
            if holds(&object) {
                return Ok(Some(object));
            }
            let value = serde_json::to_value(&object)?;
            Err(anyhow!("status: {:#}", value["status"]))
        })
        .await
    }

    /// The pods of a forwarder that are not on their way out, by name.
    pub async fn pods(&self, forwarder: &str) -> Result<Vec<Pod>> {
        let labels = format!("app.kubernetes.io/name=asset-forwarder,app.kubernetes.io/instance={forwarder}");
        let mut pods = self
            .api::<Pod>()
            .list(&ListParams::default().labels(&labels))
            .await?
            .items;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        pods.sort_by_key(Pod::name_any);
        Ok(pods)
    }
}
