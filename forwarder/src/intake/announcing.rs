//! What subscribers are told of: the beacon hears how far this process is, about once a second and at each change.
//!
//! Where no beacon is declared there is nothing to tell, and nothing is looked at. What is told goes into a watch, so the intake never
//! waits for the beacon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::{Input, Inputs};
use forwarder_core::document::RingConfig;
use forwarder_core::fanout::dispatch::Dispatcher;
use rdkafka::statistics::Statistics;

use crate::beacon::{self, ToBeacon, Told};
use crate::message::Message;
use crate::outputs::nats::Publishers;

/// Between two words without a change.
const INTERVAL: Duration = Duration::from_secs(1);

/// An announcement counts as heard after so long, whatever the beacon says: it gives up earlier by itself, and nothing of it may hold up
/// records.
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module.
pub(super) struct Announcing {
    beacon: ToBeacon,
    topics: Arc<[String]>,
    next: Instant,
    /// What was told last. None: no beacon is declared with the rings.
    told: Option<Rings>,
    /// How many partitions each topic has, by Kafka's last word.
    counts: BTreeMap<Input, i32>,
    /// The newest ring that was told, and when it first was.
    newest: Option<(u64, Instant)>,
    /// The ring that was last said to be heard.
    heard: Option<u64>,
    /// The process takes no more records.
    is_stopping: bool,
}

/// The rings, as they are told at once when they change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rings {
    using: u64,
    /// See [`Told::is_used`].
    is_used: bool,
    announced: Option<u64>,
}

/// What is told of.
pub(super) struct View<'a> {
    pub(super) using: &'a Arc<RingConfig>,
    pub(super) announced: Option<&'a Arc<RingConfig>>,
    pub(super) inputs: &'a Inputs,
    pub(super) publishers: &'a Publishers,
}

impl Announcing {
    pub(super) fn new(beacon: ToBeacon, inputs: &Inputs, now: Instant) -> Self {
        Self {
            beacon,
            topics: inputs.names().map(str::to_owned).collect(),
            next: now,
            told: None,
            counts: BTreeMap::new(),
            newest: None,
            heard: None,
            is_stopping: false,
        }
    }

    /// The newest ring, once its announcement was heard wherever it can be. It is said once.
    pub(super) fn take_heard(&mut self, now: Instant) -> Option<u64> {
        let (newest, since) = self.newest.filter(|(newest, _)| self.heard < Some(*newest))?;
        let is_heard = *self.beacon.heard.borrow() >= Some(newest) || now.duration_since(since) >= PATIENCE;
        is_heard.then(|| *self.heard.insert(newest))
    }

    /// Takes note of how many partitions the topics have.
    pub(super) fn note_statistics(&mut self, statistics: &Statistics, inputs: &Inputs) {
        if self.told.is_none() {
            return;
        }
        for (input, name) in inputs.iter() {
            let Some(topic) = statistics.topics.get(name) else {
                continue;
            };
            // One of librdkafka's own has the number -1.
            let known = topic
                .partitions
                .iter()
                .filter(|(number, state)| **number >= 0 && !state.unknown);
            let count = i32::try_from(known.count()).unwrap_or(i32::MAX);
            if count > 0 {
                self.counts.insert(input, count);
            }
        }
    }

    /// From now on this process takes no more records, and proves to nobody that it does.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.told = self.told.map(|_| Rings::default());
    }

    /// Tells the beacon, if it is time or the rings have changed. Partitions are looked at only then.
    pub(super) fn tell_when_due(&mut self, view: &View<'_>, dispatcher: &Dispatcher<Message>, now: Instant) {
        let View {
            using,
            announced,
            inputs,
            publishers,
        } = *view;
        if beacon::declared(using, announced.map(Arc::as_ref)).is_none() {
            if self.told.take().is_some() {
                self.beacon.told.send_replace(None);
            }
            return;
        }
        // What is used once stays so. The dispatcher is asked before that only, for it may look at every partition.
        let was_used = self.told.is_some_and(|told| told.is_used && told.using == using.epoch);
        let unused_for = if was_used { None } else { dispatcher.unused_for() };
        let rings = Rings {
            using: using.epoch,
            is_used: unused_for.is_none(),
            announced: announced.map(|ring| ring.epoch),
        };
        if self.told == Some(rings) && now < self.next {
            return;
        }
        self.told = Some(rings);
        self.next = now + INTERVAL;
        let newest = announced.unwrap_or(using).epoch;
        if self.newest.is_none_or(|(known, _)| known < newest) {
            self.newest = Some((newest, now));
        }
        let mut of_topics = BTreeMap::<String, Vec<(i32, u64)>>::new();
        for partition in dispatcher.partitions().keys() {
            let topic = inputs.topic_of(*partition);
            if !of_topics.contains_key(topic) {
                of_topics.insert(topic.to_owned(), Vec::new());
            }
        }
        for (partition, ring) in dispatcher.oldest_rings() {
            let topic = inputs.topic_of(partition).to_owned();
            of_topics.entry(topic).or_default().push((partition.number(), ring));
        }
        let counts = self.counts.iter();
        let members = publishers.members().filter(|_| !self.is_stopping);
        self.beacon.told.send_replace(Some(Told {
            using: Arc::clone(using),
            is_used: rings.is_used,
            announced: announced.cloned(),
            grace_left_ms: dispatcher.grace_left().or(unused_for).unwrap_or(0).div_ceil(1_000),
            oldest: of_topics,
            partitions: counts
                .map(|(input, count)| (inputs.topic(*input).to_owned(), *count))
                .collect(),
            topics: Arc::clone(&self.topics),
            answers: members
                .map(|(_, member)| (member.cluster.name.clone(), member.answers.clone()))
                .collect(),
            stopping: self.is_stopping,
        }));
    }
}

#[cfg(test)]
mod tests;
