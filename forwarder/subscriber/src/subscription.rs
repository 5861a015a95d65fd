//! Where a program reads records: a bounded queue.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::Stream;
use futures::task::AtomicWaker;
use tokio::sync::mpsc;

use crate::message::Message;
use crate::request::Request;

/// An ordered stream of records. It ends its subscription when it is dropped.
#[derive(Debug)]
pub struct Subscription {
    number: u64,
    queue: Arc<Queue>,
    requests: mpsc::UnboundedSender<Request>,
}

impl Subscription {
    pub(crate) fn new(number: u64, queue: Arc<Queue>, requests: mpsc::UnboundedSender<Request>) -> Self {
        Self {
            number,
            queue,
            requests,
        }
    }

    /// Waits for the next record. None: the client has ended.
    ///
    /// It may be dropped at any point, as in `tokio::select!`: no record is lost by that.
    pub async fn next(&mut self) -> Option<Message> {
        std::future::poll_fn(|context| self.queue.poll(context)).await
    }

    /// The next record, if there is one already.
    pub fn try_next(&mut self) -> Option<Message> {
        self.queue.take()
    }
}

impl Stream for Subscription {
    type Item = Message;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Message>> {
        self.queue.poll(context)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // The client may have ended before.
        self.requests.send(Request::Close { stream: self.number }).ok();
    }
}

/// The queue between the client's task and a program.
#[derive(Debug)]
pub(crate) struct Queue {
    // Held for one record at each end.
    inner: Mutex<Inner>,
    reader: AtomicWaker,
    limit: usize,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct Inner {
    records: VecDeque<Message>,
    bytes: usize,
    is_closed: bool,
}

impl Queue {
    /// Holds so many records of so many bytes.
    pub(crate) fn new(limit: usize, limit_bytes: usize) -> Self {
        Self {
            inner: Mutex::default(),
            reader: AtomicWaker::new(),
            limit,
            limit_bytes,
        }
    }

    /// Adds a record. False: there is no room, and it is dropped.
    #[must_use]
    pub(crate) fn offer(&self, message: Message) -> bool {
        let mut inner = self.lock();
        let size = message.size();
        // One record is always taken, however large it is.
        let has_room =
            inner.records.len() < self.limit.max(1) && (inner.bytes == 0 || inner.bytes + size <= self.limit_bytes);
        if has_room {
            inner.bytes += size;
            inner.records.push_back(message);
            let was_empty = inner.records.len() == 1;
            drop(inner);
            if was_empty {
                self.reader.wake();
            }
        }
        has_room
    }

    /// No further record comes.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.reader.wake();
    }

    fn take(&self) -> Option<Message> {
        let mut inner = self.lock();
        let message = inner.records.pop_front()?;
        inner.bytes -= message.size();
        Some(message)
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Message>> {
        if let Some(message) = self.take() {
            return Poll::Ready(Some(message));
        }
        self.reader.register(context.waker());
        // A record may have come in between.
        match self.take() {
            Some(message) => Poll::Ready(Some(message)),
            None if self.lock().is_closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
