//! A bounded queue of records, between the client's task and a program.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use crate::message::Message;

/// See the module.
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

    /// The next record, if there is one.
    pub(crate) fn take(&self) -> Option<Message> {
        let mut inner = self.lock();
        let message = inner.records.pop_front()?;
        inner.bytes -= message.size();
        Some(message)
    }

    /// The next record; none: there will be none. For one reader.
    pub(crate) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Message>> {
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
