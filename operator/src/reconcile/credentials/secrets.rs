//! Reading Secrets, and hearing of their changes without holding their contents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _};

use super::CredentialsError;
use crate::context::Context;

/// The most that is taken of a key: bundles of all public authorities have 200 KiB. What all keys of a resource may have together is
/// bounded as well, and so is what a forwarder projects of all of them.
const MOST_BYTES: usize = 256 << 10;

/// The Secrets of one namespace that a resource refers to, as far as they are there. Its debug form shows names only.
#[derive(Clone)]
pub struct Secrets {
    namespace: String,
    found: BTreeMap<String, Content>,
}

/// The keys and values of a Secret; none: it does not say that they may be used.
type Content = Option<BTreeMap<String, Vec<u8>>>;

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
        let secret = secret.as_ref().ok_or_else(|| CredentialsError::NotOptedIn {
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
        } else if value.len() > MOST_BYTES {
            Err("holds more than 256 KiB; put only those certificates or credentials there that are needed")
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

/// What may be used of a Secret. Where it must say so, one that the operator has made for the resource `of` need not: whom that is sent to
/// is no choice of anybody's.
fn content(secret: Secret, must_say_so: bool, of: Option<&str>) -> Content {
    let mut owners = secret.owner_references().iter();
    let may_be_used = !must_say_so
        || secret.labels().get(ALLOW_USE).map(String::as_str) == Some("true")
        || owners.any(|owner| owner.controller == Some(true) && Some(owner.uid.as_str()) == of);
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

    #[test]
    fn a_secret_that_does_not_say_so_is_told_with_what_to_do() {
        let secrets = Secrets {
            namespace: "plant".to_owned(),
            found: BTreeMap::from([("s".to_owned(), None)]),
        };
        let error = secrets.value("s", "token", |_| Ok(())).unwrap_err();
        assert_eq!(error.reason(), "SecretNotOptedIn");
        let said = error.to_string();
        assert!(said.contains("plant/s") && said.contains(ALLOW_USE), "{said}");
    }

    #[test]
    fn one_key_does_not_fill_the_secret_of_all() {
        let secrets = |bytes: usize| {
            let data = BTreeMap::from([("ca.crt".to_owned(), vec![b'a'; bytes])]);
            Secrets::new("plant", BTreeMap::from([("s".to_owned(), data)]))
        };
        assert!(secrets(MOST_BYTES).value("s", "ca.crt", |_| Ok(())).is_ok());
        let error = secrets(MOST_BYTES + 1).value("s", "ca.crt", |_| Ok(())).unwrap_err();
        assert_eq!(error.reason(), "SecretInvalid");
        assert!(error.to_string().contains("256 KiB"), "{error}");
    }
}
