//! Finalizers: put on and taken off one by one, beside those of others.

use std::fmt::Debug;

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::context::Context;

/// A finalizer could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the finalizers of {kind} {name}")]
pub struct FinalizerError {
    kind: String,
    name: String,
    source: Box<kube::Error>,
}

/// How often a write is tried that others get in the way of; more would hide a fight.
const TRIES: usize = 3;

/// Puts `finalizer` on the object, or takes it off, unless that is so already. An object that is gone is no error.
///
/// # Errors
/// [`FinalizerError`]
pub async fn set<K>(
    context: &Context,
    api: &Api<K>,
    object: &K,
    finalizer: &str,
    wanted: bool,
) -> Result<(), FinalizerError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = object.name_any();
    let failed = |source| FinalizerError {
        kind: K::kind(&()).into_owned(),
        name: name.clone(),
        source: Box::new(source),
    };
    let mut found = object.clone();
    for tried in 1.. {
        let Some(finalizers) = changed(found.finalizers(), finalizer, wanted) else {
            return Ok(());
        };
        // The version makes the list that was read and the one that is replaced the same.
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": found.resource_version()}});
        context.metrics.api_write(&K::kind(&()), "finalizers");
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(refusal)) if refusal.code == 404 => return Ok(()),
            Err(kube::Error::Api(refusal)) if refusal.code == 409 && tried < TRIES => {
                match api.get_opt(&name).await.map_err(failed)? {
                    Some(newer) if newer.uid() == object.uid() => found = newer,
                    _ => return Ok(()),
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The list with the change in it; none: it is so already.
fn changed(finalizers: &[String], finalizer: &str, wanted: bool) -> Option<Vec<String>> {
    let is_there = finalizers.iter().any(|there| there == finalizer);
    if is_there == wanted {
        return None;
    }
    let mut changed: Vec<String> = finalizers.iter().filter(|there| *there != finalizer).cloned().collect();
    if wanted {
        changed.push(finalizer.to_owned());
    }
    Some(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ours_is_changed() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(changed(&list(&["a"]), "ours", true), Some(list(&["a", "ours"])));
        assert_eq!(
            changed(&list(&["a", "ours", "b"]), "ours", false),
            Some(list(&["a", "b"]))
        );
        assert_eq!(changed(&list(&["ours"]), "ours", true), None);
        assert_eq!(changed(&list(&["a"]), "ours", false), None);
    }
}
