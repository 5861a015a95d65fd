//! The client, as a program has it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use forwarder_beacon::Known;
use tokio::sync::{broadcast, mpsc, oneshot};

use crate::error::SubscribeError;
use crate::event::{Event, Events};
use crate::queue::Queue;
use crate::request::Request;
use crate::state::told::Totals;
use crate::subscription::Subscription;

/// Reads records of assets, wherever they are. Cheap to clone. It ends when it and all its streams are dropped.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    pub(crate) events: broadcast::Sender<Event>,
    /// What happened before somebody asked for the events.
    // Held to take it once.
    pub(crate) first: Mutex<Option<broadcast::Receiver<Event>>>,
    // Held for one look-up, and by the client's task while it learns.
    pub(crate) known: Arc<RwLock<Known>>,
    pub(crate) totals: Arc<Totals>,
    pub(crate) streams: AtomicU64,
    pub(crate) queue: usize,
    pub(crate) queue_bytes: usize,
}

/// How much has happened since the client began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records that were put into streams.
    pub delivered: u64,
    /// Records that were there before, whether they were dropped or delivered.
    pub repeats: u64,
    /// Records that came after a later one: see [`Event::Late`].
    pub late: u64,
    /// Gaps that were told.
    pub gaps: u64,
    /// Records that were dropped because a queue was full, as far as that is known.
    pub dropped: u64,
}

impl Client {
    pub(crate) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Subscribes to the records of an asset with IDs of one token.
    ///
    /// It returns when all pods have proved that they see the interest, or after [`Limits::ready`](crate::Limits::ready) with a gap.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn subscribe(&self, asset: &str) -> Result<Subscription, SubscribeError> {
        self.subscribe_with(asset, "*").await
    }

    /// As [`Self::subscribe`], with an ID: one data item, `*`, or `>` for IDs with dots.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn subscribe_with(&self, asset: &str, id: &str) -> Result<Subscription, SubscribeError> {
        self.subscribe_many_with([asset], id).await
    }

    /// Subscribes to several assets in one stream. Each asset keeps its own order.
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn subscribe_many<A: Into<String>>(
        &self,
        assets: impl IntoIterator<Item = A>,
    ) -> Result<Subscription, SubscribeError> {
        self.subscribe_many_with(assets, "*").await
    }

    /// As [`Self::subscribe_many`], with an ID: see [`Self::subscribe_with`].
    ///
    /// # Errors
    /// [`SubscribeError`].
    pub async fn subscribe_many_with<A: Into<String>>(
        &self,
        assets: impl IntoIterator<Item = A>,
        id: &str,
    ) -> Result<Subscription, SubscribeError> {
        let Inner { requests, streams, .. } = &*self.0;
        let stream = streams.fetch_add(1, Ordering::Relaxed);
        let queue = Arc::new(Queue::new(self.0.queue, self.0.queue_bytes));
        // From here on it ends the subscription, also if the program waits no longer.
        let subscription = Subscription::new(stream, Arc::clone(&queue), requests.clone());
        let (begun, has_begun) = oneshot::channel();
        let request = Request::Subscribe {
            stream,
            assets: assets.into_iter().map(Into::into).collect(),
            id: id.to_owned(),
            queue,
            begun,
        };
        requests.send(request).map_err(|_| SubscribeError::Closed)?;
        has_begun.await.map_err(|_| SubscribeError::Closed)??;
        Ok(subscription)
    }

    /// What happens from now on. The first one to call it also gets what has happened before.
    #[must_use]
    pub fn events(&self) -> Events {
        let first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        Events::new(first.unwrap_or_else(|| self.0.events.subscribe()))
    }

    /// The name of the cluster that owns an asset under the ring in use.
    #[must_use]
    pub fn owner(&self, asset: &str) -> Option<String> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.current().map(|ring| ring.owner(asset).to_owned())
    }

    /// The names of the clusters that own an asset under all rings that are not left, the oldest ring's first.
    #[must_use]
    pub fn owners(&self, asset: &str) -> Vec<String> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.owners(asset).into_iter().map(str::to_owned).collect()
    }

    /// The epochs of the rings that are not left, ascending.
    #[must_use]
    pub fn rings(&self) -> Vec<u64> {
        let known = self.0.known.read().unwrap_or_else(PoisonError::into_inner);
        known.rings().map(|ring| ring.view.epoch).collect()
    }

    /// How much has happened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let Totals {
            delivered,
            repeats,
            late,
            gaps,
            dropped,
        } = &*self.0.totals;
        let [delivered, repeats, late, gaps, dropped] =
            [delivered, repeats, late, gaps, dropped].map(|total| total.load(Ordering::Relaxed));
        Counters {
            delivered,
            repeats,
            late,
            gaps,
            dropped,
        }
    }
}
