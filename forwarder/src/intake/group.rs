//! Membership: partitions taken and given up, offsets committed.
//!
//! A rebalance is carried out in steps, one look per turn of the loop, so that receipts, commits and status go on
//! meanwhile. (librdkafka itself holds every partition of a member until a rebalance is answered.)
//! - *joining*: where each partition begins is looked up (and committed where it is new) before the first record is
//!   asked for; as long as Kafka does not answer, the assignment waits. A single partition that it cannot answer for is left behind
//!   and [sought](super::seeking).
//! - *leaving*: no more records are taken, what is out is awaited within a bound, the rest is abandoned, then commit
//!   and release. When the partitions are lost already, there is nothing to wait for and nothing to commit.

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::{Input, PartitionId};
use forwarder_core::fanout::dispatch::Phase;
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::Intake;
use super::commits::{RETRY_COMMIT, is_worth_repeating};
use super::context::Event;
use super::membership::is_out_of_the_group;
use super::starts::{self, Begin, Place, is_of_the_topic};
use crate::metrics::Rebalance;
use crate::outputs::Command;
use forwarder_service::clock::wall_millis;

/// Pause before Kafka is asked again where a partition begins.
const RETRY_JOIN: Duration = Duration::from_secs(1);

/// How long publishers may take to drop what they have not sent. They do nothing else meanwhile.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(5);

/// Partitions that were assigned and do not run yet.
#[derive(Debug)]
pub(super) struct Joining {
    partitions: Vec<PartitionId>,
    try_at: Instant,
}

/// Partitions that are to be given up.
#[derive(Debug)]
pub(super) struct Leaving {
    partitions: Vec<PartitionId>,
    lost: bool,
    deadline: Instant,
    /// When the commit was refused for the first time, and when it is tried again.
    refused: Option<Instant>,
    try_at: Instant,
}

impl Intake {
    pub(super) fn begin_joining(&mut self, partitions: Vec<PartitionId>) {
        self.metrics.rebalance(Rebalance::Assign).inc();
        self.watchdog.arm();
        info!(partitions = ?self.inputs.show(&partitions), "assigned");
        self.joining = Some(Joining {
            partitions,
            try_at: Instant::now(),
        });
        self.go_on_joining();
    }

    /// Looks up where the assigned partitions begin, then starts them.
    pub(super) fn go_on_joining(&mut self) {
        let Some(joining) = self.joining.take_if(|joining| joining.try_at <= Instant::now()) else {
            return;
        };
        let started = match self.knows_topics(&joining.partitions) {
            // It comes with the next poll.
            Ok(false) if !joining.partitions.is_empty() => return self.joining = Some(joining),
            Err(error) if !joining.partitions.is_empty() => Err(error),
            _ => self.start(&joining.partitions),
        };
        match started {
            Ok(()) => {}
            Err(error) if is_out_of_the_group(&error) => {
                // The group waits for an answer before it lets us join anew. What is assigned here is not ours: its records are
                // not taken, and it is revoked as lost.
                warn!(%error, partitions = ?self.inputs.show(&joining.partitions), "out of the group before the assigned partitions began; joining anew");
                self.answer(&joining.partitions);
            }
            Err(error) => {
                warn!(%error, partitions = ?self.inputs.show(&joining.partitions), "failed to look up where the assigned partitions begin; trying again");
                self.joining = Some(Joining {
                    try_at: Instant::now() + RETRY_JOIN,
                    ..joining
                });
            }
        }
    }

    fn start(&mut self, partitions: &[PartitionId]) -> Result<(), KafkaError> {
        if partitions.is_empty() {
            // An idle member; the group waits for its word all the same.
            return self.consumer.incremental_assign(&TopicPartitionList::new());
        }
        let begins = self.look_up(partitions, starts::ALL_TIMEOUT)?;
        for begin in &begins {
            self.note_group(begin);
        }
        let (mut places, new) = self.enter(begins);
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            // Where that is not known, nothing is fetched: it is paused.
            let state = self.dispatcher.partitions().get(partition);
            let offset = Offset::Offset(state.map_or(0, |state| state.next()));
            list.add_partition_offset(self.inputs.topic_of(*partition), partition.number(), offset)?;
        }
        let started = self.commit_by_topic(partitions, &mut places, &new);
        if let Err(error) = started.and_then(|()| self.consumer.incremental_assign(&list)) {
            for partition in partitions {
                self.dispatcher.remove(*partition);
                self.seeking.forget(*partition);
            }
            return Err(error);
        }
        self.seen.extend(partitions.iter().map(|partition| partition.input()));
        for place in &places {
            self.has_begun(place);
        }
        // Said anew for each: librdkafka remembers a pause of an earlier assignment.
        self.set_paused(self.paused);
        Ok(())
    }

    /// Takes note of how the group begins with a topic.
    pub(super) fn note_group(&mut self, begin: &Begin) {
        let Some(count) = begin.group_partitions else { return };
        self.group_partitions.insert(begin.input, count);
        if begin.is_new_group && !begin.unanswered.is_empty() {
            self.seeking.note_new_group(begin.input, wall_millis());
        }
    }

    /// Commits where partitions begin, topic by topic. One that is gone meanwhile holds up no other: its partitions are sought.
    pub(super) fn commit_by_topic(
        &mut self,
        partitions: &[PartitionId],
        places: &mut Vec<Place>,
        new: &[(PartitionId, i64)],
    ) -> Result<(), KafkaError> {
        let inputs: BTreeSet<Input> = partitions.iter().map(|partition| partition.input()).collect();
        for input in inputs {
            let is_ours = |partition: &PartitionId| partition.input() == input;
            let ours: Vec<_> = partitions.iter().copied().filter(is_ours).collect();
            let new: Vec<_> = new
                .iter()
                .copied()
                .filter(|(partition, _)| is_ours(partition))
                .collect();
            match self.commit_new_starts(&ours, &new) {
                Ok(()) => {}
                Err(error) if self.inputs.len() > 1 && is_of_the_topic(&error) => {
                    warn!(%error, topic = self.inputs.topic(input), "a topic cannot begin; the others do");
                    places.retain(|place| !is_ours(&place.partition));
                    ours.into_iter().for_each(|partition| self.seek(partition));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// How a partition begins.
    pub(super) fn phase_of(&self, place: &Place) -> Phase {
        let era = self.dispatcher.era();
        let another = place.members.is_some_and(|members| members != era.fingerprint());
        match place.start.offset {
            None => Phase::Stopped,
            Some(_) if place.ring > era.epoch => Phase::Behind(place.ring),
            Some(_) if place.ring < era.epoch => Phase::Announcing,
            Some(_) if another => Phase::Contested,
            Some(_) => Phase::Active,
        }
    }

    /// A start that the broker does not hold yet is committed before anything is read from there: if this process died
    /// after the first records, the next one would look up another end, and what lies between would be lost. The others
    /// are committed too: that says which ring a successor needs, and the answer proves that we are a member.
    pub(super) fn commit_new_starts(
        &mut self,
        partitions: &[PartitionId],
        new: &[(PartitionId, i64)],
    ) -> Result<(), KafkaError> {
        self.commit_starts(partitions)?;
        if !new.is_empty() {
            starts::verify(&self.consumer, &self.inputs, new)?;
            let named = new
                .iter()
                .map(|(partition, offset)| (self.inputs.named(*partition), *offset));
            info!(starts = ?named.collect::<Vec<_>>(), "no committed offsets for these partitions: they begin here");
        }
        Ok(())
    }

    /// Answers an assignment without beginning anything.
    fn answer(&self, partitions: &[PartitionId]) {
        if let Err(error) = self.consumer.incremental_assign(&self.list_of(partitions)) {
            warn!(%error, partitions = ?self.inputs.show(partitions), "failed to answer an assignment");
        }
    }

    pub(super) fn begin_leaving(&mut self, partitions: Vec<PartitionId>, lost: bool) {
        if lost {
            // First of all: nothing that others may own goes out any more.
            self.membership.end();
            self.metrics.rebalance(Rebalance::Lost).inc();
            warn!(
                partitions = ?self.inputs.show(&partitions),
                "lost: this member was out of the group; others may own the partitions already"
            );
        } else {
            self.metrics.rebalance(Rebalance::Revoke).inc();
            info!(partitions = ?self.inputs.show(&partitions), "revoked: what is out is awaited, then they are given up");
        }
        // librdkafka lets go only of what it was given.
        if let Some(joining) = self.joining.take() {
            self.answer(&joining.partitions);
        }
        for partition in &partitions {
            self.dispatcher.set_phase(*partition, Phase::Draining);
        }
        let deadline = Instant::now() + Duration::from_millis(self.config.engine.drain_timeout_ms);
        self.leaving = Some(Leaving {
            partitions,
            lost,
            deadline,
            refused: None,
            try_at: Instant::now(),
        });
        self.go_on_leaving();
    }

    /// Gives the revoked partitions up as soon as nothing of theirs is out, or the time for that is over.
    pub(super) fn go_on_leaving(&mut self) {
        let Some(mut leaving) = self.leaving.take_if(|leaving| leaving.try_at <= Instant::now()) else {
            return;
        };
        let partitions = leaving.partitions.iter();
        let awaited: usize = partitions.map(|partition| self.dispatcher.awaited(*partition)).sum();
        let lost = leaving.lost || self.consumer.assignment_lost();
        if awaited > 0 && !lost && Instant::now() < leaving.deadline {
            self.leaving = Some(leaving);
            return;
        }
        if lost && !leaving.lost {
            self.membership.end();
        }
        if self.abandon_rest(&leaving.partitions, lost) {
            // Receipts that are still to come would let more go out: not another turn before they are given up.
            if !lost {
                self.commit_at_last(&leaving.partitions);
            }
        } else if !lost
            && let Err(error) = self.commit(&leaving.partitions)
            && is_worth_repeating(&error, &mut leaving.refused)
        {
            leaving.try_at = Instant::now() + RETRY_COMMIT;
            self.leaving = Some(leaving);
            return;
        }
        self.give_up(&leaving.partitions);
    }

    /// Has publishers drop what is still out of these; tells whether there was anything.
    fn abandon_rest(&mut self, partitions: &[PartitionId], lost: bool) -> bool {
        let mut ours = self.assignments();
        ours.retain(|(partition, _)| partitions.contains(partition));
        let states = ours
            .iter()
            .filter_map(|(partition, _)| self.dispatcher.partitions().get(partition));
        let unsettled: usize = states.map(|state| state.unsettled()).sum();
        if unsettled == 0 {
            return false;
        }
        self.abandon(&ours);
        // Between the abandonment and now some more may have been confirmed.
        self.settle();
        warn!(
            records = unsettled,
            lost, "gave partitions up with records out; their next owner delivers them again"
        );
        true
    }

    fn give_up(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.dispatcher.remove(*partition);
            self.ends.remove(partition);
            self.seeking.forget(*partition);
            self.identity.forget(*partition);
            let topic = self.inputs.topic_of(*partition);
            self.metrics.forget_partition(topic, partition.number());
        }
        if let Err(error) = self.consumer.incremental_unassign(&self.list_of(partitions)) {
            error!(%error, partitions = ?self.inputs.show(partitions), "failed to give partitions up");
        }
    }

    /// As librdkafka wants them named.
    fn list_of(&self, partitions: &[PartitionId]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(self.inputs.topic_of(*partition), partition.number());
        }
        list
    }

    /// The partitions that are still ours to commit.
    pub(super) fn committable(&self) -> Vec<PartitionId> {
        let lost = self.leaving.as_ref().filter(|leaving| leaving.lost);
        let is_lost = |partition: &PartitionId| lost.is_some_and(|leaving| leaving.partitions.contains(partition));
        let partitions = self.dispatcher.partitions().keys().copied();
        partitions.filter(|partition| !is_lost(partition)).collect()
    }

    /// The group has turned us out: there is nothing to wait for and nothing to commit.
    pub(super) fn stop_draining(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.lost = true;
        }
    }

    /// Answers a rebalance that was being carried out, or was to be: closing would wait for it.
    pub(super) fn answer_what_is_owed(&mut self) {
        let mut assigned = self.joining.take().map(|joining| joining.partitions);
        let mut revoked: Vec<Vec<PartitionId>> = self
            .leaving
            .take()
            .map(|leaving| leaving.partitions)
            .into_iter()
            .collect();
        for event in self.consumer.context().take_events() {
            match event {
                Event::Assign(partitions) => assigned = Some(partitions),
                Event::Revoke { partitions, .. } => revoked.push(partitions),
                Event::Statistics(_)
                | Event::Topic(..)
                | Event::Cut { .. }
                | Event::OutOfRange { .. }
                | Event::Unreadable { .. } => {}
            }
        }
        let mut answers = Vec::new();
        // All of them, although nothing is begun: librdkafka lets go only of what it was given, and closing waits until it has.
        if let Some(partitions) = assigned {
            answers.push(self.consumer.incremental_assign(&self.list_of(&partitions)));
        }
        for partitions in revoked {
            answers.push(self.consumer.incremental_unassign(&self.list_of(&partitions)));
        }
        for error in answers.into_iter().filter_map(Result::err) {
            debug!(%error, "failed to answer a rebalance before closing");
        }
    }

    /// Makes publishers drop what they have not sent for these assignments. Returns when they have, so that nothing of
    /// theirs is sent after the partitions are given up.
    pub(super) fn abandon(&mut self, assignments: &[(PartitionId, u32)]) {
        if assignments.is_empty() || self.dispatcher.is_idle() {
            return;
        }
        let assignments: Arc<[(PartitionId, u32)]> = assignments.into();
        let (done, all_done) = mpsc::channel();
        for (_, member) in self.links.fleet.members() {
            member.command(Command::Abandon {
                assignments: Arc::clone(&assignments),
                done: done.clone(),
            });
        }
        drop(done);
        // Nobody sends: the channel ends when the last publisher has dropped its end.
        if let Err(mpsc::RecvTimeoutError::Timeout) = all_done.recv_timeout(ABANDON_TIMEOUT) {
            error!("publishers did not answer in time; nothing is published until they have dropped what is given up");
            self.membership.await_abandonment(all_done);
        }
    }

    /// All that is ours, with epochs.
    pub(super) fn assignments(&self) -> Vec<(PartitionId, u32)> {
        self.dispatcher
            .partitions()
            .iter()
            .map(|(partition, state)| (*partition, state.epoch))
            .collect()
    }
}
