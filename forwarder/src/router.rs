//! Answers over HTTP which cluster owns an asset.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use forwarder_core::fanout::table::{Answer, Table};
use forwarder_service::http::Server;

/// Answers until `shutdown` completes.
pub async fn serve(
    table: Table,
    server: Server,
    log_requests: bool,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let router = Router::new()
        .route("/asset/{id}", get(asset))
        .route("/healthz", get(async || "ok\n"))
        .with_state(Arc::new(table));
    server.serve(router, log_requests, shutdown).await;
}

/// The ID arrives percent-decoded; one that is not UTF-8 then has been refused with 400: no asset has it.
async fn asset(
    State(table): State<Arc<Table>>,
    Path(id): Path<String>,
) -> Result<Json<Answer>, axum::http::StatusCode> {
    table.answer(id).map(Json).ok_or(axum::http::StatusCode::NOT_FOUND)
}
