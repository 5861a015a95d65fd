//! The thread that owns the Kafka consumer: takes records, routes them, counts what waits, settles, commits.
//!
//! ```text
//!              ┌──────────────────────────── one thread ────────────────────────────┐
//!   Kafka ───▶ │ poll → receive (offsets) → route → batch per cluster ─▶ orders      │──▶ publishers
//!              │ commit ◀─ contiguous prefix ◀─ settle (epoch checked) ◀─ receipts   │◀── dead letter
//!              └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Offsets, epochs and caps belong to this thread alone, so checking a receipt's epoch and storing its offset is one
//! step without a lock. Rebalances are noted in librdkafka's callback and carried out here, between two batches, so that
//! receipts, commits and status go on while a revoked partition drains.

mod commits;
mod context;
mod flow;
mod group;
mod headers;
mod ledger;
mod reject;
mod starts;
mod watchdog;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use forwarder_core::config::Checked;
use forwarder_core::record::{self, Invalid, Timestamp, TimestampKind};
use forwarder_core::route::{Draft, Incoming, Router};
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use self::commits::Committer;
use self::context::{Context, Event, OwnConsumer};
use self::group::{Joining, Leaving, Partition};
use self::ledger::Ledger;
use self::reject::Rejects;
use self::watchdog::Watchdog;
pub use self::watchdog::WatchdogError;
use crate::admin::{Heartbeat, Status};
use crate::clock::{Clock, wall_millis};
use crate::kafka;
use crate::metrics::{ClusterMetrics, Metrics};
use crate::parcel::{Fate, Letter, Origin, Original, Parcel, Receipts};
use crate::publisher::{Link, Order};
use crate::shutdown::Shutdown;

/// Below this long without room, records are just not polled: pausing makes librdkafka drop what it has prefetched.
const PAUSE_AFTER: Duration = Duration::from_millis(500);

/// Longest wait in one poll while receipts may come in: they wait that long to be counted and committed.
const BUSY_POLL: Duration = Duration::from_millis(5);

/// How often gauges and status are brought up to date.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What the intake is connected to.
pub struct Links {
    /// The publishers, in the order of the ring's clusters.
    pub publishers: Vec<mpsc::UnboundedSender<Order>>,
    /// The dead letter, where one is declared.
    pub dead_letter: Option<mpsc::UnboundedSender<Letter>>,
    /// What comes back from all of them.
    pub receipts: Receiver<Receipts>,
    /// Asked to stop: drain, commit, leave.
    pub shutdown: Shutdown,
    /// Shows that the loop turns.
    pub heartbeat: Heartbeat,
    /// The publishers' connections, in the order of the ring.
    pub connections: Vec<Link>,
    /// Where the status is put up.
    pub status: watch::Sender<Status>,
}

/// Why the intake ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The Kafka client could not be made.
    #[error("failed to create the Kafka client")]
    Create(#[from] kafka::KafkaSetupError),
    /// The thread that commits could not be started.
    #[error("failed to start a thread")]
    Thread(#[from] std::io::Error),
    /// The topic could not be subscribed to.
    #[error("failed to subscribe to topic `{topic}`")]
    Subscribe {
        /// The topic.
        topic: String,
        /// librdkafka's reason.
        source: KafkaError,
    },
    /// librdkafka says that this client can never work again.
    #[error("the Kafka client has failed for good: {0}")]
    Fatal(String),
    /// The process was no stable member of its group for too long.
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
}

/// See the module.
pub struct Intake {
    config: Arc<Checked>,
    consumer: Arc<OwnConsumer>,
    router: Router,
    links: Links,
    metrics: Metrics,
    /// In the order of the ring.
    clusters: Vec<ClusterMetrics>,
    clock: Clock,
    partitions: BTreeMap<i32, Partition>,
    /// Grows with every assignment of any partition.
    epoch: u32,
    /// What the commits' metadata says: see [`forwarder_core::commit::Metadata`].
    group_partitions: Option<u32>,
    /// When partitions are to be taken anew because the position of one is gone.
    repair_at: Option<Instant>,
    committer: Committer,
    joining: Option<Joining>,
    leaving: Option<Leaving>,
    ledger: Ledger,
    rejects: Rejects,
    watchdog: Watchdog,
    /// When the caps were reached, and whether the partitions are paused because of it.
    full_since: Option<Instant>,
    paused: bool,
    next_commit: Instant,
    next_report: Instant,
    last_commit_millis: Option<i64>,
    draft: Draft,
    original: Vec<u8>,
    batches: Vec<Vec<Parcel>>,
}

impl Intake {
    /// Makes the consumer; nothing is asked of Kafka yet.
    ///
    /// # Errors
    /// Credentials that cannot be read, settings that librdkafka refuses.
    pub fn new(
        config: Arc<Checked>,
        router: Router,
        links: Links,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, IntakeError> {
        let consumer = Arc::new(OwnConsumer::new(kafka::create_consumer(&config, Context::new)?));
        let committer = Committer::start(Arc::clone(&consumer))?;
        let clusters = links.publishers.len();
        let now = Instant::now();
        Ok(Self {
            consumer,
            router,
            clusters: config
                .ring
                .clusters
                .iter()
                .map(|cluster| metrics.cluster(&cluster.name))
                .collect(),
            metrics,
            clock,
            partitions: BTreeMap::new(),
            epoch: 0,
            group_partitions: None,
            repair_at: None,
            committer,
            joining: None,
            leaving: None,
            ledger: Ledger::new(&config.engine, clusters),
            rejects: Rejects::default(),
            watchdog: Watchdog::new(&config.engine, config.source.protocol, now),
            full_since: None,
            paused: false,
            next_commit: now,
            next_report: now,
            last_commit_millis: None,
            draft: Draft::default(),
            original: Vec::new(),
            batches: (0..clusters).map(|_| Vec::new()).collect(),
            links,
            config,
        })
    }

    /// Runs until it is asked to stop or can go on no more; blocks the thread.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn run(mut self) -> Result<(), IntakeError> {
        let result = self.take_until_stopped();
        match &result {
            Ok(()) => self.drain(),
            Err(error) => error!(%error, "the intake ends; what is uncommitted is delivered again"),
        }
        self.leave();
        result
    }

    fn take_until_stopped(&mut self) -> Result<(), IntakeError> {
        let topic = self.config.source.topic.clone();
        self.consumer
            .subscribe(&[&topic])
            .map_err(|source| IntakeError::Subscribe {
                topic: topic.clone(),
                source,
            })?;
        info!(topic, group = self.config.source.group, "subscribed");
        while !self.links.shutdown.is_requested() {
            self.links.heartbeat.beat();
            self.settle();
            self.handle_events();
            self.go_on_joining();
            self.go_on_leaving();
            self.repair_when_due();
            self.take_commit_answer();
            self.commit_when_due();
            self.report_when_due();
            self.watchdog.check()?;
            if self.ledger.has_room() && self.queued() < self.config.engine.queue_size {
                self.make_room_known();
                self.take_batch()?;
            } else {
                self.wait_for_room()?;
            }
        }
        Ok(())
    }

    /// Takes up to a batch of records and hands them out.
    fn take_batch(&mut self) -> Result<(), IntakeError> {
        let patience = Duration::from_millis(self.config.engine.poll_timeout_ms);
        let quiet = self.ledger.is_idle() && self.joining.is_none() && self.leaving.is_none();
        self.poll(
            if quiet { patience } else { patience.min(BUSY_POLL) },
            self.config.engine.batch_size,
        )
    }

    /// Polls until `limit` records are taken, nothing more is there or the caps are reached; waits for the first one.
    fn poll(&mut self, mut patience: Duration, limit: usize) -> Result<(), IntakeError> {
        self.metrics.consume_calls.inc();
        for _ in 0..limit {
            let failed = {
                let Self {
                    consumer,
                    config,
                    router,
                    partitions,
                    ledger,
                    rejects,
                    draft,
                    original,
                    batches,
                    links,
                    metrics,
                    clock,
                    ..
                } = self;
                let mut desk = Desk {
                    config,
                    router,
                    partitions,
                    ledger,
                    rejects,
                    draft,
                    original,
                    batches,
                    links,
                    metrics,
                    clock,
                };
                match consumer.poll(patience) {
                    None => break,
                    Some(Ok(message)) => {
                        desk.accept(&message);
                        None
                    }
                    Some(Err(error)) => Some(error),
                }
            };
            if let Some(error) = failed {
                self.kafka_failed(error)?;
            }
            if !self.ledger.has_room() {
                break;
            }
            patience = Duration::ZERO;
        }
        self.hand_out();
        self.metrics.queue_size_histogram.observe(self.queued() as f64);
        Ok(())
    }

    /// Records that are handed out and not sent yet.
    fn queued(&self) -> usize {
        let sent: usize = self.links.connections.iter().map(Link::in_flight).sum();
        self.ledger.records().saturating_sub(sent)
    }

    /// Sends each cluster its batch.
    fn hand_out(&mut self) {
        for (batch, publisher) in self.batches.iter_mut().zip(&self.links.publishers) {
            if !batch.is_empty() {
                // A publisher ends only when this sender is dropped, so the order always finds it.
                publisher.send(Order::Publish(std::mem::take(batch))).ok();
            }
        }
    }

    /// At the caps: lets receipts make room. Records that librdkafka has prefetched are kept for a while.
    fn wait_for_room(&mut self) -> Result<(), IntakeError> {
        let full_since = *self.full_since.get_or_insert_with(Instant::now);
        if !self.paused && full_since.elapsed() < PAUSE_AFTER {
            self.await_receipts(Duration::from_millis(20));
            return Ok(());
        }
        if !self.paused {
            self.set_paused(true);
        }
        // Only events come now: the group must hear of us though no record is wanted. (A record that was fetched before
        // the pause took hold is handled like any other: the caps give way by that one.)
        self.poll(Duration::from_millis(20), 1)
    }

    fn make_room_known(&mut self) {
        self.full_since = None;
        if self.paused && self.ledger.has_plenty() {
            self.set_paused(false);
        }
    }

    /// Counts what came back, without waiting.
    fn settle(&mut self) {
        while let Ok(receipts) = self.links.receipts.try_recv() {
            self.count(receipts);
        }
    }

    /// Waits for receipts, at most so long.
    fn await_receipts(&mut self, patience: Duration) {
        match self.links.receipts.recv_timeout(patience) {
            Ok(receipts) => self.count(receipts),
            Err(RecvTimeoutError::Timeout) => {}
            // Cannot be while publishers live; without them there is nothing to hurry for either.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(patience),
        }
    }

    fn count(&mut self, Receipts { outlet, receipts }: Receipts) {
        for receipt in receipts {
            self.ledger.leave(outlet, receipt.weight);
            let Origin {
                partition,
                epoch,
                sequence,
                ..
            } = receipt.origin;
            // What an older epoch reports is ignored: the partition may have been somebody else's since.
            let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.epoch == epoch) else {
                continue;
            };
            match receipt.fate {
                Fate::Confirmed => state.offsets.settle(sequence),
                Fate::Dropped => {}
                Fate::Undeliverable(letter) => {
                    let settled = self
                        .rejects
                        .reject(*letter, &self.links, &mut self.ledger, &self.metrics);
                    if settled {
                        state.offsets.settle(sequence);
                    }
                }
            }
        }
    }

    /// Waits for what is out, within the bound, and commits it.
    fn drain(&mut self) {
        info!(
            pending = self.ledger.records(),
            "stopping: no more records are taken, what is out is awaited"
        );
        self.report();
        let deadline = Instant::now() + Duration::from_millis(self.config.engine.drain_timeout_ms);
        while !self.ledger.is_idle() && Instant::now() < deadline {
            self.links.heartbeat.beat();
            self.await_receipts(Duration::from_millis(20));
            self.settle();
        }
        let left = self.ledger.records();
        if left > 0 {
            warn!(
                records = left,
                "not all was confirmed in time; the rest stays uncommitted and is delivered again"
            );
        }
    }

    /// Gives everything up and leaves the group, so that the partitions move on at once.
    fn leave(mut self) {
        // Nothing more may go out once the partitions are somebody else's.
        self.abandon(&self.assignments());
        self.settle();
        let partitions: Vec<i32> = self.partitions.keys().copied().collect();
        self.commit(&partitions);
        self.answer_what_is_owed();
        self.committer.end();
        drop(self.consumer);
        info!("left the group");
    }

    fn kafka_failed(&mut self, error: KafkaError) -> Result<(), IntakeError> {
        self.metrics.kafka_errors.inc();
        match error {
            KafkaError::MessageConsumptionFatal(code) => return Err(IntakeError::Fatal(code.to_string())),
            // The position of some partition is gone; librdkafka does not say of which.
            KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.repair_positions();
            }
            error => {
                if self.rejects.may_log_kafka_error() {
                    warn!(error = %error, "Kafka answers with an error; trying again");
                }
            }
        }
        Ok(())
    }

    fn handle_events(&mut self) {
        for event in self.consumer.context().take_events() {
            match event {
                Event::Assign(partitions) => self.begin_joining(partitions),
                Event::Revoke { partitions, lost } => self.begin_leaving(partitions, lost),
                Event::Statistics(statistics) => self.note_statistics(&statistics),
            }
        }
    }

    fn report_when_due(&mut self) {
        let now = Instant::now();
        if now < self.next_report {
            return;
        }
        self.next_report = now + REPORT_INTERVAL;
        self.hold_what_is_stuck();
        self.report();
    }
}

/// What a record is worked on with: all of the intake but its consumer, which the record borrows.
struct Desk<'a> {
    config: &'a Checked,
    router: &'a mut Router,
    partitions: &'a mut BTreeMap<i32, Partition>,
    ledger: &'a mut Ledger,
    rejects: &'a mut Rejects,
    draft: &'a mut Draft,
    original: &'a mut Vec<u8>,
    batches: &'a mut [Vec<Parcel>],
    links: &'a Links,
    metrics: &'a Metrics,
    clock: &'a Clock,
}

impl Desk<'_> {
    fn accept(&mut self, message: &BorrowedMessage<'_>) {
        let (partition, offset) = (message.partition(), message.offset());
        // A partition that is being given up, or was: its records are for its next owner.
        let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.is_taken()) else {
            return;
        };
        let Some(sequence) = state.offsets.receive(offset) else {
            return;
        };
        self.metrics.consumed.inc();
        let timestamp = timestamp(message);
        let origin = Origin {
            partition,
            epoch: state.epoch,
            offset,
            sequence,
            timestamp,
        };
        let headers = headers::read(message);
        let incoming = Incoming {
            key: message.key(),
            value: message.payload(),
            timestamp,
            origin: record::Origin {
                topic: &self.config.source.topic,
                partition,
                offset,
            },
        };
        let plain = headers.as_deref().unwrap_or_default();
        let routed = match &headers {
            Ok(headers) => self
                .router
                .route(&incoming, headers.iter().copied(), wall_millis(), self.draft),
            Err(headers::Unreadable) => Err(Invalid::BadHeaders),
        };
        self.original.clear();
        if self.links.dead_letter.is_some() {
            Original::pack(incoming.key, incoming.value, plain, self.original);
        }
        match routed {
            Ok(route) => {
                let Draft {
                    subject, headers, body, ..
                } = &*self.draft;
                let taken_at = self.clock.micros();
                let parcel = Parcel::pack(origin, route.lane, taken_at, subject, headers, body, self.original);
                self.ledger.enter(route.cluster, parcel.weight());
                self.batches[route.cluster].push(parcel);
            }
            Err(reason) => {
                let letter = Letter::new(origin, reason, self.original);
                if self.rejects.reject(letter, self.links, self.ledger, self.metrics) {
                    state.offsets.settle(sequence);
                }
            }
        }
    }
}

fn timestamp(message: &BorrowedMessage<'_>) -> Option<Timestamp> {
    match message.timestamp() {
        rdkafka::Timestamp::NotAvailable => None,
        rdkafka::Timestamp::CreateTime(millis) => Some(Timestamp {
            millis,
            kind: TimestampKind::Producer,
        }),
        rdkafka::Timestamp::LogAppendTime(millis) => Some(Timestamp {
            millis,
            kind: TimestampKind::Broker,
        }),
    }
}
