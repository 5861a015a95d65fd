//! Every version of every resource of a namespace, in order, and what tools that wait for health make of each.
//!
//! What a status says at the end of a test tells nothing about the moments before. A [`Recorder`] sees all of them, as the API server kept
//! them, so that a resource that was called done for a moment too early is found.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use e2e::tools;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt as _};
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::wait;

mod conventions;

pub use self::conventions::{Health, expected, faults};

/// Watches the three resources and the pods of a namespace, from its start on.
pub struct Recorder {
    seen: Arc<Mutex<Seen>>,
    watches: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    versions: Vec<Version>,
    /// Why a watch has ended: then versions may be missing.
    broken: Option<String>,
}

/// An object as it was at one time.
#[derive(Clone, Debug)]
pub struct Version {
    /// The object; of one that is gone, as it was last.
    pub object: Value,
    /// Whether it is gone.
    pub gone: bool,
}

impl Version {
    /// Kind, and name.
    #[must_use]
    pub fn key(&self) -> (String, String) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&self.object["kind"]), text(&self.object["metadata"]["name"]))
    }

    fn is_of(&self, kind: &str, name: &str) -> bool {
        self.object["kind"] == kind && self.object["metadata"]["name"] == name
    }

    /// When it was written. All kinds of an API server with one etcd count together.
    #[must_use]
    pub fn revision(&self) -> u64 {
        let version = self.object["metadata"]["resourceVersion"].as_str();
        version.and_then(|version| version.parse().ok()).unwrap_or_default()
    }
}

impl Recorder {
    /// Begins to watch; what is written after this has returned is seen.
    pub async fn start(client: &Client, namespace: &str) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut watches = Vec::new();
        for resource in [
            ApiResource::erase::<AssetForwarder>(&()),
            ApiResource::erase::<KafkaChannel>(&()),
            ApiResource::erase::<NatsCluster>(&()),
            ApiResource::erase::<Pod>(&()),
        ] {
            let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &resource);
            let list = api.list(&ListParams::default()).await?;
            ensure!(list.items.is_empty(), "a {} is there already", resource.kind);
            let from = list.metadata.resource_version.unwrap_or_default();
            let seen = Arc::clone(&seen);
            watches.push(tokio::spawn(async move {
                if let Err(error) = watch(&api, &resource, from, &seen).await {
                    lock(&seen).broken = Some(format!("{error:#}"));
                }
            }));
        }
        Ok(Self { seen, watches })
    }

    /// How many versions there were up to now.
    #[must_use]
    pub fn position(&self) -> usize {
        lock(&self.seen).versions.len()
    }

    /// Waits until there is a version of an object, written after the first `from` ones of all, that is as `holds` says. One that has passed
    /// by counts too.
    pub async fn wait(
        &self,
        (kind, name): (&str, &str),
        from: usize,
        within: Duration,
        what: &str,
        holds: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        wait::value(within, &format!("{kind} {name}: {what}"), || async {
            let seen = lock(&self.seen);
            if let Some(broken) = &seen.broken {
                bail!("a watch has ended: {broken}");
            }
            let is_it = |version: &&Version| !version.gone && version.is_of(kind, name);
            let mut later = seen.versions.iter().skip(from).filter(is_it);
            if let Some(found) = later.find(|version| holds(&version.object)) {
                return Ok(Some(found.object.clone()));
            }
            let last = seen.versions.iter().rfind(is_it);
            bail!("it is {:#}", last.map_or(&Value::Null, |last| &last.object["status"]));
        })
        .await
    }

    /// All versions up to now of all kinds, in the order in which they were written.
    pub fn versions(&self) -> Result<Vec<Version>> {
        let seen = lock(&self.seen);
        if let Some(broken) = &seen.broken {
            bail!("a watch has ended: {broken}");
        }
        let mut versions = seen.versions.clone();
        versions.sort_by_key(Version::revision);
        Ok(versions)
    }

    /// All versions of our resources, by object: a name that was used twice is two objects.
    pub fn histories(&self) -> Result<Vec<Vec<Version>>> {
        let mut histories = BTreeMap::<_, Vec<Version>>::new();
        for version in self.versions()? {
            let uid = version.object["metadata"]["uid"].to_string();
            let key = version.key();
            if key.0 != "Pod" {
                histories.entry((key, uid)).or_default().push(version);
            }
        }
        Ok(histories.into_values().collect())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        for watch in &self.watches {
            watch.abort();
        }
    }
}

/// What a program says of an object's health.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// One word of kstatus, or of Argo CD.
    pub status: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

/// What kstatus says of each object: the library by which Flux waits, run as a program.
pub fn kstatus(objects: &[Value]) -> Result<Vec<Verdict>> {
    let mut child = Command::new(tools::gitops()?.join("kstatus"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run kstatus")?;
    let mut stdin = child.stdin.take().context("kstatus has no input")?;
    let lines: String = objects.iter().map(|object| format!("{object}\n")).collect();
    // Beside reading: what it answers meanwhile would fill the pipe.
    let writing = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = child.wait_with_output().context("failed to wait for kstatus")?;
    ensure!(output.status.success(), "kstatus failed ({})", output.status);
    if let Ok(written) = writing.join() {
        written.context("failed to write to kstatus")?;
    }
    let text = String::from_utf8(output.stdout).context("kstatus says something that is no text")?;
    let verdicts: Vec<Verdict> = text
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("failed to read what kstatus says")?;
    ensure!(
        verdicts.len() == objects.len(),
        "{} verdicts on {} objects",
        verdicts.len(),
        objects.len()
    );
    Ok(verdicts)
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    // A panic elsewhere leaves nothing half written.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn watch(api: &Api<DynamicObject>, resource: &ApiResource, mut from: String, seen: &Mutex<Seen>) -> Result<()> {
    loop {
        let mut events = api.watch(&WatchParams::default(), &from).await?.boxed();
        while let Some(event) = events.try_next().await? {
            let (mut object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    from = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(refusal) => bail!("{} are watched no more: {}", resource.plural, refusal.message),
            };
            from = object.resource_version().unwrap_or_default();
            object.metadata.managed_fields = None;
            let mut value = serde_json::to_value(&object)?;
            value["apiVersion"] = resource.api_version.clone().into();
            value["kind"] = resource.kind.clone().into();
            lock(seen).versions.push(Version { object: value, gone });
        }
    }
}
