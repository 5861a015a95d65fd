//! Asks Kafka what [`forwarder_core::start`] needs to know.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use forwarder_core::commit::{Ahead, Metadata};
use forwarder_core::config::{Source, StartFrom};
use forwarder_core::dispatch::Era;
use forwarder_core::start::{History, Known, Start, start};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};

use super::context::KafkaConsumer;

/// How long one question may take. The loop stands still meanwhile: publishers go on, the group is served by
/// librdkafka's own thread.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the questions about all partitions may take together, so that many partitions without a leader do not keep the
/// loop for minutes.
const ALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The least that a question may take, however many there are.
const LEAST_TIMEOUT: Duration = Duration::from_millis(200);

/// Questions about partitions, one after the other. Each has its share of the time that is left, so that those that are not
/// answered leave some for the others.
pub(super) struct Questions {
    until: Instant,
    left: Cell<usize>,
}

impl Questions {
    pub(super) fn new(count: usize) -> Self {
        Self {
            until: Instant::now() + ALL_TIMEOUT,
            left: Cell::new(count),
        }
    }

    /// The oldest offset of a partition and one past the newest.
    fn watermarks(&self, consumer: &KafkaConsumer, topic: &str, partition: i32) -> Result<(i64, i64), KafkaError> {
        let time = self.until.saturating_duration_since(Instant::now());
        let left = u32::try_from(self.left.get()).unwrap_or(u32::MAX).max(1);
        self.left.set(self.left.get().saturating_sub(1));
        consumer.fetch_watermarks(topic, partition, (time / left).clamp(LEAST_TIMEOUT, ASK_TIMEOUT))
    }
}

/// Where the assigned partitions begin.
pub(super) struct Begin {
    /// Each partition's start.
    pub(super) places: Vec<Place>,
    /// What the commits' metadata is to say.
    pub(super) group_partitions: u32,
}

/// Where one partition begins.
pub(super) struct Place {
    pub(super) partition: i32,
    /// The ring's epoch under which those before us have delivered.
    pub(super) ring: u64,
    /// Its fingerprint.
    pub(super) members: Option<u64>,
    pub(super) start: Start,
    /// What they have settled behind the committed offset, as told under another ring than ours.
    pub(super) later: Option<Ahead>,
}

/// `era`: the ring in use. `seen_before`: this process has had partitions of the topic already, so a group without any
/// offset is not new; its topic is.
pub(super) fn look_up(
    consumer: &KafkaConsumer,
    source: &Source,
    partitions: &[i32],
    seen_before: bool,
    era: &Era,
) -> Result<Begin, KafkaError> {
    let all = partition_count(consumer, &source.topic)?;
    let mut list = TopicPartitionList::with_capacity(all.max(0) as usize);
    for partition in 0..all {
        list.add_partition(&source.topic, partition);
    }
    let commits = consumer.committed_offsets(list, ASK_TIMEOUT)?;
    let mut texts = Vec::new();
    let mut committed = Vec::new();
    for element in commits.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            committed.push((element.partition(), offset));
            texts.push((element.partition(), metadata(&element)));
        }
    }
    let history = match History::of(texts.iter().map(|(_, text)| text.as_str())) {
        // Deleting a topic deletes its offsets. What the new one holds is new, so it is read from its beginning.
        History::None if seen_before => History::Ours { partitions: 0 },
        history => history,
    };
    let times = at_time(consumer, source, partitions)?;
    let questions = Questions::new(partitions.len());
    let mut places = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let committed = find(&committed, *partition);
        let (low, high) = match (questions.watermarks(consumer, &source.topic, *partition), committed) {
            (Ok(watermarks), _) => watermarks,
            // A partition without a leader must not keep the others waiting: it goes on where it was, and if that is gone,
            // fetching will say so.
            (Err(_), Some(committed)) => (committed, i64::MAX),
            (Err(error), None) => return Err(error),
        };
        let text = texts.iter().find(|(candidate, _)| candidate == partition);
        let said = text.and_then(|(_, text)| Metadata::parse(text)).unwrap_or_default();
        let known = Known {
            partition: partition.unsigned_abs(),
            committed,
            low,
            high,
            at_time: find(&times, *partition),
            ahead: said.ahead.as_ref().filter(|ahead| era.is_told_by(ahead)),
        };
        let start = start(&known, history, source.start_from, source.missing_offset);
        let later = said.ahead.filter(|ahead| {
            let there = start.fault.is_none() && committed.is_some_and(|from| (from..=high).contains(&ahead.upto));
            there && !era.is_told_by(ahead)
        });
        places.push(Place {
            partition: *partition,
            ring: said.ring,
            members: said.members,
            start,
            later,
        });
    }
    Ok(Begin {
        places,
        group_partitions: history.partitions(all.unsigned_abs()),
    })
}

/// Makes sure that the broker holds these positions, whatever the answer to the commit was made of.
pub(super) fn verify(consumer: &KafkaConsumer, source: &Source, positions: &[(i32, i64)]) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::with_capacity(positions.len());
    for (partition, _) in positions {
        list.add_partition(&source.topic, *partition);
    }
    let held = consumer.committed_offsets(list, ASK_TIMEOUT)?;
    for element in held.elements() {
        let wanted = find(positions, element.partition());
        if wanted.is_none_or(|wanted| element.offset() != Offset::Offset(wanted)) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::NoOffset));
        }
    }
    Ok(())
}

/// Where to go on with a partition whose next record is `position`; `None` when the broker has that position after all.
pub(super) fn after_loss(
    consumer: &KafkaConsumer,
    source: &Source,
    partition: i32,
    position: i64,
    questions: &Questions,
) -> Result<Option<Start>, KafkaError> {
    let (low, high) = questions.watermarks(consumer, &source.topic, partition)?;
    let known = Known {
        partition: partition.unsigned_abs(),
        committed: Some(position),
        low,
        high,
        at_time: None,
        ahead: None,
    };
    let start = start(&known, History::None, source.start_from, source.missing_offset);
    Ok(start.fault.is_some().then_some(start))
}

fn partition_count(consumer: &KafkaConsumer, topic: &str) -> Result<i32, KafkaError> {
    let metadata = consumer.fetch_metadata(Some(topic), ASK_TIMEOUT)?;
    let found = metadata.topics().iter().find(|candidate| candidate.name() == topic);
    let count = found.map_or(0, |found| found.partitions().len());
    match i32::try_from(count) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition)),
    }
}

fn at_time(consumer: &KafkaConsumer, source: &Source, partitions: &[i32]) -> Result<Vec<(i32, i64)>, KafkaError> {
    let StartFrom::Timestamp { millis } = source.start_from else {
        return Ok(Vec::new());
    };
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(&source.topic, *partition, Offset::Offset(millis))?;
    }
    let found = consumer.offsets_for_times(list, ASK_TIMEOUT)?;
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
