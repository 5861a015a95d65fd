//! What is declared, as JSON with a hash of itself, and whose child it is.

use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::APPLIED;
use crate::owner::controller;

/// The declared object as JSON, with kind, version and the annotation of its own hash.
pub(super) fn stamped<K: Resource<DynamicType = ()> + Serialize>(declared: &K) -> serde_json::Result<(Value, String)> {
    let mut value = serde_json::to_value(declared)?;
    value["apiVersion"] = K::api_version(&()).into();
    value["kind"] = K::kind(&()).into();
    let hash = digest(&value);
    value["metadata"]["annotations"][APPLIED] = hash.clone().into();
    Ok((value, hash))
}

/// Whether an object says that it was written for what is declared.
pub(super) fn is_stamped<K: Resource<DynamicType = ()>>(live: &K, hash: &str) -> bool {
    live.annotations().get(APPLIED).map(String::as_str) == Some(hash)
}

/// Objects of serde_json are sorted by key, so equal values have equal texts.
pub(super) fn digest(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string());
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The controller: its kind, name and UID. A UID alone is easily copied.
pub(super) type Owner = (String, String, String);

pub(super) fn owner<K: Resource<DynamicType = ()>>(object: &K) -> Option<Owner> {
    let owner = controller(object)?;
    Some((owner.kind.clone(), owner.name.clone(), owner.uid.clone()))
}

pub(super) fn owner_in(declared: &Value) -> Option<Owner> {
    let owners = declared["metadata"]["ownerReferences"].as_array()?;
    let controller = owners.iter().find(|owner| owner["controller"] == Value::Bool(true))?;
    let text = |field: &str| controller[field].as_str().map(str::to_owned);
    Some((text("kind")?, text("name")?, text("uid")?))
}
