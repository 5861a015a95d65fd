//! Our own last write of each resource's status, and whether a watch tells of it yet.
//!
//! A reconcile that begins with an earlier resource would compare with an earlier status: a condition that has not changed would get a new
//! time, or change back and forth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::debug;

use crate::index::version;

/// How soon to look again at a resource whose own status has not come back by the watch yet.
pub const SOON: Duration = Duration::from_millis(500);

/// When to look again at a resource that the API server does not have, although the watch shows it: what stands before the API server may have
/// answered.
pub const LATER: Duration = Duration::from_secs(60);

/// For so long a watch may be behind our own write. Beyond that, versions may have gone back: etcd was restored from a backup.
const PATIENCE: Duration = Duration::from_secs(30);

/// A resource that no reconcile has looked at for so long is gone: each is looked at again within minutes.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// Below so many resources nothing is gained by forgetting some.
const FEW: usize = 64;

/// What a watch shows of a resource, beside our own last write of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The resource as it was after that write, or later.
    Current,
    /// An earlier one: the watch will tell of the write in a moment.
    Behind,
    /// An earlier one for so long that the watch may never tell of it. Only the API server itself can say what there is.
    Stuck,
}

/// What a reconcile begins with.
#[derive(Debug)]
pub enum Newest<K> {
    /// This resource: it has our own last status, or a later one.
    Known(Arc<K>),
    /// Nothing yet: the watch is behind our own write. Look again after [`SOON`].
    Behind,
    /// Nothing: the resource is gone, or was made anew, of which its own watch event tells. Look again after [`LATER`].
    Gone,
}

/// By UID, of all kinds.
#[derive(Debug, Default)]
pub struct OwnWrites(Mutex<Written>);

#[derive(Debug, Default)]
struct Written {
    resources: HashMap<String, LastWrite>,
    /// How many were left when those that are gone were forgotten last.
    left: usize,
}

#[derive(Debug)]
struct LastWrite {
    /// The version of the resource after our last write of its status; none: it is no number, and nothing is compared.
    version: Option<u64>,
    /// Since when the watch has been behind that.
    behind: Option<Instant>,
    /// When it was written or compared last.
    used: Instant,
}

impl OwnWrites {
    /// The status was written; this is the resource after it.
    pub fn note(&self, written: &impl Resource, now: Instant) {
        let last = LastWrite {
            version: version(written),
            behind: None,
            used: now,
        };
        let mut all = self.lock();
        all.resources.insert(uid(written), last);
        if all.resources.len() > FEW.max(all.left.saturating_mul(2)) {
            all.resources
                .retain(|_, last| now.duration_since(last.used) < FORGOTTEN);
            all.left = all.resources.len();
        }
    }

    /// How this resource, which a watch has shown, compares with our last write.
    #[must_use]
    pub fn view(&self, seen: &impl Resource, now: Instant) -> View {
        let mut all = self.lock();
        let Some(last) = all.resources.get_mut(&uid(seen)) else {
            return View::Current;
        };
        last.used = now;
        let is_current = match (last.version, version(seen)) {
            (None, _) => true,
            (Some(written), Some(seen)) => seen >= written,
            (Some(_), None) => false,
        };
        if is_current {
            last.behind = None;
            return View::Current;
        }
        let since = *last.behind.get_or_insert(now);
        if now.duration_since(since) < PATIENCE {
            View::Behind
        } else {
            View::Stuck
        }
    }

    /// The resource that a reconcile may begin with: the one that the watch has shown, or the API server's own where the watch is
    /// [`View::Stuck`].
    ///
    /// # Errors
    /// The API server refuses, or is not there.
    pub async fn newest<K>(&self, api: &Api<K>, seen: Arc<K>) -> kube::Result<Newest<K>>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        match self.view(seen.as_ref(), Instant::now()) {
            View::Current => return Ok(Newest::Known(seen)),
            View::Behind => return Ok(Newest::Behind),
            View::Stuck => debug!("the watch has not shown the last write; asking the API server"),
        }
        let found = api.get_opt(&seen.name_any()).await?;
        let Some(found) = found.filter(|found| found.uid() == seen.uid()) else {
            return Ok(Newest::Gone);
        };
        self.note(&found, Instant::now());
        Ok(Newest::Known(Arc::new(found)))
    }

    /// The resource is gone.
    pub fn forget(&self, gone: &impl Resource) {
        self.forget_uid(&uid(gone));
    }

    /// The resource with this UID is gone.
    pub fn forget_uid(&self, uid: &str) {
        self.lock().resources.remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(resource: &impl Resource) -> String {
    resource.meta().uid.clone().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use serde_json::json;

    use super::*;
    use crate::fake_api;

    fn cluster(uid: &str, version: u64) -> crds::NatsCluster {
        crds::NatsCluster {
            metadata: ObjectMeta {
                namespace: Some("n".to_owned()),
                name: Some("a".to_owned()),
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            spec: serde_json::from_value(json!({"external": {"servers": ["nats://c:4222"]}})).unwrap(),
            status: None,
        }
    }

    #[test]
    fn a_watch_that_never_tells_of_a_write_is_not_waited_for_for_ever() {
        let writes = OwnWrites::default();
        let began = Instant::now();
        let view = |version, seconds| writes.view(&cluster("u", version), began + Duration::from_secs(seconds));
        assert_eq!(view(3, 0), View::Current, "nothing was written yet");
        writes.note(&cluster("u", 9), began);
        assert_eq!(
            [view(3, 0), view(3, 29), view(3, 30)],
            [View::Behind, View::Behind, View::Stuck]
        );
        assert_eq!(view(9, 31), View::Current);
        assert_eq!(
            [view(8, 32), view(8, 61), view(8, 62)],
            [View::Behind, View::Behind, View::Stuck]
        );
        // etcd was restored, and the resource has a lower version.
        writes.note(&cluster("u", 4), began + Duration::from_secs(62));
        assert_eq!(view(4, 63), View::Current);
        assert_eq!(view(3, 64), View::Behind, "this watch is behind what was read");
    }

    #[test]
    fn those_that_nobody_looks_at_any_more_are_forgotten() {
        let writes = OwnWrites::default();
        let began = Instant::now();
        for number in 0..FEW {
            writes.note(&cluster(&number.to_string(), 2), began);
        }
        let later = began + FORGOTTEN;
        assert_eq!(writes.view(&cluster("7", 1), later), View::Behind);
        writes.note(&cluster("new", 2), later);
        let left = |uid: &str| writes.view(&cluster(uid, 1), later) != View::Current;
        assert_eq!([left("7"), left("new"), left("8")], [true, true, false]);
    }

    /// The API server has the cluster so.
    fn api(there: Option<(&'static str, u64)>) -> Api<crds::NatsCluster> {
        let client = fake_api::client(move |_, _| match there {
            Some((uid, version)) => (200, json!(cluster(uid, version)).to_string()),
            None => {
                let refusal = json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404});
                (404, refusal.to_string())
            }
        });
        Api::namespaced(client, "n")
    }

    #[tokio::test]
    async fn a_reconcile_begins_with_what_has_our_own_status() {
        let writes = OwnWrites::default();
        let old = || Arc::new(cluster("u", 3));
        let known = async |there| match writes.newest(&api(there), old()).await.unwrap() {
            Newest::Known(cluster) => version(cluster.as_ref()),
            Newest::Behind | Newest::Gone => None,
        };
        assert_eq!(
            known(None).await,
            Some(3),
            "nothing was written yet, and nobody is asked"
        );
        writes.note(&cluster("u", 9), Instant::now());
        assert!(matches!(
            writes.newest(&api(Some(("u", 9))), old()).await.unwrap(),
            Newest::Behind
        ));
        let stuck = || {
            let mut all = writes.lock();
            all.resources.get_mut("u").unwrap().behind = Instant::now().checked_sub(PATIENCE);
        };
        stuck();
        assert_eq!(known(Some(("u", 2))).await, Some(2), "versions have gone back");
        assert_eq!(known(None).await, Some(3), "the watch is not behind that");
        writes.note(&cluster("u", 9), Instant::now());
        for there in [None, Some(("another", 10))] {
            stuck();
            assert!(matches!(writes.newest(&api(there), old()).await.unwrap(), Newest::Gone));
        }
    }
}
