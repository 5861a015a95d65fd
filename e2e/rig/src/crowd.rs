//! Many objects at once: they are made, waited for, and what they cost the API server is counted.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::ops::Range;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use crds::AssetForwarder;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::kubernetes::{Call, Verb};
use crate::site::{Conditions, condition};

/// How many requests are made at once: more than an API server of two cores works on.
pub const AT_ONCE: usize = 32;

/// Does something for each number, [`AT_ONCE`] at a time; ends with the first that fails.
pub async fn each<F>(numbers: Range<usize>, act: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    stream::iter(numbers)
        .map(act)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// Makes the objects of these numbers.
pub async fn make<K>(api: &Api<K>, numbers: Range<usize>, object: impl Fn(usize) -> Value) -> Result<()>
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    each(numbers, |number| {
        let object = serde_json::from_value::<K>(object(number));
        async move {
            let object = object.context("no such object")?;
            let created = api.create(&PostParams::default(), &object).await;
            created.map(drop).context("failed to create an object")
        }
    })
    .await
}

/// Makes so many Secrets that are none of an operator's business.
pub async fn make_foreign_secrets(api: &Api<Secret>, count: usize) -> Result<()> {
    let payload = "x".repeat(1_000);
    make(
        api,
        0..count,
        |number| json!({"metadata": {"name": format!("foreign-{number}")}, "stringData": {"a": payload}}),
    )
    .await
}

/// Waits until so many objects are as `holds` says. A watch tells: a list of thousands at each look would be a load of its own.
pub async fn wait_all<K>(
    api: &Api<K>,
    count: usize,
    within: Duration,
    what: &str,
    holds: impl Fn(&K) -> bool,
) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned,
{
    let deadline = Instant::now() + within;
    loop {
        let list = api
            .list(&ListParams::default())
            .await
            .context("failed to list objects")?;
        let version = list.metadata.resource_version.clone().unwrap_or_default();
        let holding = list
            .iter()
            .filter(|object| holds(object))
            .map(|object| object.name_any());
        let mut holding: HashSet<String> = holding.collect();
        if holding.len() >= count {
            return Ok(());
        }
        let watched = api.watch(&WatchParams::default(), &version).await;
        let mut events = pin!(watched.context("failed to watch objects")?);
        loop {
            let Ok(event) = timeout_at(deadline, events.next()).await else {
                bail!("not within {within:?}: {what}; {} of {count} are", holding.len());
            };
            match event {
                Some(Ok(WatchEvent::Added(object) | WatchEvent::Modified(object))) => {
                    if holds(&object) {
                        holding.insert(object.name_any());
                    } else {
                        holding.remove(&object.name_any());
                    }
                }
                Some(Ok(WatchEvent::Deleted(object))) => {
                    holding.remove(&object.name_any());
                }
                Some(Ok(WatchEvent::Bookmark(_))) => {}
                // The server has forgotten our version, or ends watches of this age: all is read anew.
                Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => break,
            }
            if holding.len() >= count {
                return Ok(());
            }
        }
        ensure!(
            Instant::now() < deadline,
            "not within {within:?}: {what}; its watch fails"
        );
    }
}

/// Whether a resource is Ready.
pub fn is_ready<K: Conditions>(resource: &K) -> bool {
    condition(resource, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Whether a forwarder is Ready with so many members in its ring, and none that is leaving.
pub fn has_ring(forwarder: &AssetForwarder, members: i32) -> bool {
    let ring = forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
    is_ready(forwarder) && ring.is_some_and(|ring| ring.members == members && ring.leaving.is_empty())
}

/// Requests by what they are, watches and the Lease aside: both go on whatever there is to do.
pub fn counted(calls: &[Call]) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    for call in calls.iter().filter(|call| counts(call)) {
        let what = format!("{:?} {}", call.verb, call.resource);
        *counted.entry(what).or_insert(0) += 1;
    }
    counted
}

/// Whether a request is one of those that [`counted`] counts.
pub fn counts(call: &Call) -> bool {
    call.verb != Verb::Watch && call.resource != "leases"
}
