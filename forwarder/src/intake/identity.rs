//! Whether the logs are those that were read: the topic may have been made anew under its name, a log may have been cut short.
//!
//! A topic that is made anew has another ID. librdkafka fetches on in it, from where it was in the former one; but it tells the ID before it
//! does. Each commit names the ID, so that a successor knows too. The client is replaced then: it holds on to the leader epochs of the former
//! topic, and no broker answers it as long as those of the new one are lower.

#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::{Input, PartitionId};
use forwarder_core::delivery::start::{Doubts, Missing, Start, after_cut};
use forwarder_core::document::MissingOffset;
use forwarder_core::fanout::dispatch::{Dispatcher, Phase};
use rdkafka::error::KafkaError;
use tracing::{error, info};

use super::client::Client;
use super::questions;
use super::starts::{self, Begin};
use crate::message::Message;
use crate::metrics::Metrics;

/// How long the topic's ID is waited for before the first partition begins. Old brokers have none.
const ID_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Default)]
pub(super) struct Identity {
    /// The topics' IDs, as they were last told.
    ids: BTreeMap<Input, String>,
    /// When each was first asked for.
    asked_at: BTreeMap<Input, Instant>,
    /// Next offsets of a topic that was before, of partitions that have not begun in this one.
    former: BTreeMap<PartitionId, i64>,
    /// The client is of a former topic.
    is_outdated: bool,
    /// The last assignment's epoch in a former topic.
    last_former: BTreeMap<Input, u32>,
    /// Where logs were cut.
    cuts: BTreeMap<PartitionId, i64>,
    doubts: Doubts,
    /// What was found wrong with partitions that are ours, for people.
    faults: BTreeMap<PartitionId, String>,
}

impl Identity {
    pub(super) fn id(&self, input: Input) -> Option<&str> {
        self.ids.get(&input).map(String::as_str)
    }

    pub(super) fn former(&self) -> &BTreeMap<PartitionId, i64> {
        &self.former
    }

    /// The client is about to be replaced: what it says is not of this topic.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Whether a record is of a former topic: nobody reads it again.
    pub(super) fn is_former(&self, tag: Tag) -> bool {
        let last = self.last_former.get(&tag.partition.input());
        last.is_some_and(|last| tag.epoch <= *last)
    }

    pub(super) fn fault(&self, partition: PartitionId) -> Option<&String> {
        self.faults.get(&partition)
    }

    /// See [`Doubts::are_settled`].
    pub(super) fn is_settled(&mut self, partition: PartitionId, fault: Option<Missing>, now: u64) -> bool {
        self.doubts.are_settled(partition, fault, now)
    }

    pub(super) fn has_begun(&mut self, partition: PartitionId) {
        self.former.remove(&partition);
        self.cuts.remove(&partition);
    }

    /// A partition is ours no more.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.has_begun(partition);
        self.doubts.forget(partition);
        self.faults.remove(&partition);
    }

    /// Whether these partitions may begin: the IDs of their topics are known, or there seem to be none. Asks for them.
    pub(super) fn knows_topics(&mut self, partitions: &[PartitionId], client: &Client) -> Result<bool, KafkaError> {
        let inputs: BTreeSet<Input> = partitions.iter().map(|partition| partition.input()).collect();
        let mut all = true;
        for input in inputs {
            all &= match self.knows_topic(input, client) {
                // That one begins later.
                Err(error) if client.inputs.len() > 1 && starts::is_of_the_topic(&error) => true,
                known => known?,
            };
        }
        Ok(all)
    }

    fn knows_topic(&mut self, input: Input, client: &Client) -> Result<bool, KafkaError> {
        if self.ids.contains_key(&input) {
            return Ok(true);
        }
        let asked_at = match self.asked_at.entry(input) {
            Entry::Occupied(asked_at) => *asked_at.get(),
            Entry::Vacant(none) => {
                starts::ask_for_topic(&client.consumer, client.inputs.topic(input), questions::ASK_TIMEOUT)?;
                *none.insert(Instant::now())
            }
        };
        Ok(asked_at.elapsed() >= ID_TIMEOUT)
    }

    /// Holds back each topic that Kafka has by now, as long as its ID may still be told. The look-up has asked for it, and the next poll
    /// tells it. Without the ID a commit that names another one would be trusted.
    pub(super) fn hold_back(&mut self, begins: &mut [Begin], now: Instant) {
        for begin in begins.iter_mut().filter(|begin| begin.group_partitions.is_some()) {
            if self.ids.contains_key(&begin.input) {
                continue;
            }
            let asked_at = *self.asked_at.entry(begin.input).or_insert(now);
            if now.saturating_duration_since(asked_at) < ID_TIMEOUT {
                let mut held = std::mem::take(&mut begin.unanswered);
                held.extend(begin.places.iter().map(|place| place.partition));
                *begin = Begin::untold(begin.input, held);
            }
        }
    }

    /// librdkafka has told a topic's ID. Returns whether it is another one than before: the topic was made anew then, and this client is of
    /// the former one.
    pub(super) fn note_topic(
        &mut self,
        input: Input,
        id: String,
        client: &Client,
        dispatcher: &Dispatcher<Message>,
    ) -> bool {
        let topic = client.inputs.topic(input);
        match self.ids.insert(input, id.clone()) {
            None => {
                info!(topic, id, "Kafka has returned the topic's ID");
                return false;
            }
            Some(former) if former == id => return false,
            Some(former) => error!(
                topic,
                former,
                id,
                "the topic was deleted and recreated. Records of the former topic that are on their way to NATS may still be \
                 delivered. Its other records are lost"
            ),
        }
        self.is_outdated = true;
        let states = dispatcher.partitions().iter();
        let ours = states.filter(|(partition, _)| partition.input() == input);
        let last = ours.clone().map(|(_, state)| state.epoch).max();
        self.last_former.insert(input, last.unwrap_or(0));
        let began = ours.filter(|(_, state)| state.phase != Phase::Sought);
        self.former
            .extend(began.map(|(partition, state)| (*partition, state.next())));
        true
    }

    /// Whether the client is to be replaced. Asked once.
    pub(super) fn take_outdated(&mut self) -> bool {
        std::mem::take(&mut self.is_outdated)
    }

    /// Another client is there: the IDs are asked for anew.
    pub(super) fn is_renewed(&mut self) {
        self.asked_at.clear();
    }

    /// Nothing is assigned any more.
    pub(super) fn forget_all(&mut self) {
        self.cuts.clear();
        self.faults.clear();
        self.doubts = Doubts::default();
    }

    /// librdkafka has told that a log was cut short before what it read of it.
    pub(super) fn note_cut(&mut self, partition: PartitionId, at: i64) {
        self.cuts.insert(partition, at);
    }

    /// Partitions whose logs were cut short before what was read of them, with the next offset and where to go on.
    pub(super) fn take_cuts(
        &mut self,
        dispatcher: &Dispatcher<Message>,
        policy: MissingOffset,
    ) -> Vec<(PartitionId, i64, Start)> {
        let partitions = dispatcher.partitions();
        let is_examined = |partition: PartitionId| {
            let state = partitions.get(&partition);
            state.is_some_and(|state| state.phase == Phase::Examined)
        };
        // One that is looked at for damage goes on later, and the cut is to be known then.
        let (later, cuts): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.cuts)
            .into_iter()
            .partition(|(partition, _)| is_examined(*partition));
        self.cuts = later;
        let cut = cuts.into_iter().filter_map(|(partition, at)| {
            let state = dispatcher.partitions().get(&partition)?;
            let next = state.is_taken().then(|| state.next())?;
            Some((partition, next, after_cut(next, at, policy)?))
        });
        cut.collect()
    }

    /// A partition cannot go on where it was. That is never done in silence.
    pub(super) fn report_fault(
        &mut self,
        partition: PartitionId,
        fault: Missing,
        goes_on: Option<i64>,
        client: &Client,
        metrics: &Metrics,
    ) {
        let policy = client.config.source.missing_offset;
        let (topic, number) = (client.inputs.topic_of(partition), partition.number());
        metrics.missing_offset(topic, number);
        self.faults.insert(partition, fault.to_string());
        error!(topic = client.inputs.topic_to_log(partition), partition = number, %fault, ?policy, goes_on, "the partition cannot continue from its last offset");
    }
}
