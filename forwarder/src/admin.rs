//! The HTTP server for probes, metrics and status.
//!
//! `/healthz` (and `/health`, as the original has it): the loops turn and no task has panicked; otherwise a restart helps.
//! `/readyz`: the process does its part in the group, which may be to have no partition; having some and taking none is not.
//! `/metrics`: for Prometheus. `/status`: for people and the operator.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use forwarder_core::document::RING_DOCUMENT_VERSION;
use forwarder_core::status::{BeaconStatus, Status};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::ring_watch::Outlook;
use forwarder_service::heartbeat::Health;
use forwarder_service::http::Server;

/// A version is a number or a hash; a wrong path must not be read to its end.
const MAX_VERSION: u64 = 1 << 10;

/// What the server shows.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The heartbeats of the loops.
    pub health: Health,
    /// The metrics.
    pub metrics: Metrics,
    /// What the engine says of itself.
    pub status: watch::Receiver<Status>,
    /// What is known of the declared ring.
    pub ring: watch::Receiver<Outlook>,
    /// What the beacon says of itself; none: none is declared.
    pub beacon: watch::Receiver<Option<BeaconStatus>>,
    /// See [`forwarder_core::document::Admin::credentials_version_file`].
    pub credentials_version_file: Option<PathBuf>,
}

impl Admin {
    /// Answers until `shutdown` completes.
    pub async fn serve(self, server: Server, log_requests: bool, shutdown: impl Future<Output = ()> + Send + 'static) {
        server.serve(self.router(), log_requests, shutdown).await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/health", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/status", get(status))
            .with_state(Arc::new(self))
    }
}

async fn healthz(State(admin): State<Arc<Admin>>) -> Response {
    match admin.health.check() {
        Ok(()) => "ok\n".into_response(),
        Err(ill) => (StatusCode::SERVICE_UNAVAILABLE, format!("{ill}\n")).into_response(),
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Response {
    match admin.status.borrow().phase.not_ready() {
        None => "ok\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    // What others say is asked for when it is shown, so it is never older than that.
    let ready = admin.status.borrow().phase.not_ready().is_none();
    admin.metrics.ready.set(i64::from(ready));
    if let Some(epoch) = admin.ring.borrow().declared {
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
        admin.metrics.ring_epoch_declared.set(epoch);
    }
    match admin.metrics.text() {
        Ok(text) => (
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            text,
        )
            .into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn status(State(admin): State<Arc<Admin>>) -> Response {
    let mut status = admin.status.borrow().clone();
    admin.ring.borrow().show(&mut status.ring);
    status.beacon.clone_from(&admin.beacon.borrow());
    // From the first moment on: whoever writes a ring for us asks before we have one.
    status.document_version = Some(RING_DOCUMENT_VERSION);
    if let Some(file) = &admin.credentials_version_file {
        status.credentials_version = credentials_version(file).await;
    }
    axum::Json(status).into_response()
}

/// Read at each request, so that it is never older than the credentials beside it.
async fn credentials_version(file: &Path) -> Option<String> {
    let mut text = String::new();
    let file = File::open(file).await.ok()?;
    file.take(MAX_VERSION).read_to_string(&mut text).await.ok()?;
    let version = text.trim();
    (!version.is_empty()).then(|| version.to_owned())
}
