//! The engine, from a checked document to the end of the process.

use std::future::Future;
use std::path::PathBuf;

use forwarder_core::config::Checked;

use crate::engine::{self, EngineError};
use crate::shutdown;

/// Forwards until `shutdown` completes, then drains. `document` is the file that the configuration came from, if it is to
/// be watched for a new ring.
///
/// # Errors
/// What the process cannot go on with.
pub async fn run(
    config: Checked,
    document: Option<PathBuf>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), EngineError> {
    let (trigger, stop) = shutdown::channel();
    let waiting = tokio::spawn(async move {
        shutdown.await;
        trigger.stop();
    });
    let result = engine::run(config, document, stop).await;
    waiting.abort();
    result
}
