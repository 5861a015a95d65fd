//! What is remembered of forwarders goes with them, and what is not there yet is named.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::ObjectMeta;
use kube::client::Body;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;

use super::super::dereference::Lists;
use super::super::memory::Memory;
use super::super::reconcile::reconcile;
use super::super::steps::Known;
use super::super::stores::Stores;
use super::super::turns::Turns;
use super::super::watch::{forget_all_gone, forget_if_gone};
use super::*;
use crate::context::Context;
use crate::fake_api;
use crate::index::Readiness;
use crate::reconcile::own_writes::View;

/// What reconciles are given where the API server answers nothing.
fn mute() -> Arc<Context> {
    let silent = tower::service_fn(|_: hyper::Request<Body>| {
        std::future::pending::<Result<hyper::Response<Body>, Infallible>>()
    });
    fake_api::context(Client::new(silent, "default"))
}

/// Stores of which none is ever filled, but perhaps that of the forwarders.
fn stores(forwarders: Store<AssetForwarder>) -> Stores {
    Stores {
        forwarders,
        clusters: reflector::store().0,
        channels: reflector::store().0,
        namespaces: None,
        deployments: reflector::store().0,
        pods: reflector::store().0,
        config_maps: reflector::store().0,
    }
}

fn forwarder(uid: &str, version: &str) -> AssetForwarder {
    let mut forwarder: AssetForwarder = yaml(FORWARDER);
    forwarder.metadata.uid = Some(uid.to_owned());
    forwarder.metadata.resource_version = Some(version.to_owned());
    forwarder
}

fn list(writer: &mut Writer<AssetForwarder>, forwarders: impl IntoIterator<Item = AssetForwarder>) {
    writer.apply_watcher_event(&Event::Init);
    for forwarder in forwarders {
        writer.apply_watcher_event(&Event::InitApply(forwarder));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

/// What is remembered, as after a reconcile: whether its last write, its ring, and the Secret that it refers to are known.
fn remembered(context: &Context, memory: &Memory, uid: &str) -> [bool; 3] {
    let earlier = forwarder(uid, "1");
    let secret = Secret {
        metadata: ObjectMeta {
            namespace: Some("plant".to_owned()),
            name: Some("token".to_owned()),
            ..ObjectMeta::default()
        },
        ..Secret::default()
    };
    let users: Vec<ObjectRef<AssetForwarder>> = context.references.forwarders.to(&secret);
    [
        context.own_writes.view(&earlier, Instant::now()) != View::Current,
        memory.ring(&earlier, 0).is_some(),
        !users.is_empty(),
    ]
}

fn remember(context: &Context, memory: &Memory, uid: &str) {
    let written = forwarder(uid, "9");
    let ring: ConfigMap = yaml("metadata: {name: assets-ring, namespace: plant, resourceVersion: '5'}");
    context.own_writes.note(&written, Instant::now());
    memory.ring_seen(&written, Some(&ring));
    let token = ("plant".to_owned(), "token".to_owned());
    context.references.forwarders.note(&written, [token].into());
    assert_eq!(remembered(context, memory, uid), [true; 3]);
}

#[tokio::test]
async fn what_is_remembered_of_a_forwarder_goes_with_it() {
    let (context, memory, histories) = (mute(), Memory::default(), Default::default());
    let (store, mut writer) = reflector::store();
    remember(&context, &memory, "u1");
    list(&mut writer, [forwarder("u1", "9")]);
    forget_if_gone(&context, &memory, &histories, &store, &forwarder("u1", "9"));
    forget_all_gone(&context, &memory, &histories, &store);
    assert_eq!(remembered(&context, &memory, "u1"), [true; 3]);

    // Another one has its name: what that refers to is known by the name.
    list(&mut writer, [forwarder("u2", "10")]);
    forget_if_gone(&context, &memory, &histories, &store, &forwarder("u1", "9"));
    assert_eq!(remembered(&context, &memory, "u1"), [false, false, true]);

    list(&mut writer, []);
    forget_if_gone(&context, &memory, &histories, &store, &forwarder("u2", "10"));
    assert_eq!(remembered(&context, &memory, "u1"), [false; 3]);
}

#[tokio::test]
async fn who_was_deleted_in_a_gap_of_the_watch_is_forgotten_with_the_next_list() {
    let (context, memory, histories) = (mute(), Memory::default(), Default::default());
    let (store, mut writer) = reflector::store();
    remember(&context, &memory, "u1");
    list(&mut writer, [forwarder("u2", "10")]);
    forget_all_gone(&context, &memory, &histories, &store);
    assert_eq!(remembered(&context, &memory, "u1"), [false, false, true]);

    remember(&context, &memory, "u1");
    list(&mut writer, []);
    forget_all_gone(&context, &memory, &histories, &store);
    assert_eq!(remembered(&context, &memory, "u1"), [false; 3]);
}

#[tokio::test]
async fn a_reconcile_that_outlives_its_forwarder_leaves_nothing() {
    let context = mute();
    let (store, mut writer) = reflector::store();
    list(&mut writer, []);
    let known = Known {
        stores: stores(store),
        memory: Arc::default(),
        histories: Arc::default(),
        turns: Turns::default(),
        lists: Lists::default(),
    };
    // One that waits for the watch, one that fails, and one that is given up.
    for version in ["1", "9"] {
        remember(&context, &known.memory, "u1");
        let reconciled = reconcile(Arc::new(forwarder("u1", version)), Arc::clone(&context), &known).await;
        assert_eq!(reconciled.is_ok(), version == "1");
        assert_eq!(remembered(&context, &known.memory, "u1"), [false; 3]);
    }
    let (store, writer) = reflector::store();
    let known = Known {
        stores: stores(store),
        ..known
    };
    remember(&context, &known.memory, "u1");
    let given_up = reconcile(Arc::new(forwarder("u1", "9")), Arc::clone(&context), &known).now_or_never();
    assert!(given_up.is_none());
    assert_eq!(remembered(&context, &known.memory, "u1"), [false; 3]);
    drop(writer);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_not_filled_is_named_and_waited_for_only_for_moments() {
    let (store, mut writer) = reflector::store();
    list(&mut writer, []);
    let (clusters, mut cluster_writer) = reflector::store();
    let (channels, _channel_writer) = reflector::store();
    let stores = Stores {
        clusters,
        channels,
        ..stores(store)
    };
    let readiness = Readiness::default();
    stores.wanted_by(&readiness);
    let fault = readiness.fault().unwrap();
    assert!(fault.contains("NatsClusters, KafkaChannels, "), "{fault}");
    assert!(fault.contains("Pods of the AssetForwarders"), "{fault}");

    cluster_writer.apply_watcher_event(&Event::Init);
    cluster_writer.apply_watcher_event(&Event::InitDone);
    let began = tokio::time::Instant::now();
    let unread = stores.wait_until_ready().await.unwrap_err().to_string();
    let waited = began.elapsed();
    assert!((10..11).contains(&waited.as_secs()), "{waited:?}");
    let expected = "the operator has not read the KafkaChannels from the API server within 10s";
    assert_eq!(unread, expected);
    let fault = readiness.fault().unwrap();
    assert!(
        !fault.contains("NatsClusters") && fault.contains("KafkaChannels"),
        "{fault}"
    );
}
