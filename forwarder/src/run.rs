//! The engine, from a checked document to the end of the process.

use std::future::Future;

use forwarder_core::document::{Checked, Document};

use crate::engine::{self, EngineError};
use crate::ring_watch::RingOrigin;
use forwarder_service::shutdown;

/// Forwards until `shutdown` completes, then drains. `document` is all but the ring, which comes from `ring`.
///
/// # Errors
/// What the process cannot go on with.
pub async fn run(
    document: Checked<Document>,
    ring: RingOrigin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), EngineError> {
    let (trigger, stop) = shutdown::channel();
    let waiting = tokio::spawn(async move {
        shutdown.await;
        trigger.stop();
    });
    let result = engine::run(document, ring, stop).await;
    waiting.abort();
    result
}
