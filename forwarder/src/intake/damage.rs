//! Batches that cannot be read: which partition has one, whether it stays so, how far it reaches, and what becomes of the partition.
//!
//! librdkafka tells that a batch is damaged, but not of which partition. What it gives behind that is not to be relied on: it fetches
//! the batch again and again, or goes on somewhere. So from that word on nothing more is taken of any partition, and the next record of
//! each is looked at by a consumer of its own, which is no member of the group.
//!
//! ```text
//!  a batch cannot be read ─▶ all are held ─▶ looked at, one by one ─┬─ readable: taken again, from its next record on
//!                                                                  └─ not: all others are taken again
//!   it is read again, three times in all ─▶ readable after all: taken again
//!                                        └▶ stays so: counted ─┬─ `Stop`: the partition stops
//!                                                              └─ else: where does it end? ─▶ stepped over, with an error
//! ```
//!
//! The reader of parked records knows its partition, so only what is parked of that one waits.

use std::time::{Duration, Instant};

use forwarder_core::delivery::damage::{Extent, Step};
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::document::MissingOffset;
use forwarder_core::fanout::dispatch::Phase;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::Intake;
use super::context::{Context, Event};
use forwarder_kafka::{self as kafka, KafkaSetupError};

/// So often a batch is read before it is damaged for good: the network and the broker's memory may be what damages it.
const READS: u32 = 3;

/// Pause before it is read again.
const PAUSE: Duration = Duration::from_millis(200);

/// How long the loop waits for one look. Most take less.
const GLANCE: Duration = Duration::from_millis(2);

/// A partition of which nothing is heard for so long is left to the group's consumer: its leader may be away.
const SILENCE: Duration = Duration::from_secs(2);

/// So often in a row the broker may not have an offset that is asked for, before that is believed.
const MISSING: u32 = 3;

/// How long an answer is awaited after one that said so. Asked again at once, librdkafka would drop the answer that is on its way.
const DOUBT: Duration = Duration::from_millis(250);

/// Until then the consumer has connected.
const FIRST_SILENCE: Duration = Duration::from_secs(10);

/// Whether Kafka has a batch there that cannot be read: its checksum is wrong, it cannot be decompressed, or it is of no known format.
pub(super) fn is_damage(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::NotImplemented
        )
    )
}

/// Looks at partitions that may have a batch that cannot be read.
#[derive(Default)]
pub(super) struct Examiner {
    consumer: Option<BaseConsumer<Context>>,
    /// What it is looking at: partition and offset.
    asked: Option<Question>,
    cases: Vec<Case>,
    /// How often in a row the broker did not have the offset that was asked for.
    missing: u32,
    /// What was stepped over last, by partition, and where it was readable again: parked records may lie before it.
    stepped_over: Vec<(PartitionId, i64, i64)>,
}

struct Question {
    partition: PartitionId,
    offset: i64,
    until: Instant,
    /// When the broker was said not to have an offset.
    missing: Option<Instant>,
    /// Which one that was. It is told before or after it.
    missed: Option<i64>,
}

/// What the examiner's context tells beside its answers.
#[derive(Default)]
struct Aside {
    /// Where the batch begins that cannot be read.
    begin: Option<i64>,
    /// An offset that the broker does not have, of this partition.
    out_of_range: Option<(PartitionId, i64)>,
}

/// A partition that may have one.
#[derive(Clone, Copy, Debug)]
struct Case {
    partition: PartitionId,
    /// The assignment's epoch.
    epoch: u32,
    whose: Whose,
    stage: Stage,
}

/// Who came upon it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The group's consumer, in this partition or another one.
    Intake,
    /// The reader of parked records.
    Backlog,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Nothing is known yet.
    Suspected { from: i64 },
    /// It could not be read so often.
    Unreadable { from: i64, reads: u32, again_at: Instant },
    /// It stays unreadable: its end is looked for.
    Measured(Extent),
}

/// What a look at a partition brought.
enum Seen {
    Nothing,
    /// The first record, or the end of the partition.
    Readable(i64),
    /// Where the batch begins, if that is told.
    Unreadable(Option<i64>),
    /// The broker does not have that offset.
    Missing,
}

/// Whether a record is of this partition. The examiner reads one after the other.
fn is_of(message: &impl Message, topic: &str, partition: PartitionId) -> bool {
    message.partition() == partition.number() && message.topic() == topic
}

impl Examiner {
    /// Nothing is looked at.
    pub(super) fn is_idle(&self) -> bool {
        self.cases.is_empty()
    }

    fn suspect(&mut self, partition: PartitionId, epoch: u32, from: i64, whose: Whose) {
        self.cases.push(Case {
            partition,
            epoch,
            whose,
            stage: Stage::Suspected { from },
        });
    }

    /// The end of the damage at `offset`, if that was stepped over already.
    fn known_end(&self, partition: PartitionId, offset: i64) -> Option<i64> {
        let known = self.stepped_over.iter().rev();
        known
            .filter(|(of, from, to)| *of == partition && (*from..*to).contains(&offset))
            .map(|(_, _, to)| *to)
            .next()
    }

    fn remember(&mut self, partition: PartitionId, from: i64, to: i64) {
        // As many as an outage of a cluster may meet; a forgotten one is only measured again.
        const MOST: usize = 1_000;
        if self.stepped_over.len() >= MOST {
            self.stepped_over.remove(0);
        }
        self.stepped_over.push((partition, from, to));
    }

    /// What was stepped over is of another log now: of this partition, or of all.
    pub(super) fn forget_stepped_over(&mut self, partition: Option<PartitionId>) {
        self.stepped_over
            .retain(|(of, ..)| partition.is_some_and(|partition| partition != *of));
    }

    /// The case to look at now, with the offset: those first that hold others up.
    fn next(&self, now: Instant) -> Option<(usize, i64)> {
        let offset = |case: &Case| match case.stage {
            Stage::Suspected { from } => Some(from),
            Stage::Unreadable { from, again_at, .. } => (again_at <= now).then_some(from),
            Stage::Measured(extent) => match extent.step() {
                Step::Look(offset) => Some(offset),
                Step::Found(_) => None,
            },
        };
        let due = self.cases.iter().enumerate();
        let due = due.filter_map(|(index, case)| Some((index, offset(case)?)));
        due.min_by_key(|(index, _)| !matches!(self.cases[*index].stage, Stage::Suspected { .. }))
    }

    /// Nothing is to be looked at now. What was asked for is not fetched again and again meanwhile.
    fn rest(&mut self) {
        if self.asked.take().is_some()
            && let Some(consumer) = &self.consumer
            && let Err(error) = consumer.unassign()
        {
            debug!(%error, "failed to let the examiner rest");
        }
    }

    /// Nothing is to be looked at any more.
    fn end(&mut self) {
        self.asked = None;
        self.consumer = None;
    }

    /// Looks whether `partition` can be read from `offset` on; waits for a moment only.
    fn look(&mut self, topic: &str, partition: PartitionId, offset: i64) -> Result<Seen, KafkaError> {
        let Some(consumer) = &self.consumer else {
            return Ok(Seen::Nothing);
        };
        let is_asked = self
            .asked
            .as_ref()
            .is_some_and(|asked| (asked.partition, asked.offset) == (partition, offset));
        if !is_asked {
            let patience = if self.asked.is_none() { FIRST_SILENCE } else { SILENCE };
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition.number(), Offset::Offset(offset))?;
            consumer.assign(&list)?;
            self.asked = Some(Question {
                partition,
                offset,
                until: Instant::now() + patience,
                missing: None,
                missed: None,
            });
        }
        let answer = consumer.poll(GLANCE);
        let aside = aside(consumer.context().take_events());
        if let (Some(asked), Some((of, at))) = (&mut self.asked, aside.out_of_range)
            && of == partition
        {
            asked.missed = Some(at);
        }
        let seen = match answer {
            Some(Ok(message)) if is_of(&message, topic, partition) && message.offset() >= offset => {
                Seen::Readable(message.offset())
            }
            Some(Err(KafkaError::PartitionEOF(of))) if of == partition.number() => Seen::Readable(offset),
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange,
            ))) => Seen::Missing,
            Some(Err(error)) if is_damage(&error) => Seen::Unreadable(aside.begin),
            Some(Err(error)) => {
                debug!(%error, topic, partition = partition.number(), offset, "Kafka answers with an error while a partition is looked at");
                Seen::Nothing
            }
            _ => Seen::Nothing,
        };
        Ok(self.judge(seen))
    }

    /// That the broker does not have an offset counts only if nothing else is heard.
    fn judge(&mut self, seen: Seen) -> Seen {
        let Some(asked) = &mut self.asked else { return seen };
        match seen {
            Seen::Readable(_) | Seen::Unreadable(_) => {
                self.missing = 0;
                return seen;
            }
            Seen::Missing => {
                asked.missing.get_or_insert_with(Instant::now);
            }
            Seen::Nothing => {}
        }
        let Some(missing) = asked.missing else {
            return Seen::Nothing;
        };
        if asked.missed.is_some_and(|missed| missed != asked.offset) {
            // Of an earlier question: behind what it could not read, librdkafka has gone on at a random offset. It has stopped there, whatever
            // was asked for since.
            self.asked = None;
            return Seen::Nothing;
        }
        if missing.elapsed() < DOUBT {
            return Seen::Nothing;
        }
        self.asked = None;
        self.missing += 1;
        if self.missing < MISSING {
            return Seen::Nothing;
        }
        self.missing = 0;
        Seen::Missing
    }
}

fn aside(events: Vec<Event>) -> Aside {
    let mut aside = Aside::default();
    for event in events {
        match event {
            Event::OutOfRange { partition, at } => aside.out_of_range = Some((partition, at)),
            Event::Unreadable { begin } => aside.begin = Some(begin),
            Event::Assign(_) | Event::Revoke { .. } | Event::Statistics(_) | Event::Topic(..) | Event::Cut { .. } => {}
        }
    }
    aside
}

impl Intake {
    /// A batch cannot be read, of whatever partition.
    pub(super) fn suspect_all(&mut self, error: &KafkaError) {
        let held = self.dispatcher.hold_taken();
        if held.is_empty() {
            return;
        }
        warn!(
            %error,
            "Kafka gave a batch that cannot be read, and librdkafka does not say of which partition: the next record of each is looked at"
        );
        for partition in held {
            if let Some(state) = self.dispatcher.partitions().get(&partition) {
                self.examiner
                    .suspect(partition, state.epoch, state.next(), Whose::Intake);
            }
        }
        // Throws away what librdkafka has read ahead, which may be what lies behind the batch.
        self.set_paused(self.paused);
    }

    /// A batch among parked records cannot be read.
    pub(super) fn suspect_parked(&mut self, error: &KafkaError) {
        let Some((partition, from)) = self.dispatcher.hold_reading() else {
            return;
        };
        if let Some(end) = self.examiner.known_end(partition, from) {
            debug!(
                topic = self.inputs.told(partition),
                partition = partition.number(),
                from,
                end,
                "parked records lie before what was stepped over"
            );
            self.dispatcher.go_on_reading(partition, Some(from..end));
            return;
        }
        let Some(state) = self.dispatcher.partitions().get(&partition) else {
            return;
        };
        warn!(%error, topic = self.inputs.told(partition), partition = partition.number(), from, "Kafka gave a batch of parked records that cannot be read: it is read again");
        self.examiner.suspect(partition, state.epoch, from, Whose::Backlog);
    }

    /// Goes on looking at what is suspected.
    pub(super) fn examine(&mut self) {
        self.forget_what_is_over();
        if self.examiner.is_idle() {
            self.examiner.end();
            return;
        }
        for case in &mut self.examiner.cases {
            // Told once a second, and perhaps for the first time.
            if let (Stage::Measured(extent), Some(end)) = (&mut case.stage, self.ends.get(&case.partition)) {
                extent.reaches(*end);
            }
        }
        let Some((index, offset)) = self.examiner.next(Instant::now()) else {
            self.examiner.rest();
            return;
        };
        let case = self.examiner.cases[index];
        if let Err(error) = self.connect_examiner() {
            if self.rejects.may_log_kafka_error() {
                warn!(%error, "failed to look for a batch that cannot be read; trying again");
            }
            return;
        }
        let seen = self
            .examiner
            .look(self.inputs.topic_of(case.partition), case.partition, offset);
        match seen {
            Ok(Seen::Nothing) => self.note_silence(index),
            Ok(Seen::Readable(first)) => self.note_readable(index, offset, first),
            Ok(Seen::Unreadable(batch)) => self.note_unreadable(index, offset, batch),
            // It has expired, or the topic was made anew: whoever reads it comes upon that.
            Ok(Seen::Missing) => self.take_again(index),
            Err(error) => {
                if self.rejects.may_log_kafka_error() {
                    warn!(%error, topic = self.inputs.told(case.partition), partition = case.partition.number(), "failed to look at a partition; trying again");
                }
            }
        }
    }

    fn connect_examiner(&mut self) -> Result<(), KafkaSetupError> {
        if self.examiner.consumer.is_none() {
            let source = &self.config.source;
            let consumer = kafka::create_examiner(&self.config, |token| Context::new(source, &self.inputs, token))?;
            self.examiner.consumer = Some(consumer);
            self.examiner.asked = None;
        }
        Ok(())
    }

    /// Partitions that were given up are their next owner's to look at.
    fn forget_what_is_over(&mut self) {
        let partitions = self.dispatcher.partitions();
        self.examiner.cases.retain(|case| {
            let state = partitions.get(&case.partition);
            state.is_some_and(|state| {
                let is_held = match case.whose {
                    Whose::Intake => state.phase == Phase::Examined,
                    Whose::Backlog => matches!(state.phase, Phase::Active | Phase::Examined),
                };
                state.epoch == case.epoch && is_held
            })
        });
    }

    fn note_silence(&mut self, index: usize) {
        let now = Instant::now();
        if self.examiner.asked.as_ref().is_none_or(|asked| now < asked.until) {
            return;
        }
        let case = self.examiner.cases[index];
        if let Stage::Suspected { .. } = case.stage
            && case.whose == Whose::Intake
        {
            // If that was the one, the group's consumer comes upon it again.
            self.take_again(index);
        } else {
            warn!(
                topic = self.inputs.told(case.partition),
                partition = case.partition.number(),
                "nothing is heard of a partition with a batch that could not be read; asking again"
            );
            self.examiner.asked = None;
        }
    }

    fn note_readable(&mut self, index: usize, offset: i64, first: i64) {
        let case = &mut self.examiner.cases[index];
        let Stage::Measured(extent) = &mut case.stage else {
            if let Stage::Unreadable { .. } = case.stage {
                info!(
                    topic = self.inputs.told(case.partition),
                    partition = case.partition.number(),
                    offset,
                    "the batch that could not be read can be read now"
                );
            }
            self.take_again(index);
            return;
        };
        extent.is_readable(offset, first);
        let extent = *extent;
        self.step_over_when_found(index, extent);
    }

    fn note_unreadable(&mut self, index: usize, offset: i64, batch: Option<i64>) {
        let case = &mut self.examiner.cases[index];
        let (from, reads) = match &mut case.stage {
            Stage::Measured(extent) => {
                extent.is_unreadable(offset, batch);
                let extent = *extent;
                self.step_over_when_found(index, extent);
                return;
            }
            Stage::Suspected { from } => (*from, 1),
            Stage::Unreadable { from, reads, .. } => (*from, *reads + 1),
        };
        let (partition, whose) = (case.partition, case.whose);
        if reads < READS {
            case.stage = Stage::Unreadable {
                from,
                reads,
                again_at: Instant::now() + PAUSE,
            };
        } else {
            self.stays_damaged(index, from, batch);
        }
        if reads == 1 && whose == Whose::Intake {
            warn!(
                topic = self.inputs.told(partition),
                partition = partition.number(),
                offset = from,
                "the batch that cannot be read is found: it is read again, and the other partitions go on"
            );
            self.take_others_again(partition);
        }
    }

    /// Counted, and what is declared is done.
    fn stays_damaged(&mut self, index: usize, from: i64, batch: Option<i64>) {
        let case = self.examiner.cases[index];
        let topic = self.inputs.topic_of(case.partition);
        self.metrics.damaged_batch(topic, case.partition.number());
        let policy = self.config.source.missing_offset;
        match policy {
            MissingOffset::Stop => {
                error!(
                    topic,
                    partition = case.partition.number(),
                    offset = from,
                    ?policy,
                    "a batch in Kafka is damaged and stays so: the partition stops before it; mend the topic, or commit an offset behind it \
                     for the group, then restart"
                );
                self.dispatcher.set_phase(case.partition, Phase::Damaged(from));
                self.examiner.cases.swap_remove(index);
                self.set_paused(self.paused);
            }
            MissingOffset::Earliest | MissingOffset::Latest => {
                warn!(
                    topic,
                    partition = case.partition.number(),
                    offset = from,
                    ?policy,
                    "a batch in Kafka is damaged and stays so: looking for what is behind it"
                );
                let end = self.ends.get(&case.partition).copied().unwrap_or(from);
                self.examiner.cases[index].stage = Stage::Measured(Extent::new(from, batch, end));
            }
        }
    }

    /// Either answer may be the last one that was missing.
    fn step_over_when_found(&mut self, index: usize, extent: Extent) {
        if let Step::Found(end) = extent.step() {
            self.step_over(index, extent.from(), end);
        }
    }

    fn step_over(&mut self, index: usize, from: i64, end: i64) {
        let Case { partition, whose, .. } = self.examiner.cases.swap_remove(index);
        error!(
            topic = self.inputs.topic_of(partition),
            partition = partition.number(),
            from,
            to = end - 1,
            offsets = end - from,
            policy = ?self.config.source.missing_offset,
            "a damaged batch in Kafka is stepped over: no record of these offsets is delivered"
        );
        self.examiner.remember(partition, from, end);
        match whose {
            Whose::Intake => {
                self.dispatcher.step_over(partition, end);
                self.begun.push(partition);
            }
            Whose::Backlog => self.dispatcher.go_on_reading(partition, Some(from..end)),
        }
    }

    /// What was suspected can be read.
    fn take_again(&mut self, index: usize) {
        let Case { partition, whose, .. } = self.examiner.cases.swap_remove(index);
        match whose {
            Whose::Intake => self.begun.push(partition),
            Whose::Backlog => self.dispatcher.go_on_reading(partition, None),
        }
    }

    /// One was found: if there is another one, the group's consumer says so.
    fn take_others_again(&mut self, found: PartitionId) {
        let begun = &mut self.begun;
        self.examiner.cases.retain(|case| {
            let goes_on =
                case.whose == Whose::Intake && case.partition != found && matches!(case.stage, Stage::Suspected { .. });
            if goes_on {
                begun.push(case.partition);
            }
            !goes_on
        });
    }
}
