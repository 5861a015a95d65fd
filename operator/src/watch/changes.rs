//! Which events of a watch say something new.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher as _};

use futures::{Stream, StreamExt as _, stream};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt as _};
use tracing::warn;

use crate::error::describe;

/// The objects whose change matters. `facts` is a hash of what others depend on; none for an object on which nothing depends. A
/// deletion always matters. An error of the watch is logged, and the watch tries again by itself.
/// The changes of a list come at its end, because a store shows nothing of a list before. Annotations are dropped: they are not
/// needed here, and those of foreign objects may have many megabytes.
pub fn changes<K>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    facts: impl Fn(&K) -> Option<u64> + Send + 'static,
) -> impl Stream<Item = K> + Send + 'static
where
    K: Resource<DynamicType = ()> + Debug + Send + 'static,
{
    changes_of(events, facts, bare)
}

/// As [`changes`], with what `keep` makes of each object. Thousands of them wait for the end of a list, so less than a whole object is enough
/// where it can be.
pub fn changes_of<K, T>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    facts: impl Fn(&K) -> Option<u64> + Send + 'static,
    keep: impl Fn(K) -> T + Send + 'static,
) -> impl Stream<Item = T> + Send + 'static
where
    K: Resource<DynamicType = ()> + Debug + Send + 'static,
    T: Send + 'static,
{
    let mut known = Known::default();
    events.flat_map(move |event| {
        let changed = match event {
            Ok(event) => known.hear(event, &facts, &keep),
            Err(error) => {
                warn!(kind = %K::kind(&()), error = describe(&error), "a watch failed; the operator tries again");
                Vec::new()
            }
        };
        stream::iter(changed)
    })
}

/// A namespace and a name.
type Key = (String, String);

/// What was heard so far.
#[derive(Debug)]
struct Known<T> {
    /// The facts of each object that is somebody's matter.
    facts: HashMap<Key, u64>,
    /// The facts that a list which has begun has told so far. A list that breaks off has told nothing.
    listed: HashMap<Key, u64>,
    /// What is kept of the objects of that list whose facts are others than before.
    changed: Vec<T>,
}

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self {
            facts: HashMap::new(),
            listed: HashMap::new(),
            changed: Vec::new(),
        }
    }
}

impl<T> Known<T> {
    /// What is to be told now.
    fn hear<K: Resource>(
        &mut self,
        event: Event<K>,
        facts: impl Fn(&K) -> Option<u64>,
        keep: impl Fn(K) -> T,
    ) -> Vec<T> {
        let facts = |object: &K| facts(object).map(|facts| hash(&(object.uid(), facts)));
        match event {
            Event::Init => {
                self.listed.clear();
                self.changed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let (key, now) = (key(&object), facts(&object));
                if self.facts.get(&key).copied() != now {
                    self.changed.push(keep(object));
                }
                if let Some(now) = now {
                    self.listed.insert(key, now);
                }
                Vec::new()
            }
            // What the list no longer has is found by whoever looks at the store: there is no object to tell of.
            Event::InitDone => {
                self.facts = std::mem::take(&mut self.listed);
                std::mem::take(&mut self.changed)
            }
            Event::Apply(object) => {
                let (key, now) = (key(&object), facts(&object));
                let before = match now {
                    Some(now) => self.facts.insert(key, now),
                    None => self.facts.remove(&key),
                };
                if before == now { Vec::new() } else { vec![keep(object)] }
            }
            Event::Delete(object) => {
                self.facts.remove(&key(&object));
                vec![keep(object)]
            }
        }
    }
}

fn bare<K: Resource>(mut object: K) -> K {
    object.meta_mut().annotations = None;
    object
}

fn key(object: &impl Resource) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// A hash of anything, for one process.
pub fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// What a person or a controller declares about an object: its generation, labels, finalizers, and whether it is being deleted. Not its
/// status, and not annotations that tools of others write many times a second.
pub fn declared(object: &impl Resource) -> u64 {
    let meta = object.meta();
    hash(&(
        meta.generation,
        object.labels(),
        object.finalizers(),
        meta.deletion_timestamp.is_some(),
    ))
}

#[cfg(test)]
mod tests {
    use crds::NatsCluster;
    use kube::runtime::reflector::{self, ObjectRef};
    use serde_json::json;

    use super::*;

    fn cluster(version: u64, generation: u64, finalizers: &[&str]) -> NatsCluster {
        serde_json::from_value(json!({
            "apiVersion": "fanout.openfactory.io/v1alpha1",
            "kind": "NatsCluster",
            "metadata": {
                "name": "c", "namespace": "n", "uid": "u", "generation": generation, "resourceVersion": version.to_string(),
                "finalizers": finalizers, "annotations": {"touched": version.to_string()},
            },
            "spec": {"external": {"servers": ["nats://c:4222"]}},
            "status": {"servers": [version.to_string()]},
        }))
        .unwrap()
    }

    async fn heard(events: Vec<Event<NatsCluster>>, facts: fn(&NatsCluster) -> Option<u64>) -> Vec<String> {
        let events = stream::iter(events.into_iter().map(Ok));
        changes(events, facts)
            .map(|cluster| cluster.resource_version().unwrap())
            .collect()
            .await
    }

    #[tokio::test]
    async fn what_nobody_depends_on_wakes_nobody() {
        let events = vec![
            Event::Init,
            Event::InitApply(cluster(1, 1, &[])),
            Event::InitDone,
            // A status, and an annotation.
            Event::Apply(cluster(2, 1, &[])),
            Event::Apply(cluster(3, 2, &[])),
            Event::Apply(cluster(4, 2, &["drain"])),
            // A watch that begins anew.
            Event::Init,
            Event::InitApply(cluster(5, 2, &["drain"])),
            Event::InitDone,
            Event::Delete(cluster(6, 2, &["drain"])),
            Event::Apply(cluster(7, 2, &["drain"])),
        ];
        assert_eq!(
            heard(events, |cluster| Some(declared(cluster))).await,
            ["1", "3", "4", "6", "7"]
        );
    }

    #[tokio::test]
    async fn an_object_that_becomes_nobodys_matter_is_told_once() {
        let events = vec![
            Event::Apply(cluster(1, 1, &[])),
            Event::Apply(cluster(2, 1, &["drain"])),
            Event::Apply(cluster(3, 1, &[])),
            Event::Apply(cluster(4, 1, &[])),
        ];
        let is_held = |cluster: &NatsCluster| (!cluster.finalizers().is_empty()).then_some(1);
        assert_eq!(heard(events, is_held).await, ["2", "3"]);
    }

    #[tokio::test]
    async fn what_a_list_tells_is_in_the_store_by_then() {
        let (store, writer) = reflector::store();
        // The cluster is made in a gap of the watch.
        let events = [
            Event::Init,
            Event::InitDone,
            Event::Init,
            Event::InitApply(cluster(1, 1, &[])),
            Event::InitDone,
        ];
        let events = reflector::reflector(writer, stream::iter(events.map(Ok)));
        let told = changes(events, |cluster| Some(declared(cluster)));
        let found = told.map(|cluster| store.get(&ObjectRef::from_obj(&cluster)).is_some());
        assert_eq!(found.collect::<Vec<_>>().await, [true]);
    }

    #[tokio::test]
    async fn a_list_that_breaks_off_has_told_nothing() {
        let events = vec![
            Event::Init,
            Event::InitApply(cluster(1, 1, &[])),
            Event::Init,
            Event::InitApply(cluster(2, 1, &[])),
            Event::InitDone,
            Event::Init,
            Event::InitApply(cluster(3, 2, &[])),
            Event::Init,
            Event::InitApply(cluster(4, 1, &[])),
            Event::InitDone,
        ];
        assert_eq!(heard(events, |cluster| Some(declared(cluster))).await, ["2"]);
    }

    #[tokio::test]
    async fn a_list_tells_each_object_that_is_another_one_than_before() {
        let named = |name: &str, generation| {
            let mut cluster = cluster(generation, generation, &[]);
            cluster.metadata.name = Some(name.to_owned());
            cluster
        };
        let events = vec![
            Event::Init,
            Event::InitApply(named("a", 1)),
            Event::InitApply(named("b", 1)),
            Event::InitDone,
            Event::Init,
            Event::InitApply(named("a", 2)),
            Event::InitApply(named("b", 1)),
            Event::InitApply(named("c", 3)),
            Event::InitDone,
            // It left in the gap before this list, and is a new one.
            Event::Init,
            Event::InitDone,
            Event::Apply(named("b", 1)),
        ];
        let told = heard(events, |cluster| Some(declared(cluster))).await;
        assert_eq!(told, ["1", "1", "2", "3", "1"]);
    }

    #[tokio::test]
    async fn annotations_are_not_kept() {
        let events = vec![Event::Init, Event::InitApply(cluster(1, 1, &[])), Event::InitDone];
        let told = changes(stream::iter(events.into_iter().map(Ok)), |cluster: &NatsCluster| {
            cluster.annotations().get("touched").map(hash)
        });
        let told: Vec<_> = told.collect().await;
        assert!(told.len() == 1 && told[0].annotations().is_empty());
    }
}
