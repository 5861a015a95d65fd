//! What librdkafka tells: events are only noted here, and acted upon by the intake's loop after each poll, so that
//! nothing is decided inside a callback and a drain can take its time without stopping the other partitions.

use std::error::Error;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forwarder_core::delivery::deliverable::subject_hash;
use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
use forwarder_core::document::Source;
use rdkafka::bindings::rd_kafka_resp_err_t as RespErr;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use tracing::{debug, warn};

use forwarder_kafka::told::{self, Told};
use forwarder_kafka::{self as kafka, OAuthTokenFile};
use forwarder_service::log_limit::LogLimit;

/// A line per error and interval.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// How long a rebalance that is under way is waited for, before the consumer is closed amid it.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often it is looked whether it is over.
const LEAVE_POLL: Duration = Duration::from_millis(10);

/// What librdkafka calls the state of one that is in no group, and wants to be in none.
const NOT_JOINED: &str = "init";

/// Something that happened to the group or to a commit.
#[derive(Debug)]
pub(super) enum Event {
    /// These partitions are to be taken.
    Assign(Vec<PartitionId>),
    /// These are to be given up; `lost`: somebody else may own them already.
    Revoke { partitions: Vec<PartitionId>, lost: bool },
    /// librdkafka's statistics.
    Statistics(Box<Statistics>),
    /// A topic has this ID, for the first time or instead of another one.
    Topic(Input, String),
    /// A partition's log was cut short before what was read of it.
    Cut { partition: PartitionId, at: i64 },
    /// The broker does not have that offset of a partition.
    OutOfRange { partition: PartitionId, at: i64 },
    /// A batch that begins there cannot be read. Of which partition is not told.
    Unreadable { begin: i64 },
}

/// The consumer's context.
pub(super) struct Context {
    // Taken by the polling thread only (librdkafka calls back from inside poll), so never contended; the trait wants Sync.
    events: Mutex<Vec<Event>>,
    /// The consumer is closing: give up whatever is revoked at once, for nobody polls the events any more.
    closing: AtomicBool,
    token: Option<OAuthTokenFile>,
    inputs: Inputs,
    /// Whether librdkafka's debug log is declared, and not only there for what [`told`] reads.
    debugging: bool,
    /// The hash of each topic's ID, as it was last told; 0: it was not.
    told: Box<[AtomicU64]>,
    /// One has changed: until the intake has taken note of that, what comes belongs to another topic than it thinks.
    changed: AtomicBool,
    // By librdkafka's word for the error. Taken in callbacks alone, some of which are other threads'.
    errors: Mutex<LogLimit<String>>,
}

impl Context {
    pub(super) fn new(source: &Source, inputs: &Inputs, token: Option<OAuthTokenFile>) -> Self {
        Self {
            events: Mutex::default(),
            closing: AtomicBool::new(false),
            token,
            told: inputs.iter().map(|_| AtomicU64::new(0)).collect(),
            inputs: inputs.clone(),
            debugging: source.connection.properties.contains_key("debug"),
            changed: AtomicBool::new(false),
            errors: Mutex::new(LogLimit::new(LOG_INTERVAL)),
        }
    }

    pub(super) fn take_events(&self) -> Vec<Event> {
        self.changed.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.events.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether an event is to be taken that tells of another topic: records that come are not of the one that was read.
    pub(super) fn has_changed(&self) -> bool {
        self.changed.load(Ordering::Relaxed)
    }

    /// Whether this client reads another topic of that name than that of the ID.
    pub(super) fn is_of_another(&self, input: Input, id: Option<&str>) -> bool {
        let told = self.told[input.index()].load(Ordering::Relaxed);
        told != 0 && id.is_some_and(|id| subject_hash(id.as_bytes()) != told)
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match told::read(message) {
            Some(Told::Topic { name, id }) => {
                if let Some(input) = self.inputs.find(&name) {
                    let told = subject_hash(id.as_bytes());
                    let before = self.told[input.index()].swap(told, Ordering::Relaxed);
                    self.changed.fetch_or(before != 0, Ordering::Relaxed);
                    self.note(Event::Topic(input, id));
                }
            }
            Some(Told::Cut { topic, partition, at }) => {
                if let Some(partition) = self.inputs.partition(&topic, partition) {
                    self.note(Event::Cut { partition, at });
                }
            }
            Some(Told::OutOfRange { topic, partition, at }) => {
                if let Some(partition) = self.inputs.partition(&topic, partition) {
                    self.note(Event::OutOfRange { partition, at });
                }
            }
            None => {}
        }
        if self.debugging || !matches!(level, RDKafkaLogLevel::Debug) {
            kafka::log(level, facility, message);
        }
    }

    fn stats(&self, statistics: Statistics) {
        self.note(Event::Statistics(Box::new(statistics)));
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(begin) = told::unreadable_batch(reason) {
            self.note(Event::Unreadable { begin });
        }
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        // An outage brings twenty a second.
        if errors.pass(error.to_string().as_str()).is_some() {
            warn!(%error, reason, "Kafka reports an error; librdkafka keeps trying");
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        kafka::refresh(self.token.as_ref())
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RespErr, partitions: &mut TopicPartitionList) {
        let named = || {
            let elements = partitions.elements();
            // The group assigns what is subscribed to, and librdkafka takes no topic with more partitions than can be told apart.
            let named = elements
                .iter()
                .filter_map(|element| self.inputs.partition(element.topic(), element.partition()));
            named.collect()
        };
        if self.closing.load(Ordering::Relaxed) {
            let answered = match error {
                RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => consumer.incremental_assign(partitions),
                // What it was never given it lets go of as a whole only: an answer that fails is none, and closing would wait for another.
                _ => consumer
                    .incremental_unassign(partitions)
                    .or_else(|_| consumer.unassign()),
            };
            if let Err(error) = answered {
                debug!(%error, "failed to answer a rebalance while closing");
            }
            return;
        }
        match error {
            RespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.note(Event::Assign(named())),
            _ => self.note(Event::Revoke {
                partitions: named(),
                lost: consumer.assignment_lost(),
            }),
        }
    }
}

/// A consumer with this context.
pub(super) type KafkaConsumer = BaseConsumer<Context>;

/// The consumer as the intake owns it. However the intake ends, the context knows of it first: closing waits until every
/// rebalance is answered, and nobody else would answer then.
pub(super) struct OwnConsumer(KafkaConsumer);

impl OwnConsumer {
    pub(super) fn new(consumer: KafkaConsumer) -> Self {
        Self(consumer)
    }

    /// Leaves the group, before closing, where closing would not: librdkafka closes a member of a classic group that has no partitions
    /// without a word to the group, which waits for it in its next rebalance until the session is over. One that has unsubscribed it lets
    /// go properly, as soon as no rebalance is under way.
    pub(super) fn leave_group(&self) {
        let context = self.0.context();
        context.closing.store(true, Ordering::Relaxed);
        if !matches!(self.0.assignment(), Ok(partitions) if partitions.count() == 0) {
            return;
        }
        self.0.unsubscribe();
        drop(context.take_events());
        let deadline = Instant::now() + LEAVE_TIMEOUT;
        let mut left = false;
        while !left && Instant::now() < deadline {
            // Answers rebalances. Records that come are not ours to deliver any more.
            drop(self.0.poll(LEAVE_POLL));
            // Nothing else tells it.
            left = context.take_events().iter().any(|event| match event {
                Event::Statistics(statistics) => {
                    let group = statistics.cgrp.as_ref();
                    group.is_none_or(|group| group.join_state == NOT_JOINED)
                }
                Event::Assign(_)
                | Event::Revoke { .. }
                | Event::Topic(..)
                | Event::Cut { .. }
                | Event::OutOfRange { .. }
                | Event::Unreadable { .. } => false,
            });
        }
    }
}

impl Deref for OwnConsumer {
    type Target = KafkaConsumer;

    fn deref(&self) -> &KafkaConsumer {
        &self.0
    }
}

impl Drop for OwnConsumer {
    fn drop(&mut self) {
        self.0.context().closing.store(true, Ordering::Relaxed);
    }
}
