//! What the last reconcile of each forwarder has left: what is needed to see that nothing has changed, without a request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::AssetForwarder;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

use crate::index::{Name, version};

/// For so long a watch may be behind our own write. Beyond that, versions may have gone back: etcd was restored from a backup.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a watch shows of a forwarder, beside our own last write of its status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The resource as it was after that write, or later.
    Current,
    /// An earlier one: the watch will tell of the write in a moment.
    Behind,
    /// An earlier one for so long that the watch may never tell of it. Only the API server itself can say what there is.
    Stuck,
}

/// By UID.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

#[derive(Clone, Debug, Default)]
struct Remembered {
    /// Namespace and name.
    name: Name,
    /// The version of the resource after our last write of its status.
    status: Option<u64>,
    /// Since when the watch has been behind that.
    behind: Option<Instant>,
    /// The ring's ConfigMap as it was read or written last.
    ring: Option<ConfigMap>,
}

impl Memory {
    /// The status was written; this is the resource after it.
    pub fn status_written(&self, forwarder: &AssetForwarder) {
        let version = version(forwarder);
        self.change(forwarder, |remembered| {
            remembered.status = version;
            remembered.behind = None;
        });
    }

    /// The API server itself has the resource so, although the watch is [`View::Stuck`]: now the watch is compared with this.
    pub fn status_read(&self, forwarder: &AssetForwarder) {
        self.status_written(forwarder);
    }

    /// The ring is so now.
    pub fn ring_seen(&self, forwarder: &AssetForwarder, ring: Option<&ConfigMap>) {
        let ring = ring.cloned().map(|mut ring| {
            ring.metadata.managed_fields = None;
            ring
        });
        self.change(forwarder, |remembered| remembered.ring = ring);
    }

    /// How this resource, which a watch has shown, compares with our last write.
    #[must_use]
    pub fn view(&self, forwarder: &AssetForwarder, now: Instant) -> View {
        let mut all = self.lock();
        let Some(remembered) = all.get_mut(&uid(forwarder)) else {
            return View::Current;
        };
        let is_current = match (remembered.status, version(forwarder)) {
            (None, _) => true,
            (Some(written), Some(seen)) => seen >= written,
            (Some(_), None) => false,
        };
        if is_current {
            remembered.behind = None;
            return View::Current;
        }
        let since = *remembered.behind.get_or_insert(now);
        if now.duration_since(since) < PATIENCE {
            View::Behind
        } else {
            View::Stuck
        }
    }

    /// The ring's ConfigMap of this version, or of a later one; none: it must be read.
    #[must_use]
    pub fn ring(&self, forwarder: &AssetForwarder, seen: u64) -> Option<ConfigMap> {
        let ring = self.with(forwarder, |remembered| remembered.ring.clone()).flatten()?;
        (version(&ring)? >= seen).then_some(ring)
    }

    /// A forwarder is gone.
    pub fn forget(&self, forwarder: &AssetForwarder) {
        self.lock().remove(&uid(forwarder));
    }

    /// Forgets all but those with these UIDs. Yields the names of the others.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) -> Vec<Name> {
        let mut all = self.lock();
        let gone = all.extract_if(|uid, _| !is_there(uid));
        gone.map(|(_, remembered)| remembered.name).collect()
    }

    fn with<T>(&self, forwarder: &AssetForwarder, read: impl FnOnce(&Remembered) -> T) -> Option<T> {
        self.lock().get(&uid(forwarder)).map(read)
    }

    fn change(&self, forwarder: &AssetForwarder, change: impl FnOnce(&mut Remembered)) {
        let mut all = self.lock();
        let remembered = all.entry(uid(forwarder)).or_default();
        remembered.name = (forwarder.namespace().unwrap_or_default(), forwarder.name_any());
        change(remembered);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(forwarder: &AssetForwarder) -> String {
    forwarder.uid().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    fn forwarder(version: u64) -> AssetForwarder {
        AssetForwarder {
            metadata: ObjectMeta {
                namespace: Some("n".to_owned()),
                name: Some("a".to_owned()),
                uid: Some("u".to_owned()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            spec: serde_json::from_value(serde_json::json!({"sources": [], "clusters": {"selector": {}}})).unwrap(),
            status: None,
        }
    }

    #[test]
    fn a_watch_that_never_tells_of_a_write_is_not_waited_for_for_ever() {
        let memory = Memory::default();
        let began = Instant::now();
        let view = |version, seconds| memory.view(&forwarder(version), began + Duration::from_secs(seconds));
        assert_eq!(view(3, 0), View::Current, "nothing was written yet");
        memory.status_written(&forwarder(9));
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
        memory.status_read(&forwarder(4));
        assert_eq!(view(4, 63), View::Current);
        assert_eq!(view(3, 64), View::Behind, "this watch is behind what was read");
    }

    #[test]
    fn those_that_are_not_there_are_forgotten_with_their_names() {
        let memory = Memory::default();
        memory.ring_seen(&forwarder(1), Some(&ConfigMap::default()));
        assert!(memory.retain(|uid| uid == "u").is_empty());
        assert_eq!(memory.retain(|_| false), [("n".to_owned(), "a".to_owned())]);
        assert!(memory.lock().is_empty());
    }
}
