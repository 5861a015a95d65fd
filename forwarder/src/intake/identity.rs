//! Whether the logs are those that were read: the topic may have been made anew under its name, a log may have been cut short.
//!
//! A topic that is made anew has another ID. librdkafka fetches on in it, from where it was in the former one; but it tells the ID before it
//! does. Each commit names the ID, so that a successor knows too. The client is replaced then: it holds on to the leader epochs of the former
//! topic, and no broker answers it as long as those of the new one are lower.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// The topic's ID, as it was last told.
    id: Option<String>,
    /// When it was first asked for.
    asked_at: Option<Instant>,
    /// Next offsets of the topic that was before, of partitions that have not begun in this one.
    former: BTreeMap<i32, i64>,
    /// The client is of the former topic.
    is_outdated: bool,
    /// The last assignment's epoch in the former topic.
    last_former: u32,
    /// Where logs were cut.
    cuts: BTreeMap<i32, i64>,
    doubts: Doubts,
    /// What was found wrong with partitions that are ours, for people.
    faults: BTreeMap<i32, String>,
}

impl Identity {
    pub(super) fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    pub(super) fn former(&self) -> &BTreeMap<i32, i64> {
        &self.former
    }

    /// The client is about to be replaced: what it says is not of this topic.
    pub(super) fn is_outdated(&self) -> bool {
        self.is_outdated
    }

    /// Whether an assignment's epoch is of a former topic: nobody reads its records again.
    pub(super) fn is_former(&self, epoch: u32) -> bool {
        epoch <= self.last_former
    }

    pub(super) fn fault(&self, partition: i32) -> Option<&String> {
        self.faults.get(&partition)
    }

    /// See [`Doubts::are_settled`].
    pub(super) fn is_settled(&mut self, partition: i32, fault: Option<Missing>, now: u64) -> bool {
        self.doubts.are_settled(partition, fault, now)
    }

    pub(super) fn has_begun(&mut self, partition: i32) {
        self.former.remove(&partition);
        self.cuts.remove(&partition);
    }

    /// A partition is ours no more.
    pub(super) fn forget(&mut self, partition: i32) {
        self.has_begun(partition);
        self.doubts.forget(partition);
        self.faults.remove(&partition);
    }
}

impl Intake {
    /// Whether partitions may begin: the topic's ID is known, or there seems to be none. Asks for it.
    pub(super) fn knows_topic(&mut self) -> Result<bool, KafkaError> {
        if self.identity.id.is_some() {
            return Ok(true);
        }
        let asked_at = match self.identity.asked_at {
            Some(asked_at) => asked_at,
            None => {
                starts::ask_for_topic(&self.consumer, &self.config.source.topic)?;
                *self.identity.asked_at.insert(Instant::now())
            }
        };
        Ok(asked_at.elapsed() >= ID_TIMEOUT)
    }

    /// librdkafka has told the topic's ID. Where it is another one than before, the topic was made anew.
    pub(super) fn note_topic(&mut self, id: String) {
        let topic = &self.config.source.topic;
        match self.identity.id.replace(id.clone()) {
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
        self.identity.last_former = self.assignments().iter().map(|(_, epoch)| *epoch).max().unwrap_or(0);
        let states = self.dispatcher.partitions().iter();
        let began = states.filter(|(_, state)| state.phase != Phase::Sought);
        let read: Vec<_> = began.map(|(partition, state)| (*partition, state.next())).collect();
        self.identity.former.extend(read);
        // What is in batches would be dropped with the assignments.
        self.hand_out();
        self.forget_all();
    }

    /// Goes on with a new client, as another member of the group, if the topic was made anew.
    pub(super) fn renew_when_due(&mut self) -> Result<(), IntakeError> {
        if !std::mem::take(&mut self.identity.is_outdated) {
            return Ok(());
        }
        let source = &self.config.source;
        let client = kafka::create_consumer(&self.config, |token| Context::new(source, token))?;
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
        self.identity.asked_at = None;
        self.subscribe()
    }

    /// Nothing is assigned any more.
    fn forget_all(&mut self) {
        let ours: Vec<i32> = self.dispatcher.partitions().keys().copied().collect();
        for partition in ours {
            self.dispatcher.remove(partition);
            self.ends.remove(&partition);
            self.seeking.forget(partition);
            self.metrics.forget_partition(&self.config.source.topic, partition);
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
    pub(super) fn note_cut(&mut self, partition: i32, at: i64) {
        self.identity.cuts.insert(partition, at);
        self.repair_positions();
    }

    /// Partitions whose logs were cut short before what was read of them, with the next offset and where to go on.
    pub(super) fn take_cuts(&mut self) -> Vec<(i32, i64, Start)> {
        let policy = self.config.source.missing_offset;
        let partitions = self.dispatcher.partitions();
        let is_examined = |partition: i32| {
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
    pub(super) fn tell_fault(&mut self, partition: i32, fault: Missing, goes_on: Option<i64>) {
        let policy = self.config.source.missing_offset;
        self.metrics.missing_offset(&self.config.source.topic, partition);
        self.identity.faults.insert(partition, fault.to_string());
        error!(partition, %fault, ?policy, goes_on, "a partition cannot go on where it was");
    }
}
