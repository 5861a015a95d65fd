//! The thread that owns the Kafka consumer: takes records, routes them, counts what waits, settles, commits.
//!
//! ```text
//!              ┌──────────────────────────── one thread ────────────────────────────┐
//!   Kafka ───▶ │ poll → receive → route → enter → batch per output ──▶ commands      │──▶ publishers
//!     │        │          └▶ parked                                                 │
//!     └──────▶ │ read again ──────▶ route → enter                                    │
//!              │ commit ◀─ commit point ◀─ settle (epoch checked) ◀──── receipts     │◀── dead letter
//!              └─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! What is decided is decided by a [`Dispatcher`], which belongs to this thread alone, so checking a receipt's epoch and storing its
//! offset is one step without a lock. Rebalances are noted in librdkafka's callback and carried out here, between two batches, so that
//! receipts, commits and status go on while a revoked partition drains.
//!
//! **The parts.** Each has its own state, is told what it needs, and says what is to be done. None knows the intake.
//!
//! | part | knows |
//! |---|---|
//! | `Records` | the record's path: accept → place → forward → hand out, and receipts |
//! | `Mirroring` | who gets a copy of what is confirmed, where that is declared |
//! | `Flow` | what is paused, and what is to be fetched anew |
//! | `Group` | what is assigned and revoked, and whether we are a member |
//! | `Seeking`, `Identity` | partitions of which nobody knows where they begin; whether the logs are those that were read |
//! | `Examiner` | batches that cannot be read |
//! | `Stalls` | partitions of which nothing comes |
//! | `ReplayReader` | how far parked records are read again |
//! | `RingChanges` | the ring that is announced |
//! | `Announcing` | what the beacon was told, where one is declared |
//! | `Commits` | which commits are out |
//! | `Reporter`, `Watchdog` | what is shown; whether the process is a stable member |
//!
//! **The order.** `Intake::turn` is one turn of the loop, in phases. What they call for is carried out here, and in `regroup.rs`,
//! `repair.rs`, `renew.rs`, `take.rs` and `stop.rs`.

mod announcing;
mod client;
mod commits;
mod committer;
mod context;
mod damage;
mod flow;
mod group;
mod headers;
mod identity;
mod membership;
mod mirroring;
mod questions;
mod records;
mod regroup;
mod reject;
mod renew;
mod repair;
mod replay;
mod report;
mod rings;
mod seeking;
mod stalls;
mod starts;
mod stop;
mod take;
mod watchdog;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use forwarder_core::delivery::caps::{Limits, Load};
use forwarder_core::document::{Checked, Engine, RingConfig};
use forwarder_core::fanout::dispatch::{Dispatcher, RingEpoch};
use forwarder_core::status::Status;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use tokio::sync::watch;
use tracing::error;

use self::announcing::Announcing;
use self::client::Client;
use self::commits::{About, Commits};
use self::context::Event;
use self::damage::Examiner;
use self::flow::Flow;
use self::group::Group;
use self::identity::Identity;
use self::membership::Membership;
use self::mirroring::Mirroring;
use self::records::{Channels, Records};
use self::replay::ReplayReader;
use self::report::{Reporter, View};
use self::rings::RingChanges;
pub use self::rings::{RingChangeError, RingProgram, open_ring};
use self::seeking::Seeking;
use self::stalls::Stalls;
use self::watchdog::Watchdog;
pub use self::watchdog::WatchdogError;
use crate::beacon::ToBeacon;
use crate::lease::Lease;
use crate::message::Message;
use crate::metrics::Metrics;
use crate::outputs::Receipts;
use crate::outputs::dead_letter::DeadLetterQueue;
use crate::outputs::nats::Publishers;
use crate::traces::Tracer;
use forwarder_kafka as kafka;
use forwarder_service::clock::Clock;
use forwarder_service::heartbeat::Heartbeat;
use forwarder_service::log_limit::LogLimit;
use forwarder_service::shutdown::Shutdown;

/// How long receipts are awaited while there is nothing else to do.
const WAIT_FOR_RECEIPTS: Duration = Duration::from_millis(20);

/// A line of Kafka's errors per interval: an outage brings hundreds a second.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What the intake is connected to.
pub struct Links {
    /// The publishers.
    pub publishers: Publishers,
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
    /// Who tells subscribers of the ring.
    pub beacon: ToBeacon,
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
    #[error("the commit thread has ended unexpectedly; see the log")]
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
    #[error("the Kafka client has failed permanently: {0}")]
    Fatal(String),
    /// The process was no stable member of its group for too long.
    #[error(transparent)]
    Watchdog(#[from] WatchdogError),
}

/// See the module.
pub struct Intake<P> {
    client: Client,
    dispatcher: Dispatcher<Message>,
    publishers: Publishers,
    records: Records<P>,
    replay: ReplayReader,
    flow: Flow,
    group: Group,
    seeking: Seeking,
    identity: Identity,
    examiner: Examiner,
    stalls: Stalls,
    commits: Commits,
    rings: RingChanges,
    announcing: Announcing,
    reporter: Reporter,
    watchdog: Watchdog,
    shutdown: Shutdown,
    heartbeat: Heartbeat,
    metrics: Metrics,
    clock: Clock,
    errors: LogLimit,
}

impl<P: RingProgram> Intake<P> {
    /// Makes the consumer; nothing is asked of Kafka yet.
    ///
    /// # Errors
    /// Credentials that cannot be read, settings that librdkafka refuses.
    pub fn new(
        config: Arc<Checked>,
        program: P,
        ring_epoch: RingEpoch,
        links: Links,
        metrics: Metrics,
        clock: Clock,
    ) -> Result<Self, IntakeError> {
        let Links {
            publishers,
            dead_letter,
            receipts,
            shutdown,
            heartbeat,
            rings,
            status,
            lease,
            tracer,
            beacon,
        } = links;
        let now = Instant::now();
        let client = Client::new(config)?;
        let config = &client.config;
        let channels = Channels {
            dead_letter,
            tracer,
            receipts,
        };
        let handover_timeout = config.ring.handover_timeout_ms.saturating_mul(1_000);
        let membership = Membership::new(lease, metrics.fenced.clone(), now);
        let mut dispatcher = Dispatcher::new(limits(&config.engine), ring_epoch, handover_timeout);
        dispatcher.set_grace(rings::grace(&config.ring));
        let mut mirroring = Mirroring::new(config.publish.mode);
        mirroring.begin(
            config.ring.mirror.as_ref(),
            dispatcher.ring_epoch(),
            &publishers,
            clock.micros(),
        );
        Ok(Self {
            dispatcher,
            publishers,
            records: Records::new(program, &client, channels, mirroring, metrics.clone(), clock),
            replay: ReplayReader::default(),
            flow: Flow::default(),
            commits: Commits::start(&client, &membership, &metrics, clock, now)?,
            group: Group::new(membership, metrics.clone()),
            seeking: Seeking::new(now),
            identity: Identity::default(),
            examiner: Examiner::default(),
            stalls: Stalls::default(),
            rings: RingChanges::new(rings, Arc::new(config.ring.clone())),
            announcing: Announcing::new(beacon, &client.inputs, now),
            reporter: Reporter::new(status, metrics.clone(), clock, now),
            watchdog: Watchdog::new(&config.engine, config.source.protocol, now),
            shutdown,
            heartbeat,
            metrics,
            clock,
            errors: LogLimit::new(LOG_INTERVAL),
            client,
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
            Err(error) => error!(%error, "the intake has failed; uncommitted records will be delivered again"),
        }
        self.leave();
        result
    }

    fn take_until_stopped(&mut self) -> Result<(), IntakeError> {
        self.client.subscribe()?;
        while !self.shutdown.is_requested() {
            self.heartbeat.beat();
            self.turn()?;
        }
        Ok(())
    }

    /// One turn. The order is what keeps records safe:
    ///
    /// - Receipts are settled first, so whatever comes next decides and commits upon what is confirmed by now.
    /// - The group's word is carried out before anything is fetched anew, because assigning is what answers a rebalance.
    /// - A commit comes behind that, so it names only partitions that are still ours.
    /// - Batches go out before anything of an output is asked back: what it does not have yet it cannot give back.
    /// - Records are taken last, for only then is all that they depend on known.
    fn turn(&mut self) -> Result<(), IntakeError> {
        // settle
        self.settle();
        // observe
        self.observe();
        // regroup
        self.renew_when_due()?;
        self.go_on_joining();
        self.go_on_leaving();
        self.go_on_seeking();
        // repair
        self.examine();
        self.repair_when_due()?;
        // commit
        self.take_commit_answers();
        self.change_ring();
        self.tell_beacon();
        self.commit_when_due();
        // hand out
        self.observe_outputs();
        self.hand_out();
        rings::recall_what_is_overdue(&mut self.dispatcher, &self.publishers);
        // report
        self.report_when_due();
        self.check_health()?;
        // replay
        let more = self.replay();
        self.hand_out();
        // take
        self.take(more)
    }

    /// Counts what came back, without waiting.
    fn settle(&mut self) {
        self.records.settle(&mut self.dispatcher, &self.identity);
    }

    /// Takes note of what librdkafka has told, and begins to act upon it.
    fn observe(&mut self) {
        for event in self.client.consumer.context().take_events() {
            match event {
                Event::Assign(partitions) => {
                    self.watchdog.arm();
                    self.group.assigned(partitions, &self.client);
                    self.go_on_joining();
                }
                Event::Revoke { partitions, lost } => {
                    self.revoked(partitions, lost);
                    self.go_on_leaving();
                }
                Event::Statistics(statistics) => {
                    self.watchdog.note(&statistics);
                    self.announcing.note_statistics(&statistics, &self.client.inputs);
                    self.reporter
                        .note_statistics(&statistics, &self.client, &mut self.dispatcher);
                    self.mend_stalls(&statistics);
                }
                Event::Topic(input, id) => {
                    if self.identity.note_topic(input, id, &self.client, &self.dispatcher) {
                        self.stop_in_former_topic(input);
                    }
                }
                Event::Cut { partition, at } => {
                    self.identity.note_cut(partition, at);
                    self.flow.repair_soon();
                }
                // The examiner asks for itself, of one partition at a time.
                Event::OutOfRange { .. } | Event::Unreadable { .. } => {}
            }
        }
    }

    /// Goes on looking at what may be damaged.
    fn examine(&mut self) {
        let ends = self.reporter.ends();
        let findings = self.examiner.examine(
            &self.client,
            &mut self.dispatcher,
            ends,
            &self.metrics,
            &mut self.errors,
        );
        self.flow.begin(findings.begun);
        if findings.has_stopped {
            self.flow.refresh(&self.client, &self.dispatcher);
        }
    }

    /// Takes the answers of the commits that are out, as far as they have come.
    fn take_commit_answers(&mut self) {
        let owner = !self.dispatcher.partitions().is_empty();
        self.group.membership.observe(owner);
        let begun = self.commits.take_answers(&mut self.dispatcher, &mut self.group);
        self.flow.begin_behind_ring(&begun, &self.client);
    }

    /// Takes up a ring that was declared, uses one that is announced to all, and ends what is out of it.
    fn change_ring(&mut self) {
        self.rings
            .take_up(&mut self.dispatcher, &mut self.publishers, self.records.program());
        let begun = self
            .rings
            .use_announced(&mut self.dispatcher, self.records.program(), &self.metrics);
        self.flow.begin_behind_ring(&begun, &self.client);
        if let Some(former) = self.rings.take_former() {
            let (using, _) = self.rings.configs();
            let now = self.clock.micros();
            let (declared, ring_epoch) = (using.mirror.as_ref(), self.dispatcher.ring_epoch());
            self.records
                .mirroring()
                .ring_used(Some(former), declared, ring_epoch, &self.publishers, now);
        }
        if let Some(epoch) = self.announcing.take_heard(Instant::now()) {
            self.dispatcher.heard(epoch, self.clock.micros());
        }
        let begun = self.dispatcher.end_grace();
        self.flow.begin_behind_ring(&begun, &self.client);
        self.rings.let_go(&self.dispatcher, &mut self.publishers);
    }

    /// Tells the beacon how far we are, where one is declared.
    fn tell_beacon(&mut self) {
        let (using, announced) = self.rings.configs();
        let view = announcing::View {
            using,
            announced,
            inputs: &self.client.inputs,
            publishers: &self.publishers,
        };
        self.announcing.tell_when_due(&view, &self.dispatcher, Instant::now());
    }

    fn commit_when_due(&mut self) {
        let about = About {
            client: &self.client,
            identity: &self.identity,
        };
        self.commits
            .commit_when_due(about, &self.dispatcher, &mut self.group.membership);
    }

    /// Tells the dispatcher the time, and what publishers have sent.
    fn observe_outputs(&mut self) {
        let publishers = &self.publishers;
        let sent = |output| publishers.get(output).map_or(0, |member| member.link.in_flight());
        self.dispatcher.observe(self.clock.micros(), sent);
    }

    /// Sends each output its batch.
    fn hand_out(&mut self) {
        self.records.hand_out(&mut self.dispatcher, &self.publishers);
    }

    fn report_when_due(&mut self) {
        if self.reporter.is_due() {
            self.report();
            self.client.report_missing_topics();
        }
    }

    /// Ends the process if it is no stable member for too long, or nothing is committed any more.
    fn check_health(&mut self) -> Result<(), IntakeError> {
        self.watchdog.check()?;
        if self.commits.has_died() {
            return Err(IntakeError::Committer);
        }
        Ok(())
    }

    /// Brings gauges and status up to date.
    fn report(&self) {
        self.reporter.report(&View {
            client: &self.client,
            dispatcher: &self.dispatcher,
            publishers: &self.publishers,
            identity: &self.identity,
            watchdog: &self.watchdog,
            announced: self.rings.announced(),
            moved_share: self.rings.moved_share(),
            last_commit_millis: self.commits.last_commit_millis(),
            membership_proven: self.group.membership.is_proven(),
            is_stopping: self.shutdown.is_requested(),
            is_rebalancing: self.group.is_rebalancing(),
            is_paused: self.flow.is_paused(),
        });
    }
}

/// What may be out.
fn limits(engine: &Engine) -> Limits {
    Limits {
        output: Load {
            records: engine.max_pending_records_per_cluster,
            bytes: engine.max_pending_bytes_per_cluster,
        },
        total: Load {
            records: engine.max_pending_records,
            bytes: engine.max_pending_bytes,
        },
        queue: engine.queue_size,
    }
}
