//! Answers over HTTP which cluster owns an asset.

#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use forwarder_core::config::{RingConfig, server};
use forwarder_core::ring::{Ring, RingError};
use serde::Serialize;

use crate::http::Server;

/// Who owns what, and where it is.
#[derive(Clone, Debug)]
pub struct Table {
    epoch: u64,
    ring: Ring,
    /// Name and URLs, in the order of the ring's members. User and password are gone before anything is answered.
    clusters: Vec<(String, Vec<String>)>,
}

/// The answer; the first three members are the original's, which takes the first URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The asset that was asked for.
    pub asset_id: String,
    /// The cluster that owns it.
    pub cluster_name: String,
    /// The first server of the cluster.
    pub nats_url: String,
    /// All servers of the cluster, without user and password.
    pub nats_urls: Vec<String>,
    /// The epoch of the ring that says so.
    pub ring_epoch: u64,
}

impl Table {
    /// The table of a checked ring.
    ///
    /// # Errors
    /// Members that make no ring.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        let RingConfig {
            epoch,
            replicas,
            handover_timeout_ms: _,
            clusters,
        } = config;
        let ring = Ring::new(
            clusters.iter().map(|cluster| (cluster.name.clone(), cluster.weight)),
            *replicas,
        )?;
        let urls = |urls: &[String]| urls.iter().map(|url| server::without_userinfo(url)).collect();
        let clusters = clusters
            .iter()
            .map(|cluster| (cluster.name.clone(), urls(&cluster.servers)))
            .collect();
        Ok(Self {
            epoch: *epoch,
            ring,
            clusters,
        })
    }

    /// The epoch of the ring.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who owns an asset; none only where that member has no server, which no checked ring has.
    #[must_use]
    pub fn answer(&self, asset_id: String) -> Option<Answer> {
        let (cluster_name, nats_urls) = self.clusters.get(self.ring.owner(asset_id.as_bytes()))?.clone();
        let nats_url = nats_urls.first()?.clone();
        Some(Answer {
            asset_id,
            cluster_name,
            nats_url,
            nats_urls,
            ring_epoch: self.epoch,
        })
    }
}

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
