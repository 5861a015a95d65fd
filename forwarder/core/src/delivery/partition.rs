//! Which partition: of which topic, and which one of it.
//!
//! A forwarder may read several topics. Inside, a topic is its index in a table, [`Inputs`]. Names are looked up at the edges only:
//! where Kafka is asked, and where people read. Later inputs may be of several Kafkas. Then a line of the table names the Kafka too, and
//! nothing else changes.

use std::fmt;
use std::sync::Arc;

/// How many bits of a [`PartitionId`] hold the partition's number. librdkafka takes no topic of more than 100,000 partitions.
const NUMBER_BITS: u32 = 20;

/// How many topics a forwarder can read at most.
pub const MAX_INPUTS: usize = 1 << (u32::BITS - NUMBER_BITS);

/// A topic that is read, by its index in [`Inputs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Input(u16);

impl Input {
    /// The topic that the document names first. Most forwarders read no other.
    pub const FIRST: Self = Self(0);

    /// Its index, counted from zero.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A partition of a topic that is read.
///
/// Topic and number share one word. So what names a record is no larger than with the number alone. The order is by topic, then by
/// number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId(u32);

impl PartitionId {
    /// The partition of this number; `None` where no topic can have it.
    #[must_use]
    pub const fn new(input: Input, number: i32) -> Option<Self> {
        if number < 0 || number >> NUMBER_BITS != 0 {
            return None;
        }
        Some(Self((input.0 as u32) << NUMBER_BITS | number.unsigned_abs()))
    }

    /// Its topic.
    #[must_use]
    pub const fn input(self) -> Input {
        Input((self.0 >> NUMBER_BITS) as u16)
    }

    /// Its number in the topic, as Kafka counts.
    #[must_use]
    pub const fn number(self) -> i32 {
        (self.0 & ((1 << NUMBER_BITS) - 1)) as i32
    }
}

impl fmt::Debug for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.input().index(), self.number())
    }
}

/// The topics that a forwarder reads, in the order of the document. It never changes while the process runs, and cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inputs(Arc<[String]>);

impl Inputs {
    /// The table of these topics. Those beyond [`MAX_INPUTS`] are left out; the document's check refuses so many.
    #[must_use]
    pub fn new<'a>(topics: impl IntoIterator<Item = &'a str>) -> Self {
        Self(topics.into_iter().take(MAX_INPUTS).map(str::to_owned).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (Input, &str)> {
        (0..).map(Input).zip(self.0.iter().map(String::as_str))
    }

    /// The names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// The topic of this name, if it is read.
    #[must_use]
    pub fn find(&self, topic: &str) -> Option<Input> {
        self.iter().find(|(_, name)| *name == topic).map(|(input, _)| input)
    }

    /// The partition that Kafka names so, if its topic is read.
    #[must_use]
    pub fn partition(&self, topic: &str, number: i32) -> Option<PartitionId> {
        PartitionId::new(self.find(topic)?, number)
    }

    /// A topic's name.
    #[must_use]
    pub fn topic(&self, input: Input) -> &str {
        self.0.get(input.index()).map_or("", String::as_str)
    }

    /// The name of a partition's topic.
    #[must_use]
    pub fn topic_of(&self, partition: PartitionId) -> &str {
        self.topic(partition.input())
    }

    /// The name of a partition's topic where a log line needs it: with a single topic, the number says all.
    #[must_use]
    pub fn topic_to_log(&self, partition: PartitionId) -> Option<&str> {
        (self.len() > 1).then(|| self.topic_of(partition))
    }

    /// A partition for people: its number alone where there is a single topic, else `topic-number` as Kafka's own tools write it.
    #[must_use]
    pub fn named(&self, partition: PartitionId) -> Named<'_> {
        Named {
            topic: self.topic_to_log(partition),
            number: partition.number(),
        }
    }

    /// Partitions for people, each as [`Inputs::named`] shows it.
    #[must_use]
    pub fn show(&self, partitions: &[PartitionId]) -> Vec<Named<'_>> {
        partitions.iter().map(|partition| self.named(*partition)).collect()
    }
}

/// See [`Inputs::named`].
#[derive(Clone, Copy)]
pub struct Named<'a> {
    topic: Option<&'a str>,
    number: i32,
}

impl fmt::Debug for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.topic {
            None => write!(f, "{}", self.number),
            Some(topic) => write!(f, "{topic}-{}", self.number),
        }
    }
}

/// A partition of the first topic, for tests.
#[cfg(test)]
pub(crate) fn first(number: i32) -> PartitionId {
    PartitionId::new(Input::FIRST, number).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::offsets::Tag;
    use crate::document::MAX_FURTHER_TOPICS;

    #[test]
    fn a_partition_is_told_from_those_of_other_topics() {
        let inputs = Inputs::new(["a", "b"]);
        let [a, b] = ["a", "b"].map(|topic| inputs.partition(topic, 7).unwrap());
        assert_ne!(a, b);
        assert_eq!((inputs.topic_of(a), a.number()), ("a", 7));
        assert_eq!((inputs.topic_of(b), b.number()), ("b", 7));
        assert_eq!(inputs.partition("c", 7), None);
        assert_eq!(a.input(), Input::FIRST);
    }

    #[test]
    fn partitions_are_in_order_by_topic_then_by_number() {
        let last = Input(u16::try_from(MAX_INPUTS - 1).unwrap());
        let numbers = [0, 1, 99_999, (1 << NUMBER_BITS) - 1];
        let all = [Input::FIRST, Input(1), last].map(|input| numbers.map(|number| (input, number)));
        let all = all.as_flattened();
        let ids: Vec<_> = all
            .iter()
            .map(|(input, number)| PartitionId::new(*input, *number).unwrap())
            .collect();
        assert!(ids.is_sorted_by(|one, next| one < next));
        let back: Vec<_> = ids.iter().map(|id| (id.input(), id.number())).collect();
        assert_eq!(back, all);
    }

    #[test]
    fn a_number_that_no_topic_has_names_no_partition() {
        for number in [-1, i32::MIN, 1 << NUMBER_BITS, i32::MAX] {
            assert_eq!(PartitionId::new(Input(1), number), None);
        }
    }

    #[test]
    fn what_names_a_record_is_no_larger_than_with_the_number_alone() {
        assert_eq!(size_of::<PartitionId>(), size_of::<i32>());
        assert_eq!(size_of::<Tag>(), 24);
    }

    #[test]
    fn every_topic_that_a_document_may_name_has_its_place() {
        let names: Vec<String> = (0..=MAX_FURTHER_TOPICS).map(|topic| topic.to_string()).collect();
        let inputs = Inputs::new(names.iter().map(String::as_str));
        assert_eq!(inputs.len(), names.len());
        assert!(names.iter().all(|name| inputs.find(name).is_some()));
    }

    #[test]
    fn people_read_the_topic_only_where_there_are_several() {
        let ids = |inputs: &Inputs| -> Vec<PartitionId> {
            let first = |(input, _)| PartitionId::new(input, 3).unwrap();
            inputs.iter().map(first).collect()
        };
        let one = Inputs::new(["a"]);
        assert_eq!(format!("{:?}", one.show(&ids(&one))), "[3]");
        assert_eq!(one.topic_to_log(ids(&one)[0]), None);
        let two = Inputs::new(["a", "b"]);
        assert_eq!(format!("{:?}", two.show(&ids(&two))), "[a-3, b-3]");
        assert_eq!(two.topic_to_log(ids(&two)[1]), Some("b"));
    }
}
