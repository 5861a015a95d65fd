//! Writes children by server-side apply, and only what is not as it should be.
//!
//! An apply that changes nothing is a write all the same, for the API server's audit log and its load. So the live object is read
//! first and compared: it must hold every field that we declare, with our value, and its annotation must say that we declared
//! just these (a field that we no longer declare has to go). Fields of others are theirs. So are items that they add to lists, but for
//! those lists that say what runs, what listens and who is let in: see `surplus`.
//!
//! Where a watch tells of the children, most of that costs nothing. A version that was compared or written is not read again. What is not
//! there is created, which fails where there is one of that name: an apply would write over it what was decided without it.

mod compare;
mod declared;
mod delete;
mod error;
mod managed;
mod removals;
mod settled;
mod spec;
mod surplus;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub use self::error::ApplyError;

use self::declared::{is_stamped, owner, owner_in, stamped};
use self::error::About;
use self::settled::Settled;
use crate::index::{Children, Latest, Standing};
use crate::metrics::Metrics;
use crate::reconcile::events::Events;

/// The field manager of all children.
pub const MANAGER: &str = "fanout-operator";

/// The annotation with the hash of what was declared last.
pub const APPLIED: &str = "fanout.openfactory.io/applied";

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

/// Drops all that is told about who has written which field, but for these subtrees of what `manager` has written. The whole of it takes more
/// memory than the object.
pub fn keep_ownership<K: Resource>(object: &mut K, manager: &str, paths: &[&[&str]]) {
    let entries = object.managed_fields_mut();
    entries.retain(|entry| entry.manager.as_deref() == Some(manager));
    for entry in entries {
        let Some(FieldsV1(fields)) = entry.fields_v1.take() else {
            continue;
        };
        let mut kept = Value::Null;
        for path in paths {
            if let Some(subtree) = path.iter().try_fold(&fields, |field, step| field.get(*step)) {
                let place = path.iter().fold(&mut kept, |field, step| &mut field[*step]);
                *place = subtree.clone();
            }
        }
        entry.fields_v1 = Some(FieldsV1(kept));
    }
}

/// Writes children; one for the process.
pub struct Applier {
    client: Client,
    metrics: Arc<Metrics>,
    children: Arc<Children>,
    events: Arc<Events>,
    /// By UID what was declared and what the API server made of it, where that is not the same to the comparison (it may write a
    /// quantity in another way, or a webhook add an item to each write): without this such a child would be written for ever.
    settled: Mutex<Latest<String, Settled>>,
}

/// How often a write is tried while others write the child too, as Kubernetes writes its status; more would hide a fight.
const TRIES: usize = 3;

/// A child as it is now.
#[derive(Debug)]
pub struct Applied<K> {
    /// As the API server has it; none: it is as declared, and nobody has read it.
    pub object: Option<K>,
    /// Whether it was written just now.
    pub written: bool,
}

/// What is known of a child before it is written.
#[derive(Clone, Copy, Debug)]
enum Known<'a, K> {
    /// Nothing: its watch tells, or it is read.
    Nothing,
    /// What is declared was decided upon this version (none: it was not there). Another one is not written over.
    Version(Option<&'a K>),
    /// The same, but any version will do that says the same: its status changes all the time.
    Spec(&'a K),
}

impl Applier {
    /// Writes by this client. `children` are looked at before anything is read; owners are told by `events` what another hand has added.
    #[must_use]
    pub fn new(client: Client, metrics: Arc<Metrics>, children: Arc<Children>, events: Arc<Events>) -> Self {
        Self {
            client,
            metrics,
            children,
            events,
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
        Box::pin(self.write(declared, Known::Nothing)).await
    }

    /// As [`Self::apply`], where what is declared was decided upon `read` (none: it was not there): if the object is another one by
    /// now, nothing is written. So whoever is late (a leader that was stopped, a call that was held up) takes nothing back. Yields the
    /// object, and whether it was written just now.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn apply_over<K>(&self, declared: K, read: Option<&K>) -> Result<(K, bool), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        self.write_over(declared, Known::Version(read)).await
    }

    /// As [`Self::apply_over`], of a workload. Its status is written all the time, so the version is not compared, but what it says: its
    /// UID, its generation and our annotations.
    ///
    /// # Errors
    /// [`ApplyError`]
    pub async fn apply_over_spec<K>(&self, declared: K, read: Option<&K>) -> Result<(K, bool), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        self.write_over(declared, read.map_or(Known::Version(None), Known::Spec))
            .await
    }

    async fn write_over<K>(&self, declared: K, known: Known<'_, K>) -> Result<(K, bool), ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let about = About::of(&declared);
        let Applied { object, written } = Box::pin(self.write(declared, known)).await?;
        object.map(|object| (object, written)).ok_or_else(|| about.changed())
    }

    /// Whether a child is as declared, by the word of its watch alone.
    #[must_use]
    pub fn is_as_declared<K>(&self, declared: &K) -> bool
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let about = About::of(declared);
        stamped(declared).is_ok_and(|(_, hash)| self.standing(&about, &hash) == Standing::AsDeclared)
    }

    /// Whether a child is as declared that its watch shows in full. It may have another version than ours: others write its status.
    #[must_use]
    pub fn is_as_declared_in<K>(&self, declared: &K, live: Option<&K>) -> bool
    where
        K: Resource<DynamicType = ()> + Serialize,
    {
        let (about, Ok((declared, hash))) = (About::of(declared), stamped(declared)) else {
            return false;
        };
        if self.standing(&about, &hash) == Standing::AsDeclared {
            return true;
        }
        let is_settled = live.is_some_and(|live| self.is_settled(&declared, &hash, live));
        if let Some(live) = live.filter(|_| is_settled) {
            self.children.verify(live, &hash);
        }
        is_settled
    }

    fn standing(&self, about: &About, hash: &str) -> Standing {
        if !about.is_watched {
            return Standing::Unknown;
        }
        self.children.standing(&about.kind, &about.namespace, &about.name, hash)
    }

    /// Its callers keep it in a box: it is large, and so is each call into it where nothing is optimized.
    async fn write<K>(&self, declared: K, known: Known<'_, K>) -> Result<Applied<K>, ApplyError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let about = About::of(&declared);
        let api = Api::<K>::namespaced(self.client.clone(), &about.namespace);
        let (declared, hash) = stamped(&declared).map_err(|source| about.unserializable(source))?;
        let live = match known {
            Known::Version(Some(live)) | Known::Spec(live) => Some(live.clone()),
            // The creation tells whether that still holds, in one request.
            Known::Version(None) => None,
            Known::Nothing => match self.standing(&about, &hash) {
                Standing::AsDeclared => {
                    return Ok(Applied {
                        object: None,
                        written: false,
                    });
                }
                Standing::Absent => None,
                Standing::Unknown | Standing::Other => self.read(&api, &about).await?,
            },
        };
        let is_pinned = !matches!(known, Known::Nothing);
        let Some(live) = live else {
            return Box::pin(self.make(&api, &about, &declared, hash, is_pinned)).await;
        };
        if owner(&live) != owner_in(&declared) {
            return Err(about.not_ours());
        }
        if live.meta().deletion_timestamp.is_some() {
            return Err(about.deleting());
        }
        if self.is_settled(&declared, &hash, &live) {
            self.children.verify(&live, &hash);
            return Ok(Applied {
                object: Some(live),
                written: false,
            });
        }
        if !matches!(known, Known::Spec(_)) {
            return Box::pin(self.bring(&api, &about, declared, hash, live, is_pinned)).await;
        }
        for _ in 0..TRIES {
            let now = self.saying_the_same(&api, &about, &live).await?;
            match Box::pin(self.bring(&api, &about, declared.clone(), hash.clone(), now, is_pinned)).await {
                Err(ApplyError::Changed { .. }) => {}
                done => return done,
            }
        }
        Err(about.changed())
    }

    async fn read<K>(&self, api: &Api<K>, about: &About) -> Result<Option<K>, ApplyError>
    where
        K: Clone + Debug + DeserializeOwned,
    {
        let found = api.get_opt(&about.name).await;
        let found = found.map_err(|error| about.failed("read", error))?;
        if found.is_none() {
            self.children.not_found(&about.kind, &about.namespace, &about.name);
        }
        Ok(found)
    }

    /// Makes a child that is not there. One that is there all the same is not written: it was decided as if there were none.
    async fn make<K>(
        &self,
        api: &Api<K>,
        about: &About,
        declared: &Value,
        hash: String,
        is_pinned: bool,
    ) -> Result<Applied<K>, ApplyError>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let Some(object) = self.create(api, about, declared).await? else {
            if about.is_watched {
                // The watch does not show it, so the next look must read it.
                self.children.found(&about.kind, &about.namespace, &about.name);
            }
            let found = self.read(api, about).await?;
            let is_anothers = found.is_some_and(|found| owner(&found) != owner_in(declared));
            return Err(if is_anothers { about.not_ours() } else { about.changed() });
        };
        let object = self.take_out(api, about, declared, object, is_pinned).await?;
        self.settle(declared, hash, &object);
        Ok(Applied {
            object: Some(object),
            written: true,
        })
    }

    /// Brings a child that is there, and not as declared, to what is declared. One that is `pinned` is written only in just this version.
    async fn bring<K>(
        &self,
        api: &Api<K>,
        about: &About,
        mut declared: Value,
        hash: String,
        mut live: K,
        is_pinned: bool,
    ) -> Result<Applied<K>, ApplyError>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        if is_stamped(&live, &hash) {
            // What this declaration has is applied already, so what is beyond it is another hand's. It goes first: an apply beside
            // it may be refused, of two ports with one name for example.
            live = self.take_out(api, about, &declared, live, is_pinned).await?;
            if compare::holds(&about.json(&live)?, &declared) {
                self.settle(&declared, hash, &live);
                return Ok(Applied {
                    object: Some(live),
                    written: true,
                });
            }
        }
        let mut version = live.resource_version();
        if let Some(fields) = managed::as_applied_without(live.managed_fields(), &declared) {
            version = Some(self.take_over(api, about, version, fields).await?);
        }
        if is_pinned {
            declared["metadata"]["resourceVersion"] = version.into();
        }
        self.metrics.api_write(&about.kind, "apply");
        let params = PatchParams::apply(MANAGER).force();
        let object = api
            .patch(&about.name, &params, &Patch::Apply(&declared))
            .await
            .map_err(|error| match error {
                kube::Error::Api(refusal) if refusal.code == 409 || (is_pinned && refusal.code == 404) => {
                    about.changed()
                }
                error => about.failed("apply", error),
            })?;
        about.tell("applied");
        if let Some(metadata) = declared["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let object = self.take_out(api, about, &declared, object, is_pinned).await?;
        self.settle(&declared, hash, &object);
        Ok(Applied {
            object: Some(object),
            written: true,
        })
    }

    /// None: there is an object of that name.
    async fn create<K>(&self, api: &Api<K>, about: &About, declared: &Value) -> Result<Option<K>, ApplyError>
    where
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let object: K = serde_json::from_value(declared.clone()).map_err(|source| about.unserializable(source))?;
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        self.metrics.api_write(&about.kind, "create");
        match api.create(&params, &object).await {
            Ok(created) => {
                about.tell("created");
                Ok(Some(created))
            }
            Err(kube::Error::Api(refusal)) if refusal.reason == "AlreadyExists" => Ok(None),
            // Such as of a quota that others use at the same moment.
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => Err(about.changed()),
            Err(error) => Err(about.failed("create", error)),
        }
    }

    /// Makes the fields that we have created fields that we have applied, and yields the object's new version. An apply takes a field away
    /// that is declared no longer, but only where an apply has set it. So this is needed only where such a field goes.
    async fn take_over<K>(
        &self,
        api: &Api<K>,
        about: &About,
        version: Option<String>,
        fields: Vec<ManagedFieldsEntry>,
    ) -> Result<String, ApplyError>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let patch = json!({"metadata": {"managedFields": fields, "resourceVersion": version}});
        self.metrics.api_write(&about.kind, "managed_fields");
        let patched = api
            .patch(&about.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .map_err(|error| match error {
                kube::Error::Api(refusal) if matches!(refusal.code, 404 | 409) => about.changed(),
                error => about.failed("take over the fields of", error),
            })?;
        patched.resource_version().ok_or_else(|| about.changed())
    }
}
