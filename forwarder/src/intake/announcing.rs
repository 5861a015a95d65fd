//! What subscribers are told of: the beacon hears how far this process is, about once a second and at each change.
//!
//! Where no beacon is declared there is nothing to tell, and nothing is looked at. What is told goes into a watch, so the intake never
//! waits for the beacon.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
use forwarder_core::document::RingConfig;
use rdkafka::statistics::Statistics;

use crate::beacon::{self, ToBeacon, Told};
use crate::outputs::nats::Publishers;

/// Between two words without a change.
const INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Announcing {
    beacon: ToBeacon,
    topics: Arc<[String]>,
    next: Instant,
    /// The rings that were told last: used and announced. None: no beacon is declared with them.
    told: Option<(u64, Option<u64>)>,
    /// How many partitions each topic has, by Kafka's last word.
    counts: BTreeMap<Input, i32>,
    /// The process takes no more records.
    is_stopping: bool,
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
            is_stopping: false,
        }
    }

    /// The newest ring whose announcement was heard wherever it can be.
    pub(super) fn heard(&mut self) -> Option<u64> {
        *self.beacon.heard.borrow_and_update()
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
        self.told = self.told.map(|_| (0, None));
    }

    /// Tells the beacon, if it is time or the rings have changed. `oldest` and `grace_left` are asked for only then: of each partition
    /// the oldest ring under which something is on its way, and for how long the announced ring is not used yet.
    pub(super) fn tell_when_due(
        &mut self,
        view: &View<'_>,
        oldest: impl FnOnce() -> Vec<(PartitionId, u64)>,
        grace_left: impl FnOnce() -> Duration,
    ) {
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
        let rings = Some((using.epoch, announced.map(|ring| ring.epoch)));
        let now = Instant::now();
        if self.told == rings && now < self.next {
            return;
        }
        self.told = rings;
        self.next = now + INTERVAL;
        let mut of_topics = BTreeMap::<String, Vec<(i32, u64)>>::new();
        for (partition, ring) in oldest() {
            let topic = inputs.topic_of(partition).to_owned();
            of_topics.entry(topic).or_default().push((partition.number(), ring));
        }
        let counts = self.counts.iter();
        let members = publishers.members().filter(|_| !self.is_stopping);
        self.beacon.told.send_replace(Some(Told {
            using: Arc::clone(using),
            announced: announced.cloned(),
            grace_left_ms: u64::try_from(grace_left().as_millis()).unwrap_or(u64::MAX),
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
