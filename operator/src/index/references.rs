//! Which resources refer to a Secret: found without a look at each of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt as _};

/// A namespace and a name.
pub type Name = (String, String);

/// The Secrets to which resources of a kind refer.
#[derive(Debug, Default)]
pub struct References(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_resource: HashMap<Name, BTreeSet<Name>>,
    by_secret: HashMap<Name, BTreeSet<Name>>,
    /// What a list that has begun has told so far.
    listed: HashSet<Name>,
}

impl References {
    /// A watch tells of resources, which name `secrets`. Who went while nobody watched is not in the next list, and is forgotten at its end.
    pub fn hear<K: Resource>(&self, event: &Event<K>, secrets: impl Fn(&K) -> BTreeSet<Name>) {
        match event {
            Event::Init => self.lock().listed.clear(),
            Event::InitApply(resource) => {
                self.lock().listed.insert(name(resource));
                self.note(resource, secrets(resource));
            }
            Event::InitDone => self.lock().forget_unlisted(),
            Event::Apply(resource) => self.note(resource, secrets(resource)),
            Event::Delete(resource) => self.forget(resource),
        }
    }

    /// A resource refers to these Secrets, and to no others.
    pub fn note(&self, resource: &impl Resource, secrets: BTreeSet<Name>) {
        let resource = name(resource);
        let mut state = self.lock();
        state.forget(&resource);
        for secret in &secrets {
            state
                .by_secret
                .entry(secret.clone())
                .or_default()
                .insert(resource.clone());
        }
        if !secrets.is_empty() {
            state.by_resource.insert(resource, secrets);
        }
    }

    /// A resource is gone.
    pub fn forget(&self, resource: &impl Resource) {
        self.forget_name(&name(resource));
    }

    /// The resource of that name is gone.
    pub fn forget_name(&self, resource: &Name) {
        self.lock().forget(resource);
    }

    /// Those that refer to a Secret.
    pub fn to<K>(&self, secret: &impl Resource) -> Vec<ObjectRef<K>>
    where
        K: Resource<DynamicType = ()> + Clone + 'static,
    {
        let state = self.lock();
        let resources = state.by_secret.get(&name(secret)).into_iter().flatten();
        resources
            .map(|(namespace, name)| ObjectRef::new(name).within(namespace))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget_unlisted(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        let known = self.by_resource.keys();
        let gone: Vec<Name> = known.filter(|name| !listed.contains(*name)).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    fn forget(&mut self, resource: &Name) {
        for secret in self.by_resource.remove(resource).unwrap_or_default() {
            if let Some(resources) = self.by_secret.get_mut(&secret) {
                resources.remove(resource);
                if resources.is_empty() {
                    self.by_secret.remove(&secret);
                }
            }
        }
    }
}

fn name(object: &impl Resource) -> Name {
    (object.namespace().unwrap_or_default(), object.name_any())
}

#[cfg(test)]
mod tests {
    use crds::NatsCluster;
    use k8s_openapi::api::core::v1::Secret;
    use kube::api::ObjectMeta;

    use super::*;

    fn secret(namespace: &str, name: &str) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        }
    }

    fn names(references: &References, namespace: &str, name: &str) -> Vec<String> {
        let found: Vec<ObjectRef<NatsCluster>> = references.to(&secret(namespace, name));
        found.into_iter().map(|found| found.name).collect()
    }

    #[test]
    fn the_last_word_of_a_resource_counts() {
        let references = References::default();
        let of = |names: &[&str]| names.iter().map(|name| ("n".to_owned(), (*name).to_owned())).collect();
        references.note(&secret("n", "one"), of(&["a", "b"]));
        references.note(&secret("n", "two"), of(&["b"]));
        assert_eq!(names(&references, "n", "b"), ["one", "two"]);
        assert!(names(&references, "other", "b").is_empty());
        references.note(&secret("n", "one"), of(&["a"]));
        assert_eq!(names(&references, "n", "b"), ["two"]);
        references.forget(&secret("n", "two"));
        references.forget(&secret("n", "one"));
        let state = references.lock();
        assert!(state.by_secret.is_empty() && state.by_resource.is_empty());
    }

    #[test]
    fn who_went_while_nobody_watched_is_forgotten_at_the_end_of_the_next_list() {
        let references = References::default();
        let of = |_: &Secret| BTreeSet::from([("n".to_owned(), "a".to_owned())]);
        let hear = |event| references.hear(&event, of);
        hear(Event::Apply(secret("n", "one")));
        hear(Event::Apply(secret("n", "two")));
        hear(Event::Init);
        hear(Event::InitApply(secret("n", "gone")));
        // That list broke off.
        hear(Event::Init);
        hear(Event::InitApply(secret("n", "two")));
        assert_eq!(names(&references, "n", "a"), ["gone", "one", "two"]);
        hear(Event::InitDone);
        assert_eq!(names(&references, "n", "a"), ["two"]);
        hear(Event::Delete(secret("n", "two")));
        assert!(names(&references, "n", "a").is_empty());
    }
}
