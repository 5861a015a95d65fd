//! Follows the rings' ConfigMaps, and which forwarders there are.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use crds::AssetForwarder;
use forwarder::router::Table;
use forwarder_core::config::RingConfig;
use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::rings::{Document, Key, Rings};
use crate::asset_forwarder::names::{COMPONENT, FORWARDER, IDLE, RING, RING_FILE};
use crate::context::Scope;
use crate::controller::{describe, watching};

/// Keeps `rings` up to date for ever. While a watch is down, what it said last stays.
pub(super) async fn follow(client: &Client, scope: &Scope, rings: &Rings) -> Infallible {
    let labelled = watching().labels(&format!("{COMPONENT}={RING}"));
    let documents = follow_kind::<ConfigMap>(client, scope, labelled, |event| documents_changed(rings, event));
    let plain = watching();
    let forwarders = follow_kind::<PartialObjectMeta<AssetForwarder>>(client, scope, plain, |event| {
        forwarders_changed(rings, event)
    });
    tokio::select! {
        never = documents => never,
        never = forwarders => never,
    }
}

/// What is heard of a kind, with a list in one piece.
enum Heard<K> {
    Listed(Vec<K>),
    Applied(K),
    Deleted(K),
}

async fn follow_kind<K>(
    client: &Client,
    scope: &Scope,
    config: watcher::Config,
    mut hear: impl FnMut(Heard<K>),
) -> Infallible
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut events = watcher(scope.api::<K>(client), config).default_backoff().boxed();
    let mut list = Vec::new();
    loop {
        match events.next().await {
            Some(Ok(Event::Init)) => list.clear(),
            Some(Ok(Event::InitApply(object))) => list.push(object),
            Some(Ok(Event::InitDone)) => hear(Heard::Listed(std::mem::take(&mut list))),
            Some(Ok(Event::Apply(object))) => hear(Heard::Applied(object)),
            Some(Ok(Event::Delete(object))) => hear(Heard::Deleted(object)),
            Some(Err(error)) => warn!(
                kind = %K::kind(&()),
                error = describe(&error),
                "the router's watch failed; it answers from memory and tries again"
            ),
            // The stream tries again by itself and does not end.
            None => std::future::pending().await,
        }
    }
}

fn forwarders_changed(rings: &Rings, heard: Heard<PartialObjectMeta<AssetForwarder>>) {
    let key = |forwarder: &PartialObjectMeta<AssetForwarder>| Key {
        namespace: forwarder.namespace().unwrap_or_default(),
        name: forwarder.name_any(),
    };
    match heard {
        Heard::Listed(forwarders) => rings.forwarders_listed(forwarders.iter().map(key).collect()),
        Heard::Applied(forwarder) => rings.forwarder_seen(key(&forwarder)),
        Heard::Deleted(forwarder) => rings.forwarder_gone(&key(&forwarder)),
    }
}

fn documents_changed(rings: &Rings, heard: Heard<ConfigMap>) {
    let see = |map: &ConfigMap| {
        let key = forwarder_of(map)?;
        rings.ring_seen(key.clone(), document(map, &key));
        Some(key)
    };
    match heard {
        Heard::Listed(maps) => {
            let keys: BTreeSet<Key> = maps.iter().filter_map(see).collect();
            rings.rings_listed(&keys);
        }
        Heard::Applied(map) => drop(see(&map)),
        Heard::Deleted(map) => {
            if let Some(key) = forwarder_of(&map) {
                rings.ring_gone(&key);
            }
        }
    }
}

/// Whose ring it is. By its name as well: two documents must not contend for one forwarder.
pub(super) fn forwarder_of(map: &ConfigMap) -> Option<Key> {
    let name = map.labels().get(FORWARDER)?;
    (map.name_any() == format!("{name}-ring")).then(|| Key {
        namespace: map.namespace().unwrap_or_default(),
        name: name.clone(),
    })
}

pub(super) fn document(map: &ConfigMap, key: &Key) -> Document {
    if map.annotations().contains_key(IDLE) {
        return Document::Idle;
    }
    let read = |text: &String| -> Result<Table, Box<dyn std::error::Error>> {
        let ring = RingConfig::from_yaml(text)?.checked()?;
        Ok(Table::new(&ring)?)
    };
    match map.data.as_ref().and_then(|data| data.get(RING_FILE)).map(read) {
        Some(Ok(table)) => Document::Ring(Arc::new(table)),
        Some(Err(error)) => {
            warn!(forwarder = %key, %error, "the ring's document cannot be read; the last good one is answered from");
            Document::Broken
        }
        None => {
            warn!(forwarder = %key, "the ring's ConfigMap has no key {RING_FILE}; the last good one is answered from");
            Document::Broken
        }
    }
}
