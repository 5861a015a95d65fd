//! Reading Secrets, and hearing of their changes without holding their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, Client, Resource, ResourceExt as _};

use super::CredentialsError;

/// The Secrets of one namespace that a resource refers to, as far as they are there. Its debug form shows names only.
#[derive(Clone)]
pub struct Secrets {
    namespace: String,
    found: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

/// A Secret could not be read: the API server refuses, or is not there.
#[derive(Debug, thiserror::Error)]
#[error("failed to read the Secret {namespace}/{name}")]
pub struct SecretsError {
    /// The namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// Why not.
    pub source: Box<kube::Error>,
}

impl Secrets {
    /// Reads them one by one: their contents are in no cache. One that is not there is left out.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn read(client: &Client, namespace: &str, names: BTreeSet<String>) -> Result<Self, SecretsError> {
        let api = Api::<Secret>::namespaced(client.clone(), namespace);
        let mut found = BTreeMap::new();
        for name in names {
            let secret = api.get_opt(&name).await.map_err(|source| SecretsError {
                namespace: namespace.to_owned(),
                name: name.clone(),
                source: Box::new(source),
            })?;
            if let Some(secret) = secret {
                let data = secret.data.unwrap_or_default();
                found.insert(name, data.into_iter().map(|(key, value)| (key, value.0)).collect());
            }
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            found,
        })
    }

    /// As they would be found, without reading.
    #[must_use]
    pub fn new(namespace: &str, found: BTreeMap<String, BTreeMap<String, Vec<u8>>>) -> Self {
        Self {
            namespace: namespace.to_owned(),
            found,
        }
    }

    /// A key's value, which is not empty, after `check` has looked at it.
    pub(super) fn value(
        &self,
        name: &str,
        key: &str,
        check: impl FnOnce(&[u8]) -> Result<(), &'static str>,
    ) -> Result<&[u8], CredentialsError> {
        let namespace = || self.namespace.clone();
        let secret = self.found.get(name).ok_or_else(|| CredentialsError::SecretMissing {
            namespace: namespace(),
            name: name.to_owned(),
        })?;
        let value = secret.get(key).ok_or_else(|| CredentialsError::KeyMissing {
            namespace: namespace(),
            name: name.to_owned(),
            key: key.to_owned(),
        })?;
        let checked = if value.trim_ascii().is_empty() {
            Err("is empty; put the credentials there")
        } else {
            check(value)
        };
        checked.map_err(|problem| CredentialsError::BadContent {
            namespace: namespace(),
            name: name.to_owned(),
            key: key.to_owned(),
            problem,
        })?;
        Ok(value)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, found } = self;
        f.debug_struct("Secrets")
            .field("namespace", namespace)
            .field("found", &found.keys())
            .finish()
    }
}

/// The resources of a store that refer to a Secret of their own namespace: what a change of it concerns.
/// `secrets_of` says which Secrets a resource refers to.
pub fn referrers<K>(
    store: &Store<K>,
    secret: &PartialObjectMeta<Secret>,
    secrets_of: impl Fn(&K) -> BTreeSet<String>,
) -> Vec<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (namespace, name) = (secret.namespace(), secret.name_any());
    let refers = |resource: &K| resource.namespace() == namespace && secrets_of(resource).contains(&name);
    let resources = store.state_filter(|resource| refers(resource));
    resources
        .iter()
        .map(|resource| ObjectRef::from_obj(resource.as_ref()))
        .collect()
}
