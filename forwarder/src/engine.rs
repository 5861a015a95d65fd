//! The engine on one page: every task, thread, channel and bound.
//!
//! ```text
//!            thread `intake`                        task per cluster
//!  Kafka ──▶ poll · route · count ─── commands ───▶ publisher · outbox ──▶ NATS
//!    ▲           │       ▲                              │
//!    └── commit ─┘       └────────── receipts ──────────┤
//!      (thread)  │       ▲                              │
//!                │       └────────── receipts ──── dead letter ──▶ Kafka topic or file
//!                └───────────────── commands ─────────▶ ┘ (task)
//!
//!  task `admin`: probes, metrics, status
//!  task `traces`: spans of sampled records ◀── intake, where that is declared
//!  task `beacon`: what subscribers learn of the ring ◀─▶ intake; a task per cluster ◀─▶ NATS, where that is declared
//!  task `ring_watch`: the declared ring, when it changes ──▶ intake, which starts and ends publishers ([`Publishers`])
//! ```
//!
//! **What runs.** A task that panics would leave its part undone for ever: its cluster, its dead letters, the ring. So it ends
//! the process, which commits what is confirmed. Whoever starts it again has a sound one. Only spans are no reason: they are
//! dropped and counted.
//!
//! | task or thread | made by | ends |
//! |---|---|---|
//! | task `admin`, and one for each of its connections | `Surroundings::start` | with the engine |
//! | task `ring_watch` | `Surroundings::start` | with the engine |
//! | task `publisher NAME` for each cluster | [`Publishers::open`], when a ring names the cluster | when the intake drops its channel |
//! | task `dead_letter` | `start_dead_letters`, where that is declared | when the intake drops its channel |
//! | task `beacon` | `Path::start`; it sleeps while no ring declares a beacon | when the intake drops its channel |
//! | task `beacon NAME` for each cluster | the beacon (`beacon/posts.rs`) | with the beacon, or when the cluster is left |
//! | task `traces` | `start_traces`, where that is declared | when the intake drops its channel |
//! | thread `intake` | `start_intake` | asked to stop, or by itself |
//! | thread `commit` | the intake (`intake/committer.rs`) | with the intake |
//! | threads of librdkafka | each of its clients: the intake's consumer, its reader of parked records (`intake/replay.rs`), its probe of damaged batches (`intake/damage/probe.rs`), the producer of dead letters (`outputs/kafka.rs`) | with their client |
//! | threads for blocking work | tokio: writes of dead letters to a file (`outputs/file.rs`), reads of TLS files | after their work |
//! | tasks of async-nats | a look at a stream (`outputs/nats/stream_watch.rs`, `connecting.rs`), polled by the publisher | after their answer |
//!
//! **What lies between.** The intake counts what it has handed out and not got back. It takes nothing more from Kafka at the
//! caps (`engine.maxPending…`). So a channel of commands or receipts holds at most that much, and needs no bound of its own.
//!
//! | channel | from | to | holds at most |
//! |---|---|---|---|
//! | commands | intake | each publisher, the dead letter | what the caps allow |
//! | receipts | all outputs | intake | what the caps allow: one for each record |
//! | rings, outlook | `ring_watch` | intake, `admin` | the newest |
//! | what the API says of the ring | its watch | `ring_watch` | 4 (`ring_watch.rs`) |
//! | status | intake, `beacon` | `admin` | the newest of each |
//! | how far we are, and what was heard | intake, `beacon` | `beacon`, intake | the newest, once a second |
//! | what clusters bring | `beacon NAME` | `beacon` | 1,024 (`beacon.rs`); what is said again anyhow is dropped |
//! | digests and statements | `beacon` | `beacon NAME` | 16 (`beacon/posts.rs`); more are dropped, and said again |
//! | answers | `beacon NAME` | the cluster's publisher | 64 (`outputs/nats/answers.rs`); more are dropped and counted |
//! | copies for former owners | intake | each publisher, among its commands | 8,192 and 8 MiB (`outputs/nats/mirror.rs`); more are dropped and counted |
//! | ended traces | intake | `traces` | 2,048 (`traces.rs`); more are dropped and counted |
//! | commits, and their answers | intake, `commit` | `commit`, intake | 2 for each topic: one that is out, and the last one |
//! | events of the group | librdkafka | intake | what librdkafka says between two turns (`intake/context.rs`) |
//! | abandonment | publishers | intake | nothing: it ends when all have answered (`intake/group.rs`) |
//! | stop | the process, the engine | engine, intake | one word |
//! | end | intake | engine | one result |

mod error;
#[cfg(test)]
mod tests;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::mpsc as blocking;
use std::time::Duration;

use forwarder_core::delivery::partition::Inputs;
use forwarder_core::document::{Checked, Document, PublishMode, RingConfig};
use forwarder_core::fanout::dispatch::RingEpoch;
use forwarder_core::fanout::route::{RouteOptions, Router};
use forwarder_core::status::{BeaconStatus, Phase, Status};
use forwarder_core::subject::Template;
use futures::FutureExt as _;
use futures::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{Instrument, error, info, info_span, warn};

pub use self::error::EngineError;
use crate::admin::Admin;
use crate::beacon::Beacon;
use crate::intake::{Intake, IntakeError, Links, RingProgram, open_ring};
use crate::lease::Lease;
use crate::metrics::Metrics;
use crate::outputs::Receipts;
use crate::outputs::dead_letter::{DeadLetterQueue, DeadLetters};
use crate::outputs::nats::Publishers;
use crate::ring_watch::{Outlook, RingOrigin, RingWatch, Rings};
use crate::tasks::{self, Tasks};
use crate::traces::{Exporter, Identity, Tracer};
use forwarder_service::clock::Clock;
use forwarder_service::heartbeat::Health;
use forwarder_service::http::Server;
use forwarder_service::shutdown::{self, Shutdown, Trigger};

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

/// Forwards until `shutdown`, then drains, commits and leaves. `document` is all but the ring, which comes from `ring`. While there
/// is none yet, nothing is asked of Kafka; probes and status are there and say so.
///
/// # Errors
/// What keeps the forwarder from starting or from going on; see [`EngineError`]. Outages of Kafka or NATS are none.
pub async fn run(document: Checked<Document>, ring: RingOrigin, shutdown: Shutdown) -> Result<(), EngineError> {
    let mut surroundings = Surroundings::start(&document, ring, shutdown.clone()).await?;
    let Some(ring) = surroundings.first_ring(shutdown.clone()).await? else {
        info!("stopping: the process got a stop signal before it had a ring");
        return Ok(());
    };
    let config = Arc::new(document.with_ring(ring));
    let (path, _beside) = Path::start(&config, surroundings)?;
    path.run(shutdown).await
}

/// What is there before the first ring, and goes on beside the record's path.
struct Surroundings {
    metrics: Metrics,
    health: Health,
    status: watch::Sender<Status>,
    beacon: watch::Sender<Option<BeaconStatus>>,
    rings: Rings,
    outlook: watch::Receiver<Outlook>,
    tasks: Tasks,
    /// Ends with the engine, however that ends. Without `admin` nobody sees how we are, without `ring_watch` no new ring comes.
    beside: JoinSet<()>,
}

impl Surroundings {
    /// Serves probes, metrics and status, and watches the ring.
    async fn start(document: &Checked<Document>, ring: RingOrigin, mut stop: Shutdown) -> Result<Self, EngineError> {
        let metrics = Metrics::new(&document.admin)?;
        let health = Health::default();
        let (status, statuses) = watch::channel(Status::default());
        let (beacon, beacon_out) = watch::channel(None);
        let (ring_watch, rings, outlook) = RingWatch::new(document, ring);

        let server = Server::bind(document.admin.listens_on(), document.admin.port).await?;
        info!(address = %server.address(), "serving probes, metrics and status");
        let admin = Admin {
            health: health.clone(),
            metrics: metrics.clone(),
            status: statuses,
            ring: outlook.clone(),
            beacon: beacon_out,
            credentials_version_file: document.admin.credentials_version_file.clone(),
        };
        let log_requests = document.logging.http_requests;
        let serving = async move {
            let stop = async move { stop.requested().await };
            admin.serve(server, log_requests, stop).await;
        };
        let tasks = Tasks::new(Handle::current(), health.clone());
        let mut beside = JoinSet::new();
        beside.spawn(tasks.guarded("admin", serving.instrument(info_span!("admin"))));
        beside.spawn(tasks.guarded("ring_watch", ring_watch.run().instrument(info_span!("ring_watch"))));
        Ok(Self {
            metrics,
            health,
            status,
            beacon,
            rings,
            outlook,
            tasks,
            beside,
        })
    }

    /// Waits for the ring to begin with; none, if the process is to stop before there is one.
    async fn first_ring(&mut self, mut stop: Shutdown) -> Result<Option<Checked<RingConfig>>, EngineError> {
        loop {
            if let Some(ring) = self.rings.borrow_and_update().as_ref() {
                self.status.send_modify(|status| status.phase = Phase::Starting);
                return Ok(Some(Checked::clone(ring)));
            }
            let reason = self.outlook.borrow_and_update().why_none();
            self.status
                .send_modify(|status| status.phase = Phase::WithoutRing(reason));
            // The watch lives as long as the engine, so neither of its ends is ever closed.
            tokio::select! {
                _ = self.rings.changed() => {}
                _ = self.outlook.changed() => {}
                () = stop.requested() => return Ok(None),
                panicked = self.tasks.panicked() => return Err(panicked.into()),
            }
        }
    }
}

/// The record's path, from the intake to the outputs, while it runs.
struct Path {
    tasks: Tasks,
    exporting: Option<JoinHandle<()>>,
    /// Asks the intake to stop.
    trigger: Trigger,
    /// How the intake has ended.
    ended: oneshot::Receiver<Result<(), IntakeError>>,
    /// How long the intake may take to end.
    bound: Duration,
}

impl Path {
    /// Starts the outputs and the intake. What goes on beside them is given back.
    fn start(config: &Arc<Checked>, surroundings: Surroundings) -> Result<(Self, JoinSet<()>), EngineError> {
        let Surroundings {
            metrics,
            health,
            status,
            beacon,
            rings,
            outlook: _,
            tasks,
            beside,
        } = surroundings;
        let clock = Clock::start();
        // Not held yet: nothing is published before a commit has proved that we are a member of the group.
        let lease = Lease::new(clock, config.fence_timeout());
        let (receipts_in, receipts) = blocking::channel();

        let mut publishers = Publishers::new(
            Arc::clone(config),
            receipts_in.clone(),
            metrics.clone(),
            clock,
            lease.clone(),
            tasks.clone(),
        );
        let ring_epoch = open_ring(&config.ring, &mut publishers)?;
        let dead_letter = start_dead_letters(config, receipts_in, &metrics, &tasks)?;
        let (beacon, to_beacon) = Beacon::new(config, beacon, metrics.clone(), clock, tasks.clone());
        tasks.spawn("beacon", beacon.run().instrument(info_span!("beacon")));
        let (tracer, exporting) = start_traces(config, &metrics, clock)?.unzip();

        // Asked to stop by whoever runs us, or because a task has panicked.
        let (trigger, stopping) = shutdown::channel();
        metrics
            .ring_epoch
            .set(i64::try_from(config.ring.epoch).unwrap_or(i64::MAX));
        let intake = Intake::new(
            Arc::clone(config),
            program(config, &ring_epoch)?,
            ring_epoch,
            Links {
                publishers,
                dead_letter,
                receipts,
                shutdown: stopping,
                heartbeat: health.heartbeat("intake", STUCK_AFTER),
                rings,
                status,
                lease,
                tracer,
                beacon: to_beacon,
            },
            metrics,
            clock,
        )?;
        let path = Self {
            tasks,
            exporting,
            trigger,
            ended: start_intake(intake)?,
            bound: Duration::from_millis(config.engine.drain_timeout_ms) + CLOSE_TIMEOUT,
        };
        Ok((path, beside))
    }

    /// Goes on until the intake ends by itself, the process is to stop or a task panics. Then everything ends, in the order of the
    /// path.
    async fn run(mut self, mut stop: Shutdown) -> Result<(), EngineError> {
        let by_itself = tokio::select! {
            ended = &mut self.ended => Some(ended),
            () = stop.requested() => None,
            _ = self.tasks.panicked() => None,
        };
        self.trigger.stop();
        let ended = match by_itself {
            Some(ended) => ended,
            None => match tokio::time::timeout(self.bound, &mut self.ended).await {
                Ok(ended) => ended,
                Err(_) => {
                    let panicked = self.tasks.first_panic();
                    return Err(panicked.map_or(EngineError::CloseTimeout(self.bound), EngineError::Panicked));
                }
            },
        };
        end_outputs(&self.tasks).await;
        end_traces(self.exporting).await;
        if let Some(panicked) = self.tasks.first_panic() {
            return Err(panicked.into());
        }
        match ended {
            Ok(result) => Ok(result?),
            Err(_) => Err(EngineError::Thread("it panicked; see the log".to_owned())),
        }
    }
}

/// Starts the task that writes dead letters, where one is declared.
fn start_dead_letters(
    config: &Checked,
    receipts: blocking::Sender<Receipts>,
    metrics: &Metrics,
    tasks: &Tasks,
) -> Result<Option<DeadLetterQueue>, EngineError> {
    let Some(declared) = &config.dead_letter else {
        return Ok(None);
    };
    let (commands_in, commands) = mpsc::unbounded_channel();
    let writer = DeadLetters::open(declared, config, commands, receipts, metrics.clone())?;
    tasks.spawn("dead_letter", writer.run().instrument(info_span!("dead_letter")));
    Ok(Some(DeadLetterQueue::new(commands_in)))
}

/// Starts the task that sends spans, where that is declared.
fn start_traces(
    config: &Checked,
    metrics: &Metrics,
    clock: Clock,
) -> Result<Option<(Tracer, JoinHandle<()>)>, EngineError> {
    let telemetry = config.telemetry.as_ref();
    let Some(declared) = telemetry.and_then(|telemetry| telemetry.traces.as_ref()) else {
        return Ok(None);
    };
    let (tracer, exporter) = Tracer::new(declared, identity(config), metrics, clock)?;
    let exporting = tokio::spawn(export(exporter).instrument(info_span!("traces")));
    Ok(Some((tracer, exporting)))
}

/// Starts the thread that owns the consumer. Yields how it ends.
fn start_intake<P: RingProgram + Send + 'static>(
    intake: Intake<P>,
) -> Result<oneshot::Receiver<Result<(), IntakeError>>, EngineError> {
    let (ended_in, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("intake".to_owned())
        .spawn(move || {
            let _span = info_span!("intake").entered();
            // Nobody listens any more when closing took too long.
            ended_in.send(intake.run()).ok();
        })
        .map_err(|error| EngineError::Thread(error.to_string()))?;
    Ok(ended)
}

/// The intake took the channels of commands with it, so the outputs end by themselves. A dead letter that cannot be written does not;
/// its offset is not committed.
async fn end_outputs(tasks: &Tasks) {
    let running = tasks.take();
    let aborts: Vec<_> = running.iter().map(JoinHandle::abort_handle).collect();
    if tokio::time::timeout(TASKS_TIMEOUT, join_all(running)).await.is_err() {
        warn!("some tasks did not end in time");
        aborts.iter().for_each(AbortHandle::abort);
    }
}

/// The intake took the tracer with it: what is left of spans has a moment. They are not worth more.
async fn end_traces(exporting: Option<JoinHandle<()>>) {
    if let Some(mut exporting) = exporting
        && tokio::time::timeout(EXPORT_TIMEOUT, &mut exporting).await.is_err()
    {
        exporting.abort();
    }
}

/// Sends spans. A panic ends that alone: they are dropped and counted from then on, and no record is concerned.
async fn export(exporter: Exporter) {
    if let Err(panic) = AssertUnwindSafe(exporter.run()).catch_unwind().await {
        let reason = tasks::said(panic.as_ref());
        error!(
            reason,
            "the task `traces` has panicked. Spans are dropped until the process restarts; records are not affected. Please report this fault"
        );
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

/// The fan-out's program: from a record to its cluster, subject, headers and body.
fn program(config: &Checked, ring_epoch: &RingEpoch) -> Result<Router, EngineError> {
    let template = Template::parse(&config.publish.subject)?;
    let options = RouteOptions {
        message_id: config.publish.mode == PublishMode::JetStream,
        origin_headers: config.publish.headers.origin,
    };
    let mut router = Router::new(Arc::clone(&ring_epoch.ring), template, options);
    if let Some(beacon) = &config.ring.beacon {
        router.keep_off(&beacon.subject);
    }
    Ok(router)
}
