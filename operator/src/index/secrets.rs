//! The Secrets that resources refer to, read again only when their watch has told of a change.

mod contents;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::{AssetForwarder, KafkaChannel, NatsCluster};
use forwarder_service::shutdown::Shutdown;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{StreamExt as _, future};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt as _};

pub use self::contents::{ALLOW_USE, Content, Secrets, SecretsError};
use super::trust::Trust;
use super::version;
use crate::context::Context;
use crate::watch::{changes, metadata, watching};

/// The most bytes that are held. Beyond it the namespace that has the most is forgotten and read again. So the Secrets of one
/// namespace can neither fill the process nor displace those of others.
const MOST_BYTES: usize = 8 << 20;

/// Most bytes of what a resource refers to that are held. Credentials are small; what is larger is read each time.
const LARGEST: usize = 256 << 10;

/// The versions of all Secrets in scope, and the contents of those alone to which a resource refers. While the watch fails it holds nothing.
#[derive(Debug, Default)]
pub struct SecretCache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether the watch is to be believed.
    trust: Trust,
    versions: HashMap<(String, String), u64>,
    listed: HashSet<(String, String)>,
    /// By namespace.
    read: HashMap<String, OfNamespace>,
    bytes: usize,
}

/// What was read of a namespace.
#[derive(Debug, Default)]
struct OfNamespace {
    read: HashMap<Wanted, Read>,
    bytes: usize,
}

/// The names, and the UID of the resource that refers to them: some may be used for their owner alone.
type Wanted = (BTreeSet<String>, Option<String>);

/// What was read under these versions, in the order of the names.
#[derive(Debug)]
struct Read {
    versions: Vec<Option<u64>>,
    secrets: Secrets,
}

/// Who is woken by a change of a Secret: those that refer to it.
#[derive(Debug)]
pub struct SecretWakes {
    clusters: UnboundedSender<ObjectRef<NatsCluster>>,
    channels: UnboundedSender<ObjectRef<KafkaChannel>>,
    forwarders: UnboundedSender<ObjectRef<AssetForwarder>>,
}

/// Whose turn it is, for the controllers of clusters, channels and forwarders.
pub type Woken = (
    UnboundedReceiver<ObjectRef<NatsCluster>>,
    UnboundedReceiver<ObjectRef<KafkaChannel>>,
    UnboundedReceiver<ObjectRef<AssetForwarder>>,
);

/// The two ends. Only Secrets that a resource refers to are sent, so a flood of others has no effect.
#[must_use]
pub fn secret_wakes() -> (SecretWakes, Woken) {
    let ((clusters, a), (channels, b), (forwarders, c)) = (unbounded(), unbounded(), unbounded());
    let wakes = SecretWakes {
        clusters,
        channels,
        forwarders,
    };
    (wakes, (a, b, c))
}

/// Follows all Secrets in scope, once for all controllers, until `stop`.
pub async fn follow_secrets(context: Arc<Context>, wakes: SecretWakes, mut stop: Shutdown) {
    let events = metadata::<Secret>(&context, watching()).inspect({
        let context = Arc::clone(&context);
        move |told| context.secrets.hear(told)
    });
    let SecretWakes {
        clusters,
        channels,
        forwarders,
    } = wakes;
    let woken = changes(events, version).for_each(|secret| {
        let references = &context.references;
        send(&clusters, references.clusters.to(&secret));
        send(&channels, references.channels.to(&secret));
        let owners = owners(&secret);
        send(&forwarders, references.forwarders.to(&secret).into_iter().chain(owners));
        future::ready(())
    });
    tokio::select! {
        () = woken => {}
        () = stop.requested() => {}
    }
}

fn send<K: Resource<DynamicType = ()>>(
    to: &UnboundedSender<ObjectRef<K>>,
    woken: impl IntoIterator<Item = ObjectRef<K>>,
) {
    for woken in woken {
        // A controller that has ended needs nothing.
        drop(to.unbounded_send(woken));
    }
}

/// The forwarders whose projected credentials it is.
fn owners(secret: &PartialObjectMeta<Secret>) -> Vec<ObjectRef<AssetForwarder>> {
    let namespace = secret.namespace().unwrap_or_default();
    let owners = secret.owner_references().iter().filter(|owner| {
        owner.kind == AssetForwarder::kind(&()) && owner.api_version == AssetForwarder::api_version(&())
    });
    owners
        .map(|owner| ObjectRef::new(&owner.name).within(&namespace))
        .collect()
}

impl SecretCache {
    /// What the watch of Secrets tells.
    pub fn hear(&self, told: &watcher::Result<Event<PartialObjectMeta<Secret>>>) {
        let mut state = self.lock();
        state.trust.hear(told);
        let Ok(event) = told else { return };
        match event {
            Event::Init => state.listed.clear(),
            Event::InitApply(secret) => {
                state.listed.insert(key(secret));
                state.see(secret);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut state.listed);
                state.versions.retain(|key, _| listed.contains(key));
            }
            Event::Apply(secret) => state.see(secret),
            Event::Delete(secret) => {
                state.versions.remove(&key(secret));
            }
        }
    }

    /// Secrets of a namespace, from memory where none of them has changed since they were read. `of`: the UID of the resource that refers
    /// to them.
    ///
    /// # Errors
    /// [`SecretsError`]
    pub async fn read(
        &self,
        context: &Context,
        namespace: &str,
        names: BTreeSet<String>,
        of: Option<&str>,
    ) -> Result<Secrets, SecretsError> {
        if let Some(known) = self.known(namespace, &names, of) {
            return Ok(known);
        }
        // Before the read: what changes meanwhile is read again when the watch tells of it.
        let versions = self.versions(namespace, &names);
        let secrets = Secrets::read(context, namespace, names.clone(), of).await?;
        if let Some(versions) = versions {
            let wanted = (names, of.map(str::to_owned));
            let read = Read {
                versions,
                secrets: secrets.clone(),
            };
            self.lock().keep(namespace, wanted, read);
        }
        Ok(secrets)
    }

    /// The same without a request; none: they must be read.
    #[must_use]
    pub fn known(&self, namespace: &str, names: &BTreeSet<String>, of: Option<&str>) -> Option<Secrets> {
        if names.is_empty() {
            return Some(Secrets::new(namespace, BTreeMap::new()));
        }
        let versions = self.versions(namespace, names)?;
        let state = self.lock();
        let of_namespace = state.read.get(namespace)?;
        let read = of_namespace.read.get(&(names.clone(), of.map(str::to_owned)))?;
        (read.versions == versions).then(|| read.secrets.clone())
    }

    /// The versions that the watch has told; none: it has not told all yet, or fails.
    fn versions(&self, namespace: &str, names: &BTreeSet<String>) -> Option<Vec<Option<u64>>> {
        let state = self.lock();
        let version = |name: &String| state.versions.get(&(namespace.to_owned(), name.clone())).copied();
        state.trust.holds().then(|| names.iter().map(version).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is whole, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn see(&mut self, secret: &PartialObjectMeta<Secret>) {
        match version(secret) {
            Some(version) => {
                self.versions.insert(key(secret), version);
            }
            // Never the version of a read: it is read each time.
            None => self.trust.lose(),
        }
    }

    fn keep(&mut self, namespace: &str, wanted: Wanted, read: Read) {
        let bytes = cost(&read);
        let of_namespace = self.read.entry(namespace.to_owned()).or_default();
        if let Some(before) = of_namespace.read.remove(&wanted) {
            let freed = cost(&before);
            of_namespace.bytes = of_namespace.bytes.saturating_sub(freed);
            self.bytes = self.bytes.saturating_sub(freed);
        }
        if bytes <= LARGEST {
            of_namespace.bytes += bytes;
            self.bytes += bytes;
            of_namespace.read.insert(wanted, read);
        } else if of_namespace.read.is_empty() {
            self.read.remove(namespace);
        }
        while self.bytes > MOST_BYTES {
            self.forget_the_largest();
        }
    }

    fn forget_the_largest(&mut self) {
        let largest = self.read.iter().max_by_key(|(_, of_namespace)| of_namespace.bytes);
        let largest = largest.map(|(namespace, _)| namespace.clone());
        let forgotten = largest.and_then(|namespace| self.read.remove(&namespace));
        // Without any there is nothing that could take room.
        self.bytes = forgotten.map_or(0, |of_namespace| self.bytes.saturating_sub(of_namespace.bytes));
    }
}

/// What an entry costs without its values, in bytes, about.
const ENTRY: usize = 512;

fn cost(read: &Read) -> usize {
    ENTRY + read.secrets.bytes()
}

fn key(secret: &PartialObjectMeta<Secret>) -> (String, String) {
    (secret.namespace().unwrap_or_default(), secret.name_any())
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;

    use super::*;

    fn secret(name: &str, version: u64) -> PartialObjectMeta<Secret> {
        PartialObjectMeta {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                namespace: Some("n".to_owned()),
                resource_version: Some(version.to_string()),
                ..ObjectMeta::default()
            },
            ..PartialObjectMeta::default()
        }
    }

    fn content(bytes: usize) -> Secrets {
        let data = BTreeMap::from([("k".to_owned(), vec![b'x'; bytes])]);
        Secrets::new("n", BTreeMap::from([("a".to_owned(), data)]))
    }

    fn names() -> BTreeSet<String> {
        BTreeSet::from(["a".to_owned(), "b".to_owned()])
    }

    fn tell(cache: &SecretCache, event: Event<PartialObjectMeta<Secret>>) {
        cache.hear(&Ok(event));
    }

    fn keep(cache: &SecretCache, bytes: usize) {
        keep_in(cache, "n", None, bytes);
    }

    fn keep_in(cache: &SecretCache, namespace: &str, of: Option<&str>, bytes: usize) {
        let versions = cache.versions(namespace, &names()).unwrap();
        let secrets = content(bytes);
        let wanted = (names(), of.map(str::to_owned));
        cache.lock().keep(namespace, wanted, Read { versions, secrets });
    }

    #[test]
    fn what_was_read_holds_until_the_watch_tells_of_a_change() {
        let cache = SecretCache::default();
        assert!(cache.known("n", &names(), None).is_none());
        tell(&cache, Event::Init);
        tell(&cache, Event::InitApply(secret("a", 3)));
        assert!(cache.versions("n", &names()).is_none());
        tell(&cache, Event::InitDone);
        keep(&cache, 1);
        assert!(cache.known("n", &names(), None).is_some());
        for change in [
            Event::Apply(secret("a", 4)),
            // It was not there when they were read.
            Event::Apply(secret("b", 5)),
            Event::Delete(secret("a", 6)),
        ] {
            let told = format!("{change:?}");
            tell(&cache, change);
            assert!(cache.known("n", &names(), None).is_none(), "{told}");
            keep(&cache, 1);
            assert!(cache.known("n", &names(), None).is_some());
        }
        tell(&cache, Event::Apply(secret("foreign", 7)));
        assert!(cache.known("n", &names(), None).is_some());
    }

    #[test]
    fn while_the_watch_fails_nothing_is_taken_from_memory() {
        let cache = SecretCache::default();
        tell(&cache, Event::InitDone);
        keep(&cache, 1);
        cache.hear(&Err(watcher::Error::NoResourceVersion));
        assert!(cache.known("n", &names(), None).is_none());
        assert!(cache.versions("n", &names()).is_none(), "what is read now is not kept");
        tell(&cache, Event::Apply(secret("another", 3)));
        assert!(cache.known("n", &names(), None).is_some());
    }

    #[test]
    fn large_ones_do_not_fill_the_process() {
        let cache = SecretCache::default();
        tell(&cache, Event::InitDone);
        keep(&cache, LARGEST);
        assert!(cache.known("n", &names(), None).is_none());
        assert!(cache.lock().read.is_empty());
        for number in 0..100 {
            keep_in(&cache, "n", Some(&number.to_string()), LARGEST / 2);
            assert!(cache.lock().bytes <= MOST_BYTES);
        }
        assert!(cache.known("n", &names(), Some("99")).is_some());
        // One that has become too large is not what it was.
        keep_in(&cache, "n", Some("99"), LARGEST);
        assert!(cache.known("n", &names(), Some("99")).is_none());
        let state = cache.lock();
        assert_eq!(state.bytes, state.read.values().map(|of| of.bytes).sum::<usize>());
    }

    #[test]
    fn who_has_many_large_ones_pushes_out_its_own_alone() {
        let cache = SecretCache::default();
        tell(&cache, Event::InitDone);
        keep_in(&cache, "quiet", None, 1 << 10);
        for number in 0..500 {
            keep_in(&cache, "loud", Some(&number.to_string()), LARGEST / 2);
            assert!(cache.known("quiet", &names(), None).is_some());
        }
    }
}
