//! Probes and metrics.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forwarder::http::Server;

use crate::metrics::Metrics;

/// Answers `/healthz`, `/readyz` and `/metrics` until `shutdown`. A standby is ready: it answers the router.
pub async fn serve(server: Server, metrics: Arc<Metrics>, shutdown: impl Future<Output = ()> + Send + 'static) {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(async || "ok\n"))
        .route("/metrics", get(text))
        .with_state(metrics);
    server.serve(router, false, shutdown).await;
}

async fn text(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
