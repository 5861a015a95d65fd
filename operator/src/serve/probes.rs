//! Probes and metrics.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forwarder_service::http::Server;

use crate::index::Readiness;
use crate::metrics::Metrics;

/// Answers `/healthz`, `/readyz` and `/metrics` until `shutdown`. A standby is ready once it can answer the router.
pub async fn serve(
    server: Server,
    metrics: Arc<Metrics>,
    readiness: Arc<Readiness>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let metrics = Router::new().route("/metrics", get(text)).with_state(metrics);
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
        .merge(metrics);
    server.serve(router, false, shutdown).await;
}

async fn ready(State(readiness): State<Arc<Readiness>>) -> Response {
    match readiness.fault() {
        None => "ok\n".into_response(),
        Some(fault) => (StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n")).into_response(),
    }
}

async fn text(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
