//! Whose child an object says it is.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt as _};

/// The longest UID of an owner that counts. The API server makes UUIDs of 36 characters, but accepts any text in an owner
/// reference. A forged reference may hold a megabyte, and would fill the memory of the operator.
pub const MAX_UID: usize = 64;

/// The controller of an object, if it is of the kind `K` and has this name. It is in the same namespace. Whether such an object
/// exists is not checked. A UID that is empty or longer than [`MAX_UID`] does not count: no API server makes one.
pub fn controller_named<'a, K: Resource<DynamicType = ()>>(
    object: &'a impl Resource,
    name: &str,
) -> Option<&'a OwnerReference> {
    let group = K::group(&());
    let is_of_kind = |owner: &&OwnerReference| {
        let version = owner.api_version.split_once('/');
        owner.kind == K::kind(&()) && version.map_or("", |(group, _)| group) == group
    };
    let owner = controller(object).filter(is_of_kind)?;
    (owner.name == name && (1..=MAX_UID).contains(&owner.uid.len())).then_some(owner)
}

/// The resource of the kind `K` that controls an object, by the object's own word.
pub fn controlling<K: Resource<DynamicType = ()>>(object: &impl Resource) -> Option<ObjectRef<K>> {
    let owner = controller(object)?;
    let is_of_kind = owner.kind == K::kind(&()) && owner.api_version == K::api_version(&());
    is_of_kind.then(|| ObjectRef::new(&owner.name).within(&object.namespace().unwrap_or_default()))
}

/// The controller of an object. The API server lets there be one.
pub fn controller(object: &impl Resource) -> Option<&OwnerReference> {
    object
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true))
}
