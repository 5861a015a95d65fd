//! Follows the rings' ConfigMaps, and which forwarders there are.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::time::Duration;

use crds::AssetForwarder;
use forwarder_core::document::RingConfig;
use forwarder_core::fanout::table::Summary;
use futures::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use super::map::{COMPONENT, FORWARDER, IDLE, RING, RING_FILE};
use super::{Document, Key, Rings, Watched};
use crate::context::Scope;
use crate::error::describe;
use crate::owner::controller_named;
use crate::watch::watching;

/// Objects in one page of a list: anybody may make many of 1 MiB, and a page is in memory as a whole, as text and as objects.
const PAGE: u32 = 8;

/// How often it is looked whether there is room again for rings that were not kept.
const LOOK: Duration = Duration::from_secs(30);

/// Keeps `rings` up to date for ever. While a watch is down, what it said last stays.
pub async fn follow(client: &Client, scope: &Scope, rings: &Rings) -> Infallible {
    tokio::select! {
        never = documents(client, scope, rings) => never,
        never = forwarders(client, scope, rings) => never,
    }
}

async fn forwarders(client: &Client, scope: &Scope, rings: &Rings) -> Infallible {
    let mut events = events::<Watched>(client, scope, watching().page_size(PAGE)).boxed();
    let mut listed = BTreeSet::new();
    loop {
        match events.next().await {
            Some(event) => forwarder_changed(rings, &mut listed, event),
            // The stream tries again by itself and does not end.
            None => std::future::pending().await,
        }
    }
}

async fn documents(client: &Client, scope: &Scope, rings: &Rings) -> Infallible {
    let labelled = || watching().labels(&format!("{COMPONENT}={RING}")).page_size(PAGE);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut listed = BTreeSet::new();
    loop {
        let mut events = events::<ConfigMap>(client, scope, labelled()).boxed();
        // A list that takes longer than the pause is not begun anew: it would never come to its end.
        let mut is_listing = true;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = look.tick() => {
                    if !is_listing && rings.are_to_be_read_again() {
                        break;
                    }
                    continue;
                }
            };
            match event {
                Some(event) => {
                    // A text of 1 MiB takes a moment to read.
                    let read = tokio::task::spawn_blocking(|| Heard::of(event));
                    match read.await {
                        Ok(heard) => {
                            match heard {
                                Heard::Began => is_listing = true,
                                Heard::AllListed => is_listing = false,
                                Heard::Seen { .. } | Heard::Gone(_) | Heard::Nothing => {}
                            }
                            document_changed(rings, &mut listed, heard);
                        }
                        Err(error) => warn!(%error, "the router failed to read a ring's ConfigMap"),
                    }
                }
                None => std::future::pending().await,
            }
        }
    }
}

/// The events of a kind, for ever.
fn events<K>(client: &Client, scope: &Scope, config: watcher::Config) -> impl Stream<Item = Event<K>> + Send + 'static
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let events = watcher(scope.api::<K>(client), config).default_backoff();
    events.filter_map(|event| {
        let event = event.inspect_err(|error| {
            warn!(
                kind = %K::kind(&()),
                error = describe(error),
                "the router's watch failed; it answers from memory and tries again"
            );
        });
        std::future::ready(event.ok())
    })
}

/// A change of the forwarders. `listed` are those of a list that is not at its end.
pub(crate) fn forwarder_changed(rings: &Rings, listed: &mut BTreeSet<Key>, event: Event<Watched>) {
    let key = |forwarder: &Watched| Key {
        namespace: forwarder.namespace().unwrap_or_default(),
        name: forwarder.name_any(),
    };
    let seen = |forwarder: &Watched| {
        let uid = forwarder.uid().unwrap_or_default();
        rings.forwarder_seen(key(forwarder), uid, forwarder.progress());
    };
    match event {
        Event::Init => listed.clear(),
        Event::InitApply(forwarder) => {
            listed.insert(key(&forwarder));
            seen(&forwarder);
        }
        Event::InitDone => rings.forwarders_listed(&std::mem::take(listed)),
        Event::Apply(forwarder) => seen(&forwarder),
        Event::Delete(forwarder) => rings.forwarder_gone(&key(&forwarder)),
    }
}

/// The events of the rings' ConfigMaps, without those that have no valid owner.
#[derive(Debug)]
pub(crate) enum Heard {
    Began,
    /// A ConfigMap of that name is there, and whose ring it says it is.
    Seen {
        key: Key,
        uid: Option<String>,
        document: Document,
        is_listed: bool,
    },
    AllListed,
    Gone(Key),
    Nothing,
}

impl Heard {
    pub(crate) fn of(event: Event<ConfigMap>) -> Self {
        let seen = |map: &ConfigMap, is_listed| {
            let Some(key) = named(map) else {
                return Self::Nothing;
            };
            let uid = owner(map, &key);
            let document = match &uid {
                Some(_) => document(map, &key),
                None => Document::Broken,
            };
            Self::Seen {
                key,
                uid,
                document,
                is_listed,
            }
        };
        match event {
            Event::Init => Self::Began,
            Event::InitApply(map) => seen(&map, true),
            Event::InitDone => Self::AllListed,
            Event::Apply(map) => seen(&map, false),
            Event::Delete(map) => named(&map).map_or(Self::Nothing, Self::Gone),
        }
    }
}

/// A change of the rings. `listed` are those of a list that is not at its end.
pub(crate) fn document_changed(rings: &Rings, listed: &mut BTreeSet<Key>, heard: Heard) {
    match heard {
        Heard::Began => listed.clear(),
        Heard::Seen {
            key,
            uid: Some(uid),
            document,
            is_listed,
        } => {
            if is_listed {
                listed.insert(key.clone());
            }
            rings.ring_seen(key, uid, document);
        }
        // Somebody else's, under the name of a ring.
        Heard::Seen { key, uid: None, .. } | Heard::Gone(key) => rings.ring_gone(&key),
        Heard::AllListed => rings.rings_listed(&std::mem::take(listed)),
        Heard::Nothing => {}
    }
}

/// Whose ring it would be by its name: two documents must not contend for one forwarder.
fn named(map: &ConfigMap) -> Option<Key> {
    let name = map.labels().get(FORWARDER)?;
    (map.name_any() == format!("{name}-ring")).then(|| Key {
        namespace: map.namespace().unwrap_or_default(),
        name: name.clone(),
    })
}

/// The UID of the forwarder whose child it says it is. Only who knows the forwarder can tell whether that is so.
fn owner(map: &ConfigMap, key: &Key) -> Option<String> {
    controller_named::<AssetForwarder>(map, &key.name).map(|owner| owner.uid.clone())
}

fn document(map: &ConfigMap, key: &Key) -> Document {
    if map.annotations().contains_key(IDLE) {
        return Document::Idle;
    }
    let read = |text: &String| -> Result<Summary, Box<dyn std::error::Error>> {
        let ring = RingConfig::from_yaml(text)?.checked()?;
        Ok(Summary::of(&ring))
    };
    match map.data.as_ref().and_then(|data| data.get(RING_FILE)).map(read) {
        Some(Ok(summary)) => Document::Ring(summary),
        Some(Err(error)) => {
            // Whoever wrote it chose how much is wrong with it.
            let error: String = error.to_string().chars().take(1_000).collect();
            warn!(forwarder = %key, %error, "failed to read the ring's document; the router answers from the last good one");
            Document::Broken
        }
        None => {
            warn!(forwarder = %key, "the ring's ConfigMap has no key {RING_FILE}; the router answers from the last good one");
            Document::Broken
        }
    }
}
