//! Partitions of which Kafka has not said where they begin: they are asked about again and begin then, while the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::{Input, PartitionId};
use forwarder_core::document::StartFrom;
use forwarder_core::fanout::dispatch::{Phase, Resume};
use rdkafka::error::KafkaError;
use tracing::{debug, error, info, warn};

use super::Intake;
use super::starts::{self, Begin, Inquiry, Place, is_of_the_topic};

/// Pause before Kafka is asked again.
const SEEK_AGAIN: Duration = Duration::from_millis(500);

/// How long the questions may take, for the others stand still meanwhile.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// The questions' share of the time: for each part of it nine go to the others.
const OTHERS_SHARE: u32 = 9;

/// See the module.
pub(super) struct Seeking {
    partitions: BTreeSet<PartitionId>,
    /// When the group began with a topic, as long as some of its first partitions there have not: with `Latest` these begin there too.
    group_since: BTreeMap<Input, i64>,
    next_try: Instant,
}

impl Seeking {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            partitions: BTreeSet::new(),
            group_since: BTreeMap::new(),
            next_try: now,
        }
    }

    /// The group begins with a topic now, and not with all of its partitions.
    pub(super) fn note_new_group(&mut self, input: Input, now_millis: i64) {
        self.group_since.insert(input, now_millis);
    }

    /// A partition has begun, or is ours no more.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
        let input = partition.input();
        if self.partitions.iter().all(|sought| sought.input() != input) {
            self.group_since.remove(&input);
        }
    }
}

impl Intake {
    /// Asks Kafka where these begin.
    ///
    /// # Errors
    /// Kafka answers nothing that is about all of them. That it says so of a single one of several topics is no error: none of the topic's
    /// partitions has a place then.
    pub(super) fn look_up(&self, partitions: &[PartitionId], patience: Duration) -> Result<Vec<Begin>, KafkaError> {
        let mut by_topic = BTreeMap::<Input, Vec<PartitionId>>::new();
        for partition in partitions {
            by_topic.entry(partition.input()).or_default().push(*partition);
        }
        let until = Instant::now() + patience;
        let mut left = u32::try_from(by_topic.len()).unwrap_or(u32::MAX);
        let mut begins = Vec::with_capacity(by_topic.len());
        for (input, partitions) in by_topic {
            let patience = until.saturating_duration_since(Instant::now()) / left;
            left -= 1;
            match self.look_up_topic(input, &partitions, patience) {
                Ok(begin) => begins.push(begin),
                Err(error) if self.inputs.len() > 1 && is_of_the_topic(&error) => {
                    warn!(%error, topic = self.inputs.topic(input), "Kafka does not have the topic; the others go on");
                    begins.push(Begin {
                        input,
                        places: Vec::new(),
                        unanswered: partitions,
                        is_new_group: false,
                        group_partitions: None,
                    });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(begins)
    }

    fn look_up_topic(&self, input: Input, partitions: &[PartitionId], patience: Duration) -> Result<Begin, KafkaError> {
        let source = &self.config.source;
        let (is_new_group, start_from) = match (self.seeking.group_since.get(&input), source.start_from) {
            (Some(millis), StartFrom::Latest) => (true, StartFrom::Timestamp { millis: *millis }),
            (since, start_from) => (since.is_some(), start_from),
        };
        let inquiry = Inquiry {
            source,
            input,
            name: self.inputs.topic(input),
            partitions,
            seen_before: self.seen.contains(&input),
            is_new_group,
            era: self.dispatcher.era(),
            topic: self.identity.id(input),
            former: self.identity.former(),
            start_from,
            patience,
        };
        starts::look_up(&self.consumer, &inquiry)
    }

    /// Enters what was found, so that it may be committed. Returns the partitions that have a place, and the starts that the broker does not
    /// hold yet. The others are sought.
    pub(super) fn enter(&mut self, begins: Vec<Begin>) -> (Vec<Place>, Vec<(PartitionId, i64)>) {
        let (mut places, mut new) = (Vec::new(), Vec::new());
        let mut found = Vec::new();
        for begin in begins {
            begin.unanswered.into_iter().for_each(|partition| self.seek(partition));
            found.extend(begin.places);
        }
        for place in found {
            let (partition, fault) = (place.partition, place.start.fault);
            if !self.identity.is_settled(partition, fault, self.clock.micros()) {
                warn!(
                    topic = self.inputs.told(partition),
                    partition = partition.number(),
                    ?fault,
                    "the log seems to end before the committed offset: Kafka is asked again"
                );
                self.seek(partition);
                continue;
            }
            let phase = self.phase_of(&place);
            let offset = place.start.offset.unwrap_or(0);
            if !place.start.committed && !matches!(phase, Phase::Behind(_) | Phase::Contested | Phase::Stopped) {
                new.push((partition, offset));
            }
            let resume = Resume {
                offset,
                away: place.start.away.clone(),
                lanes: place.start.lanes.clone(),
                members: place.members,
                later: place.later.clone(),
            };
            self.dispatcher.assign(partition, &resume, phase);
            places.push(place);
        }
        (places, new)
    }

    /// A partition waits until Kafka says where it begins. Nothing of it is taken or committed until then.
    pub(super) fn seek(&mut self, partition: PartitionId) {
        self.dispatcher.assign(partition, &Resume::default(), Phase::Sought);
        self.ends.remove(&partition);
        if self.seeking.partitions.insert(partition) {
            info!(
                topic = self.inputs.told(partition),
                partition = partition.number(),
                "where the partition begins is not known yet: it waits, the others go on"
            );
        }
    }

    /// A partition has begun, and that may go on.
    pub(super) fn has_begun(&mut self, place: &Place) {
        let Place { partition, start, .. } = place;
        self.seeking.forget(*partition);
        self.identity.has_begun(*partition);
        let (topic, number) = (self.inputs.told(*partition), partition.number());
        debug!(topic, partition = number, offset = start.offset, away = ?start.away, "begins");
        if let Some(fault) = start.fault {
            self.tell_fault(*partition, fault, start.offset);
        }
        let (topic, number) = (self.inputs.told(*partition), partition.number());
        let ours = self.dispatcher.era().epoch;
        match self.phase_of(place) {
            Phase::Behind(needed) => warn!(
                topic,
                partition = number,
                needed,
                ours,
                "others have delivered under a newer ring: the partition waits until this process has it too"
            ),
            Phase::Contested => error!(
                topic,
                partition = number,
                epoch = ours,
                "others have delivered under another ring of the same epoch: the partition waits; give all forwarders one ring \
                 with a higher ring.epoch"
            ),
            Phase::Active
            | Phase::Draining
            | Phase::Stopped
            | Phase::Examined
            | Phase::Damaged(_)
            | Phase::Announcing
            | Phase::Sought => {}
        }
    }

    /// Begins those of which Kafka says by now where. Not while a rebalance is being carried out.
    pub(super) fn go_on_seeking(&mut self) {
        let asked_at = Instant::now();
        if self.seeking.partitions.is_empty() || asked_at < self.seeking.next_try || self.is_rebalancing() {
            return;
        }
        let partitions: Vec<PartitionId> = self.seeking.partitions.iter().copied().collect();
        let found = self.look_up(&partitions, SEEK_TIMEOUT);
        if let Err(error) = found.and_then(|begins| self.begin_sought(begins)) {
            warn!(%error, partitions = ?self.inputs.show(&partitions), "failed to look up where these partitions begin; trying again");
        }
        self.seeking.next_try = Instant::now() + SEEK_AGAIN.max(asked_at.elapsed() * OTHERS_SHARE);
    }

    fn begin_sought(&mut self, begins: Vec<Begin>) -> Result<(), KafkaError> {
        for begin in &begins {
            // Of a topic that Kafka did not have before.
            if !self.group_partitions.contains_key(&begin.input) {
                self.note_group(begin);
            }
        }
        let (mut places, new) = self.enter(begins);
        if places.is_empty() {
            return Ok(());
        }
        let partitions: Vec<PartitionId> = places.iter().map(|place| place.partition).collect();
        if let Err(error) = self.commit_by_topic(&partitions, &mut places, &new) {
            partitions.iter().for_each(|partition| self.seek(*partition));
            return Err(error);
        }
        if places.is_empty() {
            return Ok(());
        }
        let partitions: Vec<PartitionId> = places.iter().map(|place| place.partition).collect();
        info!(partitions = ?self.inputs.show(&partitions), "Kafka says where these partitions begin: taken");
        for place in &places {
            self.has_begun(place);
            let state = self.dispatcher.partitions().get(&place.partition);
            if state.is_some_and(|state| state.is_taken()) {
                self.begun.push(place.partition);
            }
        }
        Ok(())
    }
}
