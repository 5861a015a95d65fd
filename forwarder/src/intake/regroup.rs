//! Carries out what the group asks for: partitions begin, and are given up.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Instant;

use forwarder_core::delivery::partition::{Input, PartitionId};
use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::commits::About;
use super::group::{Leaving, assignments};
use super::membership::is_out_of_the_group;
use super::questions;
use super::rings::RingProgram;
use super::seeking::{Entered, SEEK_TIMEOUT};
use super::starts::{self, Begin, Place, is_of_the_topic};
use super::{Intake, commits};

impl<P: RingProgram> Intake<P> {
    /// Looks up where the assigned partitions begin, then starts them.
    pub(super) fn go_on_joining(&mut self) {
        let Some(joining) = self.group.take_joining() else {
            return;
        };
        let partitions = &joining.partitions;
        let started = match self.identity.knows_topics(partitions, &self.client) {
            Ok(false) if !partitions.is_empty() => return self.group.join_with_next_turn(joining),
            Err(error) if !partitions.is_empty() => Err(error),
            _ => self.start(partitions),
        };
        match started {
            Ok(()) => {}
            Err(error) if is_out_of_the_group(&error) => {
                // The group waits for an answer before it lets us join anew. What is assigned here is not ours: its records are
                // not taken, and it is revoked as lost.
                warn!(%error, partitions = ?self.client.inputs.show(partitions), "the group removed this member before it started its assigned partitions; joining again");
                self.client.answer(partitions);
            }
            Err(error) => {
                warn!(%error, partitions = ?self.client.inputs.show(partitions), "failed to look up the start offsets of the assigned partitions; trying again");
                self.group.join_later(joining);
            }
        }
    }

    fn start(&mut self, partitions: &[PartitionId]) -> Result<(), KafkaError> {
        if partitions.is_empty() {
            // An idle member; the group waits for its word all the same.
            return self.client.consumer.incremental_assign(&TopicPartitionList::new());
        }
        let ring_epoch = self.dispatcher.ring_epoch();
        let mut begins = self.seeking.look_up(
            partitions,
            questions::ALL_TIMEOUT,
            &self.client,
            &self.identity,
            ring_epoch,
        )?;
        self.identity.hold_back(&mut begins, Instant::now());
        for begin in &begins {
            self.commits.note_group(begin);
            self.seeking.note_group(begin);
        }
        let known = starts::known(&begins);
        let (mut places, new) = self.enter(begins);
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            // Where that is not known, nothing is fetched: it is paused.
            let state = self.dispatcher.partitions().get(partition);
            let offset = Offset::Offset(state.map_or(0, |state| state.next()));
            list.add_partition_offset(self.client.inputs.topic_of(*partition), partition.number(), offset)?;
        }
        let started = self.commit_by_topic(partitions, &mut places, &new);
        // What was paused in an earlier assignment is resumed before it is assigned: see `Flow::reassign`.
        self.flow.refresh(&self.client, &self.dispatcher);
        if let Err(error) = started.and_then(|()| self.client.consumer.incremental_assign(&list)) {
            for partition in partitions {
                self.dispatcher.remove(*partition);
                self.seeking.forget(*partition);
            }
            return Err(error);
        }
        self.seeking.has_seen(known);
        for place in &places {
            self.has_begun(place);
        }
        self.flow.refresh(&self.client, &self.dispatcher);
        Ok(())
    }

    /// Enters what was looked up. Returns the places, and the starts among them that the broker does not hold yet.
    fn enter(&mut self, begins: Vec<Begin>) -> (Vec<Place>, Vec<(PartitionId, i64)>) {
        let Entered { places, new, sought } = self.seeking.enter(
            begins,
            &self.client,
            &mut self.dispatcher,
            &mut self.identity,
            self.clock,
        );
        for partition in sought {
            self.reporter.forget_end(partition);
        }
        (places, new)
    }

    fn seek(&mut self, partition: PartitionId) {
        self.seeking.seek(partition, &self.client, &mut self.dispatcher);
        self.reporter.forget_end(partition);
    }

    /// Commits where partitions begin, topic by topic. One that is gone meanwhile holds up no other: its partitions are sought.
    fn commit_by_topic(
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
            match self.commit_starts(&ours, &new) {
                Ok(()) => {}
                Err(error) if self.client.inputs.len() > 1 && is_of_the_topic(&error) => {
                    warn!(%error, topic = self.client.inputs.topic(input), "failed to start a topic; the other topics go on");
                    places.retain(|place| !is_ours(&place.partition));
                    ours.into_iter().for_each(|partition| self.seek(partition));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A start that the broker does not hold yet is committed before anything is read from there: if this process died
    /// after the first records, the next one would look up another end, and what lies between would be lost. The others
    /// are committed too: that says which ring a successor needs, and the answer proves that we are a member.
    fn commit_starts(&mut self, partitions: &[PartitionId], new: &[(PartitionId, i64)]) -> Result<(), KafkaError> {
        let about = About {
            client: &self.client,
            identity: &self.identity,
        };
        let commits::Committed { result, begun } =
            self.commits
                .commit_starts(partitions, about, &mut self.dispatcher, &mut self.group);
        self.flow.begin_behind_ring(&begun, &self.client);
        result?;
        if !new.is_empty() {
            starts::verify(&self.client.consumer, &self.client.inputs, new)?;
            let named = new
                .iter()
                .map(|(partition, offset)| (self.client.inputs.named(*partition), *offset));
            info!(starts = ?named.collect::<Vec<_>>(), "these partitions have no committed offsets and start here");
        }
        Ok(())
    }

    /// A partition has begun, and that may go on.
    fn has_begun(&mut self, place: &Place) {
        let Place { partition, start, .. } = place;
        self.seeking.forget(*partition);
        self.identity.has_begun(*partition);
        let (topic, number) = (self.client.inputs.topic_to_log(*partition), partition.number());
        debug!(topic, partition = number, offset = start.offset, away = ?start.away, "the partition starts");
        if let Some(fault) = start.fault {
            self.identity
                .report_fault(*partition, fault, start.offset, &self.client, &self.metrics);
        }
        place.log_wait(&self.client.inputs, self.dispatcher.ring_epoch());
    }

    /// Begins those of which Kafka says by now where. Not while a rebalance is being carried out.
    pub(super) fn go_on_seeking(&mut self) {
        let asked_at = Instant::now();
        let due = self.seeking.due(asked_at);
        let Some(partitions) = due.filter(|_| !self.group.is_rebalancing()) else {
            return;
        };
        let ring_epoch = self.dispatcher.ring_epoch();
        let found = self
            .seeking
            .look_up(&partitions, SEEK_TIMEOUT, &self.client, &self.identity, ring_epoch);
        let begun = found.and_then(|mut begins| {
            self.identity.hold_back(&mut begins, Instant::now());
            self.begin_sought(begins)
        });
        if let Err(error) = begun {
            warn!(%error, partitions = ?self.client.inputs.show(&partitions), "failed to look up the start offsets of these partitions; trying again");
        }
        self.seeking.has_asked(asked_at);
    }

    fn begin_sought(&mut self, begins: Vec<Begin>) -> Result<(), KafkaError> {
        for begin in &begins {
            // Of a topic that Kafka did not have before.
            if !self.commits.knows(begin.input) {
                self.commits.note_group(begin);
                self.seeking.note_group(begin);
            }
        }
        let known = starts::known(&begins);
        let (mut places, new) = self.enter(begins);
        let partitions: Vec<PartitionId> = places.iter().map(|place| place.partition).collect();
        if let Err(error) = self.commit_by_topic(&partitions, &mut places, &new) {
            partitions.iter().for_each(|partition| self.seek(*partition));
            return Err(error);
        }
        // A topic that is made anew later begins with its first record, as one that began when it was assigned.
        self.seeking.has_seen(known);
        if places.is_empty() {
            return Ok(());
        }
        let partitions: Vec<PartitionId> = places.iter().map(|place| place.partition).collect();
        info!(partitions = ?self.client.inputs.show(&partitions), "Kafka has returned the start offsets of these partitions; reading them");
        for place in &places {
            self.has_begun(place);
            let state = self.dispatcher.partitions().get(&place.partition);
            if state.is_some_and(|state| state.is_taken()) {
                self.flow.begin([place.partition]);
            }
        }
        Ok(())
    }

    /// The group has revoked partitions, or they are lost.
    pub(super) fn revoked(&mut self, partitions: Vec<PartitionId>, lost: bool) {
        let stay = self.group.revoked(partitions, lost, &self.client, &mut self.dispatcher);
        if stay.is_empty() {
            return;
        }
        // A deleted topic's partitions are lost while others are about to begin. These begin when that is answered.
        stay.into_iter().for_each(|partition| self.seek(partition));
        self.flow.refresh(&self.client, &self.dispatcher);
    }

    /// Gives the revoked partitions up as soon as nothing of theirs is out, or the time for that is over.
    pub(super) fn go_on_leaving(&mut self) {
        let Some(mut leaving) = self.group.take_leaving(&self.client, &self.dispatcher) else {
            return;
        };
        if self.abandon_rest(&leaving) {
            // Receipts that are still to come would let more go out: not another turn before they are given up.
            if !leaving.lost {
                self.commit_at_last(&leaving.partitions);
            }
        } else if !leaving.lost
            && let Err(error) = self.commit(&leaving.partitions)
            && leaving.is_worth_repeating(&error)
        {
            return self.group.leave_later(leaving);
        }
        self.give_up(&leaving.partitions);
    }

    /// Has publishers drop what is still out of these; tells whether there was anything.
    fn abandon_rest(&mut self, leaving: &Leaving) -> bool {
        let mut ours = assignments(&self.dispatcher);
        ours.retain(|(partition, _)| leaving.partitions.contains(partition));
        let states = ours
            .iter()
            .filter_map(|(partition, _)| self.dispatcher.partitions().get(partition));
        let unsettled: usize = states.map(|state| state.unsettled()).sum();
        if unsettled == 0 {
            return false;
        }
        self.group.abandon(&ours, &self.dispatcher, &self.publishers);
        // Between the abandonment and now some more may have been confirmed.
        self.settle();
        warn!(
            records = unsettled,
            lost = leaving.lost,
            "gave up partitions with unconfirmed records; their next owner delivers these again"
        );
        true
    }

    /// Commits the settled prefix of these partitions, and waits for the answer.
    fn commit(&mut self, partitions: &[PartitionId]) -> Result<(), KafkaError> {
        let about = About {
            client: &self.client,
            identity: &self.identity,
        };
        let commits::Committed { result, begun } =
            self.commits
                .commit(partitions, about, &mut self.dispatcher, &mut self.group);
        self.flow.begin_behind_ring(&begun, &self.client);
        result
    }

    /// As [`Self::commit`], of partitions that are given up right after.
    pub(super) fn commit_at_last(&mut self, partitions: &[PartitionId]) {
        let about = About {
            client: &self.client,
            identity: &self.identity,
        };
        let begun = self
            .commits
            .commit_at_last(partitions, about, &mut self.dispatcher, &mut self.group);
        self.flow.begin_behind_ring(&begun, &self.client);
    }

    fn give_up(&mut self, partitions: &[PartitionId]) {
        for partition in partitions {
            self.dispatcher.remove(*partition);
            self.seeking.forget(*partition);
            self.identity.forget(*partition);
            self.reporter.forget(&self.client, *partition);
            self.forget_group(partition.input());
        }
        let list = self.client.list_of(partitions);
        if let Err(error) = self.client.consumer.incremental_unassign(&list) {
            error!(%error, partitions = ?self.client.inputs.show(partitions), "failed to give up partitions");
        }
    }

    /// What is known of the group's beginning with a topic goes with its last partition.
    fn forget_group(&mut self, input: Input) {
        let mut ours = self.dispatcher.partitions().keys();
        if ours.all(|partition| partition.input() != input) {
            self.commits.forget_group(input);
        }
    }
}
