//! Reads many subscriptions as one. One of them can be drained by itself.
//!
//! Each subscription has a bell, which rings when a message has come. So only those are looked at that have something to say.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use async_nats::{Message, Subscriber};
use futures::Stream as _;
use futures::task::AtomicWaker;
use hashbrown::HashMap;

/// So many messages are taken of one subscription before the next one has its turn.
const TURN: usize = 64;

/// So many messages are taken at once.
const BATCH: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    rung: Arc<Rung>,
    taps: HashMap<u64, Tap>,
}

#[derive(Debug)]
struct Tap {
    subscriber: Subscriber,
    bell: Arc<Bell>,
}

/// The subscriptions whose bell has rung.
#[derive(Debug, Default)]
struct Rung {
    // Held for one push or one pop.
    keys: Mutex<VecDeque<u64>>,
    reader: AtomicWaker,
}

impl Rung {
    fn keys(&self) -> MutexGuard<'_, VecDeque<u64>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Bell {
    key: u64,
    has_rung: AtomicBool,
    rung: Arc<Rung>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            self.rung.keys().push_back(self.key);
            self.rung.reader.wake();
        }
    }
}

impl Pump {
    /// Reads one more subscription.
    pub(crate) fn add(&mut self, key: u64, subscriber: Subscriber) {
        let bell = Arc::new(Bell {
            key,
            has_rung: AtomicBool::new(false),
            rung: Arc::clone(&self.rung),
        });
        // It may have a message already.
        bell.wake_by_ref();
        self.taps.insert(key, Tap { subscriber, bell });
    }

    /// Ends a subscription.
    pub(crate) fn remove(&mut self, key: u64) {
        // Its `Drop` tells the server.
        self.taps.remove(&key);
    }

    /// Waits for messages, and adds them to `batch`.
    pub(crate) async fn next(&mut self, batch: &mut Vec<(u64, Message)>) {
        std::future::poll_fn(|context| self.poll(context, batch)).await;
    }

    /// Takes all that has arrived for one subscription.
    pub(crate) async fn drain(&mut self, key: u64) -> Vec<Message> {
        let Some(tap) = self.taps.get_mut(&key) else {
            return Vec::new();
        };
        let mut drained = Vec::new();
        let drain = std::future::poll_fn(|_| {
            let waker = Waker::from(Arc::clone(&tap.bell));
            let mut context = Context::from_waker(&waker);
            while let Poll::Ready(Some(message)) = Pin::new(&mut tap.subscriber).poll_next(&mut context) {
                drained.push(message);
            }
            Poll::Ready(())
        });
        // Otherwise the runtime may say that there is nothing, to give others their turn.
        tokio::task::unconstrained(drain).await;
        drained
    }

    fn poll(&mut self, context: &mut Context<'_>, batch: &mut Vec<(u64, Message)>) -> Poll<()> {
        self.rung.reader.register(context.waker());
        while batch.len() < BATCH {
            let Some(key) = self.rung.keys().pop_front() else { break };
            let Some(tap) = self.taps.get_mut(&key) else { continue };
            // Before it is looked at: what comes from here on rings again.
            tap.bell.has_rung.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(&tap.bell));
            let mut bell = Context::from_waker(&waker);
            let mut is_empty = false;
            for _ in 0..TURN {
                match Pin::new(&mut tap.subscriber).poll_next(&mut bell) {
                    Poll::Ready(Some(message)) => batch.push((key, message)),
                    // The end of the connection is told elsewhere.
                    Poll::Ready(None) | Poll::Pending => {
                        is_empty = true;
                        break;
                    }
                }
            }
            if !is_empty {
                tap.bell.wake_by_ref();
            }
        }
        if batch.is_empty() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }
}
