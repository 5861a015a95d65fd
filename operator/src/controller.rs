//! What all controllers share: a span and counters for each reconcile, a pause that grows per object, an end that is noticed.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forwarder::shutdown::Shutdown;
use futures::{Stream, StreamExt as _};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::context::Context;

/// Why a reconcile failed.
pub trait Failure: std::error::Error + Send + 'static {
    /// A fixed word for the metric.
    fn reason(&self) -> &'static str;

    /// Whether somebody else was faster. What there is now is to be decided upon soon: nothing is broken that would need time.
    fn is_contended(&self) -> bool {
        false
    }
}

/// A reconcile that takes longer has met a connection that answers nothing: its place is needed, and it begins anew. What it has written
/// stands, as after a kill.
const LONGEST: Duration = Duration::from_secs(180);

/// How a reconcile has failed.
#[derive(Debug, thiserror::Error)]
enum Failed<E: Failure> {
    #[error(transparent)]
    Reconcile(E),
    #[error("it has not come to an end within {LONGEST:?}")]
    TimedOut,
}

impl<E: Failure> Failure for Failed<E> {
    fn reason(&self) -> &'static str {
        match self {
            Self::Reconcile(error) => error.reason(),
            Self::TimedOut => "timeout",
        }
    }

    fn is_contended(&self) -> bool {
        match self {
            Self::Reconcile(error) => error.is_contended(),
            Self::TimedOut => false,
        }
    }
}

/// The pauses of objects whose reconcile failed, by UID: a name that is used again begins anew.
#[derive(Debug, Default)]
struct Pauses(Mutex<HashMap<String, u32>>);

impl Pauses {
    /// The pause after one more failure: 1 s, doubled each time, 5 minutes at most.
    fn failed(&self, uid: &str) -> Duration {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        pause(*count)
    }

    fn succeeded(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

fn pause(failures: u32) -> Duration {
    let doubled = 1_u64 << failures.saturating_sub(1).min(16);
    Duration::from_secs(doubled.min(300))
}

/// The API server ends a watch after so long, and the next one goes on where it stood. Who hears nothing for longer has a connection
/// that a network has forgotten, or a server that hangs, and begins anew: half open, it would be taken for quiet.
pub const WATCH: Duration = Duration::from_secs(45);

/// How everything is watched.
#[must_use]
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(u32::try_from(WATCH.as_secs()).unwrap_or(u32::MAX))
}

/// A watch for a controller, which pauses by itself after an error: the others go on meanwhile.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<K>> + Send + 'static
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    // The pause is before the filter: a list of nothing is a success as well, and ends the growth of pauses.
    watcher(api, config).default_backoff().touched_objects()
}

/// As [`watch`], of no more than the metadata of what is in the operator's scope.
pub fn metadata<K>(
    context: &Context,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<PartialObjectMeta<K>>> + Send + 'static
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Send + 'static,
{
    watch(context.scope.api::<PartialObjectMeta<K>>(&context.client), config)
}

/// A controller of all objects of a kind. Further watches are to be given as streams: see [`watch`].
pub fn controller<K>(context: &Context) -> Controller<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let (store, writer) = reflector::store();
    let own = watcher(context.scope.api::<K>(&context.client), watching());
    let own = reflector::reflector(writer, own).default_backoff().applied_objects();
    // A burst of changes (an apply of many files, a roll's pods) is one reconcile.
    let config = Config::default()
        .debounce(Duration::from_millis(200))
        .concurrency(context.settings.concurrency);
    Controller::for_stream(own, store)
        .trigger_backoff(NoPause)
        .with_config(config)
}

/// kube's controller pauses all its watches when one of them fails, and longer each time; one that may not be watched at all would hold
/// up what the others tell. Each of ours pauses for itself.
struct NoPause;

impl Iterator for NoPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl Backoff for NoPause {
    fn reset(&mut self) {}
}

/// Runs a controller until `stop`; reconciles that have begun are finished.
pub async fn drive<K, F, Fut, E>(
    name: &'static str,
    controller: Controller<K>,
    context: Arc<Context>,
    reconcile: F,
    mut stop: Shutdown,
) where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Debug + Unpin,
    F: Fn(Arc<K>, Arc<Context>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
    E: Failure,
{
    let pauses = Arc::new(Pauses::default());
    let policy = {
        let pauses = Arc::clone(&pauses);
        move |object: Arc<K>, error: &Failed<E>, context: Arc<Context>| {
            let pause = if error.is_contended() {
                pause(1)
            } else {
                pauses.failed(&object.uid().unwrap_or_default())
            };
            context.metrics.reconcile_failed(name, error.reason());
            warn!(
                controller = name,
                namespace = object.namespace(),
                name = object.name_any(),
                error = describe(error),
                again_in_seconds = pause.as_secs(),
                "failed to reconcile"
            );
            Action::requeue(pause)
        }
    };
    let reconcile = move |object: Arc<K>, context: Arc<Context>| {
        let span = info_span!(
            "reconcile",
            controller = name,
            namespace = object.namespace(),
            name = object.name_any(),
            generation = object.meta().generation
        );
        let (reconcile, pauses) = (reconcile.clone(), Arc::clone(&pauses));
        async move {
            let begin = Instant::now();
            let uid = object.uid().unwrap_or_default();
            let _running = context.metrics.reconcile_begins(name);
            let result = tokio::time::timeout(LONGEST, reconcile(object, Arc::clone(&context)));
            let result = match result.await {
                Ok(result) => result.map_err(Failed::Reconcile),
                Err(_) => Err(Failed::TimedOut),
            };
            context.metrics.reconciled(name, result.is_ok(), begin.elapsed());
            if result.is_ok() {
                pauses.succeeded(&uid);
            }
            debug!(micros = begin.elapsed().as_micros(), "reconciled");
            result
        }
        .instrument(span)
    };
    info!(controller = name, "begins");
    let never_began = ends_before_it_began(controller.store(), stop.clone());
    let reconciles = controller
        .graceful_shutdown_on(async move { stop.requested().await })
        .run(reconcile, policy, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                // The watch is tried again by itself, and failed reconciles were logged by the policy.
                match error {
                    kube::runtime::controller::Error::ReconcilerFailed(..)
                    | kube::runtime::controller::Error::ObjectNotFound(_) => {}
                    other => warn!(controller = name, error = describe(&other), "a watch failed"),
                }
            }
        });
    tokio::select! {
        () = reconciles => {}
        () = never_began => {}
    }
    info!(controller = name, "has ended");
}

/// Returns when the end is asked for before the first list has come. A controller holds its reconciles back until then, and would wait for it
/// for ever, since its watch has been ended: the Lease would be held until the process is killed.
async fn ends_before_it_began<K>(store: Store<K>, mut stop: Shutdown)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    tokio::select! {
        biased;
        // From here on there may be reconciles to finish.
        _ = store.wait_until_ready() => std::future::pending().await,
        () = stop.requested() => {}
    }
}

/// An error with all its sources, in one line.
#[must_use]
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some libraries repeat their source in their own words.
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::Bytes;
    use crds::NatsCluster;
    use forwarder::shutdown;
    use futures::stream;
    use http_body_util::combinators::UnsyncBoxBody;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use hyper::body::Frame;
    use k8s_openapi::api::core::v1::Secret;
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::apply::Applier;
    use crate::context::{Scope, Settings};
    use crate::events::Events;
    use crate::metrics::Metrics;

    #[derive(Debug, thiserror::Error)]
    #[error("never")]
    struct Never;

    impl Failure for Never {
        fn reason(&self) -> &'static str {
            "never"
        }
    }

    fn context(client: Client) -> Arc<Context> {
        let metrics = Arc::new(Metrics::new().unwrap());
        Arc::new(Context {
            events: Events::new(client.clone(), "operator".to_owned()),
            applier: Applier::new(client.clone(), Arc::clone(&metrics)),
            client,
            scope: Scope::Cluster,
            settings: Settings {
                forwarder_image: String::new(),
                forwarder_image_pull_policy: "Never",
                namespace: String::new(),
                concurrency: 1,
            },
            metrics,
        })
    }

    #[tokio::test]
    async fn it_ends_although_the_api_server_has_not_answered_yet() {
        let silent = tower::service_fn(|_: hyper::Request<Body>| {
            std::future::pending::<Result<hyper::Response<Body>, Infallible>>()
        });
        let context = context(Client::new(silent, "default"));
        let controller = controller::<NatsCluster>(&context);
        let (trigger, stop) = shutdown::channel();
        let reconcile = |_, _| async { Err::<Action, Never>(Never) };
        trigger.stop();
        let driven = drive("NatsCluster", controller, context, reconcile, stop);
        tokio::time::timeout(Duration::from_secs(5), driven).await.unwrap();
    }

    /// How often the cluster of [`answer`] changes: more seldom than any pause is long.
    const CHANGES: Duration = Duration::from_secs(300);

    /// An API server that has one cluster, and lets nobody see Secrets.
    async fn answer(
        request: hyper::Request<Body>,
        began: tokio::time::Instant,
    ) -> hyper::Response<UnsyncBoxBody<Bytes, Infallible>> {
        let cluster = |version: u64| {
            json!({
                "apiVersion": NatsCluster::api_version(&()),
                "kind": NatsCluster::kind(&()),
                "metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": version.to_string()},
                "spec": {"servers": ["nats://c:4222"]},
            })
        };
        let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
        if path.ends_with("/secrets") {
            let status = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403});
            let mut refused = hyper::Response::new(Full::from(status.to_string()).boxed_unsync());
            *refused.status_mut() = hyper::StatusCode::FORBIDDEN;
            return refused;
        }
        if !query.contains("watch=true") {
            let list = json!({
                "kind": "List",
                "apiVersion": NatsCluster::api_version(&()),
                "metadata": {"resourceVersion": "1"},
                "items": [cluster(1)],
            });
            return hyper::Response::new(Full::from(list.to_string()).boxed_unsync());
        }
        let changes = stream::unfold((), move |()| async move {
            let number = began.elapsed().as_secs() / CHANGES.as_secs() + 1;
            tokio::time::sleep_until(began + CHANGES * u32::try_from(number).unwrap()).await;
            let event = json!({"type": "MODIFIED", "object": cluster(number + 1)});
            let line = Bytes::from(format!("{event}\n"));
            Some((Ok::<_, Infallible>(Frame::data(line)), ()))
        });
        hyper::Response::new(StreamBody::new(changes).boxed_unsync())
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_for_ever_does_not_hold_up_the_others() {
        let began = tokio::time::Instant::now();
        let service =
            tower::service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, began).await) });
        let context = context(Client::new(service, "default"));
        let secrets = metadata::<Secret>(&context, watching());
        let controller = controller::<NatsCluster>(&context).watches_stream(secrets, |_| None);
        let (trigger, stop) = shutdown::channel();
        let (seen, mut reconciles) = tokio::sync::mpsc::unbounded_channel();
        let reconcile = move |_, _| {
            seen.send(began.elapsed()).unwrap();
            async { Ok::<_, Never>(Action::await_change()) }
        };
        let driven = tokio::spawn(drive("NatsCluster", controller, context, reconcile, stop));
        for number in 0..6 {
            let at = reconciles.recv().await.unwrap();
            let late = at.saturating_sub(CHANGES * number);
            assert!(late < Duration::from_secs(2), "change {number} was seen after {late:?}");
        }
        trigger.stop();
        driven.await.unwrap();
    }

    #[test]
    fn the_pause_grows_to_a_bound_and_is_forgotten_by_a_success() {
        let pauses = Pauses::default();
        let seconds: Vec<u64> = (0..12).map(|_| pauses.failed("a").as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!(pauses.failed("b").as_secs(), 1);
        pauses.succeeded("a");
        assert_eq!(pauses.failed("a").as_secs(), 1);
        assert_eq!(pause(u32::MAX).as_secs(), 300);
    }
}
