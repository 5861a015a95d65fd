//! Whether a record was there before, by its place in Kafka. Pure.

use std::collections::VecDeque;

/// So many offsets of a partition are remembered. What is older counts as a repeat.
const WINDOW: usize = 64;

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

/// Tells repeats of one asset's records of one partition. What it remembers has a bound.
#[derive(Debug, Default)]
pub(crate) struct Once {
    /// The highest offset.
    last: i64,
    /// The newest timestamp.
    newest: Option<i64>,
    /// Offsets with their timestamps, in the order of arrival.
    recent: VecDeque<(i64, Option<i64>)>,
}

impl Once {
    /// Judges a record that is about to be delivered, and remembers it.
    pub(crate) fn judge(&mut self, offset: i64, timestamp: Option<i64>) -> Judgement {
        if self.recent.is_empty() || offset > self.last {
            self.remember(offset, timestamp);
            return Judgement::New;
        }
        if self.recent.contains(&(offset, timestamp)) {
            return Judgement::Repeat;
        }
        if let (Some(timestamp), Some(newest)) = (timestamp, self.newest)
            && timestamp > newest
        {
            *self = Self::default();
            self.remember(offset, Some(timestamp));
            return Judgement::Anew;
        }
        let is_remembered = self.recent.iter().any(|(known, _)| *known == offset);
        let is_older_than_all = self.recent.iter().all(|(known, _)| *known > offset);
        if is_remembered || is_older_than_all {
            return Judgement::Repeat;
        }
        self.remember(offset, timestamp);
        Judgement::Late
    }

    fn remember(&mut self, offset: i64, timestamp: Option<i64>) {
        self.last = if self.recent.is_empty() {
            offset
        } else {
            self.last.max(offset)
        };
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back((offset, timestamp));
        self.newest = self.newest.max(timestamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(once.judge(offset, Some(timestamp)), expected, "{offset} {timestamp}");
        }
    }

    #[test]
    fn without_timestamps_a_lower_offset_is_never_a_topic_made_anew() {
        let mut once = Once::default();
        let judged = [10, 12, 11, 5].map(|offset| once.judge(offset, None));
        let expected = [Judgement::New, Judgement::New, Judgement::Late, Judgement::Repeat];
        assert_eq!(judged, expected);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut once = Once::default();
        for offset in 0..1_000 {
            once.judge(offset, Some(offset));
        }
        assert_eq!(once.recent.len(), WINDOW);
        assert_eq!(once.judge(1, Some(1)), Judgement::Repeat);
    }
}
