//! Answers over HTTP which cluster owns an asset, for each forwarder.

use forwarder::http::{HttpError, Server};
use forwarder::shutdown::Shutdown;
use kube::Client;

use crate::context::Scope;

/// Answers until \`stop\`.
///
/// # Errors
/// The listener fails for good.
pub async fn serve(server: Server, _client: Client, _scope: &Scope, mut stop: Shutdown) -> Result<(), HttpError> {
    server
        .serve(axum::Router::new(), false, async move { stop.requested().await })
        .await
}
