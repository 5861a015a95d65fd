//! What an AssetForwarder's object says of its ring: whether all pods use it.

use std::borrow::Cow;

use crds::AssetForwarder;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// How far the pods of a forwarder are with its ring, by its status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    /// The status says nothing of that.
    #[default]
    Unsaid,
    /// All pods use the ring of this epoch. So it is as well where there are to be none.
    All(u64),
    /// Some pods do not use the declared ring yet.
    Some,
}

/// An AssetForwarder, as far as the router needs it. What else is in the object is not kept, and cannot make it unreadable.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Watched {
    metadata: ObjectMeta,
    #[serde(default)]
    status: Option<Status>,
}

/// Its status.
#[derive(Clone, Debug, Deserialize)]
struct Status {
    #[serde(default)]
    ring: Option<Ring>,
}

/// What the status says of the ring.
#[derive(Clone, Debug, Deserialize)]
struct Ring {
    #[serde(default)]
    epoch: i64,
    /// `pods that use it/pods that there are to be`.
    #[serde(default)]
    converged: Option<String>,
}

impl Watched {
    /// What its status says.
    pub(crate) fn progress(&self) -> Progress {
        let ring = self.status.as_ref().and_then(|status| status.ring.as_ref());
        ring.and_then(Ring::progress).unwrap_or_default()
    }
}

impl Ring {
    fn progress(&self) -> Option<Progress> {
        let (converged, desired) = self.converged.as_deref()?.split_once('/')?;
        let (converged, desired): (u32, u32) = (converged.parse().ok()?, desired.parse().ok()?);
        let epoch = u64::try_from(self.epoch).ok()?;
        Some(if converged >= desired {
            Progress::All(epoch)
        } else {
            Progress::Some
        })
    }
}

impl Resource for Watched {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        AssetForwarder::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        AssetForwarder::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        AssetForwarder::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        AssetForwarder::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_ring_is_in_use_once_all_pods_that_there_are_to_be_have_it() {
        let all: [(Value, Progress); 9] = [
            (json!({"epoch": 7, "converged": "3/3"}), Progress::All(7)),
            (json!({"epoch": 7, "converged": "4/3"}), Progress::All(7)),
            (json!({"epoch": 7, "converged": "2/3"}), Progress::Some),
            (json!({"epoch": 7, "converged": "0/3"}), Progress::Some),
            (json!({"epoch": 7, "converged": "0/0"}), Progress::All(7)),
            (json!({"epoch": 7}), Progress::Unsaid),
            (json!({"epoch": 7, "converged": "all"}), Progress::Unsaid),
            (json!({"epoch": -7, "converged": "3/3"}), Progress::Unsaid),
            (Value::Null, Progress::Unsaid),
        ];
        for (ring, progress) in all {
            let object = json!({"metadata": {}, "spec": "of any form", "status": {"ring": ring, "replicas": "many"}});
            let watched: Watched = serde_json::from_value(object).unwrap();
            assert_eq!(watched.progress(), progress, "{ring}");
        }
        let new: Watched = serde_json::from_value(json!({"metadata": {}})).unwrap();
        assert_eq!(new.progress(), Progress::Unsaid);
    }
}
