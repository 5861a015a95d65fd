//! Lists of clusters that several reconciles share.
//!
//! A cluster that joins has all forwarders of its ring list the same clusters, several of them at once. So one list answers all who ask for
//! the same before it begins. It is as live as a list of their own, because each of them began to need it before the API server was asked.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crds::NatsCluster;
use tokio::sync::Mutex as Turn;

/// What a list has told, or why it failed.
pub(super) type Listed = Result<Arc<[NatsCluster]>, Arc<kube::Error>>;

/// What is listed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// None: all namespaces.
    pub(super) namespace: Option<String>,
    /// The label selector in the API's form.
    pub(super) labels: Option<String>,
}

/// The lists that somebody waits for; one for the process.
#[derive(Debug, Default)]
pub struct Lists(Mutex<HashMap<Wanted, Weak<Queue>>>);

/// Those who want the same. One list is under way at a time.
#[derive(Debug, Default)]
struct Queue {
    turn: Turn<()>,
    /// The list that begins next.
    next: Mutex<Arc<Answer>>,
}

/// Empty until its list has ended.
type Answer = OnceLock<Listed>;

impl Lists {
    /// What a list tells that begins after this call. `ask` lists; it is called only by the first of those who share the list.
    ///
    /// Whoever asks may be cancelled. Then the next one who shares the list asks anew.
    ///
    /// # Errors
    /// The API server refuses, or is not there. All who share the list are told the same error.
    pub(super) async fn of<F>(&self, wanted: Wanted, ask: impl FnOnce() -> F + Send) -> Listed
    where
        F: Future<Output = kube::Result<Vec<NatsCluster>>> + Send,
    {
        let queue = self.queue(wanted);
        let answer = Arc::clone(&lock(&queue.next));
        let _turn = queue.turn.lock().await;
        if let Some(listed) = answer.get() {
            return listed.clone();
        }
        {
            // Whoever comes from here on has begun to need a list after this one.
            let mut next = lock(&queue.next);
            if Arc::ptr_eq(&next, &answer) {
                *next = Arc::default();
            }
        }
        let listed = ask().await.map(Arc::from).map_err(Arc::new);
        answer.get_or_init(|| listed).clone()
    }

    fn queue(&self, wanted: Wanted) -> Arc<Queue> {
        let mut queues = lock(&self.0);
        if let Some(queue) = queues.get(&wanted).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::<Queue>::default();
        queues.insert(wanted, Arc::downgrade(&queue));
        queue
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is whole after every statement, so a panic elsewhere has left nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::{FutureExt as _, poll};
    use tokio::sync::Semaphore;

    use super::*;

    /// An API server whose lists end one by one, as they are let.
    struct Server {
        lists: Lists,
        begun: AtomicU32,
        may_end: Semaphore,
    }

    impl Server {
        fn new() -> Self {
            Self {
                lists: Lists::default(),
                begun: AtomicU32::new(0),
                may_end: Semaphore::new(0),
            }
        }

        /// Which list has answered, counted from 1, of clusters of these labels.
        async fn list(&self, labels: &str) -> u32 {
            let wanted = Wanted {
                namespace: Some("n".to_owned()),
                labels: Some(labels.to_owned()),
            };
            let listed = self.lists.of(wanted, || async {
                let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
                self.may_end.acquire().await.unwrap().forget();
                let cluster = serde_json::json!({
                    "metadata": {"name": number.to_string()},
                    "spec": {"external": {"servers": ["nats://c:4222"]}},
                });
                Ok(vec![serde_json::from_value(cluster).unwrap()])
            });
            let name = listed.await.unwrap()[0].metadata.name.clone().unwrap();
            name.parse().unwrap()
        }
    }

    #[tokio::test]
    async fn those_who_wait_share_the_list_that_begins_next_and_never_the_one_under_way() {
        let server = Server::new();
        let mut first = pin!(server.list("a"));
        assert!(poll!(&mut first).is_pending());
        let mut later = [
            server.list("a").boxed(),
            server.list("a").boxed(),
            server.list("a").boxed(),
        ];
        for one in &mut later {
            assert!(poll!(one).is_pending());
        }
        server.may_end.add_permits(2);
        assert_eq!(first.await, 1);
        assert_eq!(futures::future::join_all(later).await, [2, 2, 2]);
        server.may_end.add_permits(1);
        assert_eq!(server.list("a").await, 3, "an answer is not kept");
    }

    #[tokio::test]
    async fn other_clusters_are_another_list() {
        let server = Server::new();
        let mut one = pin!(server.list("a"));
        assert!(poll!(&mut one).is_pending());
        let mut other = pin!(server.list("b"));
        assert!(poll!(&mut other).is_pending());
        assert_eq!(
            server.begun.load(Ordering::Relaxed),
            2,
            "neither waits for the other one"
        );
        server.may_end.add_permits(2);
        assert_eq!((one.await, other.await), (1, 2));
        server.may_end.add_permits(1);
        server.list("c").await;
        assert_eq!(lock(&server.lists.0).len(), 1, "what nobody waits for is forgotten");
    }

    #[tokio::test]
    async fn one_who_is_cancelled_while_it_asks_leaves_nobody_without_an_answer() {
        let server = Server::new();
        let mut first = server.list("a").boxed();
        assert!(poll!(&mut first).is_pending());
        let (mut asks, mut shares) = (server.list("a").boxed(), server.list("a").boxed());
        assert!(poll!(&mut asks).is_pending() && poll!(&mut shares).is_pending());
        drop(first);
        assert!(poll!(&mut asks).is_pending());
        let mut late = server.list("a").boxed();
        assert!(poll!(&mut late).is_pending());
        drop(asks);
        server.may_end.add_permits(2);
        assert_eq!((shares.await, late.await), (3, 4));
    }
}
