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

mod case;
mod probe;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::delivery::damage::{Extent, Step};
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::document::MissingOffset;
use forwarder_core::fanout::dispatch::{Dispatcher, Phase};
use forwarder_service::log_limit::LogLimit;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, error, info, warn};

use self::case::{Case, Stage, Whose};
use self::probe::{Probe, Seen};
use super::client::Client;
use crate::message::Message;
use crate::metrics::Metrics;

/// So often a batch is read before it is damaged for good: the network and the broker's memory may be what damages it.
const READS: u32 = 3;

/// Pause before it is read again.
const PAUSE: Duration = Duration::from_millis(200);

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
    probe: Probe,
    cases: Vec<Case>,
    /// What was stepped over last, by partition, and where it was readable again: parked records may lie before it.
    stepped_over: Vec<(PartitionId, i64, i64)>,
}

/// What is to be done upon a look at a case.
enum Verdict {
    /// More is to be known first.
    Wait,
    /// What was suspected can be read.
    TakeAgain,
    /// It is the one that cannot be read, so the others can.
    TakeOthersAgain,
    /// The partition stops before this offset.
    Stop { at: i64 },
    /// No record of these offsets is delivered.
    StepOver { from: i64, end: i64 },
}

/// What others have to do upon a look.
#[derive(Default)]
pub(super) struct Findings {
    /// These partitions begin again.
    pub(super) begun: Vec<PartitionId>,
    /// A partition is not fetched any more.
    pub(super) has_stopped: bool,
}

impl Examiner {
    /// Nothing is looked at.
    pub(super) fn is_idle(&self) -> bool {
        self.cases.is_empty()
    }

    fn suspect(&mut self, partition: PartitionId, epoch: u32, from: i64, whose: Whose) {
        self.cases.push(Case::new(partition, epoch, from, whose));
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
        let due = self.cases.iter().enumerate();
        let due = due.filter_map(|(index, case)| Some((index, case.due(now)?)));
        due.min_by_key(|(index, _)| !self.cases[*index].is_suspected())
    }

    /// A batch cannot be read, of whatever partition. Returns whether any is held now: what librdkafka has read ahead, which may be what
    /// lies behind the batch, is to be thrown away then.
    pub(super) fn suspect_all(&mut self, error: &KafkaError, dispatcher: &mut Dispatcher<Message>) -> bool {
        let held = dispatcher.hold_taken();
        if held.is_empty() {
            return false;
        }
        warn!(
            %error,
            "Kafka returned an unreadable batch of an unknown partition; examining the next record of each partition"
        );
        for partition in held {
            if let Some(state) = dispatcher.partitions().get(&partition) {
                self.suspect(partition, state.epoch, state.next(), Whose::Group);
            }
        }
        true
    }

    /// A batch among parked records cannot be read.
    pub(super) fn suspect_parked(&mut self, error: &KafkaError, client: &Client, dispatcher: &mut Dispatcher<Message>) {
        let Some((partition, from)) = dispatcher.hold_reading() else {
            return;
        };
        let topic = client.inputs.topic_to_log(partition);
        if let Some(end) = self.known_end(partition, from) {
            debug!(
                topic,
                partition = partition.number(),
                from,
                end,
                "parked records lie before the skipped offsets"
            );
            dispatcher.go_on_reading(partition, Some(from..end));
            return;
        }
        let Some(state) = dispatcher.partitions().get(&partition) else {
            return;
        };
        warn!(%error, topic, partition = partition.number(), from, "Kafka returned an unreadable batch of parked records; reading it again");
        self.suspect(partition, state.epoch, from, Whose::Backlog);
    }

    /// Goes on looking at what is suspected. `ends`: one past the newest record of each partition, where that is told.
    pub(super) fn examine(
        &mut self,
        client: &Client,
        dispatcher: &mut Dispatcher<Message>,
        ends: &BTreeMap<PartitionId, i64>,
        metrics: &Metrics,
        errors: &mut LogLimit,
    ) -> Findings {
        let partitions = dispatcher.partitions();
        self.cases.retain(|case| {
            let state = partitions.get(&case.partition);
            state.is_some_and(|state| case.is_open(state))
        });
        if self.is_idle() {
            self.probe.end();
            return Findings::default();
        }
        for case in &mut self.cases {
            // Told once a second, and perhaps for the first time.
            if let (Stage::Measured(extent), Some(end)) = (&mut case.stage, ends.get(&case.partition)) {
                extent.reaches(*end);
            }
        }
        let Some((index, offset)) = self.next(Instant::now()) else {
            self.probe.rest();
            return Findings::default();
        };
        let partition = self.cases[index].partition;
        if let Err(error) = self.probe.connect(client) {
            if errors.pass(&()).is_some() {
                warn!(%error, "failed to search for the unreadable batch; trying again");
            }
            return Findings::default();
        }
        let topic = client.inputs.topic_of(partition);
        let verdict = match self.probe.observe(topic, partition, offset) {
            Ok(Seen::Nothing) => self.note_silence(index, client),
            Ok(Seen::Readable(first)) => self.note_readable(index, offset, first, client),
            Ok(Seen::Unreadable(batch)) => {
                let end = ends.get(&partition).copied();
                self.note_unreadable(index, offset, batch, end, client, metrics)
            }
            // It has expired, or the topic was made anew: whoever reads it comes upon that.
            Ok(Seen::Missing) => Verdict::TakeAgain,
            Err(error) => {
                if errors.pass(&()).is_some() {
                    warn!(%error, topic = client.inputs.topic_to_log(partition), partition = partition.number(), "failed to examine a partition; trying again");
                }
                Verdict::Wait
            }
        };
        self.carry_out(verdict, index, client, dispatcher)
    }

    fn note_silence(&mut self, index: usize, client: &Client) -> Verdict {
        if !self.probe.is_silent(Instant::now()) {
            return Verdict::Wait;
        }
        let case = self.cases[index];
        if case.is_suspected() && case.whose == Whose::Group {
            // If that was the one, the group's consumer comes upon it again.
            return Verdict::TakeAgain;
        }
        warn!(
            topic = client.inputs.topic_to_log(case.partition),
            partition = case.partition.number(),
            "Kafka has not answered about a partition with an unreadable batch; asking again"
        );
        self.probe.ask_anew();
        Verdict::Wait
    }

    fn note_readable(&mut self, index: usize, offset: i64, first: i64, client: &Client) -> Verdict {
        let case = &mut self.cases[index];
        let Stage::Measured(extent) = &mut case.stage else {
            if let Stage::Unreadable { .. } = case.stage {
                info!(
                    topic = client.inputs.topic_to_log(case.partition),
                    partition = case.partition.number(),
                    offset,
                    "the unreadable batch is readable now"
                );
            }
            return Verdict::TakeAgain;
        };
        extent.is_readable(offset, first);
        step_over_when_found(*extent)
    }

    fn note_unreadable(
        &mut self,
        index: usize,
        offset: i64,
        batch: Option<i64>,
        end: Option<i64>,
        client: &Client,
        metrics: &Metrics,
    ) -> Verdict {
        let case = &mut self.cases[index];
        let (from, reads) = match &mut case.stage {
            Stage::Measured(extent) => {
                extent.is_unreadable(offset, batch);
                return step_over_when_found(*extent);
            }
            Stage::Suspected { from } => (*from, 1),
            Stage::Unreadable { from, reads, .. } => (*from, *reads + 1),
        };
        if reads >= READS {
            return stays_damaged(
                case,
                from,
                Extent::new(from, batch, end.unwrap_or(from)),
                client,
                metrics,
            );
        }
        case.stage = Stage::Unreadable {
            from,
            reads,
            again_at: Instant::now() + PAUSE,
        };
        if reads > 1 || case.whose != Whose::Group {
            return Verdict::Wait;
        }
        warn!(
            topic = client.inputs.topic_to_log(case.partition),
            partition = case.partition.number(),
            offset = from,
            "found the unreadable batch; reading it again while the other partitions go on"
        );
        Verdict::TakeOthersAgain
    }

    /// Does what a look at the case `index` calls for.
    fn carry_out(
        &mut self,
        verdict: Verdict,
        index: usize,
        client: &Client,
        dispatcher: &mut Dispatcher<Message>,
    ) -> Findings {
        let mut findings = Findings::default();
        let Case { partition, whose, .. } = self.cases[index];
        match verdict {
            Verdict::Wait => {}
            Verdict::TakeOthersAgain => findings.begun = self.close_others(partition),
            Verdict::TakeAgain => {
                self.cases.swap_remove(index);
                match whose {
                    Whose::Group => findings.begun.push(partition),
                    Whose::Backlog => dispatcher.go_on_reading(partition, None),
                }
            }
            Verdict::Stop { at } => {
                self.cases.swap_remove(index);
                dispatcher.set_phase(partition, Phase::Damaged(at));
                findings.has_stopped = true;
            }
            Verdict::StepOver { from, end } => {
                self.cases.swap_remove(index);
                error!(
                    topic = client.inputs.topic_of(partition),
                    partition = partition.number(),
                    from,
                    to = end - 1,
                    offsets = end - from,
                    policy = ?client.config.source.missing_offset,
                    "skipped a damaged batch in Kafka; the records at these offsets are not delivered"
                );
                self.remember(partition, from, end);
                match whose {
                    Whose::Group => {
                        dispatcher.step_over(partition, end);
                        findings.begun.push(partition);
                    }
                    Whose::Backlog => dispatcher.go_on_reading(partition, Some(from..end)),
                }
            }
        }
        findings
    }

    /// One was found: if there is another one, the group's consumer says so. Returns those that begin again.
    fn close_others(&mut self, found: PartitionId) -> Vec<PartitionId> {
        let goes_on = |case: &mut Case| case.whose == Whose::Group && case.partition != found && case.is_suspected();
        self.cases.extract_if(.., goes_on).map(|case| case.partition).collect()
    }
}

/// Either answer may be the last one that was missing.
fn step_over_when_found(extent: Extent) -> Verdict {
    match extent.step() {
        Step::Found(end) => Verdict::StepOver {
            from: extent.from(),
            end,
        },
        Step::Look(_) => Verdict::Wait,
    }
}

/// Counted, and what is declared is done.
fn stays_damaged(case: &mut Case, from: i64, extent: Extent, client: &Client, metrics: &Metrics) -> Verdict {
    let topic = client.inputs.topic_of(case.partition);
    metrics.damaged_batch(topic, case.partition.number());
    let policy = client.config.source.missing_offset;
    match policy {
        MissingOffset::Stop => {
            error!(
                topic,
                partition = case.partition.number(),
                offset = from,
                ?policy,
                "a batch in Kafka is damaged, so the partition stops before it. Repair the topic, or commit an offset behind the \
                 batch for the group. Then restart"
            );
            Verdict::Stop { at: from }
        }
        MissingOffset::Earliest | MissingOffset::Latest => {
            warn!(
                topic,
                partition = case.partition.number(),
                offset = from,
                ?policy,
                "a batch in Kafka is damaged; searching for the first readable offset behind it"
            );
            case.stage = Stage::Measured(extent);
            Verdict::Wait
        }
    }
}
