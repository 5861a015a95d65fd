//! The controller of this kind.

use std::sync::Arc;

use forwarder::shutdown::Shutdown;

use crate::context::Context;

/// Runs the controller until `stop`.
pub async fn run(_context: Arc<Context>, mut stop: Shutdown) {
    stop.requested().await;
}
