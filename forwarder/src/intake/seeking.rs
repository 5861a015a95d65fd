//! Partitions of which Kafka has not said where they begin: they are asked about again and begin then, while the others go on.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
use forwarder_core::document::StartFrom;
use forwarder_core::fanout::dispatch::{Dispatcher, Phase, Resume, RingEpoch};
use rdkafka::error::KafkaError;
use tracing::{info, warn};

use super::client::Client;
use super::identity::Identity;
use super::membership::is_out_of_the_group;
use super::questions::Shares;
use super::starts::{self, Begin, Inquiry, Place, is_of_the_topic};
use crate::message::Message;
use forwarder_service::clock::{Clock, wall_millis};

/// Pause before Kafka is asked again.
const SEEK_AGAIN: Duration = Duration::from_millis(500);

/// How long the questions may take, for the others stand still meanwhile.
pub(super) const SEEK_TIMEOUT: Duration = Duration::from_secs(1);

/// The questions' share of the time: for each part of it nine go to the others.
const OTHERS_SHARE: u32 = 9;

/// See the module.
pub(super) struct Seeking {
    partitions: BTreeSet<PartitionId>,
    /// When the group began with a topic, as long as some of its first partitions there have not: with `Latest` these begin there too.
    group_since: BTreeMap<Input, i64>,
    next_try: Instant,
    /// Topics of which partitions have been ours.
    seen: BTreeSet<Input>,
    turns: Turns,
}

/// In which order topics are asked about.
#[derive(Default)]
struct Turns {
    /// How many have been asked about so far.
    asked: u64,
    /// Topics that were last asked about in vain, at least in part, and at which count.
    in_vain: BTreeMap<Input, u64>,
}

/// Partitions whose beginning was looked up.
pub(super) struct Entered {
    /// They have a place, so that it may be committed.
    pub(super) places: Vec<Place>,
    /// Starts among them that the broker does not hold yet.
    pub(super) new: Vec<(PartitionId, i64)>,
    /// The others: they are sought.
    pub(super) sought: Vec<PartitionId>,
}

impl Seeking {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            partitions: BTreeSet::new(),
            group_since: BTreeMap::new(),
            next_try: now,
            seen: BTreeSet::new(),
            turns: Turns::default(),
        }
    }

    /// The partitions to be asked about now, if that is due at `now`.
    pub(super) fn due(&self, now: Instant) -> Option<Vec<PartitionId>> {
        let is_due = !self.partitions.is_empty() && now >= self.next_try;
        is_due.then(|| self.partitions.iter().copied().collect())
    }

    /// They were asked about from `asked_at` until now: the others have stood still meanwhile.
    pub(super) fn has_asked(&mut self, asked_at: Instant) {
        self.next_try = Instant::now() + SEEK_AGAIN.max(asked_at.elapsed() * OTHERS_SHARE);
    }

    /// Partitions of these topics have been ours.
    pub(super) fn has_seen(&mut self, inputs: impl IntoIterator<Item = Input>) {
        self.seen.extend(inputs);
    }

    /// Whether partitions of a topic have been ours.
    pub(super) fn has_been_seen(&self, input: Input) -> bool {
        self.seen.contains(&input)
    }

    /// Takes note of a group that begins with a topic now, and not with all of its partitions.
    pub(super) fn note_group(&mut self, begin: &Begin) {
        if begin.group_partitions.is_some() && begin.is_new_group && !begin.unanswered.is_empty() {
            self.group_since.insert(begin.input, wall_millis());
        }
    }

    /// A partition has begun, or is ours no more.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.partitions.remove(&partition);
        let input = partition.input();
        if self.partitions.iter().all(|sought| sought.input() != input) {
            self.group_since.remove(&input);
        }
    }

    /// Asks Kafka where these begin.
    ///
    /// # Errors
    /// Kafka answers nothing about any topic, or says that we are out of the group.
    pub(super) fn look_up(
        &mut self,
        partitions: &[PartitionId],
        patience: Duration,
        client: &Client,
        identity: &Identity,
        ring_epoch: &RingEpoch,
    ) -> Result<Vec<Begin>, KafkaError> {
        let mut turns = std::mem::take(&mut self.turns);
        let begins = turns.ask(partitions, patience, &client.inputs, |input, partitions, patience| {
            self.look_up_topic(input, partitions, patience, client, identity, ring_epoch)
        });
        self.turns = turns;
        begins
    }

    fn look_up_topic(
        &self,
        input: Input,
        partitions: &[PartitionId],
        patience: Duration,
        client: &Client,
        identity: &Identity,
        ring_epoch: &RingEpoch,
    ) -> Result<Begin, KafkaError> {
        let source = &client.config.source;
        let (is_new_group, start_from) = match (self.group_since.get(&input), source.start_from) {
            (Some(millis), StartFrom::Latest) => (true, StartFrom::Timestamp { millis: *millis }),
            (since, start_from) => (since.is_some(), start_from),
        };
        let inquiry = Inquiry {
            source,
            input,
            name: client.inputs.topic(input),
            partitions,
            seen_before: self.has_been_seen(input),
            is_new_group,
            ring_epoch,
            topic: identity.id(input),
            former: identity.former(),
            start_from,
            patience,
            others_wait: client.inputs.len() > 1,
        };
        starts::look_up(&client.consumer, &inquiry)
    }

    /// Enters what was found. The identity is asked whether an end that seems to be before the committed offset is to be believed.
    pub(super) fn enter(
        &mut self,
        begins: Vec<Begin>,
        client: &Client,
        dispatcher: &mut Dispatcher<Message>,
        identity: &mut Identity,
        clock: Clock,
    ) -> Entered {
        let (mut places, mut new, mut sought) = (Vec::new(), Vec::new(), Vec::new());
        let mut found = Vec::new();
        for begin in begins {
            for partition in begin.unanswered {
                self.seek(partition, client, dispatcher);
                sought.push(partition);
            }
            found.extend(begin.places);
        }
        for place in found {
            let (partition, fault) = (place.partition, place.start.fault);
            if !identity.is_settled(partition, fault, clock.micros()) {
                warn!(
                    topic = client.inputs.topic_to_log(partition),
                    partition = partition.number(),
                    ?fault,
                    "the log seems to end before the committed offset; asking Kafka again"
                );
                self.seek(partition, client, dispatcher);
                sought.push(partition);
                continue;
            }
            let phase = place.phase(dispatcher.ring_epoch());
            let offset = place.start.offset.unwrap_or(0);
            if !place.start.committed && !matches!(phase, Phase::Behind(_) | Phase::Contested | Phase::Stopped) {
                new.push((partition, offset));
            }
            let resume = Resume {
                offset,
                away: place.start.away.clone(),
                lanes: place.start.lanes.clone(),
                ring: place.ring,
                members: place.members,
                using: place.using,
                later: place.later.clone(),
            };
            dispatcher.assign(partition, &resume, phase);
            places.push(place);
        }
        Entered { places, new, sought }
    }

    /// A partition waits until Kafka says where it begins. Nothing of it is taken or committed until then.
    pub(super) fn seek(&mut self, partition: PartitionId, client: &Client, dispatcher: &mut Dispatcher<Message>) {
        dispatcher.assign(partition, &Resume::default(), Phase::Sought);
        if self.partitions.insert(partition) {
            info!(
                topic = client.inputs.topic_to_log(partition),
                partition = partition.number(),
                "the partition's start offset is not known yet; the partition waits and the others go on"
            );
        }
    }
}

impl Turns {
    /// Asks about the topics of these partitions, one after the other, each within its share of the time.
    ///
    /// A topic that is not answered for keeps no other one waiting: its partitions have no places then. Nor is a topic asked about when
    /// the time is over. It comes first the next time, and those that were asked about in vain come last.
    ///
    /// # Errors
    /// None of the topics is answered for, or we are out of the group.
    fn ask(
        &mut self,
        partitions: &[PartitionId],
        patience: Duration,
        inputs: &Inputs,
        mut ask: impl FnMut(Input, &[PartitionId], Duration) -> Result<Begin, KafkaError>,
    ) -> Result<Vec<Begin>, KafkaError> {
        let mut by_topic = BTreeMap::<Input, Vec<PartitionId>>::new();
        for partition in partitions {
            by_topic.entry(partition.input()).or_default().push(*partition);
        }
        let mut topics: Vec<_> = by_topic.into_iter().collect();
        topics.sort_by_key(|(input, _)| self.in_vain.get(input).copied());
        let mut shares = Shares::within(patience, topics.len());
        let mut begins = Vec::with_capacity(topics.len());
        let (mut is_answered, mut failed) = (false, None);
        for (input, partitions) in topics {
            let Some(patience) = shares.next() else {
                begins.push(Begin::untold(input, partitions));
                continue;
            };
            let answer = ask(input, &partitions, patience);
            self.note(input, answer.as_ref().is_ok_and(|begin| begin.unanswered.is_empty()));
            match answer {
                Ok(begin) => {
                    is_answered = true;
                    begins.push(begin);
                }
                Err(error) if inputs.len() > 1 && is_of_the_topic(&error) => {
                    is_answered = true;
                    warn!(%error, topic = inputs.topic(input), "Kafka does not have the topic; the others go on");
                    begins.push(Begin::untold(input, partitions));
                }
                Err(error) if inputs.len() == 1 || is_out_of_the_group(&error) => return Err(error),
                Err(error) => {
                    warn!(%error, topic = inputs.topic(input), "failed to look up where the topic's partitions begin; the others go on");
                    failed = Some(error);
                    begins.push(Begin::untold(input, partitions));
                }
            }
        }
        match failed {
            Some(error) if !is_answered => Err(error),
            _ => Ok(begins),
        }
    }

    /// A topic was asked about.
    fn note(&mut self, input: Input, is_answered: bool) {
        self.asked += 1;
        if is_answered {
            self.in_vain.remove(&input);
        } else {
            self.in_vain.insert(input, self.asked);
        }
    }
}
