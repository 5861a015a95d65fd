//! Reading the Secrets that a resource refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};

use crate::context::Context;
use crate::owner::controller;

/// The Secrets of one namespace that a resource refers to, as far as they are there. Its debug form shows names only.
#[derive(Clone)]
pub struct Secrets {
    namespace: String,
    found: BTreeMap<String, Content>,
}

/// The keys and values of a Secret; none: it does not say that they may be used.
pub type Content = Option<BTreeMap<String, Vec<u8>>>;

/// The label by which a Secret says that the operator may use it, with the value `true`.
pub const ALLOW_USE: &str = "fanout.openfactory.io/allow-use";

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
    /// Reads them one by one: their contents are in no cache. One that is not there is left out. `of`: the UID of the resource that refers
    /// to them.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn read(
        context: &Context,
        namespace: &str,
        names: BTreeSet<String>,
        of: Option<&str>,
    ) -> Result<Self, SecretsError> {
        let api = Api::<Secret>::namespaced(context.client.clone(), namespace);
        let mut found = BTreeMap::new();
        for name in names {
            let secret = api.get_opt(&name).await.map_err(|source| SecretsError {
                namespace: namespace.to_owned(),
                name: name.clone(),
                source: Box::new(source),
            })?;
            if let Some(secret) = secret {
                found.insert(name, content(secret, context.settings.require_secret_opt_in, of));
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
            found: found.into_iter().map(|(name, data)| (name, Some(data))).collect(),
        }
    }

    /// How many bytes all values have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.found
            .values()
            .flatten()
            .flat_map(BTreeMap::values)
            .map(Vec::len)
            .sum()
    }

    /// One that does not say that it may be used.
    #[cfg(test)]
    pub(crate) fn without_use(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            found: BTreeMap::from([(name.to_owned(), None)]),
        }
    }

    /// Their namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What is known of a Secret; none: it is not there.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Content> {
        self.found.get(name)
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

/// What may be used of a Secret. Where it must say so, one that the operator has made for the resource `of` need not: whom that is sent to
/// is no choice of anybody's.
fn content(secret: Secret, must_say_so: bool, of: Option<&str>) -> Content {
    let may_be_used = !must_say_so
        || secret.labels().get(ALLOW_USE).map(String::as_str) == Some("true")
        || controller(&secret).is_some_and(|owner| Some(owner.uid.as_str()) == of);
    let data = secret.data.unwrap_or_default().into_iter();
    may_be_used.then(|| data.map(|(key, value)| (key, value.0)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(metadata: serde_json::Value) -> Secret {
        serde_json::from_value(json!({"metadata": metadata, "data": {"token": "dDB0"}})).unwrap()
    }

    #[test]
    fn where_it_must_say_so_a_secret_without_the_label_is_not_used() {
        let owned_by = |uid: &str| {
            let owner = json!({"apiVersion": "v1", "kind": "NatsCluster", "name": "c", "uid": uid, "controller": true});
            json!({"ownerReferences": [owner]})
        };
        for (metadata, is_used) in [
            (json!({}), false),
            (json!({"labels": {ALLOW_USE: "false"}}), false),
            (json!({"annotations": {ALLOW_USE: "true"}}), false),
            (json!({"labels": {ALLOW_USE: "true"}}), true),
            (owned_by("u1"), true),
            (owned_by("u2"), false),
        ] {
            assert!(content(secret(metadata.clone()), false, Some("u1")).is_some());
            let used = content(secret(metadata.clone()), true, Some("u1"));
            assert_eq!(used.is_some(), is_used, "{metadata}");
        }
        assert!(content(secret(json!({})), true, None).is_none());
    }
}
