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
//!  task `traces`: spans of sampled records ◀── intake, where that is declared
//!  task `ring_watch`: the declared ring, when it changes ──▶ intake, which starts and ends publishers ([`Fleet`])
//! ```
//!
//! A task that panics would leave its part undone for ever: its cluster, its letters, the ring. So it ends the process, which
//! commits what is confirmed; whoever starts it again has a sound one. Only spans are no reason: they are dropped and counted.
//!
//! The channels have no bound of their own: the intake counts what it has handed out and not got back, and takes
//! nothing more from Kafka at the caps (`engine.maxPending…`). So each channel holds at most that much.

#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use forwarder_core::delivery::partition::Inputs;
use forwarder_core::document::{Checked, Document, PublishMode, RingConfig};
use forwarder_core::fanout::dispatch::Era;
use forwarder_core::fanout::route::{RouteOptions, Router};
use forwarder_core::status::{Phase, Status};
use forwarder_core::subject::{Template, TemplateError};
use futures::FutureExt as _;
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{Instrument, error, info, info_span, warn};

use crate::admin::Admin;
use crate::dead_letter::{DeadLetterError, DeadLetters};
use crate::fleet::Fleet;
use crate::intake::{Intake, IntakeError, Links, RingChangeError, era};
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::ring_watch::{Outlook, RingOrigin, RingWatch, Rings};
use crate::tasks::{self, Tasks};
use crate::traces::{Exporter, ExporterError, Identity, Tracer};
use forwarder_service::clock::Clock;
use forwarder_service::heartbeat::Health;
use forwarder_service::heartbeat::Panicked;
use forwarder_service::http::{HttpError, Server};
use forwarder_service::shutdown::{self, Shutdown};

/// How long the intake's loop may stand still before `/healthz` fails. A turn that asks Kafka where many partitions
/// begin may take a while, and two commits that nobody answers more than a minute each (librdkafka's `socket.timeout.ms`): an
/// outage of Kafka must not end the process.
const STUCK_AFTER: Duration = Duration::from_secs(180);

/// What the last commit and leaving the group may take, after the drain.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// What the tasks may take to end once nobody gives them anything to do.
const TASKS_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the last spans may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the forwarder could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The ring cannot be used.
    #[error(transparent)]
    Ring(#[from] RingChangeError),
    /// The subject's template cannot be used.
    #[error("failed to read the subject's template")]
    Subject(#[from] TemplateError),
    /// The dead letter cannot be opened.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// The HTTP server cannot be started.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The metrics cannot be registered.
    #[error("failed to register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// Spans cannot be exported.
    #[error(transparent)]
    Traces(#[from] ExporterError),
    /// The intake ended by itself.
    #[error(transparent)]
    Intake(#[from] IntakeError),
    /// A task has panicked. What was confirmed is committed.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The intake's thread could not be started or died.
    #[error("failed to run the intake's thread: {0}")]
    Thread(String),
    /// Closing took longer than its bound. Everything confirmed in time was committed.
    #[error("closing took longer than {0:?}; leaving at once")]
    CloseTimeout(Duration),
}

/// Forwards until `shutdown`, then drains, commits and leaves. `document` is all but the ring, which comes from `ring`. While there
/// is none yet, nothing is asked of Kafka; probes and status are there and say so.
///
/// # Errors
/// What keeps the forwarder from starting or from going on; see [`EngineError`]. Outages of Kafka or NATS are none.
pub async fn run(document: Checked<Document>, ring: RingOrigin, shutdown: Shutdown) -> Result<(), EngineError> {
    let metrics = Metrics::new(&document.admin)?;
    let health = Health::default();
    let (status, statuses) = watch::channel(Status::default());
    let (ring_watch, mut rings, outlook) = RingWatch::new(&document, ring);

    let server = Server::bind(document.admin.listens_on(), document.admin.port).await?;
    info!(address = %server.address(), "serving probes, metrics and status");
    let admin = Admin {
        health: health.clone(),
        metrics: metrics.clone(),
        status: statuses,
        ring: outlook.clone(),
        credentials_version_file: document.admin.credentials_version_file.clone(),
    };
    let log_requests = document.logging.http_requests;
    let mut stop = shutdown.clone();
    let serving = async move {
        let stop = async move { stop.requested().await };
        admin.serve(server, log_requests, stop).await;
    };
    // Both end with the engine, however that ends. Without the one nobody sees how we are, without the other no new ring comes.
    let tasks = Tasks::new(Handle::current(), health.clone());
    let mut beside = JoinSet::new();
    beside.spawn(tasks.guarded("admin", serving.instrument(info_span!("admin"))));
    beside.spawn(tasks.guarded("ring_watch", ring_watch.run().instrument(info_span!("ring_watch"))));
    let first = tokio::select! {
        first = first_ring(&mut rings, outlook, &status, shutdown.clone()) => first,
        panicked = tasks.panicked() => return Err(panicked.into()),
    };
    let Some(ring) = first else {
        info!("asked to stop before there was a ring");
        return Ok(());
    };
    let config = Arc::new(document.with_ring(ring));

    let clock = Clock::start();
    // Not held yet: nothing is published before a commit has proved that we are a member of the group.
    let lease = Lease::new(clock, config.fence_timeout());
    let (receipts_in, receipts) = blocking::channel();

    let mut fleet = Fleet::new(
        Arc::clone(&config),
        receipts_in.clone(),
        metrics.clone(),
        clock,
        lease.clone(),
        tasks.clone(),
    );
    let era = era(&config.ring, &mut fleet)?;

    let mut dead_letter = None;
    if let Some(declared) = &config.dead_letter {
        let (letters_in, letters) = mpsc::unbounded_channel();
        let writer = DeadLetters::open(declared, &config, letters, receipts_in.clone(), metrics.clone())?;
        tasks.spawn("dead_letter", writer.run().instrument(info_span!("dead_letter")));
        dead_letter = Some(letters_in);
    }
    drop(receipts_in);

    let traces = config
        .telemetry
        .as_ref()
        .and_then(|telemetry| telemetry.traces.as_ref());
    let tracing = traces.map(|declared| Tracer::new(declared, identity(&config), &metrics, clock));
    let (tracer, exporter) = tracing.transpose()?.unzip();
    let exporting = exporter.map(|exporter| tokio::spawn(export(exporter).instrument(info_span!("traces"))));

    // Asked to stop by whoever runs us, or because a task has panicked.
    let (trigger, stopping) = shutdown::channel();
    let heartbeat = health.heartbeat("intake", STUCK_AFTER);
    metrics
        .ring_epoch
        .set(i64::try_from(config.ring.epoch).unwrap_or(i64::MAX));
    let intake = Intake::new(
        Arc::clone(&config),
        router(&config, &era)?,
        era,
        Links {
            fleet,
            dead_letter,
            receipts,
            shutdown: stopping,
            heartbeat,
            rings,
            status,
            lease,
            tracer,
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
    let by_itself = tokio::select! {
        ended = &mut ended => Some(ended),
        () = stop.requested() => None,
        _ = tasks.panicked() => None,
    };
    trigger.stop();
    let result = match by_itself {
        Some(ended) => ended,
        None => match tokio::time::timeout(bound, &mut ended).await {
            Ok(ended) => ended,
            Err(_) => {
                let panicked = tasks.first_panic();
                return Err(panicked.map_or(EngineError::CloseTimeout(bound), EngineError::Panicked));
            }
        },
    };
    // The intake took the publishers' channels with it: they end by themselves. A dead letter that cannot be written does
    // not; its offset is not committed.
    let running = tasks.take();
    let aborts: Vec<_> = running.iter().map(JoinHandle::abort_handle).collect();
    if tokio::time::timeout(TASKS_TIMEOUT, join_all(running)).await.is_err() {
        warn!("not every task ended in time");
        aborts.iter().for_each(AbortHandle::abort);
    }
    // The intake took the tracer with it: what is left of spans has a moment. They are not worth more.
    if let Some(mut exporting) = exporting
        && tokio::time::timeout(EXPORT_TIMEOUT, &mut exporting).await.is_err()
    {
        exporting.abort();
    }
    if let Some(panicked) = tasks.first_panic() {
        return Err(panicked.into());
    }
    match result {
        Ok(result) => Ok(result?),
        Err(_) => Err(EngineError::Thread("it panicked; see the log".to_owned())),
    }
}

/// Sends spans. A panic ends that alone: they are dropped and counted from then on, and no record is concerned.
async fn export(exporter: Exporter) {
    if let Err(panic) = AssertUnwindSafe(exporter.run()).catch_unwind().await {
        let reason = tasks::said(panic.as_ref());
        error!(
            reason,
            "the task `traces` has panicked: spans are dropped until the process is started again, records go on. Please report this fault"
        );
    }
}

/// Waits for the ring to begin with; none, if the process is to stop before there is one.
async fn first_ring(
    rings: &mut Rings,
    mut outlook: watch::Receiver<Outlook>,
    status: &watch::Sender<Status>,
    mut stop: Shutdown,
) -> Option<Checked<RingConfig>> {
    loop {
        if let Some(ring) = rings.borrow_and_update().as_ref() {
            status.send_modify(|status| status.phase = Phase::Starting);
            return Some(Checked::clone(ring));
        }
        let reason = outlook.borrow_and_update().why_none();
        status.send_modify(|status| status.phase = Phase::WithoutRing(reason));
        // The watch lives as long as the engine, so neither of its ends is ever closed.
        tokio::select! {
            _ = rings.changed() => {}
            _ = outlook.changed() => {}
            () = stop.requested() => return None,
        }
    }
}

/// Of what all spans are.
fn identity(config: &Checked) -> Identity {
    Identity {
        forwarder: config.admin.forwarder.clone().unwrap_or_else(|| "unknown".to_owned()),
        inputs: Inputs::new(config.source.topics()),
        group: config.source.group.clone(),
    }
}

/// The pure part: from a record to its cluster, subject, headers and body.
fn router(config: &Checked, era: &Era) -> Result<Router, EngineError> {
    let template = Template::parse(&config.publish.subject)?;
    let options = RouteOptions {
        message_id: config.publish.mode == PublishMode::JetStream,
        origin_headers: config.publish.headers.origin,
    };
    Ok(Router::new(Arc::clone(&era.ring), template, options))
}
