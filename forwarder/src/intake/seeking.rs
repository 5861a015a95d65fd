//! Partitions of which Kafka has not said where they begin: they are asked about again and begin then, while the others go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::{Input, PartitionId};
use forwarder_core::document::StartFrom;
use forwarder_core::fanout::dispatch::{Dispatcher, Phase, Resume, RingEpoch};
use rdkafka::error::KafkaError;
use tracing::{info, warn};

use super::client::Client;
use super::identity::Identity;
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
    /// Kafka answers nothing that is about all of them. That it says so of a single one of several topics is no error: none of the topic's
    /// partitions has a place then.
    pub(super) fn look_up(
        &self,
        partitions: &[PartitionId],
        patience: Duration,
        client: &Client,
        identity: &Identity,
        ring_epoch: &RingEpoch,
    ) -> Result<Vec<Begin>, KafkaError> {
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
            match self.look_up_topic(input, &partitions, patience, client, identity, ring_epoch) {
                Ok(begin) => begins.push(begin),
                Err(error) if client.inputs.len() > 1 && is_of_the_topic(&error) => {
                    warn!(%error, topic = client.inputs.topic(input), "the topic does not exist in Kafka; the other topics go on");
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
            seen_before: self.seen.contains(&input),
            is_new_group,
            ring_epoch,
            topic: identity.id(input),
            former: identity.former(),
            start_from,
            patience,
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
                members: place.members,
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
