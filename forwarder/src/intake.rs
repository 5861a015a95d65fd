//! The thread that owns the Kafka consumer: takes records, routes them, counts what waits, settles, commits.
//!
//! ```text
//!              ┌──────────────────────────── one thread ────────────────────────────┐
//!   Kafka ───▶ │ poll → receive → route → enter → batch per cluster ──▶ orders       │──▶ publishers
//!     │        │          └▶ parked                                                 │
//!     └──────▶ │ read again ──────▶ route → enter                                    │
//!              │ commit ◀─ commit point ◀─ settle (epoch checked) ◀──── receipts     │◀── dead letter
//!              └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What is decided is decided by a [`Dispatcher`], which belongs to this thread alone, so checking a receipt's epoch and storing its offset is one
//! step without a lock. Rebalances are noted in librdkafka's callback and carried out here, between two batches, so that
//! receipts, commits and status go on while a revoked partition drains.

mod commits;
mod context;
mod damage;
mod flow;
mod group;
mod headers;
mod identity;
mod membership;
mod reject;
mod reread;
mod rings;
mod seeking;
mod starts;
mod watchdog;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use forwarder_core::delivery::caps::{Limits, Load};
use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
use forwarder_core::document::{Checked, RingConfig};
use forwarder_core::fanout::dispatch::{Admission, Dispatcher, Era, Phase};
use forwarder_core::fanout::route::Router;
use forwarder_core::program::{Draft, Incoming, Place, Program as _};
use forwarder_core::record::{self, Header, Invalid, Timestamp, TimestampKind};
use forwarder_core::status::Status;
use forwarder_core::trace;
use rdkafka::Message;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::watch;
use tracing::{error, info, warn};

use self::commits::Committer;
use self::context::{Context, Event, OwnConsumer};
use self::damage::Examiner;
use self::group::{Joining, Leaving};
use self::identity::Identity;
use self::membership::Membership;
use self::reject::Rejects;
use self::reread::Rereader;
use self::rings::Change;
pub use self::rings::{RingChangeError, era};
use self::seeking::Seeking;
use self::watchdog::Watchdog;
pub use self::watchdog::WatchdogError;
use crate::lease::Lease;
use crate::message::{self, DeadLetter, Origin, Original, record_bytes};
use crate::metrics::Metrics;
use crate::outputs::dead_letter::DeadLetterQueue;
use crate::outputs::nats::Publishers;
use crate::outputs::{Command, Fate, Receipts, Undeliverable};
use crate::traces::{End, Trace, Tracer};
use forwarder_kafka as kafka;
use forwarder_service::clock::{Clock, wall_millis};
use forwarder_service::heartbeat::Heartbeat;
use forwarder_service::shutdown::Shutdown;

/// Below this long without room, records are just not polled: pausing makes librdkafka drop what it has prefetched.
const PAUSE_AFTER: Duration = Duration::from_millis(500);

/// Longest wait in one poll while receipts may come in: they wait that long to be counted and committed.
const BUSY_POLL: Duration = Duration::from_millis(5);

/// Records that are taken without a wait come in microseconds, and two clocks are read for so many of them at once: their
/// times have a millisecond's precision and a bucket's.
const RECORDS_PER_CLOCK: usize = 32;

/// How often gauges and status are brought up to date.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// What the intake is connected to.
pub struct Links {
    /// The publishers.
    pub fleet: Publishers,
    /// The dead letter, where one is declared.
    pub dead_letter: Option<DeadLetterQueue>,
    /// What comes back from all of them.
    pub receipts: Receiver<Receipts>,
    /// Asked to stop: drain, commit, leave.
    pub shutdown: Shutdown,
    /// Shows that the loop turns.
    pub heartbeat: Heartbeat,
    /// Rings that are declared while the engine runs.
    pub rings: watch::Receiver<Option<Arc<Checked<RingConfig>>>>,
    /// Where the status is put up.
    pub status: watch::Sender<Status>,
    /// Until when the publishers may write: renewed by what proves that we are a member of the group.
    pub lease: Lease,
    /// Traces sampled records, where that is declared.
    pub tracer: Option<Tracer>,
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
    /// The thread that commits has died.
    #[error("the thread that commits has died; see the log")]
    Committer,
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
    inputs: Inputs,
    consumer: Arc<OwnConsumer>,
    router: Router,
    links: Links,
    metrics: Metrics,
    clock: Clock,
    dispatcher: Dispatcher<message::Message>,
    /// The ring that is announced and not in use yet.
    change: Option<Change>,
    /// The share of the hash space that the last change of the ring moved.
    moved_share: f64,
    rereader: Rereader,
    examiner: Examiner,
    /// One past the newest record of each partition that the broker has, as of the last statistics.
    ends: BTreeMap<PartitionId, i64>,
    /// What the commits' metadata says of each topic: see [`forwarder_core::delivery::commit::Metadata`].
    group_partitions: BTreeMap<Input, u32>,
    /// Topics of which partitions have been ours.
    seen: BTreeSet<Input>,
    /// The brokers take no metadata as long as ours can be.
    brief: bool,
    /// Partitions that begin and are to be asked for.
    begun: Vec<PartitionId>,
    /// When partitions are to be taken anew because the position of one is gone.
    repair_at: Option<Instant>,
    committer: Committer,
    membership: Membership,
    identity: Identity,
    joining: Option<Joining>,
    seeking: Seeking,
    leaving: Option<Leaving>,
    rejects: Rejects,
    watchdog: Watchdog,
    /// When the caps were reached, whether the partitions are paused because of it, and since when there is room again.
    full_since: Option<Instant>,
    paused: bool,
    room_since: Option<Instant>,
    next_commit: Instant,
    next_report: Instant,
    last_commit_millis: Option<i64>,
    /// The time of day and of the clock, as of the last look at them.
    now_millis: i64,
    now_micros: u64,
    draft: Draft,
    original: Vec<u8>,
}

impl Intake {
    /// Makes the consumer; nothing is asked of Kafka yet.
    ///
    /// # Errors
    /// Credentials that cannot be read, settings that librdkafka refuses.
    pub fn new(
        config: Arc<Checked>,
        router: Router,
        era: Era,
        links: Links,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, IntakeError> {
        let inputs = Inputs::new(config.source.topics());
        let consumer = Arc::new(OwnConsumer::new(kafka::create_consumer(&config, |token| {
            Context::new(&config.source, &inputs, token)
        })?));
        let limits = Limits {
            outlet: Load {
                records: config.engine.max_pending_records_per_cluster,
                bytes: config.engine.max_pending_bytes_per_cluster,
            },
            total: Load {
                records: config.engine.max_pending_records,
                bytes: config.engine.max_pending_bytes,
            },
            queue: config.engine.queue_size,
        };
        let now = Instant::now();
        let membership = Membership::new(links.lease.clone(), metrics.fenced.clone(), now);
        let committer = Committer::start(Arc::clone(&consumer), membership.watch())?;
        Ok(Self {
            consumer,
            router,
            metrics,
            clock,
            dispatcher: Dispatcher::new(limits, era, config.ring.handover_timeout_ms.saturating_mul(1_000)),
            change: None,
            moved_share: 0.0,
            rereader: Rereader::default(),
            examiner: Examiner::default(),
            ends: BTreeMap::new(),
            group_partitions: BTreeMap::new(),
            repair_at: None,
            seen: BTreeSet::new(),
            brief: false,
            begun: Vec::new(),
            committer,
            membership,
            identity: Identity::default(),
            joining: None,
            seeking: Seeking::new(now),
            leaving: None,
            rejects: Rejects::default(),
            watchdog: Watchdog::new(&config.engine, config.source.protocol, now),
            full_since: None,
            paused: false,
            room_since: None,
            next_commit: now,
            next_report: now,
            last_commit_millis: None,
            now_millis: 0,
            now_micros: 0,
            draft: Draft::default(),
            original: Vec::new(),
            links,
            inputs,
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

    fn subscribe(&self) -> Result<(), IntakeError> {
        let names: Vec<&str> = self.inputs.names().collect();
        let topic = names.join(", ");
        let subscribed = self.consumer.subscribe(&names);
        subscribed.map_err(|source| IntakeError::Subscribe {
            topic: topic.clone(),
            source,
        })?;
        info!(topic, group = self.config.source.group, "subscribed");
        Ok(())
    }

    fn take_until_stopped(&mut self) -> Result<(), IntakeError> {
        self.subscribe()?;
        while !self.links.shutdown.is_requested() {
            self.links.heartbeat.beat();
            self.settle();
            self.handle_events();
            self.renew_when_due()?;
            self.go_on_joining();
            self.go_on_leaving();
            self.go_on_seeking();
            self.examine();
            self.repair_when_due()?;
            self.take_commit_answer();
            self.note_ring();
            self.go_on_changing();
            self.commit_when_due();
            self.look();
            // Before anything is asked back: what an outlet does not have yet it cannot give back.
            self.hand_out();
            self.recall_what_is_overdue();
            self.report_when_due();
            self.watchdog.check()?;
            if self.committer.has_died() {
                return Err(IntakeError::Committer);
            }
            let more = self.reread();
            self.hand_out();
            if self.dispatcher.has_room() {
                self.make_room_known();
                self.take_batch(more)?;
            } else {
                self.wait_for_room()?;
            }
        }
        Ok(())
    }

    /// Tells the dispatcher the time, and what publishers have sent.
    fn look(&mut self) {
        let Self {
            dispatcher,
            links,
            clock,
            ..
        } = self;
        let sent = |outlet| links.fleet.get(outlet).map_or(0, |member| member.link.in_flight());
        dispatcher.look(clock.micros(), sent);
    }

    /// Takes up to a batch of records and hands them out. `busy`: there is something else to do.
    fn take_batch(&mut self, busy: bool) -> Result<(), IntakeError> {
        let patience = Duration::from_millis(self.config.engine.poll_timeout_ms);
        let quiet = self.dispatcher.is_quiet()
            && self.joining.is_none()
            && self.leaving.is_none()
            && self.change.is_none()
            && self.examiner.is_idle()
            && self.dispatcher.job().is_none();
        let patience = match (busy, quiet) {
            (true, _) => Duration::ZERO,
            (false, true) => patience,
            (false, false) => patience.min(BUSY_POLL),
        };
        self.poll(patience, self.config.engine.batch_size)
    }

    /// Polls until `limit` records are taken, nothing more is there or the caps are reached; waits for the first one.
    fn poll(&mut self, mut patience: Duration, limit: usize) -> Result<(), IntakeError> {
        self.metrics.consume_calls.inc();
        // Shared, so that a record that borrows it can be worked on with all the rest.
        let consumer = Arc::clone(&self.consumer);
        for number in 0..limit {
            match consumer.poll(patience) {
                None => break,
                // Of another topic than is known here. That is noted first.
                Some(Ok(_)) if consumer.context().has_changed() => break,
                Some(Ok(message)) => {
                    if number % RECORDS_PER_CLOCK == 0 {
                        self.read_clocks();
                    }
                    self.accept(&message);
                }
                Some(Err(error)) => self.kafka_failed(error)?,
            }
            if !self.dispatcher.has_room() {
                break;
            }
            patience = Duration::ZERO;
        }
        self.hand_out();
        self.metrics
            .queue_size_histogram
            .observe(self.dispatcher.unsent() as f64);
        Ok(())
    }

    /// What the next records' times are.
    fn read_clocks(&mut self) {
        self.now_millis = wall_millis();
        self.now_micros = self.clock.micros();
    }

    /// A record came from the group.
    fn accept(&mut self, message: &impl Message) {
        let offset = message.offset();
        // One of another topic was never asked for.
        let Some(partition) = self.partition_of(message) else {
            return;
        };
        let (admission, place) = match Router::asset(message.key()) {
            Ok(key) => {
                let place = self.router.place(key);
                let admission = self.dispatcher.receive(partition, offset, key, place);
                (admission, Some(place))
            }
            Err(_) => (self.dispatcher.receive_stray(partition, offset), None),
        };
        match admission {
            Admission::Take(tag) => {
                self.metrics.consumed.inc();
                self.forward(tag, place, message);
            }
            Admission::Parked => self.metrics.consumed.inc(),
            Admission::Unwanted => {}
        }
    }

    /// Whose record it is. A single topic's name need not be looked at.
    fn partition_of(&self, message: &impl Message) -> Option<PartitionId> {
        let input = match self.inputs.len() {
            1 => Input::FIRST,
            _ => self.inputs.find(message.topic())?,
        };
        PartitionId::new(input, message.partition())
    }

    /// Makes a message of a record that is ours to deliver. `place`: none where it belongs to no asset.
    fn forward(&mut self, tag: Tag, place: Option<Place>, message: &impl Message) {
        let timestamp = timestamp(message);
        let origin = Origin::new(tag, timestamp);
        let headers = headers::read(message);
        let plain = headers.as_deref().unwrap_or_default();
        // Before anything is copied: a compressed batch of a megabyte may hold a record of a gigabyte.
        if record_bytes(message.key(), message.payload(), plain) > self.config.engine.max_record_bytes() {
            self.refuse_for_its_size(origin, message, plain);
            return;
        }
        let incoming = Incoming {
            key: message.key(),
            value: message.payload(),
            timestamp,
            origin: record::Origin {
                topic: self.inputs.topic_of(tag.partition),
                partition: tag.partition.number(),
                offset: tag.offset,
            },
        };
        let tracer = self.links.tracer.as_mut();
        let sampled = tracer.and_then(|tracer| Some((tracer.sample(plain)?, tracer.now())));
        let written = match (&headers, &sampled) {
            (Ok(headers), None) => {
                let headers = headers.iter().copied();
                self.router.write(&incoming, headers, self.now_millis, &mut self.draft)
            }
            (Ok(headers), Some((sampled, _))) => {
                let parent = sampled.message().text();
                let headers = headers.iter().copied().filter(|(name, _)| !sampled.replaces(name));
                let headers = headers.chain([(trace::TRACEPARENT, Some(parent.as_slice()))]);
                self.router.write(&incoming, headers, self.now_millis, &mut self.draft)
            }
            (Err(headers::Unreadable), _) => Err(Invalid::BadHeaders),
        };
        let trace = sampled.map(|(sampled, taken_at)| Trace::new(sampled, taken_at, self.clock.micros()));
        self.original.clear();
        if self.links.dead_letter.is_some() {
            Original::pack(incoming.key, incoming.value, plain, &mut self.original);
        }
        match (written, place) {
            (Ok(()), Some(Place { owner, lane })) => {
                let Draft {
                    subject, headers, body, ..
                } = &self.draft;
                let mut parcel =
                    message::Message::pack(origin, lane, self.now_micros, subject, headers, body, &self.original);
                parcel.trace = trace;
                self.dispatcher.enter(parcel, owner);
            }
            (written, _) => {
                let reason = written.err().unwrap_or(Invalid::BadKey);
                self.end_trace(trace, tag, End::Invalid(reason));
                self.reject(DeadLetter::new(origin, reason, &self.original), None);
            }
        }
    }

    /// The record is too large to be handled: what is left of it says where it is. Its value is not copied, nor is anything that is
    /// too large without it.
    fn refuse_for_its_size(&mut self, origin: Origin, message: &impl Message, headers: &[Header<'_>]) {
        self.original.clear();
        if self.links.dead_letter.is_some() {
            let fits = record_bytes(message.key(), None, headers) <= self.config.engine.max_record_bytes();
            let (key, headers) = if fits {
                (message.key(), headers)
            } else {
                (None, &[][..])
            };
            Original::pack(key, None, headers, &mut self.original);
        }
        let length = message.payload().map_or(0, <[u8]>::len);
        let letter = DeadLetter::without_value(origin, Invalid::RecordTooLarge, &self.original, length);
        self.reject(letter, None);
    }

    /// A record can never be forwarded. `from`: where it was, and its lane, if it had been handed out.
    fn reject(&mut self, letter: DeadLetter, from: Option<(u32, u64)>) {
        let (tag, weight) = (letter.origin.tag(), letter.weight());
        // Its next owner finds that out, too. Those of a former topic have none.
        if !self.dispatcher.is_current(tag) && !self.identity.is_former(tag) {
            return;
        }
        self.rejects.note(&letter, &self.inputs, &self.metrics);
        let Some(dead_letter) = &mut self.links.dead_letter else {
            self.dispatcher.settle(tag);
            return;
        };
        match from {
            Some((outlet, lane)) => self.dispatcher.bury_from(outlet, tag, lane, weight),
            None => self.dispatcher.bury(tag, weight),
        }
        dead_letter.push(letter);
    }

    /// A record is settled; if it was traced, that is told.
    fn end_trace(&mut self, trace: Option<Box<Trace>>, tag: Tag, end: End) {
        if let (Some(trace), Some(tracer)) = (trace, &mut self.links.tracer) {
            tracer.end(trace, tag, end);
        }
    }

    /// Sends each cluster its batch. Lanes are opened first: what a batch has of them is to be taken.
    fn hand_out(&mut self) {
        let Self { dispatcher, links, .. } = self;
        if let Some(dead_letter) = &mut links.dead_letter {
            dead_letter.flush();
        }
        order_lanes(&links.fleet, dispatcher.take_openings(), Command::Open);
        dispatcher.take_batches(|outlet, batch| {
            if let Some(member) = links.fleet.get(outlet) {
                member.command(Command::Deliver(batch));
            }
        });
        // Behind the batches: an outlet gives back only what it has.
        order_lanes(&links.fleet, dispatcher.take_excess(), Command::Recall);
    }

    /// At the caps: lets receipts make room. Records that librdkafka has prefetched are kept for a while.
    fn wait_for_room(&mut self) -> Result<(), IntakeError> {
        self.room_since = None;
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
        if !self.paused {
            return;
        }
        // A cluster that is away may have half of its cap for ever: after a while any room will do.
        let room_since = *self.room_since.get_or_insert_with(Instant::now);
        if self.dispatcher.has_plenty() || room_since.elapsed() >= PAUSE_AFTER {
            self.set_paused(false);
        }
    }

    /// Counts what came back, without waiting.
    fn settle(&mut self) {
        while let Ok(receipts) = self.links.receipts.try_recv() {
            self.count(receipts);
        }
        // A record of a former topic may be among them, and nobody reads that again: its letter is not left to the next turn.
        if let Some(dead_letter) = &mut self.links.dead_letter {
            dead_letter.flush();
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

    fn count(&mut self, receipts: Receipts) {
        let Receipts {
            output: outlet,
            closed,
            receipts,
        } = receipts;
        self.dispatcher.close(outlet, &closed);
        let mut gone = 0_u64;
        for receipt in receipts {
            self.dispatcher.leave(outlet, receipt.weight);
            match receipt.fate {
                Fate::Confirmed => {
                    self.dispatcher.settle(receipt.tag);
                    self.end_trace(receipt.trace, receipt.tag, End::Confirmed);
                }
                Fate::Dropped => self.end_trace(receipt.trace, receipt.tag, End::Dropped),
                Fate::Undeliverable(undeliverable) => {
                    let Undeliverable { lane, letter } = *undeliverable;
                    self.end_trace(receipt.trace, receipt.tag, End::Invalid(letter.reason));
                    self.reject(letter, Some((outlet, lane)));
                }
                Fate::Recalled(parcel) => {
                    gone += u64::from(self.identity.is_former(receipt.tag));
                    self.dispatcher.take_back(outlet, *parcel);
                }
                Fate::Returned(lane) => {
                    self.end_trace(receipt.trace, receipt.tag, End::Dropped);
                    gone += u64::from(self.identity.is_former(receipt.tag));
                    self.dispatcher.give_back(outlet, receipt.tag, lane);
                }
            }
        }
        if gone > 0 {
            error!(
                records = gone,
                "NATS did not take records of the topic that was deleted; nobody can read them again"
            );
        }
    }

    /// Waits for what is out, within the bound, and commits it.
    fn drain(&mut self) {
        info!(
            pending = self.dispatcher.total().records,
            "stopping: no more records are taken, what is out is awaited"
        );
        self.report();
        let deadline = Instant::now() + Duration::from_millis(self.config.engine.drain_timeout_ms);
        let member = self.membership.number();
        while self.awaited() > 0 && Instant::now() < deadline {
            self.links.heartbeat.beat();
            self.await_receipts(Duration::from_millis(20));
            self.settle();
            self.hand_out();
            self.look();
            // What is out is written only as long as our membership is proved.
            self.take_commit_answer();
            self.commit_when_due();
            if self.membership.number() != member {
                warn!("out of the group amid the drain: others own the partitions by now");
                break;
            }
        }
        let left = self.dispatcher.total().records;
        if left > 0 {
            warn!(
                records = left,
                "not all was confirmed in time; the rest stays uncommitted and is delivered again"
            );
        }
    }

    /// Records that are out and that it is worth waiting for.
    fn awaited(&self) -> usize {
        let partitions = self.dispatcher.partitions().keys();
        partitions.map(|partition| self.dispatcher.awaited(*partition)).sum()
    }

    /// Gives everything up and leaves the group, so that the partitions move on at once.
    fn leave(mut self) {
        // Nothing more may go out once the partitions are somebody else's.
        let ours = self.assignments();
        // From here on a commit tells all that is not settled as what a successor has to deliver.
        for (partition, _) in &ours {
            let state = self.dispatcher.partitions().get(partition);
            let tells = |phase| matches!(phase, Phase::Active | Phase::Examined | Phase::Damaged(_));
            if state.is_some_and(|state| tells(state.phase)) {
                self.dispatcher.set_phase(*partition, Phase::Draining);
            }
        }
        self.abandon(&ours);
        self.links.lease.revoke();
        self.settle();
        let ours = self.committable();
        self.commit_at_last(&ours);
        self.answer_what_is_owed();
        self.consumer.leave_group();
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
            error if damage::is_damage(&error) => self.suspect_all(&error),
            error => {
                if self.rejects.may_log_kafka_error() {
                    warn!(error = %error, "Kafka answers with an error; trying again");
                    self.tell_missing_topics(&error);
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
                Event::Topic(input, id) => self.note_topic(input, id),
                Event::Cut { partition, at } => self.note_cut(partition, at),
                // The examiner asks for itself, of one partition at a time.
                Event::OutOfRange { .. } | Event::Unreadable { .. } => {}
            }
        }
    }

    fn report_when_due(&mut self) {
        let now = Instant::now();
        if now < self.next_report {
            return;
        }
        self.next_report = now + REPORT_INTERVAL;
        self.report();
    }
}

/// Orders something about lanes of each outlet. An outlet that has ended has none.
fn order_lanes(fleet: &Publishers, mut lanes: Vec<(u32, u64)>, order: impl Fn(Vec<u64>) -> Command<message::Message>) {
    lanes.sort_unstable();
    for of_outlet in lanes.chunk_by(|one, next| one.0 == next.0) {
        if let Some(member) = fleet.get(of_outlet[0].0) {
            member.command(order(of_outlet.iter().map(|(_, lane)| *lane).collect()));
        }
    }
}

fn timestamp(message: &impl Message) -> Option<Timestamp> {
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
