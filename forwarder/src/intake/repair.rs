//! Positions that are gone: what was lost, and where each partition goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::delivery::start::Start;
use forwarder_core::fanout::dispatch::{Dispatcher, Phase, Resume};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use tracing::{info, warn};

use super::client::Client;
use super::flow::Scope;
use super::identity::Identity;
use super::questions::{self, ALL_TIMEOUT};
use super::report::end_of;
use super::rings::RingProgram;
use super::stalls::Fetched;
use super::starts;
use super::{Intake, IntakeError};
use crate::message::Message;
use forwarder_service::clock::Clock;

/// A partition that cannot go on where it was, with its next offset there and where it goes on.
type Loss = (PartitionId, i64, Start);

/// How a partition goes on.
enum GoOn {
    /// From there. What was read before is still settled first, as before any hole.
    Behind(i64),
    /// From there, under other offsets than before.
    Anew(i64),
    /// Not at all. What was read before still goes out: Kafka may not have it any more.
    Stop,
}

impl GoOn {
    fn of(next: i64, start: &Start) -> Self {
        match start.offset {
            Some(offset) if offset >= next => Self::Behind(offset),
            Some(offset) => Self::Anew(offset),
            None => Self::Stop,
        }
    }
}

impl<P: RingProgram> Intake<P> {
    /// Reassigns partitions from where they are to go on: those that begin, and those whose position is gone. Not while a rebalance is
    /// being carried out: assigning is what answers one.
    pub(super) fn repair_when_due(&mut self) -> Result<(), IntakeError> {
        let Some(scope) = self.flow.due().filter(|_| !self.group.is_rebalancing()) else {
            return Ok(());
        };
        let asked_at = Instant::now();
        let (lost, asked_all) = match scope {
            Scope::All => find_losses(&self.client, &self.dispatcher, &mut self.identity, self.clock),
            Scope::Begun => (Vec::new(), true),
        };
        // The group may have asked for partitions meanwhile, and what is done here would be taken for the answer to that. It is
        // told by a poll, before any record: librdkafka holds these back until it is answered.
        self.poll(Duration::ZERO, 1)?;
        self.observe();
        if self.group.is_rebalancing() || self.client.consumer.assignment_lost() || self.identity.is_outdated() {
            return Ok(());
        }
        self.flow.note_repair(scope, asked_all, asked_at);
        if let Err(error) = self.reassign(scope, lost) {
            warn!(%error, "failed to reassign partitions; trying again");
            self.flow.repair_later();
        }
        Ok(())
    }

    /// Has partitions fetched anew that stand still although Kafka has more.
    pub(super) fn mend_stalls(&mut self, statistics: &Statistics) {
        let now = Instant::now();
        let partitions = self.dispatcher.partitions();
        self.stalls.keep(|partition| partitions.contains_key(&partition));
        for (id, state) in partitions {
            let topic = statistics.topics.get(self.client.inputs.topic_of(*id));
            let Some(told) = topic.and_then(|topic| topic.partitions.get(&id.number())) else {
                continue;
            };
            if !state.is_taken() || self.flow.is_paused() {
                self.stalls.forget(*id);
                continue;
            }
            let fetched = Fetched {
                next: state.next().max(told.app_offset),
                end: end_of(told),
                queued: told.fetchq_cnt,
            };
            if let Some(lasting) = self.stalls.note(*id, fetched, now) {
                warn!(
                    topic = self.client.inputs.topic_to_log(*id),
                    partition = id.number(),
                    next = fetched.next,
                    end = fetched.end,
                    fetch_state = told.fetch_state,
                    fetch_offset = told.next_offset,
                    leader = told.leader,
                    seconds = lasting.as_secs(),
                    "no record of the partition has come though Kafka has more; asking for it anew"
                );
                self.metrics.kafka_errors.inc();
                self.flow.begin([*id]);
            }
        }
    }

    fn reassign(&mut self, scope: Scope, mut lost: Vec<Loss>) -> Result<(), KafkaError> {
        let begun = self.flow.take_begun();
        // Not before: until the partition is reassigned, what comes of it is what librdkafka made of a batch that it could not read.
        begun
            .iter()
            .for_each(|partition| self.dispatcher.take_again(*partition));
        let policy = self.client.config.source.missing_offset;
        let cuts = self.identity.take_cuts(&self.dispatcher, policy);
        // Where a log was cut says more than where it ends by now.
        lost.retain(|(partition, ..)| cuts.iter().all(|(cut, ..)| cut != partition));
        let mut holes = BTreeMap::new();
        for (partition, next, start) in lost.into_iter().chain(cuts) {
            if let Some(fault) = start.fault {
                self.identity
                    .report_fault(partition, fault, start.offset, &self.client, &self.metrics);
            }
            match GoOn::of(next, &start) {
                GoOn::Behind(offset) => drop(holes.insert(partition, offset)),
                GoOn::Anew(offset) => self.begin_anew(partition, offset),
                GoOn::Stop => self.dispatcher.set_phase(partition, Phase::Stopped),
            }
        }
        self.flow
            .reassign(scope, &begun, &holes, &self.client, &self.dispatcher)
    }

    /// The log was cut short: what was read under the old offsets is not sent.
    fn begin_anew(&mut self, partition: PartitionId, offset: i64) {
        let Some(state) = self.dispatcher.partitions().get(&partition) else {
            return;
        };
        let (epoch, settled) = (state.epoch, state.position());
        self.examiner.forget_stepped_over(Some(partition));
        self.group
            .abandon(&[(partition, epoch)], &self.dispatcher, &self.publishers);
        let resume = Resume {
            // What was out or parked and may still be there is delivered.
            offset: offset.min(settled),
            ..Resume::default()
        };
        self.dispatcher.assign(partition, &resume, Phase::Active);
        info!(
            topic = self.client.inputs.topic_to_log(partition),
            partition = partition.number(),
            offset = resume.offset,
            "the partition starts again"
        );
    }
}

/// The partitions whose next record the broker does not have, and whether each could be asked about.
fn find_losses(
    client: &Client,
    dispatcher: &Dispatcher<Message>,
    identity: &mut Identity,
    clock: Clock,
) -> (Vec<Loss>, bool) {
    let states = dispatcher.partitions().iter().filter(|(_, state)| state.is_taken());
    let taken: Vec<_> = states.map(|(partition, state)| (*partition, state.next())).collect();
    let mut asked_all = true;
    let mut lost = Vec::new();
    let topics = taken
        .iter()
        .map(|(partition, _)| (client.inputs.topic_of(*partition), *partition));
    let answers = questions::watermarks(&client.consumer, &topics.collect::<Vec<_>>(), ALL_TIMEOUT);
    for ((partition, next), answer) in taken.into_iter().zip(answers) {
        match answer {
            Ok(marks) => {
                let start = starts::after_loss(&client.config.source, partition, next, marks);
                let fault = start.as_ref().and_then(|start| start.fault);
                if identity.is_settled(partition, fault, clock.micros()) {
                    lost.extend(start.map(|start| (partition, next, start)));
                } else {
                    warn!(
                        topic = client.inputs.topic_to_log(partition),
                        partition = partition.number(),
                        ?fault,
                        "the log seems to end before the last offset that was read; asking Kafka again"
                    );
                    asked_all = false;
                }
            }
            Err(error) => {
                // A partition without a leader must not keep the others waiting: it goes on where it was, and if that is gone,
                // fetching will say so.
                warn!(%error, topic = client.inputs.topic_to_log(partition), partition = partition.number(), "failed to ask Kafka for the offsets of a partition");
                asked_all = false;
            }
        }
    }
    (lost, asked_all)
}
