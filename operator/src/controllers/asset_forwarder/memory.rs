//! What the last reconcile of each forwarder has left: what is needed to see that nothing has changed, without a request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crds::AssetForwarder;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;

use crate::index::{Name, version};

/// By UID.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

#[derive(Clone, Debug, Default)]
struct Remembered {
    /// Namespace and name.
    name: Name,
    /// The ring's ConfigMap as it was read or written last.
    ring: Option<ConfigMap>,
    /// The Secret of the beacon's key as it was read or written last.
    beacon: Option<Secret>,
}

impl Memory {
    /// The ring is so now.
    pub fn ring_seen(&self, forwarder: &AssetForwarder, ring: Option<&ConfigMap>) {
        let ring = ring.cloned().map(|mut ring| {
            ring.metadata.managed_fields = None;
            ring
        });
        self.change(forwarder, |remembered| remembered.ring = ring);
    }

    /// The ring's ConfigMap of this version, or of a later one; none: it must be read.
    #[must_use]
    pub fn ring(&self, forwarder: &AssetForwarder, seen: u64) -> Option<ConfigMap> {
        let ring = self.with(forwarder, |remembered| remembered.ring.clone()).flatten()?;
        (version(&ring)? >= seen).then_some(ring)
    }

    /// The Secret of the beacon's key is so now.
    pub fn beacon_seen(&self, forwarder: &AssetForwarder, beacon: Option<&Secret>) {
        let beacon = beacon.cloned().map(|mut beacon| {
            beacon.metadata.managed_fields = None;
            beacon
        });
        self.change(forwarder, |remembered| remembered.beacon = beacon);
    }

    /// The Secret of the beacon's key of this version, or of a later one; none: it must be read.
    #[must_use]
    pub fn beacon(&self, forwarder: &AssetForwarder, seen: u64) -> Option<Secret> {
        let beacon = self.with(forwarder, |remembered| remembered.beacon.clone()).flatten()?;
        (version(&beacon)? >= seen).then_some(beacon)
    }

    /// A forwarder is gone.
    pub fn forget(&self, forwarder: &AssetForwarder) {
        self.lock().remove(&uid(forwarder));
    }

    /// Forgets all but those with these UIDs. Yields the UIDs and names of the others.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) -> Vec<(String, Name)> {
        let mut all = self.lock();
        let gone = all.extract_if(|uid, _| !is_there(uid));
        gone.map(|(uid, remembered)| (uid, remembered.name)).collect()
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
    fn a_secret_counts_in_the_version_that_the_watch_shows_or_a_later_one() {
        let memory = Memory::default();
        let mut secret = Secret::default();
        secret.metadata.resource_version = Some("7".to_owned());
        memory.beacon_seen(&forwarder(1), Some(&secret));
        assert_eq!(memory.beacon(&forwarder(1), 7), Some(secret));
        assert_eq!(memory.beacon(&forwarder(1), 8), None, "somebody has changed it");
        memory.beacon_seen(&forwarder(1), None);
        assert_eq!(memory.beacon(&forwarder(1), 0), None);
    }

    #[test]
    fn those_that_are_not_there_are_forgotten_with_their_names() {
        let memory = Memory::default();
        memory.ring_seen(&forwarder(1), Some(&ConfigMap::default()));
        assert!(memory.retain(|uid| uid == "u").is_empty());
        assert_eq!(
            memory.retain(|_| false),
            [("u".to_owned(), ("n".to_owned(), "a".to_owned()))]
        );
        assert!(memory.lock().is_empty());
    }
}
