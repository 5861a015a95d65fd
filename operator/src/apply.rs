//! Writes children by server-side apply, and only what is not as it should be.
//!
//! An apply that changes nothing is a write all the same, for the API server's audit log and its load. So the live object is read
//! first and compared: it must hold every field that we declare, with our value, and its annotation must say that we declared
//! just these (a field that we no longer declare has to go). Fields and list items of others are theirs.

mod compare;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tracing::info;

use crate::metrics::Metrics;

/// The field manager of all children.
pub const MANAGER: &str = "fanout-operator";

/// The annotation with the hash of what was declared last.
pub const APPLIED: &str = "fanout.openfactory.io/applied";

/// Why a child could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The name is taken by an object that is not ours.
    #[error(
        "{kind} {namespace}/{name} exists and does not belong to this resource: delete or rename it, or rename this resource"
    )]
    NotOurs {
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The object is still being deleted.
    #[error("{kind} {namespace}/{name} is being deleted; it is made anew when it is gone")]
    Deleting {
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// It is not what the decision was made upon.
    #[error("{kind} {namespace}/{name} has changed meanwhile; it is decided anew")]
    Changed {
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server refuses, or is not there.
    #[error("failed to {verb} {kind} {namespace}/{name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// The object cannot be written as JSON.
    #[error("failed to serialize {kind} {name}")]
    Serialize {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why not.
        source: serde_json::Error,
    },
}

/// Whether a manager has written a field last, by its path in the form of `managedFields`. Whoever changes a field by another way than an
/// apply of ours takes it over.
#[must_use]
pub fn owns<K: Resource>(object: &K, manager: &str, path: &[&str]) -> bool {
    let mut entries = object.managed_fields().iter();
    entries.any(|entry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        let field = path.iter().fold(fields, |field, step| field?.get(*step));
        entry.manager.as_deref() == Some(manager) && field.is_some()
    })
}

/// Writes children; one for the process.
pub struct Applier {
    client: Client,
    metrics: Arc<Metrics>,
    /// By UID what was declared and what the API server made of it, where that is not the same to the comparison (it may write a
    /// quantity in another way): without this such a child would be written for ever.
    settled: Mutex<HashMap<String, Settled>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Settled {
    declared: String,
    live: String,
}

/// A child as it is now.
#[derive(Debug)]
pub struct Applied<K> {
    /// As the API server has it.
    pub object: K,
    /// Whether it was written just now.
    pub written: bool,
}

impl Applier {
    /// Writes by this client.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            settled: Mutex::default(),
        }
    }

    /// Brings a child to what is declared. It must have a name, a namespace and a controller owner reference; an object of that
    /// name with another owner is left alone.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn apply<K>(&self, declared: K) -> Result<Applied<K>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        self.write(declared, None).await
    }

    /// As [`Self::apply`], where what is declared was decided upon `read` (none: it was not there): if the object is another one by
    /// now, nothing is written. So whoever is late (a leader that was stopped, a call that was held up) takes nothing back.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn apply_over<K>(&self, declared: K, read: Option<&K>) -> Result<Applied<K>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let version = read.and_then(|read| read.meta().resource_version.clone());
        self.write(declared, Some(version)).await
    }

    /// `upon`: the version that must be there, or that none must be.
    async fn write<K>(&self, declared: K, upon: Option<Option<String>>) -> Result<Applied<K>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let about = About::of(&declared);
        let api = Api::<K>::namespaced(self.client.clone(), &about.namespace);
        let (mut declared, hash) = stamped(&declared).map_err(|source| ApplyError::Serialize {
            kind: about.kind.clone(),
            name: about.name.clone(),
            source,
        })?;
        let live = api
            .get_opt(&about.name)
            .await
            .map_err(|error| about.failed("read", error))?;
        if let Some(upon) = &upon
            && live.as_ref().and_then(|live| live.meta().resource_version.as_ref()) != upon.as_ref()
        {
            return Err(about.changed());
        }
        if let Some(live) = live {
            if owner(&live).as_deref() != owner_in(&declared).as_deref() {
                return Err(about.not_ours());
            }
            if live.meta().deletion_timestamp.is_some() {
                return Err(about.deleting());
            }
            if self.is_settled(&declared, &hash, &live) {
                return Ok(Applied {
                    object: live,
                    written: false,
                });
            }
        }
        if let Some(Some(version)) = upon {
            declared["metadata"]["resourceVersion"] = version.into();
        }
        self.metrics.api_write(&about.kind, "apply");
        let params = PatchParams::apply(MANAGER).force();
        let object = api
            .patch(&about.name, &params, &Patch::Apply(&declared))
            .await
            .map_err(|error| match error {
                kube::Error::Api(refusal) if refusal.code == 409 => about.changed(),
                error => about.failed("apply", error),
            })?;
        info!(
            kind = about.kind,
            namespace = about.namespace,
            name = about.name,
            "applied"
        );
        if let Some(metadata) = declared["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        self.settle(&declared, hash, &object);
        Ok(Applied { object, written: true })
    }

    /// Deletes a child of the owner with that UID, if it is there.
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
        };
        let api = Api::<K>::namespaced(self.client.clone(), namespace);
        let live = api.get_opt(name).await.map_err(|error| about.failed("read", error))?;
        let Some(live) = live.filter(|live| live.meta().deletion_timestamp.is_none()) else {
            return Ok(());
        };
        if owner(&live).as_deref() != Some(owner_uid) {
            return Err(about.not_ours());
        }
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
                Ok(())
            }
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(()),
            Err(error) => Err(about.failed("delete", error)),
        }
    }

    fn is_settled<K: Resource<DynamicType = ()> + Serialize>(&self, declared: &Value, hash: &str, live: &K) -> bool {
        if live.annotations().get(APPLIED).map(String::as_str) != Some(hash) {
            return false;
        }
        let Ok(value) = serde_json::to_value(live) else {
            return false;
        };
        if compare::holds(&value, declared) {
            return true;
        }
        let settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let known = live.uid().and_then(|uid| settled.get(&uid).cloned());
        known.is_some_and(|known| known.declared == hash && known.live == digest(&compare::lasting(value)))
    }

    fn settle<K: Resource<DynamicType = ()> + Serialize>(&self, declared: &Value, hash: String, live: &K) {
        let (Some(uid), Ok(value)) = (live.uid(), serde_json::to_value(live)) else {
            return;
        };
        let mut settled = self.settled.lock().unwrap_or_else(PoisonError::into_inner);
        if compare::holds(&value, declared) {
            settled.remove(&uid);
        } else {
            let live = digest(&compare::lasting(value));
            settled.insert(uid, Settled { declared: hash, live });
        }
    }
}

/// Whom an error is about.
struct About {
    kind: String,
    namespace: String,
    name: String,
}

impl About {
    fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }

    fn failed(&self, verb: &'static str, error: kube::Error) -> ApplyError {
        ApplyError::Api {
            verb,
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            source: Box::new(error),
        }
    }

    fn not_ours(&self) -> ApplyError {
        ApplyError::NotOurs {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    fn changed(&self) -> ApplyError {
        ApplyError::Changed {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    fn deleting(&self) -> ApplyError {
        ApplyError::Deleting {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}

/// The declared object as JSON, with kind, version and the annotation of its own hash.
fn stamped<K: Resource<DynamicType = ()> + Serialize>(declared: &K) -> serde_json::Result<(Value, String)> {
    let mut value = serde_json::to_value(declared)?;
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    let hash = digest(&value);
    value["metadata"]["annotations"][APPLIED] = hash.clone().into();
    Ok((value, hash))
}

/// Objects of serde_json are sorted by key, so equal values have equal texts.
fn digest(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The UID of the controller.
fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<String> {
    let owners = object.owner_references();
    owners
        .iter()
        .find(|owner| owner.controller == Some(true))
        .map(|owner| owner.uid.clone())
}

fn owner_in(declared: &Value) -> Option<String> {
    let owners = declared["metadata"]["ownerReferences"].as_array()?;
    let controller = owners.iter().find(|owner| owner["controller"] == Value::Bool(true))?;
    controller["uid"].as_str().map(str::to_owned)
}
