//! Whether the logs are those that were read: the topic may have been made anew under its name, a log may have been cut short.
//!
//! A topic that is made anew has another ID. librdkafka fetches on in it, from where it was in the former one; but it tells the ID before it
//! does. Each commit names the ID, so that a successor knows too. The client is replaced then: it holds on to the leader epochs of the former
//! topic, and no broker answers it as long as those of the new one are lower.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::{Input, PartitionId};
use forwarder_core::delivery::start::{Doubts, Missing, Start, after_cut};
use forwarder_core::fanout::dispatch::Phase;
use rdkafka::error::KafkaError;
use tracing::{error, info};

use super::commits::Committer;
use super::context::{Context, OwnConsumer};
use super::reread::Rereader;
use super::{Intake, IntakeError, starts};
use forwarder_kafka as kafka;

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
}

impl Intake {
    /// Whether these partitions may begin: the IDs of their topics are known, or there seem to be none. Asks for them.
    pub(super) fn knows_topics(&mut self, partitions: &[PartitionId]) -> Result<bool, KafkaError> {
        let inputs: BTreeSet<Input> = partitions.iter().map(|partition| partition.input()).collect();
        let mut all = true;
        for input in inputs {
            all &= match self.knows_topic(input) {
                // That one begins later.
                Err(error) if self.inputs.len() > 1 && starts::is_of_the_topic(&error) => true,
                known => known?,
            };
        }
        Ok(all)
    }

    fn knows_topic(&mut self, input: Input) -> Result<bool, KafkaError> {
        if self.identity.ids.contains_key(&input) {
            return Ok(true);
        }
        let asked_at = match self.identity.asked_at.entry(input) {
            Entry::Occupied(asked_at) => *asked_at.get(),
            Entry::Vacant(none) => {
                starts::ask_for_topic(&self.consumer, self.inputs.topic(input))?;
                *none.insert(Instant::now())
            }
        };
        Ok(asked_at.elapsed() >= ID_TIMEOUT)
    }

    /// librdkafka has told a topic's ID. Where it is another one than before, the topic was made anew.
    pub(super) fn note_topic(&mut self, input: Input, id: String) {
        let topic = self.inputs.topic(input);
        match self.identity.ids.insert(input, id.clone()) {
            None => return info!(topic, id, "the topic's ID is known"),
            Some(former) if former == id => return,
            Some(former) => error!(
                topic,
                former,
                id,
                "the topic was deleted and made anew. What is on its way to NATS of the former one may still be delivered; all else \
                 of it is gone"
            ),
        }
        self.identity.is_outdated = true;
        let mut ours = self.assignments();
        ours.retain(|(partition, _)| partition.input() == input);
        let last = ours.iter().map(|(_, epoch)| *epoch).max();
        self.identity.last_former.insert(input, last.unwrap_or(0));
        let states = self.dispatcher.partitions().iter();
        let states = states.filter(|(partition, _)| partition.input() == input);
        let began = states.filter(|(_, state)| state.phase != Phase::Sought);
        let read: Vec<_> = began.map(|(partition, state)| (*partition, state.next())).collect();
        self.identity.former.extend(read);
        // What is in batches would be dropped with the assignments.
        self.hand_out();
        self.give_up_others(input);
        self.forget_all();
    }

    /// A topic was made anew. What was read of the others is committed before this client is replaced, and their next owner, which may be
    /// this process, reads the rest again.
    fn give_up_others(&mut self, anew: Input) {
        let mut others = self.assignments();
        others.retain(|(partition, _)| partition.input() != anew);
        if others.is_empty() {
            return;
        }
        self.abandon(&others);
        self.settle();
        let ours = self.committable();
        let others: Vec<PartitionId> = ours.into_iter().filter(|partition| partition.input() != anew).collect();
        self.commit_at_last(&others);
    }

    /// Goes on with a new client, as another member of the group, if the topic was made anew.
    pub(super) fn renew_when_due(&mut self) -> Result<(), IntakeError> {
        if !std::mem::take(&mut self.identity.is_outdated) {
            return Ok(());
        }
        let source = &self.config.source;
        let client = kafka::create_consumer(&self.config, |token| Context::new(source, &self.inputs, token))?;
        let consumer = Arc::new(OwnConsumer::new(client));
        // No answer to a commit of the former member proves anything for the new one.
        self.membership.end();
        let committer = Committer::start(Arc::clone(&consumer), self.membership.watch())?;
        std::mem::replace(&mut self.committer, committer).end();
        let former = std::mem::replace(&mut self.consumer, consumer);
        former.leave_group();
        drop(former);
        self.rereader = Rereader::default();
        // An assignment may have come with the news.
        self.forget_all();
        self.identity.asked_at.clear();
        self.subscribe()
    }

    /// Nothing is assigned any more.
    fn forget_all(&mut self) {
        let ours: Vec<PartitionId> = self.dispatcher.partitions().keys().copied().collect();
        for partition in ours {
            self.dispatcher.remove(partition);
            self.ends.remove(&partition);
            self.seeking.forget(partition);
            let topic = self.inputs.topic_of(partition);
            self.metrics.forget_partition(topic, partition.number());
        }
        self.identity.cuts.clear();
        self.identity.faults.clear();
        self.identity.doubts = Doubts::default();
        self.examiner.forget_stepped_over(None);
        self.begun.clear();
        self.repair_at = None;
        self.joining = None;
        self.leaving = None;
    }

    /// librdkafka has told that a log was cut short before what it read of it.
    pub(super) fn note_cut(&mut self, partition: PartitionId, at: i64) {
        self.identity.cuts.insert(partition, at);
        self.repair_positions();
    }

    /// Partitions whose logs were cut short before what was read of them, with the next offset and where to go on.
    pub(super) fn take_cuts(&mut self) -> Vec<(PartitionId, i64, Start)> {
        let policy = self.config.source.missing_offset;
        let partitions = self.dispatcher.partitions();
        let is_examined = |partition: PartitionId| {
            let state = partitions.get(&partition);
            state.is_some_and(|state| state.phase == Phase::Examined)
        };
        // One that is looked at for damage goes on later, and the cut is to be known then.
        let (later, cuts): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.identity.cuts)
            .into_iter()
            .partition(|(partition, _)| is_examined(*partition));
        self.identity.cuts = later;
        let cut = cuts.into_iter().filter_map(|(partition, at)| {
            let state = self.dispatcher.partitions().get(&partition)?;
            let next = state.is_taken().then(|| state.next())?;
            Some((partition, next, after_cut(next, at, policy)?))
        });
        cut.collect()
    }

    /// A partition cannot go on where it was. That is never done in silence.
    pub(super) fn tell_fault(&mut self, partition: PartitionId, fault: Missing, goes_on: Option<i64>) {
        let policy = self.config.source.missing_offset;
        let (topic, number) = (self.inputs.topic_of(partition), partition.number());
        self.metrics.missing_offset(topic, number);
        self.identity.faults.insert(partition, fault.to_string());
        error!(topic = self.inputs.told(partition), partition = number, %fault, ?policy, goes_on, "a partition cannot go on where it was");
    }
}
