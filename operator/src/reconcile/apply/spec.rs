//! Writes over what a child says, whatever its status is by then.
//!
//! While a Deployment rolls, Kubernetes writes its status all the time, and each write makes a version. So a version that was read at the
//! begin of a reconcile is soon another one, though nothing has changed that a decision depends upon. Therefore the child is read again
//! just before it is written. If it still says what it said, it is written in the version that it has now.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::error::{About, ApplyError};
use super::{Applier, MANAGER, TRIES};

/// What our own annotations begin with. They say for what a child was declared, for example which source its pods have.
const OURS: &str = "fanout.openfactory.io/";

impl Applier {
    /// Brings only the number of pods of a Deployment to what is wanted. If it says by now something else than `read`, nothing is written.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn scale(&self, read: &Deployment, replicas: i32) -> Result<Deployment, ApplyError> {
        let about = About::of(read);
        let api = Api::<Deployment>::namespaced(self.client.clone(), &about.namespace);
        for _ in 0..TRIES {
            let now = self.saying_the_same(&api, &about, read).await?;
            let metadata = json!({"uid": now.uid(), "resourceVersion": now.resource_version()});
            let patch = json!({"metadata": metadata, "spec": {"replicas": replicas}});
            self.metrics.api_write(&about.kind, "patch");
            let params = PatchParams::apply(MANAGER);
            match api.patch(&about.name, &params, &Patch::Merge(&patch)).await {
                Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => {}
                scaled => return scaled.map_err(|error| about.failed("scale", error)),
            }
        }
        Err(about.changed())
    }

    /// The child as it is now, if it says what it said.
    pub(super) async fn saying_the_same<K>(&self, api: &Api<K>, about: &About, read: &K) -> Result<K, ApplyError>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let now = self.read(api, about).await?;
        now.filter(|now| said(now) == said(read)).ok_or_else(|| about.changed())
    }
}

/// What a child says: the generation changes with its spec, but not with its annotations.
fn said<K: Resource>(child: &K) -> impl PartialEq {
    let metadata = child.meta();
    let annotations = metadata.annotations.iter().flatten();
    let ours: BTreeMap<_, _> = annotations.filter(|(name, _)| name.starts_with(OURS)).collect();
    (
        &metadata.uid,
        metadata.generation,
        metadata.deletion_timestamp.is_some(),
        ours,
    )
}
