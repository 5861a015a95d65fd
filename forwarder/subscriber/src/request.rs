//! What a program asks of the client's task.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::error::SubscribeError;
use crate::queue::Queue;

/// How a subscription has begun.
pub(crate) type Begun = oneshot::Sender<Result<(), SubscribeError>>;

/// A request.
#[derive(Debug)]
pub(crate) enum Request {
    /// Follow these assets.
    Subscribe {
        /// The stream's number, which nobody else has.
        stream: u64,
        assets: Vec<String>,
        /// The ID, `*` or `>`.
        id: String,
        queue: Arc<Queue>,
        begun: Begun,
    },
    /// The stream is not read any more.
    Close {
        /// Which one.
        stream: u64,
    },
}
