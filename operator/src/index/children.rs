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

/// Whoever has lost a child is woken at once, long before so many others are lost. Of one that is forgotten too early the creation fails,
/// and then it is known again.
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

    /// Of the namespace that has the most: who loses many children pushes nobody else's out.
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
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::ObjectMeta;

    use super::*;

    fn map(version: &str) -> ConfigMap {
        ConfigMap {
            metadata: ObjectMeta {
                name: Some("m".to_owned()),
                namespace: Some("n".to_owned()),
                labels: Some(WATCHED.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        }
    }

    fn tell(children: &Children, event: Event<ConfigMap>) {
        children.hear(&Ok(event));
    }

    fn standing(children: &Children) -> Standing {
        children.standing("ConfigMap", "n", "m", "hash")
    }

    fn ready() -> Children {
        let children = Children::default();
        tell(&children, Event::Init);
        tell(&children, Event::InitDone);
        children
    }

    #[test]
    fn before_the_first_list_nothing_is_known() {
        let children = Children::default();
        assert_eq!(standing(&children), Standing::Unknown);
        tell(&children, Event::Init);
        assert_eq!(standing(&children), Standing::Unknown);
        tell(&children, Event::InitDone);
        assert_eq!(standing(&children), Standing::Absent);
        assert_eq!(children.standing("Secret", "n", "m", "hash"), Standing::Unknown);
    }

    #[test]
    fn a_child_is_as_declared_from_our_write_until_anybody_elses() {
        let children = ready();
        children.verify(&map("9"), "hash");
        assert_eq!(standing(&children), Standing::Unknown);
        // The watch is behind, and then tells of our own write.
        for seen in ["8", "9"] {
            tell(&children, Event::Apply(map(seen)));
            assert_eq!(standing(&children), Standing::AsDeclared);
            assert!(children.knows(&map(seen)));
        }
        assert_eq!(children.standing("ConfigMap", "n", "m", "another"), Standing::Other);
        tell(&children, Event::Apply(map("10")));
        assert_eq!(standing(&children), Standing::Other);
        assert!(!children.knows(&map("10")));
        children.verify(&map("10"), "hash");
        assert_eq!(standing(&children), Standing::AsDeclared);
    }

    #[test]
    fn a_child_that_is_gone_may_have_lost_its_labels_until_it_is_read() {
        let children = ready();
        children.verify(&map("9"), "hash");
        tell(&children, Event::Apply(map("9")));
        tell(&children, Event::Delete(map("11")));
        assert_eq!(standing(&children), Standing::Unknown);
        children.not_found("ConfigMap", "n", "m");
        assert_eq!(standing(&children), Standing::Absent);
        // The watch tells of the deletion after we have made it anew.
        tell(&children, Event::Apply(map("12")));
        children.verify(&map("14"), "hash");
        tell(&children, Event::Delete(map("13")));
        assert_eq!(standing(&children), Standing::Unknown);
        tell(&children, Event::Apply(map("14")));
        assert_eq!(standing(&children), Standing::AsDeclared);
    }

    #[test]
    fn what_a_new_list_does_not_have_is_gone_or_not_known() {
        let children = ready();
        tell(&children, Event::Apply(map("9")));
        assert_eq!(standing(&children), Standing::Other);
        // One that was written and never shown is of as little use.
        for is_written in [false, true] {
            if is_written {
                children.verify(&map("12"), "hash");
            }
            tell(&children, Event::Init);
            tell(&children, Event::InitDone);
            assert_eq!(standing(&children), Standing::Unknown);
            assert!(children.lock()["ConfigMap"].verified.is_empty());
        }
        children.not_found("ConfigMap", "n", "m");
        assert_eq!(standing(&children), Standing::Absent);
    }

    #[test]
    fn what_a_restored_cluster_has_was_not_compared() {
        let children = ready();
        children.verify(&map("9"), "hash");
        for (listed, standing_then) in [("9", Standing::AsDeclared), ("8", Standing::Other)] {
            tell(&children, Event::Init);
            tell(&children, Event::InitApply(map(listed)));
            assert_eq!(children.knows(&map(listed)), standing_then == Standing::AsDeclared);
            tell(&children, Event::InitDone);
            assert_eq!(standing(&children), standing_then);
        }
        children.verify(&map("8"), "hash");
        assert_eq!(standing(&children), Standing::AsDeclared);
    }

    #[test]
    fn a_child_that_is_there_without_our_labels_is_read_until_it_is_seen_or_gone() {
        let children = ready();
        let current = || children.current("ConfigMap", "n", "m");
        children.found("ConfigMap", "n", "m");
        assert_eq!((standing(&children), current()), (Standing::Unknown, None));
        children.not_found("ConfigMap", "n", "m");
        assert_eq!(standing(&children), Standing::Absent);
        children.found("ConfigMap", "n", "m");
        tell(&children, Event::Apply(map("9")));
        children.found("ConfigMap", "n", "m");
        assert_eq!((standing(&children), current()), (Standing::Other, Some(9)));
        assert_eq!(children.lock()["ConfigMap"].hidden.count, 0);
    }

    #[test]
    fn while_its_watch_fails_nothing_is_known_of_a_kind() {
        let children = ready();
        children.verify(&map("9"), "hash");
        tell(&children, Event::Apply(map("9")));
        children.hear::<ConfigMap>(&Err(watcher::Error::NoResourceVersion));
        assert_eq!(standing(&children), Standing::Unknown);
        assert!(!children.is_absent("ConfigMap", "n", "another"));
        assert_eq!(children.current("ConfigMap", "n", "m"), None);
        tell(&children, Event::Apply(map("9")));
        assert_eq!(standing(&children), Standing::AsDeclared);
        assert!(children.is_absent("ConfigMap", "n", "another"));
    }

    #[test]
    fn of_what_no_watch_tells_nothing_is_kept() {
        let children = ready();
        let mut foreign = map("9");
        foreign.metadata.labels = None;
        children.verify(&foreign, "hash");
        assert_eq!(standing(&children), Standing::Absent);
    }

    #[test]
    fn who_loses_many_children_pushes_out_its_own_alone() {
        let mut hidden = Hidden::default();
        let name = |namespace: &str, number: usize| (namespace.to_owned(), number.to_string());
        hidden.insert(name("quiet", 0));
        for number in 0..=MOST_HIDDEN {
            hidden.insert(name("loud", number));
        }
        assert!(hidden.contains(&name("quiet", 0)) && hidden.contains(&name("loud", MOST_HIDDEN)));
        assert!(!hidden.contains(&name("loud", 0)) && !hidden.contains(&name("loud", 1)));
        let counted = hidden.namespaces.values().map(Latest::len).sum::<usize>();
        assert_eq!((counted, hidden.count), (MOST_HIDDEN, MOST_HIDDEN));
        hidden.remove(&name("quiet", 0));
        hidden.remove(&name("quiet", 0));
        assert_eq!((hidden.namespaces.len(), hidden.count), (1, MOST_HIDDEN - 1));
    }
}
