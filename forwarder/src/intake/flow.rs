//! Which partitions are fetched, and from where: pauses at the caps, repairs after a loss.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::delivery::start::Start;
use forwarder_core::fanout::dispatch::{Phase, Resume};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, info, warn};

use super::starts::{self, Questions};
use super::{Intake, IntakeError};

/// Pause before a repair that failed is tried again.
const RETRY_REPAIR: Duration = Duration::from_secs(1);

/// librdkafka tells what was cut right after it has stopped fetching: it is known by then.
const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// After a question the others go on for so many times as long as it took.
const OTHERS_SHARE: u32 = 9;

impl Intake {
    /// Says of every partition of ours whether it is to be fetched.
    pub(super) fn set_paused(&mut self, paused: bool) {
        let mut resume = TopicPartitionList::new();
        let mut pause = TopicPartitionList::new();
        for (partition, state) in self.dispatcher.partitions() {
            let fetched = state.phase == Phase::Active && !paused;
            let list = if fetched { &mut resume } else { &mut pause };
            list.add_partition(self.inputs.topic_of(*partition), partition.number());
        }
        let result = self.consumer.pause(&pause).and_then(|()| self.consumer.resume(&resume));
        match result {
            Ok(()) => {
                if self.paused != paused {
                    debug!(paused, "all partitions");
                }
                self.paused = paused;
            }
            Err(error) => warn!(%error, paused, "failed to pause or resume; trying again"),
        }
    }

    /// librdkafka has stopped fetching a partition because its position is gone; it does not say which.
    pub(super) fn repair_positions(&mut self) {
        self.repair_at.get_or_insert_with(|| Instant::now() + TOLD_WITHIN);
    }

    /// Partitions begin that have waited for a ring: while they were assigned, nothing of theirs was fetched.
    pub(super) fn ask_for(&mut self, begun: Vec<PartitionId>) {
        if !begun.is_empty() {
            info!(partitions = ?self.inputs.show(&begun), "no longer behind the ring of those who had them: taken");
            self.begun.extend(begun);
        }
    }

    /// Takes partitions anew from where they are to go on: those that begin, and those whose position is gone. Not while a
    /// rebalance is being carried out: taking and giving up is what answers one.
    pub(super) fn repair_when_due(&mut self) -> Result<(), IntakeError> {
        let due = self.repair_at.is_some_and(|at| at <= Instant::now());
        if self.is_rebalancing() || (!due && self.begun.is_empty()) {
            return Ok(());
        }
        let asked_at = Instant::now();
        let (lost, asked_all) = if due {
            self.look_what_is_lost()
        } else {
            (Vec::new(), true)
        };
        // The group may have asked for partitions meanwhile, and what is done here would be taken for the answer to that. It is
        // told by a poll, before any record: librdkafka holds these back until it is answered.
        self.poll(Duration::ZERO, 1)?;
        self.handle_events();
        if self.is_rebalancing() || self.consumer.assignment_lost() || self.identity.is_outdated() {
            return Ok(());
        }
        // One that could not be asked about is asked about again, and not at once: the others have stood still meanwhile.
        let pause = RETRY_REPAIR.max(asked_at.elapsed() * OTHERS_SHARE);
        // A pass for those that begin asks about nobody, so it leaves a repair that is to come as it is.
        if due {
            self.repair_at = (!asked_all).then(|| Instant::now() + pause);
        }
        if let Err(error) = self.take_anew(due, lost) {
            warn!(%error, "failed to take partitions anew; trying again");
            self.repair_at = Some(Instant::now() + RETRY_REPAIR);
        }
        Ok(())
    }

    pub(super) fn is_rebalancing(&self) -> bool {
        self.joining.is_some() || self.leaving.is_some()
    }

    /// The partitions whose next record the broker does not have, with that and where to go on; and whether each could be asked
    /// about.
    fn look_what_is_lost(&mut self) -> (Vec<(PartitionId, i64, Start)>, bool) {
        let questions = Questions::new(self.dispatcher.partitions().len());
        let mut asked_all = true;
        let states = self.dispatcher.partitions().iter();
        let taken = states.filter(|(_, state)| state.is_taken());
        let taken: Vec<(PartitionId, i64)> = taken.map(|(partition, state)| (*partition, state.next())).collect();
        let mut lost = Vec::new();
        for (partition, next) in taken {
            let topic = self.inputs.topic_of(partition);
            match starts::after_loss(&self.consumer, &self.config.source, topic, partition, next, &questions) {
                Ok(start) => {
                    let fault = start.as_ref().and_then(|start| start.fault);
                    if self.identity.is_settled(partition, fault, self.clock.micros()) {
                        lost.extend(start.map(|start| (partition, next, start)));
                    } else {
                        warn!(
                            topic = self.inputs.told(partition),
                            partition = partition.number(),
                            ?fault,
                            "the log seems to end before what was read: Kafka is asked again"
                        );
                        asked_all = false;
                    }
                }
                Err(error) => {
                    // A partition without a leader must not keep the others waiting: it goes on where it was, and if that is gone,
                    // fetching will say so.
                    warn!(%error, topic = self.inputs.told(partition), partition = partition.number(), "failed to ask what there is of a partition");
                    asked_all = false;
                }
            }
        }
        (lost, asked_all)
    }

    /// `all`: every partition that is taken, for librdkafka does not say which one it has stopped fetching.
    fn take_anew(&mut self, all: bool, mut lost: Vec<(PartitionId, i64, Start)>) -> Result<(), KafkaError> {
        let begun = std::mem::take(&mut self.begun);
        // Not before: until the partition is taken anew, what comes of it is what librdkafka made of a batch that it could not read.
        begun
            .iter()
            .for_each(|partition| self.dispatcher.take_again(*partition));
        let cuts = self.take_cuts();
        // Where a log was cut says more than where it ends by now.
        lost.retain(|(partition, ..)| cuts.iter().all(|(cut, ..)| cut != partition));
        let mut holes = BTreeMap::new();
        for (partition, next, start) in lost.into_iter().chain(cuts) {
            if let Some(fault) = start.fault {
                self.tell_fault(partition, fault, start.offset);
            }
            match start.offset {
                // A hole like any other: what was read before it is still settled first.
                Some(offset) if offset >= next => drop(holes.insert(partition, offset)),
                Some(offset) => self.begin_anew(partition, offset),
                // What was read before still goes out: Kafka may not have it any more.
                None => self.dispatcher.set_phase(partition, Phase::Stopped),
            }
        }
        let (mut given_up, mut taken) = (TopicPartitionList::new(), TopicPartitionList::new());
        for (partition, state) in self.dispatcher.partitions() {
            if state.is_taken() && (all || begun.contains(partition)) {
                let from = holes
                    .get(partition)
                    .map_or(state.next(), |hole| state.next().max(*hole));
                let topic = self.inputs.topic_of(*partition);
                given_up.add_partition(topic, partition.number());
                taken.add_partition_offset(topic, partition.number(), Offset::Offset(from))?;
            }
        }
        self.consumer.incremental_unassign(&given_up)?;
        self.consumer.incremental_assign(&taken)?;
        // Said anew for each: librdkafka remembers a pause of an earlier assignment.
        self.set_paused(self.paused);
        Ok(())
    }

    /// The log was cut short: what was read under the old offsets is not sent.
    fn begin_anew(&mut self, partition: PartitionId, offset: i64) {
        let Some(state) = self.dispatcher.partitions().get(&partition) else {
            return;
        };
        let settled = state.position();
        self.examiner.forget_stepped_over(Some(partition));
        self.abandon(&[(partition, state.epoch)]);
        let resume = Resume {
            // What was out or parked and may still be there is delivered.
            offset: offset.min(settled),
            ..Resume::default()
        };
        self.dispatcher.assign(partition, &resume, Phase::Active);
        info!(
            topic = self.inputs.told(partition),
            partition = partition.number(),
            offset = resume.offset,
            "begins anew"
        );
    }
}
