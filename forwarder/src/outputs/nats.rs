//! One task per NATS cluster: keeps a connection, sends what the outbox says, hands out receipts.
//!
//! ```text
//!   commands ─▶ outbox ─▶ connection ─▶ server
//!                ▲           │
//!                └─ fences, acks, refusals ─▶ receipts
//! ```
//!
//! A connection never heals: when it ends, in whatever way, everything that it left unconfirmed goes back to the front
//! of the outbox and a new connection begins. Nothing is ever assumed to have arrived because a write succeeded.

mod answers;
mod connecting;
mod ended;
mod link;
mod mirror;
mod publishers;
mod receipts;
mod session;
mod stream_watch;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use forwarder_core::delivery::outbox::{Backoff, Confirmation, Outbox, Outcome, Ticket};
use forwarder_core::document::{Checked, Cluster, Publish, PublishMode};
use forwarder_core::fanout::dispatch::RingEpoch;
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::answers::AnswerQueue;
pub use self::answers::Answers;
use self::ended::Ended;
pub use self::link::{Link, LinkStatus};
use self::mirror::Copies;
pub use self::mirror::MirrorCopy;
pub use self::publishers::{Member, Publishers};
use super::{Command, Receipts};
use crate::lease::Lease;
use crate::message::Message;
use crate::metrics::{ClusterMetrics, Metrics, RetryReason};
use forwarder_nats::server::{AddressError, ServerPool};
use forwarder_service::chain;
use forwarder_service::clock::Clock;
use forwarder_service::log_limit::LogLimit;

/// Records with an ack outstanding on one connection. Past 10,000 messages in a stream's own queue nats-server answers
/// "too many requests"; a few thousand keep it busy at any latency that a data centre has.
const MAX_UNACKED: usize = 4096;

/// A line per cluster and interval about refusals; the metrics count each.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What a publisher is told.
#[derive(Debug)]
pub enum ToPublisher {
    /// What every output may be asked.
    Command(Command<Message>),
    /// The cluster is declared otherwise from now on.
    Reach(Box<Cluster>),
    /// A copy for subscribers that stay here, though their asset has moved.
    Copy(MirrorCopy),
    /// A ring is used from here on; told only where copies are made.
    Ring(RingEpoch),
}

impl From<Command<Message>> for ToPublisher {
    fn from(command: Command<Message>) -> Self {
        Self::Command(command)
    }
}

/// A publisher before it runs.
pub struct Publisher {
    /// The number of the cluster's output.
    output: u32,
    cluster: Cluster,
    /// Our name in the server's monitoring.
    client_name: String,
    servers: ServerPool,
    publish: Publish,
    confirm_timeout: Duration,
    outbox: Outbox<Message>,
    outcome: Outcome<Message>,
    commands: mpsc::UnboundedReceiver<ToPublisher>,
    /// What subscribers are to get through the same connection.
    answers: AnswerQueue,
    copies: Copies,
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

impl Publisher {
    /// A publisher for `cluster`, which reports as `output`.
    ///
    /// # Errors
    /// A server's URL that cannot be read.
    #[expect(clippy::too_many_arguments, reason = "called once, by `Publishers`")]
    fn new(
        output: u32,
        cluster: &Cluster,
        config: &Checked,
        commands: mpsc::UnboundedReceiver<ToPublisher>,
        answers: AnswerQueue,
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
        let counters = metrics.cluster(&cluster.name);
        Ok(Self {
            output,
            cluster: cluster.clone(),
            client_name: format!("fanout-forwarder {}", config.source.group),
            servers: ServerPool::of(cluster)?,
            confirm_timeout: Duration::from_millis(publish.retry.confirm_timeout_ms),
            publish,
            outbox: Outbox::new(confirmation, backoff),
            outcome: Outcome::default(),
            commands,
            answers,
            copies: Copies::new(counters.mirror.clone(), clock.micros()),
            receipts,
            counters,
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

    /// Runs until nobody can give commands any more.
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
                    // The check that came with the connection found it well.
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
                    let (name, now) = (&self.cluster.name, self.clock.micros());
                    let why = match &ended {
                        ControlFlow::Continue(ended) => Some(ended),
                        ControlFlow::Break(()) => None,
                    };
                    self.copies.connection_lost(why, began.elapsed(), name, now);
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
                            reason, again, "lost the connection to NATS; sending the unconfirmed records again"
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
            let pause = connecting::connect_pause(failures, self.output as usize);
            if self.pause(pause).await.is_break() {
                return;
            }
        }
    }

    /// Lets the intake see how much is on its way.
    fn show_in_flight(&self) {
        self.link.set_in_flight(self.outbox.in_flight());
    }

    fn take(&mut self, told: ToPublisher) {
        match told {
            ToPublisher::Command(command) => self.obey(command),
            ToPublisher::Copy(copy) => self.copies.push(copy, self.clock.micros()),
            ToPublisher::Ring(ring_epoch) => self.copies.ring_used(self.output, &ring_epoch),
            ToPublisher::Reach(cluster) => match ServerPool::of(&cluster) {
                Ok(servers) => {
                    self.servers = servers;
                    self.cluster = *cluster;
                    self.moved = true;
                }
                // Cannot be: the document was checked.
                Err(error) => {
                    warn!(cluster = self.cluster.name, %error, "the new server address cannot be used; the old address stays in use")
                }
            },
        }
    }

    fn obey(&mut self, command: Command<Message>) {
        match command {
            Command::Deliver(messages) => {
                let closed = messages.into_iter().filter_map(|message| self.outbox.push(message));
                self.outcome.returned.extend(closed.map(|message| (message, false)));
                self.hand_out();
            }
            Command::Open(lanes) => lanes.into_iter().for_each(|lane| self.outbox.open(lane)),
            Command::Recall(lanes) => {
                self.outbox.recall(&lanes, &mut self.outcome);
                self.hand_out();
            }
            Command::Abandon { assignments, done } => {
                self.copies.abandon(&assignments);
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
                "the server ended the connection over a record that was sent alone; its asset's records wait"
            );
        } else if self.silent_ends >= MAX_SILENT_ENDS {
            let suspects = self.outbox.suspect();
            warn!(
                cluster = self.cluster.name,
                suspects, "the server keeps ending connections; the publisher sends each unconfirmed record alone now"
            );
        }
    }

    /// Whether a refusal may be logged: there may be thousands a second.
    fn may_log_refusal(&mut self) -> bool {
        self.refusal_lines.pass(&()).is_some()
    }
}
