//! The engine on one page: every task, channel and bound.
//!
//! ```text
//!            thread `intake`                        task per cluster
//!  Kafka ──▶ poll · route · count ──── orders ────▶ publisher · outbox ──▶ NATS
//!    ▲           │       ▲                              │
//!    └── commit ─┘       └────────── receipts ──────────┤
//!                │       ▲                              │
//!                │       └────────── receipts ──── dead letter ──▶ Kafka topic or file
//!                └───────────────── letters ──────────▶ ┘ (task)
//!
//!  task `admin`: probes, metrics, status
//! ```
//!
//! The channels have no bound of their own: the intake counts what it has handed out and not got back, and takes
//! nothing more from Kafka at the caps (`engine.maxPending…`). So each channel holds at most that much.

use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use forwarder_core::config::{Checked, PublishMode};
use forwarder_core::ring::{Ring, RingError};
use forwarder_core::route::{RouteOptions, Router};
use forwarder_core::subject::{Template, TemplateError};
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tracing::{Instrument, info, info_span, warn};

use crate::admin::{Admin, Health, Status};
use crate::clock::Clock;
use crate::dead_letter::{DeadLetterError, DeadLetters};
use crate::http::{HttpError, Server};
use crate::intake::{Intake, IntakeError, Links};
use crate::metrics::Metrics;
use crate::nats::server::AddressError;
use crate::publisher::{Link, Publisher};
use crate::shutdown::Shutdown;

/// How long the intake's loop may stand still before `/healthz` fails. A turn that asks Kafka where many partitions
/// begin may take a while; a minute is none of these.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What closing the consumer may take, after the drain.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the tasks may take to end once nobody gives them anything to do.
const TASKS_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the forwarder could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The ring cannot be built.
    #[error("failed to build the ring")]
    Ring(#[from] RingError),
    /// The subject's template cannot be used.
    #[error("failed to read the subject's template")]
    Subject(#[from] TemplateError),
    /// A NATS server's address cannot be read.
    #[error("failed to read the address of a server of cluster `{cluster}`")]
    Server {
        /// The cluster.
        cluster: String,
        /// The reason.
        source: AddressError,
    },
    /// The dead letter cannot be opened.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// The HTTP server cannot be started.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The metrics cannot be registered.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The intake ended by itself.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// The intake's thread could not be started or died.
    #[error("failed to run the intake's thread: {0}")]
    Thread(String),
    /// Closing took longer than its bound. Everything confirmed in time was committed.
    #[error("closing took longer than {0:?}; leaving at once")]
    CloseTimeout(Duration),
}

/// Forwards until `shutdown`, then drains, commits and leaves.
///
/// # Errors
/// What keeps the forwarder from starting or from going on; see [`EngineError`]. Outages of Kafka or NATS are none.
pub async fn run(config: Checked, shutdown: Shutdown) -> Result<(), EngineError> {
    let config = Arc::new(config);
    let clock = Clock::start();
    let metrics = Metrics::new(&config.admin)?;
    let (receipts_in, receipts) = blocking::channel();

    let mut publishers = Vec::new();
    let mut connections = Vec::new();
    let mut tasks = Vec::new();
    for (index, cluster) in config.ring.clusters.iter().enumerate() {
        let (orders_in, orders) = mpsc::unbounded_channel();
        let link = Link::default();
        let publisher = Publisher::new(
            index,
            cluster,
            &config,
            orders,
            receipts_in.clone(),
            metrics.clone(),
            clock,
            link.clone(),
        )
        .map_err(|source| EngineError::Server {
            cluster: cluster.name.clone(),
            source,
        })?;
        tasks.push(tokio::spawn(
            publisher
                .run()
                .instrument(info_span!("publisher", cluster = cluster.name)),
        ));
        publishers.push(orders_in);
        connections.push(link);
    }

    let mut dead_letter = None;
    if let Some(declared) = &config.dead_letter {
        let (letters_in, letters) = mpsc::unbounded_channel();
        let writer = DeadLetters::open(declared, &config, letters, receipts_in.clone(), metrics.clone())?;
        tasks.push(tokio::spawn(writer.run().instrument(info_span!("dead_letter"))));
        dead_letter = Some(letters_in);
    }
    // From here on the receipts' channel ends with the last publisher.
    drop(receipts_in);

    let health = Health::default();
    let (status, statuses) = watch::channel(Status::default());
    let server = Server::bind(&config.admin.address, config.admin.port).await?;
    info!(address = %server.address(), "serving probes, metrics and status");
    let admin = Admin {
        health: health.clone(),
        metrics: metrics.clone(),
        status: statuses,
    };
    let mut stop = shutdown.clone();
    let http = tokio::spawn(
        admin
            .serve(
                server,
                config.logging.http_requests,
                async move { stop.requested().await },
            )
            .instrument(info_span!("admin")),
    );

    let heartbeat = health.heartbeat("intake", STUCK_AFTER);
    metrics
        .ring_epoch
        .set(i64::try_from(config.ring.epoch).unwrap_or(i64::MAX));
    let intake = Intake::new(
        Arc::clone(&config),
        router(&config)?,
        Links {
            publishers,
            dead_letter,
            receipts,
            shutdown: shutdown.clone(),
            heartbeat,
            connections,
            status,
        },
        metrics,
        clock,
    )?;
    let (ended_in, mut ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("intake".to_owned())
        .spawn(move || {
            let _span = info_span!("intake").entered();
            // Nobody listens any more when closing took too long.
            ended_in.send(intake.run()).ok();
        })
        .map_err(|error| EngineError::Thread(error.to_string()))?;

    let mut stop = shutdown.clone();
    let bound = Duration::from_millis(config.engine.drain_timeout_ms) + CLOSE_TIMEOUT;
    let result = tokio::select! {
        ended = &mut ended => ended,
        () = async { stop.requested().await; tokio::time::sleep(bound).await } => return Err(EngineError::CloseTimeout(bound)),
    };
    // The intake took the publishers' channels with it: they end by themselves. A dead letter that cannot be written does
    // not; its offset is not committed.
    let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
    if tokio::time::timeout(TASKS_TIMEOUT, join_all(tasks)).await.is_err() {
        warn!("not every task ended in time");
        aborts.iter().for_each(AbortHandle::abort);
    }
    http.abort();
    match result {
        Ok(result) => Ok(result?),
        Err(_) => Err(EngineError::Thread("it panicked; see the log".to_owned())),
    }
}

/// The pure part: from a record to its cluster, subject, headers and body.
fn router(config: &Checked) -> Result<Router, EngineError> {
    let members = config
        .ring
        .clusters
        .iter()
        .map(|cluster| (cluster.name.clone(), cluster.weight));
    let ring = Ring::new(members, config.ring.replicas)?;
    let template = Template::parse(&config.publish.subject)?;
    let options = RouteOptions {
        message_id: config.publish.mode == PublishMode::JetStream,
        origin_headers: config.publish.headers.origin,
    };
    Ok(Router::new(ring, template, options))
}
