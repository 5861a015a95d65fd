//! The task that sends spans to a collector: OTLP over HTTP, in protobuf.

use std::time::{Duration, Instant};

use bytes::Bytes;
use forwarder_core::document::{Tls, Traces};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus::IntCounter;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::warn;
use url::Url;

use super::Ended;
use super::otlp::{self, Resource, Value};
use crate::metrics::Metrics;
use forwarder_nats::tls::{TlsError, client_config};
use forwarder_service::chain;

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
    #[error("failed to connect")]
    Connect(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("the host's name cannot stand in a certificate")]
    Name(#[from] rustls_pki_types::InvalidDnsNameError),
    #[error("failed to make the request")]
    Request(#[from] hyper::http::Error),
    #[error("failed to talk HTTP")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Refused(StatusCode),
    #[error("no answer for {TIMEOUT:?}")]
    Silent,
}

/// Of which process, topic and group all spans are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The process.
    pub forwarder: String,
    /// The topic.
    pub topic: String,
    /// The group.
    pub group: String,
}

/// See the module.
#[derive(Debug)]
pub struct Exporter {
    secure: bool,
    host: String,
    port: u16,
    path: String,
    tls: Option<Tls>,
    identity: Identity,
    resource: Resource,
    ended: mpsc::Receiver<Ended>,
    exported: IntCounter,
    dropped: IntCounter,
    logged: Option<Instant>,
}

impl Exporter {
    pub(super) fn new(
        declared: &Traces,
        identity: Identity,
        ended: mpsc::Receiver<Ended>,
        metrics: &Metrics,
    ) -> Result<Self, ExporterError> {
        let endpoint = || declared.endpoint.clone();
        let url = Url::parse(&declared.endpoint).map_err(|source| ExporterError::Endpoint {
            endpoint: endpoint(),
            source,
        })?;
        let no_host = || ExporterError::NoHost { endpoint: endpoint() };
        let text = |text: &str| Value::Text(text.to_owned());
        Ok(Self {
            secure: url.scheme() == "https",
            host: url.host_str().ok_or_else(no_host)?.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default().ok_or_else(no_host)?,
            path: format!("{}/v1/traces", url.path().trim_end_matches('/')),
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
            logged: None,
        })
    }

    /// Exports until nobody ends a trace any more.
    pub async fn run(mut self) {
        let (mut batch, mut spans) = (Vec::with_capacity(BATCH), Vec::new());
        while self.gather(&mut batch).await {
            spans.clear();
            for ended in batch.drain(..) {
                ended.spans(&self.identity, &mut spans);
            }
            let request = otlp::request(&self.resource, &spans);
            let sent = timeout(TIMEOUT, self.send(Bytes::from(request))).await;
            match sent.unwrap_or(Err(ExportError::Silent)) {
                Ok(()) => self.exported.inc_by(spans.len() as u64),
                Err(error) => {
                    self.dropped.inc_by(spans.len() as u64);
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
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_INTERVAL) {
            return;
        }
        self.logged = Some(Instant::now());
        warn!(
            collector = %format_args!("{}:{}", self.host, self.port),
            error = %chain(error),
            "failed to export spans; they are dropped, records are not concerned"
        );
    }

    async fn send(&self, body: Bytes) -> Result<(), ExportError> {
        // A connection for each request: at one a second that costs less than finding out whether an old one still lives.
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        if !self.secure {
            return self.post(stream, body).await;
        }
        let connector = TlsConnector::from(std::sync::Arc::new(client_config(self.tls.as_ref()).await?));
        let name = ServerName::try_from(self.host.clone())?;
        let stream = connector.connect(name, stream).await?;
        self.post(stream, body).await
    }

    /// An IPv6 address stands in brackets there.
    fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    async fn post<S>(&self, stream: S, body: Bytes) -> Result<(), ExportError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(&self.path)
            .header(HOST, self.authority())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .body(Full::new(body))?;
        let answer = async {
            let status = sender.send_request(request).await?.status();
            if status.is_success() {
                return Ok(());
            }
            Err(ExportError::Refused(status))
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            // It ends before the answer only by a fault, of which the sender is told too.
            Err(error) = connection => Err(error.into()),
        }
    }
}
