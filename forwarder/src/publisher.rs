//! One task per NATS cluster: keeps a connection, sends what the outbox says, hands out receipts.
//!
//! ```text
//!   orders ─▶ outbox ─▶ connection ─▶ server
//!                ▲           │
//!                └─ fences, acks, refusals ─▶ receipts
//! ```
//!
//! A connection never heals: when it ends, in whatever way, everything that it left unconfirmed goes back to the front
//! of the outbox and a new connection begins. Nothing is ever assumed to have arrived because a write succeeded.

mod session;
mod stream_watch;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forwarder_core::config::{Checked, Cluster, Publish, PublishMode};
use forwarder_core::outbox::{Backoff, Confirmation, Outbox, Outcome};
use forwarder_core::record::Invalid;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::chain;
use crate::clock::Clock;
use crate::lease::Lease;
use crate::metrics::{ClusterMetrics, Metrics, RetryReason};
use crate::nats::connection::{self, ConnectError, Connection, Login};
use crate::nats::server::{AddressError, ServerAddress, ServerPool};
use crate::nats::stream::{self, StreamError, StreamFault};
use crate::parcel::{Fate, Parcel, Receipt, Receipts, Undeliverable};

/// Records with an ack outstanding on one connection. Past 10,000 messages in a stream's own queue nats-server answers
/// "too many requests"; a few thousand keep it busy at any latency that a data centre has.
const MAX_UNACKED: usize = 4096;

/// How long a connection attempt may take, from the name's look-up to the server's first PONG.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two attempts to connect.
const MAX_CONNECT_PAUSE: Duration = Duration::from_secs(5);

/// A line per cluster and interval about refusals; the metrics count each.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the intake asks of a publisher.
#[derive(Debug)]
pub enum Order {
    /// Deliver these, each asset's in this order, behind all that was ordered before.
    Publish(Vec<Parcel>),
    /// Give back all records of these lanes: their assets have another owner now.
    Recall(Vec<u64>),
    /// The cluster is declared otherwise from now on.
    Reach(Box<Cluster>),
    /// Send nothing more on behalf of these assignments.
    Abandon {
        /// Partition and assignment epoch.
        assignments: Arc<[(i32, u32)]>,
        /// Dropped when it is done.
        done: blocking::Sender<()>,
    },
}

/// How a cluster's connection is, for people.
#[derive(Clone, Debug, Default)]
pub struct LinkStatus {
    /// The server, while there is a connection.
    pub connected: Option<String>,
    /// Why there is none, or why the last one ended, or what is wrong though there is one.
    pub last_error: Option<String>,
}

/// A cluster's connection state, shared with who reports it.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<Mutex<LinkStatus>>, Arc<AtomicUsize>);

impl Link {
    /// Records that are sent and neither confirmed nor refused.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // Held for two assignments; taken when a connection comes or goes and when a person asks.
    fn set(&self, connected: Option<String>, error: Option<String>) {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        status.connected = connected;
        if error.is_some() {
            status.last_error = error;
        }
    }

    /// What is wrong though there is a connection; none: nothing any more.
    fn set_fault(&self, fault: Option<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).last_error = fault;
    }
}

/// A publisher before it runs.
pub struct Publisher {
    /// The cluster's outlet.
    outlet: u32,
    cluster: Cluster,
    /// Our name in the server's monitoring.
    client_name: String,
    servers: ServerPool,
    publish: Publish,
    confirm_timeout: Duration,
    outbox: Outbox<Parcel>,
    outcome: Outcome<Parcel>,
    orders: mpsc::UnboundedReceiver<Order>,
    receipts: blocking::Sender<Receipts>,
    metrics: Metrics,
    counters: ClusterMetrics,
    clock: Clock,
    /// Nothing is written on behalf of an assignment without it.
    lease: Lease,
    link: Link,
    /// Held while bytes of abandoned records may still wait to be written: who asked waits until they are dropped.
    cutting: Vec<blocking::Sender<()>>,
    /// When the last line about refusals was logged: they may come by the thousand.
    refusal_logged: Option<std::time::Instant>,
    /// The fault of the stream that was logged last, and when.
    fault_logged: Option<(StreamFault, std::time::Instant)>,
    /// The stream is why there is no connection.
    stream_at_fault: bool,
    /// The cluster is declared otherwise than when the connection, or the attempt to make one, was begun.
    moved: bool,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the server closed the connection")]
    Closed,
    #[error("failed to read or write")]
    Io(#[from] std::io::Error),
    #[error("failed to understand the server")]
    Protocol(#[from] crate::nats::protocol::ProtocolError),
    #[error("the server said: {0}")]
    Server(String),
    #[error(
        "the user may not subscribe to {inbox}, where JetStream's acks arrive: allow `{prefix}.>`, or declare the cluster's inboxPrefix"
    )]
    InboxDenied { inbox: String, prefix: String },
    #[error("no answer for {0:?}")]
    Silent(Duration),
    #[error("the server is going to shut down and asks its clients to leave")]
    LameDuck,
    #[error("no stream takes `{0}`")]
    NoStream(String),
    #[error("acks do not come")]
    Stream(#[source] Box<StreamError>),
    #[error("acks did not come, because stream `{0}` was missing or changed; it is as declared again")]
    StreamMended(String),
    #[error("partitions were given up while records of theirs were being written")]
    GivenUp,
    #[error("the cluster is declared otherwise now")]
    Moved,
    #[error(
        "our membership of the consumer group is not proved any more, and records were being written: others may own them"
    )]
    Unproven,
}

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Stream(#[from] StreamError),
}

impl Publisher {
    /// A publisher for `cluster`, which reports as `outlet`.
    ///
    /// # Errors
    /// A server's URL that cannot be read.
    #[expect(clippy::too_many_arguments, reason = "called once, by the fleet")]
    pub fn new(
        outlet: u32,
        cluster: &Cluster,
        config: &Checked,
        orders: mpsc::UnboundedReceiver<Order>,
        receipts: blocking::Sender<Receipts>,
        metrics: Metrics,
        clock: Clock,
        lease: Lease,
        link: Link,
    ) -> Result<Self, AddressError> {
        let publish = config.publish.clone();
        let backoff = Backoff {
            initial: publish.retry.initial_backoff_ms.saturating_mul(1_000),
            max: publish.retry.max_backoff_ms.saturating_mul(1_000),
            attempts: publish.retry.max_attempts,
        };
        let confirmation = match publish.mode {
            PublishMode::Core => Confirmation::Fence,
            PublishMode::JetStream => Confirmation::Ack,
        };
        Ok(Self {
            outlet,
            cluster: cluster.clone(),
            client_name: format!("fanout-forwarder {}", config.source.group),
            servers: ServerPool::new(&cluster.servers)?,
            confirm_timeout: Duration::from_millis(publish.retry.confirm_timeout_ms),
            publish,
            outbox: Outbox::new(confirmation, backoff),
            outcome: Outcome::default(),
            orders,
            receipts,
            counters: metrics.cluster(&cluster.name),
            metrics,
            clock,
            lease,
            link,
            cutting: Vec::new(),
            refusal_logged: None,
            fault_logged: None,
            stream_at_fault: false,
            moved: false,
        })
    }

    /// Runs until nobody can give orders any more.
    pub async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            match self.connect().await {
                ControlFlow::Break(()) => return,
                ControlFlow::Continue(Ok((server, connection))) => {
                    let name = format!("{} at {server}", connection.info.server_name);
                    info!(
                        cluster = self.cluster.name,
                        server = name,
                        version = connection.info.version,
                        "connected to NATS"
                    );
                    self.link.set(Some(name), None);
                    // The look that came with the connection found it well.
                    if std::mem::take(&mut self.stream_at_fault) {
                        self.link.set_fault(None);
                    }
                    self.counters.connected.set(1);
                    let published = self.counters.published.get();
                    let ended = self.session(connection, &server).await;
                    self.counters.connected.set(0);
                    // With the connection went whatever it had not written.
                    self.cutting.clear();
                    self.moved = false;
                    let again = self.outbox.connection_lost(&mut self.outcome);
                    self.show_in_flight();
                    self.hand_out();
                    let ControlFlow::Continue(reason) = ended else {
                        self.link.set(None, None);
                        return;
                    };
                    let reason = chain(&reason);
                    self.counters.reconnects.inc();
                    self.counters.retries(RetryReason::Disconnected).inc_by(again as u64);
                    self.counters.repeats_possible.inc_by(again as u64);
                    // A connection that brought nothing on its way is as good as none: what ends each one at once (a limit
                    // of the server's that we do not know, say) must not make a loop without a pause.
                    failures = if self.counters.published.get() > published {
                        0
                    } else {
                        failures.saturating_add(1)
                    };
                    if failures % 10 <= 1 {
                        warn!(
                            cluster = self.cluster.name,
                            reason, again, "lost the connection to NATS; sending again what is unconfirmed"
                        );
                    }
                    self.link.set(None, Some(reason));
                }
                ControlFlow::Continue(Err(reason)) => {
                    failures = failures.saturating_add(1);
                    // The first failure and every tenth: an outage of hours is no reason for a log of thousands of lines.
                    if failures % 10 == 1 {
                        warn!(
                            cluster = self.cluster.name,
                            reason,
                            attempt = failures,
                            "failed to connect to NATS; trying again"
                        );
                    }
                    self.link.set(None, Some(reason));
                }
            }
            if self
                .pause(connect_pause(failures, self.outlet as usize))
                .await
                .is_break()
            {
                return;
            }
        }
    }

    /// Makes a connection that is ready to publish; takes orders meanwhile. Breaks when there is nobody to give orders.
    async fn connect(&mut self) -> ControlFlow<(), Result<(ServerAddress, Connection), String>> {
        loop {
            // Each attempt begins with what is declared by now.
            self.moved = false;
            if let Some(result) = self.attempt().await? {
                return ControlFlow::Continue(result);
            }
        }
    }

    /// One attempt to connect. None: the cluster was declared otherwise meanwhile, so what came of it is nothing to learn
    /// from, and no record may be written there.
    async fn attempt(&mut self) -> ControlFlow<(), Option<Result<(ServerAddress, Connection), String>>> {
        let server = self.servers.next_server();
        let (publish, cluster, client_name) = (self.publish.clone(), self.cluster.clone(), self.client_name.clone());
        let connecting = async move {
            let login = Login::of(&cluster, &client_name);
            let connection = connection::connect(&server, login, CONNECT_TIMEOUT).await?;
            if publish.mode == PublishMode::JetStream {
                stream::ensure_stream(&cluster, &publish, &server).await?;
            }
            Ok::<_, Failed>((server, connection))
        };
        let mut connecting = std::pin::pin!(connecting);
        loop {
            tokio::select! {
                // An order that is there already comes before a connection that it may make useless.
                biased;
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => return ControlFlow::Break(()),
                },
                result = &mut connecting => {
                    if let Ok((server, connection)) = &result {
                        self.servers.learn(server, &connection.info.connect_urls);
                    }
                    if let Err(Failed::Stream(error)) = &result {
                        self.stream_at_fault = true;
                        self.counters.stream_faults(error.fault()).inc();
                    }
                    return ControlFlow::Continue(Some(result.map_err(|error| chain(&error))));
                }
            }
            if self.moved {
                return ControlFlow::Continue(None);
            }
        }
    }

    /// Waits, and takes orders meanwhile. A cluster that is declared at another address is not waited for.
    async fn pause(&mut self, pause: Duration) -> ControlFlow<()> {
        let mut pause = std::pin::pin!(tokio::time::sleep(pause));
        while !self.moved {
            tokio::select! {
                () = &mut pause => break,
                order = self.orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => return ControlFlow::Break(()),
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Lets the intake see how much is on its way.
    fn show_in_flight(&self) {
        self.link.1.store(self.outbox.in_flight(), Ordering::Relaxed);
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Publish(parcels) => parcels.into_iter().for_each(|parcel| self.outbox.push(parcel)),
            Order::Recall(lanes) => {
                self.outbox.recall(&lanes, &mut self.outcome);
                self.hand_out();
            }
            Order::Reach(cluster) => match ServerPool::new(&cluster.servers) {
                Ok(servers) => {
                    self.servers = servers;
                    self.cluster = *cluster;
                    self.moved = true;
                }
                // Cannot be: the document was checked.
                Err(error) => {
                    warn!(cluster = self.cluster.name, %error, "the new address cannot be used; the old one stays")
                }
            },
            Order::Abandon { assignments, done } => {
                let sent = self.outbox.abandon(&assignments, &mut self.outcome);
                self.hand_out();
                // Whose bytes wait cannot be told, so an answer waits for those of earlier ones too.
                if sent > 0 || !self.cutting.is_empty() {
                    self.cutting.push(done);
                }
            }
        }
    }

    /// Turns what the outbox let go into receipts.
    fn hand_out(&mut self) {
        let Outcome {
            confirmed,
            given_up,
            dropped,
            recalled,
        } = &mut self.outcome;
        if confirmed.is_empty() && given_up.is_empty() && dropped.is_empty() && recalled.is_empty() {
            return;
        }
        let overtaken = self.outbox.overtaken().saturating_sub(self.counters.overtaken.get());
        self.counters.overtaken.inc_by(overtaken);
        let now = self.clock.micros();
        let mut receipts = Vec::with_capacity(confirmed.len() + given_up.len() + dropped.len() + recalled.len());
        if !confirmed.is_empty() {
            self.counters.published.inc_by(confirmed.len() as u64);
            let latency = self.counters.confirmed.local();
            let processing = self.metrics.message_processing_latency.local();
            let queueing = self.metrics.queue_time.local();
            for (mut parcel, sent_at) in confirmed.drain(..) {
                latency.observe(seconds(now.saturating_sub(parcel.taken_at)));
                processing.observe(seconds(now.saturating_sub(sent_at)));
                queueing.observe(seconds(sent_at.saturating_sub(parcel.taken_at)));
                let weight = parcel.weight();
                let mut trace = parcel.trace.take();
                if let Some(trace) = &mut trace {
                    trace.published(&self.cluster.name, sent_at, now);
                }
                receipts.push(Receipt {
                    tag: parcel.origin.tag(),
                    weight,
                    trace,
                    fate: Fate::Confirmed,
                });
            }
            latency.flush();
            processing.flush();
            queueing.flush();
        }
        receipts.extend(given_up.drain(..).map(|parcel| undeliverable(parcel, Invalid::Refused)));
        receipts.extend(dropped.drain(..).map(|mut parcel| Receipt {
            tag: parcel.origin.tag(),
            weight: parcel.weight(),
            trace: parcel.trace.take(),
            fate: Fate::Dropped,
        }));
        let sent = recalled.iter().filter(|(_, sent)| *sent).count();
        self.counters.repeats_possible.inc_by(sent as u64);
        receipts.extend(recalled.drain(..).map(|(parcel, _)| Receipt {
            tag: parcel.origin.tag(),
            weight: parcel.weight(),
            // It goes on with the record.
            trace: None,
            fate: Fate::Recalled(Box::new(parcel)),
        }));
        // When the intake is gone nobody counts any more: what is uncommitted is read again by who comes next.
        self.receipts
            .send(Receipts {
                outlet: self.outlet,
                receipts,
            })
            .ok();
    }

    /// Whether a refusal may be logged: there may be thousands a second.
    fn may_log_refusal(&mut self) -> bool {
        let may = self
            .refusal_logged
            .is_none_or(|logged| logged.elapsed() >= LOG_INTERVAL);
        if may {
            self.refusal_logged = Some(std::time::Instant::now());
        }
        may
    }
}

fn undeliverable(mut parcel: Parcel, reason: Invalid) -> Receipt {
    let (tag, weight, lane) = (parcel.origin.tag(), parcel.weight(), parcel.lane);
    let trace = parcel.trace.take();
    let letter = parcel.into_letter(reason);
    Receipt {
        tag,
        weight,
        trace,
        fate: Fate::Undeliverable(Box::new(Undeliverable { lane, letter })),
    }
}

/// 100 ms, doubling up to [`MAX_CONNECT_PAUSE`]; the index spreads clusters (and, by their order, forwarders) a little.
fn connect_pause(failures: u32, index: usize) -> Duration {
    let nominal = Duration::from_millis(100)
        .saturating_mul(1 << failures.min(10))
        .min(MAX_CONNECT_PAUSE);
    let spread = u32::try_from((index * 37 + failures as usize * 13) % 32).unwrap_or(0);
    nominal / 2 + nominal / 64 * spread
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
