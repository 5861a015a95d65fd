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

mod connecting;
mod session;
mod stream_watch;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc as blocking;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forwarder_core::delivery::outbox::{Backoff, Confirmation, Outbox, Outcome, Ticket};
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::document::{Checked, Cluster, Publish, PublishMode};
use forwarder_core::fanout::dispatch::Closed;
use forwarder_core::record::Invalid;
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::lease::Lease;
use crate::metrics::{ClusterMetrics, Metrics, RetryReason};
use crate::parcel::{Fate, Parcel, Receipt, Receipts, Undeliverable};
use forwarder_nats::server::{AddressError, ForeignServer, ServerPool};
use forwarder_nats::stream::StreamError;
use forwarder_service::chain;
use forwarder_service::clock::Clock;
use forwarder_service::log_limit::LogLimit;

/// Records with an ack outstanding on one connection. Past 10,000 messages in a stream's own queue nats-server answers
/// "too many requests"; a few thousand keep it busy at any latency that a data centre has.
const MAX_UNACKED: usize = 4096;

/// A line per cluster and interval about refusals; the metrics count each.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the intake asks of a publisher.
#[derive(Debug)]
pub enum Order {
    /// Deliver these, each asset's in this order, behind all that was ordered before.
    Publish(Vec<Parcel>),
    /// Give back all records of these lanes: somebody else takes care of them.
    Recall(Vec<u64>),
    /// Take records of these lanes again: see [`Outbox::close`].
    Open(Vec<u64>),
    /// The cluster is declared otherwise from now on.
    Reach(Box<Cluster>),
    /// Send nothing more on behalf of these assignments.
    Abandon {
        /// Partition and assignment epoch.
        assignments: Arc<[(PartitionId, u32)]>,
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
    /// Refusals may come by the thousand.
    refusal_lines: LogLimit,
    /// By the fault of the stream.
    fault_lines: LogLimit<String>,
    /// The stream is why there is no connection.
    stream_at_fault: bool,
    /// The cluster is declared otherwise than when the connection, or the attempt to make one, was begun.
    moved: bool,
    /// So many connections in a row have ended without a word while records were out.
    silent_ends: u32,
    /// The record that was written alone and whose PONG comes next.
    alone_out: Option<Ticket>,
}

/// After so many such connections each record that was out is written alone: one of them may be what ends the connections.
const MAX_SILENT_ENDS: u32 = 2;

/// A connection that lasts longer does not end over a record.
const LASTING: Duration = Duration::from_secs(60);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the server closed the connection")]
    Closed,
    #[error("failed to read or write")]
    Io(#[from] std::io::Error),
    #[error("failed to understand the server")]
    Protocol(#[from] forwarder_nats::protocol::ProtocolError),
    #[error("the server said: {0}")]
    Server(String),
    #[error("the server refused a record and did not say which: {text}; each of {suspects} is sent alone now")]
    Unattributed { text: String, suspects: usize },
    #[error(
        "the user may not subscribe to {inbox}, where JetStream's acks arrive: allow `{prefix}.>`, or declare the cluster's inboxPrefix"
    )]
    InboxDenied { inbox: String, prefix: String },
    #[error("no answer for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Foreign(#[from] ForeignServer),
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
            servers: ServerPool::of(cluster)?,
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
            refusal_lines: LogLimit::new(LOG_INTERVAL),
            fault_lines: LogLimit::new(LOG_INTERVAL),
            stream_at_fault: false,
            moved: false,
            silent_ends: 0,
            alone_out: None,
        })
    }

    /// Runs until nobody can give orders any more.
    pub async fn run(mut self) {
        #[cfg(test)]
        crate::tasks::tests::panic_if_asked(&self.cluster.name);
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
                    let began = Instant::now();
                    let ended = self.session(connection, &server).await;
                    self.counters.connected.set(0);
                    self.servers.used(&server);
                    // With the connection went whatever it had not written.
                    self.cutting.clear();
                    self.moved = false;
                    self.note_end(&ended, began.elapsed());
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
            let pause = connecting::connect_pause(failures, self.outlet as usize);
            if self.pause(pause).await.is_break() {
                return;
            }
        }
    }

    /// Lets the intake see how much is on its way.
    fn show_in_flight(&self) {
        self.link.1.store(self.outbox.in_flight(), Ordering::Relaxed);
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Publish(parcels) => {
                let closed = parcels.into_iter().filter_map(|parcel| self.outbox.push(parcel));
                self.outcome.returned.extend(closed.map(|parcel| (parcel, false)));
                self.hand_out();
            }
            Order::Open(lanes) => lanes.into_iter().for_each(|lane| self.outbox.open(lane)),
            Order::Recall(lanes) => {
                self.outbox.recall(&lanes, &mut self.outcome);
                self.hand_out();
            }
            Order::Reach(cluster) => match ServerPool::of(&cluster) {
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

    /// Takes note of how a connection has ended. A record may be what ends each: then nobody but the end itself tells.
    fn note_end(&mut self, ended: &ControlFlow<(), Ended>, lasted: Duration) {
        let alone = self.alone_out.take();
        let is_silent = matches!(
            ended,
            ControlFlow::Continue(Ended::Closed | Ended::Io(_) | Ended::Protocol(_))
        );
        if !is_silent || lasted > LASTING || self.outbox.in_flight() == 0 {
            self.silent_ends = 0;
            return;
        }
        self.silent_ends += 1;
        let now = self.clock.micros();
        if let Some(ticket) = alone.filter(|_| self.silent_ends > MAX_SILENT_ENDS)
            && self.outbox.blame_at_the_end(ticket, now, &mut self.outcome)
        {
            self.counters.publish_failures.inc();
            self.counters.retries(RetryReason::Refused).inc();
            warn!(
                cluster = self.cluster.name,
                "the connection ends over a record that was sent alone; its asset's records wait"
            );
        } else if self.silent_ends >= MAX_SILENT_ENDS {
            let suspects = self.outbox.suspect();
            warn!(
                cluster = self.cluster.name,
                suspects, "connections end one after the other; each record that was out is sent alone now"
            );
        }
    }

    /// Closes the lanes whose heads are refused for longer than now: what is behind each head goes back to the intake.
    fn close_denied(&mut self) -> Vec<Closed> {
        let mut closed = Vec::new();
        for lane in std::mem::take(&mut self.outcome.denied) {
            let head = self.outbox.close(lane, &mut self.outcome);
            closed.extend(head.map(|head| Closed {
                lane,
                weight: head.weight(),
            }));
        }
        closed
    }

    /// Turns what the outbox let go into receipts.
    fn hand_out(&mut self) {
        let closed = self.close_denied();
        let Outcome {
            confirmed,
            given_up,
            impossible,
            denied: _,
            returned,
            dropped,
            recalled,
        } = &mut self.outcome;
        let rare = given_up.len() + impossible.len() + returned.len() + dropped.len() + recalled.len();
        if confirmed.is_empty() && rare == 0 && closed.is_empty() {
            return;
        }
        let overtaken = self.outbox.overtaken().saturating_sub(self.counters.overtaken.get());
        self.counters.overtaken.inc_by(overtaken);
        let now = self.clock.micros();
        let mut receipts = Vec::with_capacity(confirmed.len() + rare);
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
        receipts.extend(
            impossible
                .drain(..)
                .map(|parcel| undeliverable(parcel, Invalid::Impossible)),
        );
        let sent = returned.iter().filter(|(_, sent)| *sent).count();
        self.counters.repeats_possible.inc_by(sent as u64);
        receipts.extend(returned.drain(..).map(|(mut parcel, _)| Receipt {
            tag: parcel.origin.tag(),
            weight: parcel.weight(),
            trace: parcel.trace.take(),
            fate: Fate::Returned(parcel.lane),
        }));
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
                closed,
                receipts,
            })
            .ok();
    }

    /// Whether a refusal may be logged: there may be thousands a second.
    fn may_log_refusal(&mut self) -> bool {
        self.refusal_lines.pass(&()).is_some()
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

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
