//! Deletes a child.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::info;

use super::Applier;
use super::declared::owner;
use super::error::{About, ApplyError};

impl Applier {
    /// Deletes a child of the owner with that UID, if it exists. An object of that name with another owner stays: no child of that
    /// name is wanted, so it is not in the way.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn delete<K>(&self, namespace: &str, name: &str, owner_uid: &str) -> Result<(), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let about = About {
            kind: K::kind(&()).into_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            is_watched: true,
        };
        if self.children.is_absent(&about.kind, namespace, name) {
            return Ok(());
        }
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let live = self.read(&api, &about).await?;
        let Some(live) = live.filter(|live| is_to_go(live, owner_uid)) else {
            return Ok(());
        };
        self.metrics.api_write(&about.kind, "delete");
        // Without the precondition an object that took the name meanwhile would go.
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: live.uid(),
                resource_version: None,
            }),
            ..DeleteParams::background()
        };
        match api.delete(name, &params).await {
            Ok(_) => {
                info!(kind = about.kind, namespace, name, "deleted");
                self.forget_settled(&live.uid().unwrap_or_default());
                Ok(())
            }
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
            Err(error) => Err(about.failed("delete", error)),
        }
    }
}

/// Whether an object that is not wanted is ours to delete, and is not on its way already.
pub(super) fn is_to_go<K: Resource<DynamicType = ()>>(live: &K, owner_uid: &str) -> bool {
    live.meta().deletion_timestamp.is_none() && owner(live).is_some_and(|(.., uid)| uid == owner_uid)
}
