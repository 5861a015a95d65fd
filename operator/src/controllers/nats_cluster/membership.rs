//! Which forwarders list which clusters, kept up to date event by event.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::{AssetForwarder, NatsCluster};
use futures::channel::mpsc;
use futures::{Stream, StreamExt as _, stream};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;

use super::dereference::{listed, named};
use crate::reconcile::drive::coalesce;

/// How many forwarders a cluster's status names. It would be written for each of thousands otherwise.
pub(super) const SHOWN: usize = 32;

/// For how long forwarders are counted together that a status does not name. It is written once for all of them.
const COUNTED: Duration = Duration::from_secs(3);

/// The clusters whose status shows who lists them, as events of forwarders change that: at once where names change or somebody waits for
/// them, and a little later where only the number does.
pub(super) fn wakes(
    of_forwarders: impl Stream<Item = Event<AssetForwarder>> + Send + 'static,
    clusters: Store<NatsCluster>,
) -> impl Stream<Item = ObjectRef<NatsCluster>> + Send + 'static {
    let membership = Membership::default();
    let (counted, later) = mpsc::unbounded();
    let at_once = of_forwarders.flat_map(move |event| {
        let mut at_once = Vec::new();
        for Concerned { cluster, is_shown } in membership.hear(&event) {
            if is_shown || clusters.get(&cluster).is_some_and(|cluster| is_leaving(&cluster)) {
                at_once.push(cluster);
            } else {
                // It fails only where nobody is woken any more.
                drop(counted.unbounded_send(cluster));
            }
        }
        stream::iter(at_once)
    });
    stream::select(at_once, coalesce(later, COUNTED))
}

fn is_leaving(cluster: &NatsCluster) -> bool {
    cluster.spec.drain || cluster.metadata.deletion_timestamp.is_some()
}

/// Forwarders and clusters, each as `namespace/name`.
#[derive(Debug, Default)]
struct Membership(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Each name is in memory once, however many list it.
    by_forwarder: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    by_cluster: HashMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// What a list that has begun has told so far, by forwarder. It counts at the list's end: until then the store does not show it, and a
    /// cluster that is woken would find what was before.
    listed: HashMap<String, BTreeSet<String>>,
}

/// A cluster that a forwarder has begun or ceased to list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Concerned {
    cluster: ObjectRef<NatsCluster>,
    /// Whether its status names one more or one less.
    is_shown: bool,
}

impl Membership {
    /// What the watch of forwarders tells; the clusters that it changes something for.
    fn hear(&self, event: &Event<AssetForwarder>) -> Vec<Concerned> {
        let mut state = self.lock();
        match event {
            Event::Init => {
                state.listed.clear();
                Vec::new()
            }
            Event::InitApply(forwarder) => {
                state.listed.insert(named(forwarder), listed(forwarder));
                Vec::new()
            }
            Event::InitDone => {
                let there = std::mem::take(&mut state.listed);
                let gone = state
                    .by_forwarder
                    .keys()
                    .filter(|forwarder| !there.contains_key(forwarder.as_ref()));
                let gone: Vec<String> = gone.map(|forwarder| forwarder.as_ref().to_owned()).collect();
                let gone = gone.into_iter().map(|forwarder| (forwarder, BTreeSet::new()));
                let all = there.into_iter().chain(gone);
                all.flat_map(|(forwarder, clusters)| state.lists(forwarder, clusters))
                    .collect()
            }
            Event::Apply(forwarder) => state.lists(named(forwarder), listed(forwarder)),
            Event::Delete(forwarder) => state.lists(named(forwarder), BTreeSet::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lists(&mut self, forwarder: String, clusters: BTreeSet<String>) -> Vec<Concerned> {
        let before = self.by_forwarder.remove_entry(forwarder.as_str());
        let (forwarder, before) = before.unwrap_or_else(|| (Arc::from(forwarder), BTreeSet::new()));
        let clusters: BTreeSet<Arc<str>> = clusters.iter().map(|cluster| self.cluster(cluster)).collect();
        let mut concerned = Vec::new();
        for cluster in before.symmetric_difference(&clusters) {
            let forwarders = self.by_cluster.entry(Arc::clone(cluster)).or_default();
            let was_shown = is_shown(forwarders, &forwarder);
            if !forwarders.remove(&forwarder) {
                forwarders.insert(Arc::clone(&forwarder));
            }
            let is_shown = was_shown || is_shown(forwarders, &forwarder);
            if forwarders.is_empty() {
                self.by_cluster.remove(cluster);
            }
            if let Some((namespace, name)) = cluster.split_once('/') {
                let cluster = ObjectRef::new(name).within(namespace);
                concerned.push(Concerned { cluster, is_shown });
            }
        }
        if !clusters.is_empty() {
            self.by_forwarder.insert(forwarder, clusters);
        }
        concerned
    }

    fn cluster(&self, name: &str) -> Arc<str> {
        let known = self.by_cluster.get_key_value(name);
        known.map_or_else(|| Arc::from(name), |(known, _)| Arc::clone(known))
    }
}

fn is_shown(forwarders: &BTreeSet<Arc<str>>, forwarder: &str) -> bool {
    forwarders.iter().take(SHOWN).any(|shown| shown.as_ref() == forwarder)
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use serde_json::json;
    use tokio::time::Instant;

    use super::*;

    fn forwarder(name: &str, clusters: &[&str]) -> AssetForwarder {
        let members: Vec<String> = clusters.iter().map(|cluster| format!("plant/{cluster}")).collect();
        serde_json::from_value(json!({
            "apiVersion": "fanout.openfactory.io/v1alpha1",
            "kind": "AssetForwarder",
            "metadata": {"name": name, "namespace": "line"},
            "spec": {"sources": [], "clusters": {"selector": {}}},
            "status": {"ring": {"epoch": 1, "members": 1, "memberRefs": members}},
        }))
        .unwrap()
    }

    fn heard(membership: &Membership, event: &Event<AssetForwarder>) -> Vec<(String, bool)> {
        let concerned = membership.hear(event).into_iter();
        concerned
            .map(|concerned| (concerned.cluster.name, concerned.is_shown))
            .collect()
    }

    #[test]
    fn only_the_clusters_that_are_listed_anew_or_no_longer_are_concerned() {
        let membership = Membership::default();
        let shown = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), true)).collect::<Vec<_>>();
        let apply = |clusters: &[&str]| Event::Apply(forwarder("a", clusters));
        assert_eq!(heard(&membership, &apply(&["c1", "c2"])), shown(&["c1", "c2"]));
        assert!(heard(&membership, &apply(&["c1", "c2"])).is_empty());
        assert_eq!(heard(&membership, &apply(&["c2", "c3"])), shown(&["c1", "c3"]));
        assert_eq!(
            heard(&membership, &Event::Delete(forwarder("a", &[]))),
            shown(&["c2", "c3"])
        );
        assert!(membership.lock().by_cluster.is_empty());
    }

    #[test]
    fn a_forwarder_that_goes_in_a_gap_of_the_watch_is_missed_by_the_next_list() {
        let membership = Membership::default();
        membership.hear(&Event::Apply(forwarder("a", &["c1"])));
        membership.hear(&Event::Init);
        membership.hear(&Event::InitApply(forwarder("b", &["c2"])));
        let mut concerned = heard(&membership, &Event::InitDone);
        concerned.sort();
        assert_eq!(concerned, [("c1".to_owned(), true), ("c2".to_owned(), true)]);
        let state = membership.lock();
        assert!(!state.by_cluster.contains_key("plant/c1"));
        assert_eq!(state.by_cluster["plant/c2"].len(), 1);
    }

    #[test]
    fn a_list_concerns_nobody_before_its_end() {
        let membership = Membership::default();
        let listed = Event::InitApply(forwarder("a", &["c1"]));
        for event in [&Event::Init, &listed, &Event::Init] {
            assert!(heard(&membership, event).is_empty());
        }
        assert!(
            heard(&membership, &Event::InitDone).is_empty(),
            "the first list broke off"
        );
        for event in [&Event::Init, &listed] {
            assert!(heard(&membership, event).is_empty());
        }
        assert_eq!(heard(&membership, &Event::InitDone), [("c1".to_owned(), true)]);
    }

    #[test]
    fn beyond_those_that_are_shown_nobody_is_woken() {
        let membership = Membership::default();
        for number in 0..SHOWN {
            let event = Event::Apply(forwarder(&format!("m{number:02}"), &["c1"]));
            assert_eq!(heard(&membership, &event), [("c1".to_owned(), true)]);
        }
        let later = Event::Apply(forwarder("z", &["c1"]));
        assert_eq!(heard(&membership, &later), [("c1".to_owned(), false)]);
        let earlier = Event::Apply(forwarder("a", &["c1"]));
        assert_eq!(heard(&membership, &earlier), [("c1".to_owned(), true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_no_status_names_are_counted_together_a_moment_later() {
        let forwarders = (0..SHOWN + 100).map(|number| Event::Apply(forwarder(&format!("f{number:03}"), &["c1"])));
        let (clusters, _writer) = reflector::store();
        let began = Instant::now();
        let events = stream::iter(forwarders).chain(stream::pending());
        let mut wakes = Box::pin(wakes(events, clusters));
        for _ in 0..SHOWN {
            assert_eq!(wakes.next().await.unwrap().name, "c1");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(wakes.next().await.unwrap().name, "c1");
        assert!(began.elapsed() >= COUNTED && began.elapsed() < COUNTED * 2);
        let further = tokio::time::timeout(COUNTED * 10, wakes.next()).await;
        assert!(further.is_err(), "{further:?}");
    }
}
