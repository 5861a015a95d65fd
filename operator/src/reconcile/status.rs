//! Writes a status: one patch, and none where nothing has changed.

use std::fmt::Debug;
use std::time::Instant;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::Context;

/// The field manager of statuses: another one than that of children, so that neither takes the other's fields away.
const MANAGER: &str = "fanout-operator-status";

/// Writes `new` as the status of `object` unless it is `old` already, and yields the object after it; none: nothing was written. An object
/// that is gone is no error.
///
/// # Errors
/// The API server refuses, or is not there.
pub async fn write<K, S>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    old: Option<&S>,
    new: &S,
) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize + PartialEq + Sync,
{
    if old == Some(new) {
        return Ok(None);
    }
    write_as(context, api, object, MANAGER, new).await
}

/// Writes `new` as the status of `object` if that is still the last version of it. So whatever was decided from `object` holds when this
/// succeeds. Yields the object after it; none: it is another version by now, or gone.
///
/// # Errors
/// The API server refuses, or is not there.
pub async fn write_over<K, S>(context: &Context, api: &Api<K>, object: &K, new: &S) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize + Sync,
{
    // An empty one is of no version, and would be refused.
    let version = object.resource_version().unwrap_or_default();
    match patch(context, api, object, MANAGER, Some(version), new).await {
        Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(None),
        written => written,
    }
}

/// Writes those fields of the status of `object` that `manager` looks after; what it has written before and leaves out now goes. Yields
/// the object after it; none: it is gone.
///
/// # Errors
/// The API server refuses, or is not there.
pub async fn write_as<K, S>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    manager: &str,
    fields: &S,
) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize + Sync,
{
    patch(context, api, object, manager, None, fields).await
}

/// `version`: the one that is written over; none: any.
async fn patch<K, S>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    manager: &str,
    version: Option<String>,
    fields: &S,
) -> kube::Result<Option<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
    S: Serialize + Sync,
{
    let mut patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        // With the UID an object that was made anew under the name does not get a status that is not about it.
        "metadata": {"name": object.name_any(), "uid": object.uid()},
        "status": fields,
    });
    if let Some(version) = version {
        patch["metadata"]["resourceVersion"] = version.into();
    }
    context.metrics.api_write(&K::kind(&()), "status");
    let params = PatchParams::apply(manager).force();
    match api
        .patch_status(&object.name_any(), &params, &Patch::Apply(&patch))
        .await
    {
        Ok(written) => {
            context.own_writes.note(&written, Instant::now());
            Ok(Some(written))
        }
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(None),
        // Another object has the name now: its own reconcile is on its way.
        Err(kube::Error::Api(refusal)) if refusal.code == 409 && refusal.message.contains("UID") => Ok(None),
        Err(error) => Err(error),
    }
}
