//! Runs a controller: fair shares of work, a span and counters for each reconcile, a pause that grows per object, an end that is noticed.

mod coalesce;
mod slots;

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forwarder_service::shutdown::Shutdown;
use futures::{Stream, StreamExt as _, stream};
use kube::runtime::Controller;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::utils::Backoff;
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tracing::{Instrument as _, debug, info, info_span, warn};

pub use self::coalesce::coalesce;
pub use self::slots::Slots;
use crate::context::Context;
use crate::error::describe;

/// Why a reconcile failed.
pub trait Failure: std::error::Error + Send + 'static {
    /// A fixed word for the metric.
    fn reason(&self) -> &'static str;

    /// Whether another writer was faster. The next try comes soon, since nothing is broken.
    fn is_contended(&self) -> bool {
        false
    }
}

/// What is collected for one reconcile: an apply of many files, a roll's pods.
const WINDOW: Duration = Duration::from_millis(200);

/// A reconcile that takes longer hangs on a connection without answers. It is cancelled, because its slot is needed, and tried
/// again. What it has written stands, as after a kill.
const LONGEST: Duration = Duration::from_secs(180);

/// How a reconcile has failed.
#[derive(Debug, thiserror::Error)]
enum Failed<E: Failure> {
    /// In a box: the controller keeps room for an error beside every object that waits for its turn, and thousands may.
    #[error(transparent)]
    Reconcile(Box<E>),
    #[error("reconcile timed out after {LONGEST:?}")]
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

/// A controller of the objects of a store. `wakes` says whose turn it is, and fills the store.
pub fn controller<K>(store: Store<K>, wakes: impl Stream<Item = ObjectRef<K>> + Send + 'static) -> Controller<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    // Without kube's own debounce: each event begins it anew, so that a flood would hold an object up for as long as it lasts.
    Controller::for_stream(stream::pending(), store)
        .trigger_backoff(NoPause)
        .reconcile_on(coalesce(wakes, WINDOW))
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

/// Runs a controller until `stop`; reconciles that have a slot are finished, and those that wait for one are not begun.
pub async fn drive<K, F, Fut, E>(
    name: &'static str,
    controller: Controller<K>,
    slots: Arc<Slots>,
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
    let stopped = stop.clone();
    let ends = {
        let slots = Arc::clone(&slots);
        async move {
            stop.requested().await;
            // Thousands may wait. Were each of them run, the process would be killed before it releases the Lease.
            slots.close();
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
        let (reconcile, pauses, slots) = (reconcile.clone(), Arc::clone(&pauses), Arc::clone(&slots));
        async move {
            let Some(_slot) = slots.take(&object.namespace().unwrap_or_default()).await else {
                return Ok(Action::await_change());
            };
            let begin = Instant::now();
            let uid = object.uid().unwrap_or_default();
            let _running = context.metrics.reconcile_begins(name);
            // In a box, since thousands may wait for a slot, and all that they need until then is small.
            let reconcile = Box::pin(reconcile(object, Arc::clone(&context)));
            let result = match tokio::time::timeout(LONGEST, reconcile).await {
                Ok(result) => result.map_err(|error| Failed::Reconcile(Box::new(error))),
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
    info!(controller = name, "controller started");
    let never_began = ends_before_it_began(controller.store(), stopped);
    let reconciles = controller
        .graceful_shutdown_on(ends)
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
    info!(controller = name, "controller stopped");
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
        Ok(()) = store.wait_until_ready() => std::future::pending().await,
        () = stop.requested() => {}
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicBool, Ordering};

    use bytes::Bytes;
    use crds::NatsCluster;
    use forwarder_service::shutdown;
    use futures::stream::BoxStream;
    use http_body_util::combinators::UnsyncBoxBody;
    use http_body_util::{BodyExt as _, Full, StreamBody};
    use hyper::body::Frame;
    use k8s_openapi::api::core::v1::Secret;
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::fake_api::context;
    use crate::watch::{changes, hash, metadata, stored, watching};

    #[derive(Debug, thiserror::Error)]
    #[error("never")]
    struct Never;

    impl Failure for Never {
        fn reason(&self) -> &'static str {
            "never"
        }
    }

    /// The clusters, and a wake for each change.
    fn clusters(context: &Context) -> (Store<NatsCluster>, BoxStream<'static, ObjectRef<NatsCluster>>) {
        let (store, events) = stored::<NatsCluster>(context, watching());
        let all = changes(events, |cluster| {
            cluster.resource_version().map(|version| hash(&version))
        });
        (store, all.map(|cluster| ObjectRef::from_obj(&cluster)).boxed())
    }

    #[tokio::test]
    async fn it_ends_although_the_api_server_has_not_answered_yet() {
        let silent = tower::service_fn(|_: hyper::Request<Body>| {
            std::future::pending::<Result<hyper::Response<Body>, Infallible>>()
        });
        let context = context(Client::new(silent, "default"));
        let (store, wakes) = clusters(&context);
        let controller = controller(store, wakes);
        let (trigger, stop) = shutdown::channel();
        let reconcile = |_, _| async { Err::<Action, Never>(Never) };
        trigger.stop();
        let driven = drive("NatsCluster", controller, Slots::new(1), context, reconcile, stop);
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
        let (store, wakes) = clusters(&context);
        let secrets = changes(metadata::<Secret>(&context, watching()), |_| Some(1));
        let of_secrets = secrets.map(|secret| ObjectRef::new(&secret.name_any()).within("n"));
        let controller = controller(store, stream::select(wakes, of_secrets));
        let (trigger, stop) = shutdown::channel();
        let (seen, mut reconciles) = tokio::sync::mpsc::unbounded_channel();
        let reconcile = move |_, _| {
            seen.send(began.elapsed()).unwrap();
            async { Ok::<_, Never>(Action::await_change()) }
        };
        let driven = tokio::spawn(drive(
            "NatsCluster",
            controller,
            Slots::new(1),
            context,
            reconcile,
            stop,
        ));
        for number in 0..6 {
            let at = reconciles.recv().await.unwrap();
            let late = at.saturating_sub(CHANGES * number);
            assert!(late < Duration::from_secs(2), "change {number} was seen after {late:?}");
        }
        trigger.stop();
        driven.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_slot_does_not_hold_the_end_up() {
        let began = tokio::time::Instant::now();
        let service =
            tower::service_fn(move |request| async move { Ok::<_, Infallible>(answer(request, began).await) });
        let context = context(Client::new(service, "default"));
        let (store, wakes) = clusters(&context);
        let (trigger, stop) = shutdown::channel();
        let slots = Slots::new(1);
        let _taken = slots.take("n").await.unwrap();
        let begun = Arc::new(AtomicBool::new(false));
        let reconcile = {
            let begun = Arc::clone(&begun);
            move |_, _| {
                begun.store(true, Ordering::Relaxed);
                async { Err::<Action, Never>(Never) }
            }
        };
        let controller = controller(store, wakes);
        let driven = drive("NatsCluster", controller, slots, context, reconcile, stop);
        let ends = async {
            // Longer than the first list and its window take.
            tokio::time::sleep(Duration::from_secs(5)).await;
            trigger.stop();
        };
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(driven, ends) })
            .await
            .unwrap();
        assert!(!begun.load(Ordering::Relaxed));
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
