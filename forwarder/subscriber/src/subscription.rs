//! Where a program reads records.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::mpsc;

use crate::message::Message;
use crate::queue::Queue;
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
