//! Which version of each child is there, and which version we have found to be as declared.
//!
//! A child whose version is the one that we have written or compared last need not be read again. Its watch tells of every other version.
//! While a watch fails, nothing is known of its kind.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt as _};

use super::trust::Trust;
use super::{Latest, version};

/// The labels of what is watched: the children of all forwarders. Of other objects nothing is known.
pub const WATCHED: [(&str, &str); 2] = [
    ("app.kubernetes.io/name", "asset-forwarder"),
    ("app.kubernetes.io/managed-by", "fanout-operator"),
];

/// The children of all forwarders.
#[derive(Debug, Default)]
pub struct Children(Mutex<HashMap<String, OfKind>>);

/// By namespace and name.
type Names<T> = HashMap<(String, String), T>;

#[derive(Debug, Default)]
struct OfKind {
    /// Whether the watch is to be believed.
    trust: Trust,
    seen: Names<u64>,
    verified: Names<Verified>,
    /// What a list that has begun has told so far.
    listed: HashSet<(String, String)>,
    /// What may be there without being shown: the watch has told lately that it is gone, or somebody has met it. It may have lost our labels
    /// only.
    hidden: Hidden,
}

/// The latest names, up to a bound, by namespace.
#[derive(Debug, Default)]
struct Hidden {
    namespaces: HashMap<String, Latest<String, ()>>,
    count: usize,
}

/// The owner of a lost child is woken at once, long before so many others are lost. If one is forgotten too early, its creation
/// fails, and then it is known again.
const MOST_HIDDEN: usize = 4_096;

impl Hidden {
    fn contains(&self, (namespace, name): &(String, String)) -> bool {
        let names = self.namespaces.get(namespace);
        names.is_some_and(|names| names.get(name).is_some())
    }

    fn insert(&mut self, (namespace, name): (String, String)) {
        if self.namespaces.entry(namespace).or_default().insert(name, ()) {
            self.count += 1;
        }
        if self.count > MOST_HIDDEN {
            self.forget_one();
        }
    }

    /// Of the namespace that has the most entries, so that one that loses many children displaces none of another namespace.
    fn forget_one(&mut self) {
        let largest = self.namespaces.iter_mut().max_by_key(|(_, names)| names.len());
        if let Some((_, names)) = largest {
            names.forget_oldest();
            self.count -= 1;
            self.namespaces.retain(|_, names| !names.is_empty());
        }
    }

    fn remove(&mut self, (namespace, name): &(String, String)) {
        let Some(names) = self.namespaces.get_mut(namespace) else {
            return;
        };
        if names.remove(name) {
            self.count -= 1;
        }
        if names.is_empty() {
            self.namespaces.remove(namespace);
        }
    }
}

/// What was found to be as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Verified {
    version: u64,
    declared: String,
}

/// What is known of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing certain: it must be read.
    Unknown,
    /// There is none with our labels.
    Absent,
    /// It is as declared.
    AsDeclared,
    /// It is there, and may differ.
    Other,
}

impl Children {
    /// What the watch of a kind tells.
    pub fn hear<K: Resource<DynamicType = ()>>(&self, told: &watcher::Result<Event<K>>) {
        let mut kinds = self.lock();
        let kind = kinds.entry(K::kind(&()).into_owned()).or_default();
        kind.trust.hear(told);
        let Ok(event) = told else { return };
        match event {
            Event::Init => kind.listed.clear(),
            Event::InitApply(object) => {
                kind.listed.insert(key(object));
                kind.see_listed(object);
            }
            Event::InitDone => kind.forget_unlisted(),
            Event::Apply(object) => kind.see(object),
            Event::Delete(object) => {
                let key = key(object);
                kind.seen.remove(&key);
                // One that was made anew meanwhile is another one, of a later version.
                let is_it = |verified: &Verified| version(object).is_none_or(|gone| gone >= verified.version);
                if kind.verified.get(&key).is_some_and(is_it) {
                    kind.verified.remove(&key);
                }
                kind.hidden.insert(key);
            }
        }
    }

    /// There is a child of that name, which somebody has met who believed that there was none.
    pub fn found(&self, kind: &str, namespace: &str, name: &str) {
        if let Some(of_kind) = self.lock().get_mut(kind) {
            let key = (namespace.to_owned(), name.to_owned());
            if !of_kind.seen.contains_key(&key) {
                of_kind.hidden.insert(key);
            }
        }
    }

    /// A read has found no child of that name.
    pub fn not_found(&self, kind: &str, namespace: &str, name: &str) {
        if let Some(of_kind) = self.lock().get_mut(kind) {
            let key = (namespace.to_owned(), name.to_owned());
            // What the watch still shows, it will tell to be gone.
            of_kind.hidden.remove(&key);
            of_kind.verified.remove(&key);
        }
    }

    /// What is known of a child, of which `declared` is the hash of what it is to be.
    #[must_use]
    pub fn standing(&self, kind: &str, namespace: &str, name: &str, declared: &str) -> Standing {
        let kinds = self.lock();
        let Some(of_kind) = kinds.get(kind).filter(|of_kind| of_kind.trust.holds()) else {
            return Standing::Unknown;
        };
        let key = (namespace.to_owned(), name.to_owned());
        match (of_kind.seen.get(&key), of_kind.verified.get(&key)) {
            (None, None) if !of_kind.hidden.contains(&key) => Standing::Absent,
            (None, None) => Standing::Unknown,
            // Written a moment ago, and not seen yet; or gone in a gap of the watch.
            (None, Some(_)) => Standing::Unknown,
            (Some(seen), Some(verified)) if *seen <= verified.version && verified.declared == declared => {
                Standing::AsDeclared
            }
            (Some(_), _) => Standing::Other,
        }
    }

    /// Whether an object is among those that are watched.
    #[must_use]
    pub fn are_told_of(object: &impl Resource) -> bool {
        let labels = object.labels();
        let has = |(name, value): &(&str, &str)| labels.get(*name).map(String::as_str) == Some(*value);
        WATCHED.iter().all(has)
    }

    /// The newest version that is known: seen, or written by us and not seen yet. None also while the watch fails.
    #[must_use]
    pub fn current(&self, kind: &str, namespace: &str, name: &str) -> Option<u64> {
        let kinds = self.lock();
        let of_kind = kinds.get(kind).filter(|of_kind| of_kind.trust.holds())?;
        let key = (namespace.to_owned(), name.to_owned());
        let verified = of_kind.verified.get(&key).map(|verified| verified.version);
        of_kind.seen.get(&key).copied().max(verified)
    }

    /// Whether it is certain that no child of that name has our labels.
    #[must_use]
    pub fn is_absent(&self, kind: &str, namespace: &str, name: &str) -> bool {
        self.standing(kind, namespace, name, "") == Standing::Absent
    }

    /// This version of a child is as declared. Of an object that no watch tells of nothing is kept: nobody would ever say that it is gone.
    pub fn verify<K: Resource<DynamicType = ()>>(&self, object: &K, declared: &str) {
        let Some(version) = version(object).filter(|_| Self::are_told_of(object)) else {
            return;
        };
        let verified = Verified {
            version,
            declared: declared.to_owned(),
        };
        let mut kinds = self.lock();
        let kind = kinds.entry(K::kind(&()).into_owned()).or_default();
        kind.verified.insert(key(object), verified);
    }

    /// Whether this is a version that we have written or compared ourselves, or an older one.
    #[must_use]
    pub fn knows<K: Resource<DynamicType = ()>>(&self, object: &K) -> bool {
        let kinds = self.lock();
        let verified = kinds
            .get(&*K::kind(&()))
            .and_then(|of_kind| of_kind.verified.get(&key(object)));
        match (verified, version(object)) {
            (Some(verified), Some(version)) => version <= verified.version,
            _ => false,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, OfKind>> {
        // The maps are whole after every statement, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OfKind {
    fn see(&mut self, object: &impl Resource) {
        self.hidden.remove(&key(object));
        match version(object) {
            Some(version) => {
                self.seen.insert(key(object), version);
            }
            // Never as declared: each look reads it.
            None => {
                self.seen.insert(key(object), u64::MAX);
            }
        }
    }

    /// As [`Self::see`], in a list. Unlike a watch, a list is not behind: one with an older version than ours is of a cluster that was restored.
    fn see_listed(&mut self, object: &impl Resource) {
        let key = key(object);
        let is_restored = |verified: &Verified| version(object).is_none_or(|listed| listed < verified.version);
        if self.verified.get(&key).is_some_and(is_restored) {
            self.verified.remove(&key);
        }
        self.see(object);
    }

    /// What a whole list did not have is gone, or was written while it was told: a read will tell.
    fn forget_unlisted(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        let is_unlisted = |key: &(String, String)| !listed.contains(key);
        let mut unlisted: HashSet<_> = self
            .seen
            .extract_if(|key, _| is_unlisted(key))
            .map(|(key, _)| key)
            .collect();
        let verified = self.verified.extract_if(|key, _| is_unlisted(key));
        unlisted.extend(verified.map(|(key, _)| key));
        for key in unlisted {
            self.hidden.insert(key);
        }
    }
}

fn key(object: &impl Resource) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests;
