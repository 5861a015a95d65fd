//! The engine, from a checked document to the end of the process.

use std::future::Future;

use forwarder_core::config::Checked;

/// Forwards until `shutdown` completes, then drains.
///
/// # Errors
/// What the process cannot go on with.
pub async fn run(config: Checked, shutdown: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    drop((config, shutdown));
    anyhow::bail!("the engine is not there yet")
}
