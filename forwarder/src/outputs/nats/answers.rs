//! Answers to subscribers that prove where records go: they leave through the connection that publishes records.
//!
//! They are no records: nobody waits for one, none is sent twice, and what cannot be written now is dropped. Who asked asks again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

/// So many answers wait for their publisher at most. Without a connection they wait in vain.
const WAITING: usize = 64;

/// An answer on its way.
#[derive(Debug)]
pub(super) struct Answer {
    /// Where it is expected; see [`crate::beacon::is_answerable`].
    pub(super) subject: Bytes,
    pub(super) payload: Vec<u8>,
}

/// Gives a publisher answers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answers {
    queue: mpsc::Sender<Answer>,
    denied: Arc<AtomicBool>,
}

impl Answers {
    /// Sends an answer through the publisher's connection. False: it is dropped, because too many wait.
    ///
    /// `subject` must be a single literal subject: it becomes a part of a control line.
    #[must_use]
    pub fn send(&self, subject: Bytes, payload: Vec<u8>) -> bool {
        self.queue.try_send(Answer { subject, payload }).is_ok()
    }

    /// Whether the server denies such answers to the publisher's user, as far as the present connection knows.
    #[must_use]
    pub fn are_denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }
}

/// The publisher's end.
#[derive(Debug)]
pub(super) struct AnswerQueue {
    queue: mpsc::Receiver<Answer>,
    denied: Arc<AtomicBool>,
}

/// Both ends of a queue.
pub(super) fn queue() -> (Answers, AnswerQueue) {
    let (queue_in, queue) = mpsc::channel(WAITING);
    let denied = Arc::new(AtomicBool::new(false));
    let answers = Answers {
        queue: queue_in,
        denied: Arc::clone(&denied),
    };
    (answers, AnswerQueue { queue, denied })
}

impl AnswerQueue {
    /// The next answer; none: there will never be one.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.queue.recv().await
    }

    /// A connection begins: what has waited for it is too old, and nothing is known of its permissions.
    pub(super) fn begin(&mut self) {
        while self.queue.try_recv().is_ok() {}
        self.denied.store(false, Ordering::Relaxed);
    }

    /// The server has denied one.
    pub(super) fn note_denied(&self) {
        self.denied.store(true, Ordering::Relaxed);
    }
}
