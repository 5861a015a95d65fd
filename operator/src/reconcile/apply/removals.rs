//! Removes items from a child's lists that the operator has not declared, and tells the owner.
//! If an item comes back in the answer to our own write, admission adds it to each write. Admission may also refuse its removal. In
//! both cases the item stays, the child counts as settled with it, and an event says so once.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::warn;

use super::error::{About, ApplyError};
use super::surplus::Surplus;
use super::{Applier, MANAGER, TRIES};
use crate::owner::controller;
use crate::reconcile::reason::Reason;

/// The reason of the event: items are gone.
const REMOVED: Reason = Reason::ForeignItemsRemoved;
/// The reason of the event: items are there after we have taken them out.
const LEFT: Reason = Reason::ForeignItemsLeft;

/// Whether two versions of an object differ in their status alone. Of a kind without generations nobody knows.
fn says_the_same<K: Resource<DynamicType = ()>>(one: &K, other: &K) -> bool {
    let (one, other) = (one.meta(), other.meta());
    one.generation.is_some() && one.generation == other.generation && one.annotations == other.annotations
}

impl Applier {
    /// Takes out of a child what its lists have beyond the declared, and yields it as it is then. A child that is `pinned` is written only
    /// in just this version; another one is read again where somebody else was faster.
    pub(super) async fn take_out<K>(
        &self,
        api: &Api<K>,
        about: &About,
        declared: &Value,
        mut live: K,
        is_pinned: bool,
    ) -> Result<K, ApplyError>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let params = PatchParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let mut tried = 0;
        loop {
            let surplus = Surplus::of(&about.json(&live)?, declared);
            if surplus.is_empty() {
                return Ok(live);
            }
            let patch = surplus.patch(live.resource_version().as_deref());
            let patch = serde_json::from_value(patch).map_err(|source| about.unserializable(source))?;
            tried += 1;
            self.metrics.api_write(&about.kind, "remove_items");
            let refusal = match api.patch(&about.name, &params, &Patch::Json::<()>(patch)).await {
                Ok(patched) => {
                    let left = Surplus::of(&about.json(&patched)?, declared).items;
                    let (left, gone) = surplus.items.into_iter().partition(|item| left.contains(item));
                    self.tell_removed(about, &patched, gone).await;
                    self.tell_left(about, &patched, left, "something adds them again with each write")
                        .await;
                    return Ok(patched);
                }
                Err(kube::Error::Api(refusal)) => refusal,
                Err(error) => return Err(about.failed("remove foreign items from", error)),
            };
            match refusal.code {
                // Another version; or a list has become shorter, which is noticed before the version.
                409 | 422 if tried < TRIES => {
                    let again = api.get_opt(&about.name).await;
                    let again = again.map_err(|error| about.failed("read", error))?;
                    // Of a pinned one another status alone is another version.
                    let says_the_same = |again: &K| !is_pinned || says_the_same(again, &live);
                    let is_it = |again: &K| again.uid() == live.uid() && says_the_same(again);
                    live = again.filter(is_it).ok_or_else(|| about.changed())?;
                }
                404 | 409 => return Err(about.changed()),
                // Whoever demands the items must not stop all other writes of the child.
                400 | 403 | 422 => {
                    self.tell_left(about, &live, surplus.items, &refusal.message).await;
                    return Ok(live);
                }
                _ => return Err(about.failed("remove foreign items from", kube::Error::Api(refusal))),
            }
        }
    }

    async fn tell_removed<K: Resource<DynamicType = ()>>(&self, about: &About, child: &K, gone: Vec<String>) {
        if gone.is_empty() {
            return;
        }
        let items = gone.join("; ");
        let About {
            kind, namespace, name, ..
        } = about;
        warn!(
            kind,
            namespace, name, items, "removed list items that the operator had not declared"
        );
        let note = format!("removed from {kind} {name}, because the operator had not declared it: {items}");
        self.tell_owner(child, REMOVED, note).await;
    }

    /// Tells it once, until others are left.
    async fn tell_left<K: Resource<DynamicType = ()>>(&self, about: &About, child: &K, left: Vec<String>, why: &str) {
        if left.is_empty() || self.was_told(child, &left) {
            return;
        }
        let items = left.join("; ");
        let About {
            kind, namespace, name, ..
        } = about;
        warn!(
            kind,
            namespace, name, items, why, "list items that the operator has not declared stay"
        );
        let note = format!("{kind} {name} keeps list items that the operator has not declared: {items}; {why}");
        self.tell_owner(child, LEFT, note).await;
    }

    async fn tell_owner<K: Resource<DynamicType = ()>>(&self, child: &K, reason: Reason, note: String) {
        if let Some(owner) = controller(child) {
            let about = ObjectReference {
                api_version: Some(owner.api_version.clone()),
                kind: Some(owner.kind.clone()),
                namespace: child.namespace(),
                name: Some(owner.name.clone()),
                uid: Some(owner.uid.clone()),
                ..ObjectReference::default()
            };
            self.events.warning(&about, reason, note.clone()).await;
        }
    }
}

#[cfg(test)]
mod tests;
