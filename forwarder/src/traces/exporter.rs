//! The task that sends spans to a collector: OTLP over HTTP, in protobuf.

use std::time::Duration;

use bytes::Bytes;
use forwarder_core::delivery::partition::Inputs;
use forwarder_core::document::{Tls, Traces};
use http_body_util::Full;
use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;
use url::Url;

use super::Ended;
use super::otlp::{self, Resource, Value};
use crate::metrics::Metrics;
use forwarder_nats::tls::{TlsError, client_config};
use forwarder_service::chain;
use forwarder_service::http::client::{self, RequestError};
use forwarder_service::log_limit::LogLimit;

/// Traces of one request, at most.
const BATCH: usize = 512;

/// How long a trace waits for others: a request a second is nothing to a collector.
const LINGER: Duration = Duration::from_secs(1);

/// How long a collector may take. What comes meanwhile waits in the queue, or is dropped.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A line as often as this while a collector is away.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why spans cannot be exported at all.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The URL cannot be read. Whoever checks the document finds most of that before.
    #[error("failed to read telemetry.traces.endpoint, {endpoint:?}")]
    Endpoint {
        /// The URL.
        endpoint: String,
        /// Why.
        source: url::ParseError,
    },
    /// The URL names no server.
    #[error("telemetry.traces.endpoint, {endpoint:?}, names no host")]
    NoHost {
        /// The URL.
        endpoint: String,
    },
}

/// Why a request failed; its spans are dropped.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("failed to build the request")]
    Url(#[from] hyper::http::Error),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("the collector answered {0}")]
    Refused(StatusCode),
    #[error("the collector did not answer within {TIMEOUT:?}")]
    Silent,
}

/// Of which process, topics and group all spans are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The process.
    pub forwarder: String,
    /// The topics.
    pub inputs: Inputs,
    /// The group.
    pub group: String,
}

/// See the module.
#[derive(Debug)]
pub struct Exporter {
    /// Where traces go.
    url: Url,
    tls: Option<Tls>,
    identity: Identity,
    resource: Resource,
    ended: mpsc::Receiver<Ended>,
    exported: IntCounter,
    dropped: IntCounter,
    failure_lines: LogLimit,
}

impl Exporter {
    pub(super) fn new(
        declared: &Traces,
        identity: Identity,
        ended: mpsc::Receiver<Ended>,
        metrics: &Metrics,
    ) -> Result<Self, ExporterError> {
        let endpoint = || declared.endpoint.clone();
        let mut url = Url::parse(&declared.endpoint).map_err(|source| ExporterError::Endpoint {
            endpoint: endpoint(),
            source,
        })?;
        if !url.has_host() {
            return Err(ExporterError::NoHost { endpoint: endpoint() });
        }
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.set_query(None);
        url.set_fragment(None);
        let text = |text: &str| Value::Text(text.to_owned());
        Ok(Self {
            url,
            tls: declared.tls.clone(),
            resource: Resource {
                attributes: vec![
                    ("service.name", text("asset-forwarder")),
                    ("service.instance.id", text(&identity.forwarder)),
                    ("service.version", text(env!("CARGO_PKG_VERSION"))),
                ],
            },
            identity,
            ended,
            exported: metrics.spans_exported.clone(),
            dropped: metrics.spans_dropped.clone(),
            failure_lines: LogLimit::new(LOG_INTERVAL),
        })
    }

    /// Exports until nobody ends a trace any more.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.gather(&mut batch).await {
            let mut spans = Vec::new();
            for ended in batch.drain(..) {
                ended.spans(&self.identity, &mut spans);
            }
            let count = spans.len() as u64;
            let request = otlp::request(&self.resource, spans);
            let sent = timeout(TIMEOUT, self.send(Bytes::from(request))).await;
            match sent.unwrap_or(Err(ExportError::Silent)) {
                Ok(()) => self.exported.inc_by(count),
                Err(error) => {
                    self.dropped.inc_by(count);
                    self.say(&error);
                }
            }
        }
    }

    /// Waits for the first trace, and a little for more. False: there will be none.
    async fn gather(&mut self, batch: &mut Vec<Ended>) -> bool {
        if self.ended.recv_many(batch, BATCH).await == 0 {
            return false;
        }
        let more = async {
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                if self.ended.recv_many(batch, room).await == 0 {
                    return;
                }
            }
        };
        // Either way it is time to send.
        drop(timeout(LINGER, more).await);
        true
    }

    fn say(&mut self, error: &ExportError) {
        if self.failure_lines.pass(&()).is_none() {
            return;
        }
        warn!(
            collector = self.url.origin().ascii_serialization(),
            error = %chain(error),
            "failed to export spans; they are dropped, and records are not affected"
        );
    }

    async fn send(&self, body: Bytes) -> Result<(), ExportError> {
        let request = Request::post(self.url.as_str())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(body))?;
        let tls = if self.url.scheme() == "https" {
            Some(client_config(self.tls.as_ref()).await?)
        } else {
            None
        };
        let status = client::send(request, tls).await?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(ExportError::Refused(status))
        }
    }
}
