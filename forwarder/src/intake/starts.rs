//! Asks Kafka what [`forwarder_core::delivery::start`] needs to know.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use forwarder_core::delivery::commit::{self, Ahead, Metadata};
use forwarder_core::delivery::partition::{Input, Inputs, PartitionId};
use forwarder_core::delivery::start::{History, Known, Sameness, Start, start};
use forwarder_core::document::{Source, StartFrom};
use forwarder_core::fanout::dispatch::{Phase, RingEpoch};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tracing::{debug, error, warn};

use super::context::KafkaConsumer;
use super::questions::{self, ASK_TIMEOUT, LEAST_TIMEOUT};

/// Where the assigned partitions of a topic begin.
pub(super) struct Begin {
    pub(super) input: Input,
    /// Each partition's start, as far as Kafka has said enough.
    pub(super) places: Vec<Place>,
    /// The others: they are to be asked about again.
    pub(super) unanswered: Vec<PartitionId>,
    /// The group has committed nothing for the topic: it begins now.
    pub(super) is_new_group: bool,
    /// What the commits' metadata is to say; `None`: Kafka has said nothing of the topic.
    pub(super) group_partitions: Option<u32>,
}

impl Begin {
    /// Kafka has said nothing of the topic: these are to be asked about again.
    pub(super) fn untold(input: Input, partitions: Vec<PartitionId>) -> Self {
        Self {
            input,
            places: Vec::new(),
            unanswered: partitions,
            is_new_group: false,
            group_partitions: None,
        }
    }
}

/// The topics among these of which Kafka has said anything.
pub(super) fn known(begins: &[Begin]) -> Vec<Input> {
    let known = begins.iter().filter(|begin| begin.group_partitions.is_some());
    known.map(|begin| begin.input).collect()
}

/// Where one partition begins.
pub(super) struct Place {
    pub(super) partition: PartitionId,
    /// The ring's epoch under which those before us have delivered.
    pub(super) ring: u64,
    /// Its fingerprint.
    pub(super) members: Option<u64>,
    /// The epoch of the ring under which they have delivered, where the other one is only announced.
    pub(super) using: Option<u64>,
    pub(super) start: Start,
    /// What they have settled behind the committed offset, as told under another ring than ours.
    pub(super) later: Option<Ahead>,
}

impl Place {
    /// How the partition begins under this ring.
    pub(super) fn phase(&self, ring_epoch: &RingEpoch) -> Phase {
        let another = self.members.is_some_and(|members| members != ring_epoch.fingerprint());
        match self.start.offset {
            None => Phase::Stopped,
            Some(_) if self.ring > ring_epoch.epoch => Phase::Behind(self.ring),
            Some(_) if self.ring < ring_epoch.epoch => Phase::Announcing,
            Some(_) if another => Phase::Contested,
            Some(_) => Phase::Active,
        }
    }

    /// Says what the partition waits for, if it does.
    pub(super) fn log_wait(&self, inputs: &Inputs, ring_epoch: &RingEpoch) {
        let (topic, number) = (inputs.topic_to_log(self.partition), self.partition.number());
        let ours = ring_epoch.epoch;
        match self.phase(ring_epoch) {
            Phase::Behind(needed) => warn!(
                topic,
                partition = number,
                needed,
                ours,
                "another forwarder has delivered under a newer ring; the partition waits until this process has that ring"
            ),
            Phase::Contested => error!(
                topic,
                partition = number,
                epoch = ours,
                "another forwarder has delivered under a different ring of the same epoch, so the partition waits. Give all \
                 forwarders the same ring, with a higher ring.epoch"
            ),
            Phase::Active
            | Phase::Draining
            | Phase::Stopped
            | Phase::Examined
            | Phase::Damaged(_)
            | Phase::Announcing
            | Phase::Grace
            | Phase::Sought => {}
        }
    }
}

/// The question where partitions of one topic begin.
pub(super) struct Inquiry<'a> {
    pub(super) source: &'a Source,
    /// The topic.
    pub(super) input: Input,
    /// Its name.
    pub(super) name: &'a str,
    pub(super) partitions: &'a [PartitionId],
    /// This process has had partitions of the topic already, so a group without any offset is not new; its topic is.
    pub(super) seen_before: bool,
    /// The group has begun just now: what it has committed since is not its past.
    pub(super) is_new_group: bool,
    /// The ring in use.
    pub(super) ring_epoch: &'a RingEpoch,
    /// The topic's ID, where it is known.
    pub(super) topic: Option<&'a str>,
    /// Next offsets of the topic that went by this name before, while this process read it.
    pub(super) former: &'a BTreeMap<PartitionId, i64>,
    /// Where a new group begins.
    pub(super) start_from: StartFrom,
    /// How long each question about the whole topic may take, and all those about its partitions.
    pub(super) patience: Duration,
    /// Other topics wait meanwhile: the questions may take that long together.
    pub(super) others_wait: bool,
}

impl Inquiry<'_> {
    /// How long the next question may take after the former ones have taken so long.
    fn patience_after(&self, used: Duration) -> Duration {
        if self.others_wait {
            self.patience.saturating_sub(used).max(LEAST_TIMEOUT)
        } else {
            self.patience
        }
    }
}

/// What the group has said of one partition.
struct Said<'a> {
    partition: PartitionId,
    /// The metadata of its commit, empty where there is none.
    text: &'a str,
    /// Whether that was said of the topic that goes by this name now.
    topic: Sameness,
    /// Its next record.
    committed: Option<i64>,
}

impl<'a> Said<'a> {
    fn of(partition: PartitionId, text: &'a str, committed: Option<i64>, inquiry: &Inquiry<'_>) -> Self {
        let former = inquiry.former.get(&partition).copied();
        let told = Sameness::of(commit::topic_of(text), inquiry.topic);
        // What was committed of this topic already counts more than what was read of a former one.
        let (topic, committed) = match (committed, former) {
            (Some(offset), _) if told == Sameness::Same => (told, Some(offset)),
            (_, Some(former)) => (Sameness::Anew, Some(former)),
            (committed, None) => (told, committed),
        };
        Self {
            partition,
            text,
            topic,
            committed,
        }
    }
}

/// Asks. One partition that Kafka cannot answer for keeps no other one waiting.
///
/// # Errors
/// Kafka answers nothing that is about all of them.
pub(super) fn look_up(consumer: &KafkaConsumer, inquiry: &Inquiry<'_>) -> Result<Begin, KafkaError> {
    let source = inquiry.source;
    let asked_at = Instant::now();
    let patience = || inquiry.patience_after(asked_at.elapsed());
    let led = Led::ask(consumer, inquiry.name, patience().min(ASK_TIMEOUT))?;
    let mut list = TopicPartitionList::with_capacity(led.0.len());
    for partition in 0..led.count() {
        list.add_partition(inquiry.name, partition);
    }
    let commits = consumer.committed_offsets(list, patience().min(ASK_TIMEOUT))?;
    let mut texts = Vec::new();
    let mut committed = Vec::new();
    let mut unknown = Vec::new();
    for element in commits.elements() {
        if let Err(error) = element.error() {
            debug!(%error, partition = element.partition(), "Kafka did not return the committed offset");
            unknown.push(element.partition());
        } else if let Offset::Offset(offset) = element.offset() {
            committed.push((element.partition(), offset));
            texts.push((element.partition(), metadata(&element)));
        }
    }
    let past = match History::of(texts.iter().map(|(_, text)| text.as_str())) {
        // Deleting a topic deletes its offsets. What the new one holds is new, so it is read from its beginning.
        History::None if inquiry.seen_before => History::Ours { partitions: 0 },
        past => past,
    };
    let history = if inquiry.is_new_group { History::None } else { past };
    let times = at_time(consumer, inquiry, &led, patience().min(ASK_TIMEOUT));
    let said: Vec<_> = inquiry
        .partitions
        .iter()
        .map(|partition| {
            let number = partition.number();
            let text = texts.iter().find(|(candidate, _)| *candidate == number);
            let text = text.map_or("", |(_, text)| text.as_str());
            Said::of(*partition, text, find(&committed, number), inquiry)
        })
        .collect();
    let is_told = |said: &Said<'_>| match (said.committed, &times) {
        (Some(_), _) => !unknown.contains(&said.partition.number()),
        // Where it begins depends on what is committed for the others.
        (None, Ok(_)) => unknown.is_empty(),
        (None, Err(_)) => false,
    };
    let asked = said
        .iter()
        .filter(|said| is_told(said) && led.has(said.partition.number()));
    let asked: Vec<_> = asked.map(|said| (inquiry.name, said.partition)).collect();
    let answers = questions::watermarks(consumer, &asked, patience());
    let mut marks: BTreeMap<_, _> = asked.iter().map(|(_, partition)| *partition).zip(answers).collect();
    let (mut places, mut unanswered) = (Vec::new(), Vec::new());
    for said in &said {
        let &Said {
            partition,
            text,
            topic,
            committed,
        } = said;
        let number = partition.number();
        let marks = marks.remove(&partition).and_then(Result::ok);
        let (low, high) = match (marks, committed) {
            (Some(marks), _) => marks,
            // It goes on where it was, and if that is gone, fetching will say so.
            (None, Some(committed)) if is_told(said) && topic != Sameness::Anew => (committed, i64::MAX),
            (None, _) => {
                unanswered.push(partition);
                continue;
            }
        };
        let metadata = Metadata::parse(text).unwrap_or_default();
        let known = Known {
            partition: number.unsigned_abs(),
            committed,
            low,
            high,
            at_time: times.as_ref().ok().and_then(|times| find(times, number)),
            ahead: metadata
                .ahead
                .as_ref()
                .filter(|ahead| inquiry.ring_epoch.matches(ahead)),
            topic,
        };
        let start = start(&known, history, inquiry.start_from, source.missing_offset);
        let later = metadata.ahead.filter(|ahead| {
            let there = start.fault.is_none() && committed.is_some_and(|from| (from..=high).contains(&ahead.upto));
            there && !inquiry.ring_epoch.matches(ahead)
        });
        places.push(Place {
            partition,
            ring: metadata.ring,
            members: metadata.members,
            using: metadata.using,
            start,
            later,
        });
    }
    let is_new_group = past == History::None;
    Ok(Begin {
        input: inquiry.input,
        places,
        is_new_group,
        group_partitions: Some(match (is_new_group, unanswered.is_empty()) {
            // Should this process end before the others have begun, the next one reads these from their beginning: that skips nothing.
            (true, false) => 0,
            _ => past.partitions(led.count().unsigned_abs()),
        }),
        unanswered,
    })
}

/// Makes sure that the broker holds these positions, whatever the answer to the commit was made of.
pub(super) fn verify(
    consumer: &KafkaConsumer,
    inputs: &Inputs,
    positions: &[(PartitionId, i64)],
) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, _) in positions {
        list.add_partition(inputs.topic_of(*partition), partition.number());
    }
    let held = consumer.committed_offsets(list, ASK_TIMEOUT)?;
    for element in held.elements() {
        let partition = inputs.partition(element.topic(), element.partition());
        let mut wanted = positions.iter().filter(|(candidate, _)| Some(*candidate) == partition);
        let wanted = wanted.next().map(|(_, offset)| *offset);
        if wanted.is_none_or(|wanted| element.offset() != Offset::Offset(wanted)) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset));
        }
    }
    Ok(())
}

/// Where to go on with a partition whose next record is `position`, and which has these watermarks; `None` when the broker has that
/// position after all.
pub(super) fn after_loss(
    source: &Source,
    partition: PartitionId,
    position: i64,
    (low, high): (i64, i64),
) -> Option<Start> {
    let known = Known {
        partition: partition.number().unsigned_abs(),
        committed: Some(position),
        low,
        high,
        at_time: None,
        ahead: None,
        topic: Sameness::Unknown,
    };
    let start = start(&known, History::None, source.start_from, source.missing_offset);
    start.fault.is_some().then_some(start)
}

/// Has librdkafka ask for the topic, which has it tell the topic's ID: see [`forwarder_kafka::told`].
///
/// # Errors
/// Kafka does not answer, or there is no such topic.
pub(super) fn ask_for_topic(consumer: &KafkaConsumer, topic: &str, patience: Duration) -> Result<(), KafkaError> {
    Led::ask(consumer, topic, patience).map(drop)
}

/// Whether Kafka refuses a topic: what it says of that topic is no word about others.
pub(super) fn is_of_the_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::TopicAuthorizationFailed | Code::InvalidTopic)
    )
}

/// Which partitions of a topic have a leader. The others need not be asked: nobody would answer.
struct Led(Vec<bool>);

impl Led {
    fn ask(consumer: &KafkaConsumer, topic: &str, patience: Duration) -> Result<Self, KafkaError> {
        let metadata = consumer.fetch_metadata(Some(topic), patience)?;
        let found = metadata.topics().iter().find(|candidate| candidate.name() == topic);
        let partitions = found.map_or(&[][..], |found| found.partitions());
        if partitions.is_empty() || i32::try_from(partitions.len()).is_err() {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let mut led = vec![false; partitions.len()];
        for partition in partitions {
            if let Some(led) = usize::try_from(partition.id()).ok().and_then(|at| led.get_mut(at)) {
                *led = partition.leader() >= 0;
            }
        }
        Ok(Self(led))
    }

    fn count(&self) -> i32 {
        i32::try_from(self.0.len()).unwrap_or(i32::MAX)
    }

    fn has(&self, partition: i32) -> bool {
        usize::try_from(partition).is_ok_and(|at| self.0.get(at).copied().unwrap_or(false))
    }
}

fn at_time(
    consumer: &KafkaConsumer,
    inquiry: &Inquiry<'_>,
    led: &Led,
    patience: Duration,
) -> Result<Vec<(i32, i64)>, KafkaError> {
    let StartFrom::Timestamp { millis } = inquiry.start_from else {
        return Ok(Vec::new());
    };
    let mut list = TopicPartitionList::with_capacity(inquiry.partitions.len());
    let numbers = inquiry.partitions.iter().map(|partition| partition.number());
    for number in numbers.filter(|number| led.has(*number)) {
        list.add_partition_offset(inquiry.name, number, Offset::Offset(millis))?;
    }
    if list.count() == 0 {
        return Ok(Vec::new());
    }
    let found = consumer.offsets_for_times(list, patience)?;
    Ok(found
        .elements()
        .iter()
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => Some((element.partition(), offset)),
            _ => None,
        })
        .collect())
}

fn find(pairs: &[(i32, i64)], partition: i32) -> Option<i64> {
    pairs
        .iter()
        .find(|(candidate, _)| *candidate == partition)
        .map(|(_, offset)| *offset)
}

/// The commit's metadata, or an empty text where it is no text: rdkafka panics on bytes that are not UTF-8, and any
/// client of the group may have written some.
fn metadata(element: &TopicPartitionListElem<'_>) -> String {
    catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).unwrap_or_default()
}
