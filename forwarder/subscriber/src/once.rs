//! Whether a record was there before, by its place in Kafka. Pure.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::origin::Origin;

/// So many offsets of a partition are remembered. What is older counts as a repeat.
const WINDOW: usize = 64;

/// So many partitions of one asset are remembered. An asset is in one partition of each topic.
const PARTITIONS: usize = 64;

/// What a record is, by its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It was not there before, and is in order.
    New,
    /// It was there before, or is older than all that is remembered.
    Repeat,
    /// It was not there before, and a later one was.
    Late,
    /// Its topic was made anew: offsets have begun again.
    Anew,
}

/// Tells repeats of one asset's records. What it remembers has a bound.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// The ones that were begun last come last.
    partitions: Vec<Partition>,
}

#[derive(Debug)]
struct Partition {
    topic: Arc<str>,
    partition: i32,
    /// The highest offset.
    last: i64,
    /// The newest timestamp.
    newest: Option<i64>,
    /// In the order of arrival.
    recent: VecDeque<(i64, Option<i64>)>,
}

impl Once {
    /// Judges a record that is about to be delivered, and remembers it.
    pub(crate) fn judge(&mut self, origin: &Origin) -> Judgement {
        let is_its = |known: &Partition| known.partition == origin.partition && known.topic == origin.topic;
        let Some(at) = self.partitions.iter().position(is_its) else {
            if self.partitions.len() == PARTITIONS {
                self.partitions.remove(0);
            }
            self.partitions.push(Partition::begin(origin));
            return Judgement::New;
        };
        let partition = &mut self.partitions[at];
        if origin.offset > partition.last {
            partition.remember(origin);
            return Judgement::New;
        }
        let place = (origin.offset, origin.timestamp);
        if partition.recent.contains(&place) {
            return Judgement::Repeat;
        }
        if let (Some(timestamp), Some(newest)) = (origin.timestamp, partition.newest)
            && timestamp > newest
        {
            *partition = Partition::begin(origin);
            return Judgement::Anew;
        }
        let is_remembered = partition.recent.iter().any(|(offset, _)| *offset == origin.offset);
        let is_older_than_all = partition.recent.iter().all(|(offset, _)| *offset > origin.offset);
        if is_remembered || is_older_than_all {
            return Judgement::Repeat;
        }
        partition.remember(origin);
        Judgement::Late
    }
}

impl Partition {
    fn begin(origin: &Origin) -> Self {
        Self {
            topic: Arc::clone(&origin.topic),
            partition: origin.partition,
            last: origin.offset,
            newest: origin.timestamp,
            recent: VecDeque::from([(origin.offset, origin.timestamp)]),
        }
    }

    fn remember(&mut self, origin: &Origin) {
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((origin.offset, origin.timestamp));
        self.last = self.last.max(origin.offset);
        self.newest = self.newest.max(origin.timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, timestamp: i64) -> Origin {
        Origin {
            topic: Arc::from("t"),
            partition: 0,
            offset,
            timestamp: Some(timestamp),
        }
    }

    #[test]
    fn repeats_late_records_and_topics_made_anew_are_told_apart() {
        let mut once = Once::default();
        for (offset, timestamp, expected) in [
            (10, 100, Judgement::New),
            (12, 101, Judgement::New),
            (10, 100, Judgement::Repeat),
            (11, 100, Judgement::Late),
            (11, 100, Judgement::Repeat),
            (3, 90, Judgement::Repeat),
            (13, 102, Judgement::New),
            // Younger than all, at a lower offset.
            (0, 200, Judgement::Anew),
            (1, 200, Judgement::New),
            (0, 200, Judgement::Repeat),
        ] {
            assert_eq!(once.judge(&at(offset, timestamp)), expected, "{offset} {timestamp}");
        }
        let other = Origin {
            partition: 1,
            ..at(0, 1)
        };
        assert_eq!(
            once.judge(&other),
            Judgement::New,
            "each partition has offsets of its own"
        );
    }

    #[test]
    fn without_timestamps_a_lower_offset_is_never_a_topic_made_anew() {
        let mut once = Once::default();
        let at = |offset| Origin {
            timestamp: None,
            ..at(offset, 0)
        };
        let judged = [10, 12, 11, 5].map(|offset| once.judge(&at(offset)));
        let expected = [Judgement::New, Judgement::New, Judgement::Late, Judgement::Repeat];
        assert_eq!(judged, expected);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut once = Once::default();
        for offset in 0..1_000 {
            once.judge(&at(offset, offset));
        }
        assert_eq!(once.partitions[0].recent.len(), WINDOW);
        assert_eq!(once.judge(&at(1, 1)), Judgement::Repeat);
        for partition in 1..200 {
            let origin = Origin { partition, ..at(0, 0) };
            once.judge(&origin);
        }
        assert_eq!(once.partitions.len(), PARTITIONS);
    }
}
