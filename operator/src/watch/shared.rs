//! One watch of a kind for all controllers: its objects are held once, and each subscriber gets each change.

use std::fmt::Debug;

use forwarder_service::shutdown::Shutdown;
use futures::channel::mpsc::{Receiver, Sender, channel};
use futures::stream::BoxStream;
use futures::{SinkExt as _, StreamExt as _};
use kube::Resource;
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::Store;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::{stored, watching};
use crate::context::Context;
use crate::error::describe;

/// How many events may wait for a subscriber. The watch waits for the slowest: each reads all the time, and does nothing else meanwhile.
const AHEAD: usize = 16;

/// A watch with its store, and who is told.
pub struct Shared<K: Resource<DynamicType = ()> + Clone + 'static> {
    store: Store<K>,
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    subscribers: Vec<Sender<Event<K>>>,
}

/// What a subscriber is given.
pub struct Subscription<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// The objects. It has heard of an event before the event is told.
    pub store: Store<K>,
    /// The events.
    pub events: Receiver<Event<K>>,
}

impl<K> Shared<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// A watch of all objects of the kind in the operator's scope.
    #[must_use]
    pub fn of(context: &Context) -> Self {
        let (store, events) = stored::<K>(context, watching());
        Self {
            store,
            events: events.boxed(),
            subscribers: Vec::new(),
        }
    }

    /// One more subscriber. It is told everything, for the watch has not begun.
    pub fn subscribe(&mut self) -> Subscription<K> {
        let (sender, events) = channel(AHEAD);
        self.subscribers.push(sender);
        Subscription {
            store: self.store.clone(),
            events,
        }
    }

    /// Watches until `stop`. An error of the watch is logged: it is tried again by itself.
    pub async fn run(self, mut stop: Shutdown) {
        tokio::select! {
            () = stop.requested() => {}
            () = self.tell() => {}
        }
    }

    async fn tell(mut self) {
        while let Some(event) = self.events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    warn!(kind = %K::kind(&()), error = describe(&error), "a watch failed; the operator tries again");
                    continue;
                }
            };
            for subscriber in &mut self.subscribers {
                // One that has ended hears nothing more.
                subscriber.send(event.clone()).await.ok();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crds::NatsCluster;
    use futures::stream;
    use kube::ResourceExt as _;
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;

    fn cluster(name: &str) -> NatsCluster {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n"},
            "spec": {"external": {"servers": ["nats://c:4222"]}},
        }))
        .unwrap()
    }

    fn told(events: impl IntoIterator<Item = watcher::Result<Event<NatsCluster>>>) -> Shared<NatsCluster> {
        let (store, writer) = reflector::store();
        let events: Vec<_> = events.into_iter().collect();
        Shared {
            store,
            events: reflector::reflector(writer, stream::iter(events)).boxed(),
            subscribers: Vec::new(),
        }
    }

    /// The names of what is told, and whether the store has each by then.
    async fn heard(subscription: Subscription<NatsCluster>) -> Vec<(String, bool)> {
        let Subscription { store, events } = subscription;
        let names = events.filter_map(|event| async move {
            match event {
                Event::Apply(cluster) => Some(cluster.name_any()),
                _ => None,
            }
        });
        let has = |name: &String| store.find(|cluster| cluster.name_any() == *name).is_some();
        names.map(|name| (name.clone(), has(&name))).collect().await
    }

    #[tokio::test]
    async fn each_subscriber_is_told_of_everything_behind_the_store() {
        let names: Vec<_> = (0..3 * AHEAD).map(|number| number.to_string()).collect();
        let begin = [Event::Init, Event::InitDone].map(Ok);
        let applied = names.iter().map(|name| Ok(Event::Apply(cluster(name))));
        let failed = [Err(watcher::Error::NoResourceVersion)];
        let mut shared = told(begin.into_iter().chain(failed).chain(applied));
        let (one, other) = (shared.subscribe(), shared.subscribe());
        // It has ended, and holds nobody up.
        drop(shared.subscribe());
        let (_trigger, stop) = forwarder_service::shutdown::channel();
        let ((), one, other) = tokio::join!(shared.run(stop), heard(one), heard(other));
        let all: Vec<_> = names.into_iter().map(|name| (name, true)).collect();
        assert_eq!(one, all);
        assert_eq!(other, all);
    }

    #[tokio::test]
    async fn it_ends_although_a_subscriber_does_not_read() {
        let mut shared = told((0..3 * AHEAD).map(|_| Ok(Event::Apply(cluster("a")))));
        let _subscription = shared.subscribe();
        let (trigger, stop) = forwarder_service::shutdown::channel();
        let running = tokio::spawn(shared.run(stop));
        tokio::task::yield_now().await;
        assert!(!running.is_finished());
        trigger.stop();
        tokio::time::timeout(Duration::from_secs(5), running)
            .await
            .unwrap()
            .unwrap();
    }
}
