//! Whether a log is the one that was read.

use std::collections::BTreeMap;

use super::{Missing, Start};
use crate::delivery::partition::PartitionId;
use crate::document::MissingOffset;

/// Whether a topic is the one of which an offset was committed: both have the same ID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sameness {
    /// Not known: the commit names no ID, or Kafka has none.
    #[default]
    Unknown,
    /// It is.
    Same,
    /// Another one of the same name: it was deleted and made anew.
    Anew,
}

impl Sameness {
    /// From the ID that the commit names and the one that the topic has.
    #[must_use]
    pub fn of(committed: Option<&str>, topic: Option<&str>) -> Self {
        match (committed, topic) {
            (Some(committed), Some(topic)) if committed == topic => Self::Same,
            (Some(_), Some(_)) => Self::Anew,
            _ => Self::Unknown,
        }
    }
}

/// How long an end that lies before the next offset is asked about again before it is believed, in microseconds: right after an election
/// the leader may not know yet how far the log goes.
const BELIEVED_AFTER: u64 = 5_000_000;

/// Since when logs have been said to end before the next offset, by partition.
#[derive(Debug, Default)]
pub struct Doubts(BTreeMap<PartitionId, u64>);

impl Doubts {
    /// Whether the answer about a partition can be acted upon, `now` in microseconds. If it cannot, it is to be asked for again.
    pub fn are_settled(&mut self, partition: PartitionId, fault: Option<Missing>, now: u64) -> bool {
        if !matches!(fault, Some(Missing::Beyond { .. })) {
            self.forget(partition);
            return true;
        }
        let since = *self.0.entry(partition).or_insert(now);
        let settled = now.saturating_sub(since) >= BELIEVED_AFTER;
        if settled {
            self.forget(partition);
        }
        settled
    }

    /// A partition is ours no more.
    pub fn forget(&mut self, partition: PartitionId) {
        self.0.remove(&partition);
    }
}

/// Where to go on with a log that was cut short at `at`, where `next` is the next offset to read; none if all that was cut was not read yet.
#[must_use]
pub fn after_cut(next: i64, at: i64, policy: MissingOffset) -> Option<Start> {
    (at < next).then(|| Start {
        offset: match policy {
            MissingOffset::Earliest | MissingOffset::Latest => Some(at),
            MissingOffset::Stop => None,
        },
        committed: false,
        fault: Some(Missing::Cut { at, gone: next - at }),
        away: Vec::new(),
        lanes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::partition::first;

    #[test]
    fn a_topic_is_another_one_only_where_both_ids_are_known() {
        assert_eq!(Sameness::of(Some("a"), Some("a")), Sameness::Same);
        assert_eq!(Sameness::of(Some("a"), Some("b")), Sameness::Anew);
        for (committed, topic) in [(None, Some("a")), (Some("a"), None), (None, None)] {
            assert_eq!(Sameness::of(committed, topic), Sameness::Unknown);
        }
    }

    #[test]
    fn a_log_that_was_cut_goes_on_where_it_was_cut() {
        let cut = after_cut(50, 37, MissingOffset::Earliest).unwrap();
        assert_eq!((cut.offset, cut.committed), (Some(37), false));
        assert_eq!(cut.fault, Some(Missing::Cut { at: 37, gone: 13 }));
        assert_eq!(after_cut(50, 37, MissingOffset::Latest).unwrap().offset, Some(37));
        assert_eq!(after_cut(50, 37, MissingOffset::Stop).unwrap().offset, None);
        for at in [50, 51] {
            assert_eq!(
                after_cut(50, at, MissingOffset::Earliest),
                None,
                "nothing that was read"
            );
        }
    }

    #[test]
    fn an_end_before_the_next_offset_is_believed_only_after_a_while() {
        let mut doubts = Doubts::default();
        let beyond = Some(Missing::Beyond { by: 10 });
        assert!(doubts.are_settled(first(3), Some(Missing::Expired { gone: 1 }), 7));
        assert!(!doubts.are_settled(first(3), beyond, 7));
        assert!(!doubts.are_settled(first(3), beyond, 6 + BELIEVED_AFTER));
        assert!(
            !doubts.are_settled(first(4), beyond, 7 + BELIEVED_AFTER),
            "each has its own while"
        );
        assert!(doubts.are_settled(first(3), beyond, 7 + BELIEVED_AFTER));
        // A follower that lagged has caught up: the next doubt begins anew.
        assert!(!doubts.are_settled(first(3), beyond, 20));
        assert!(doubts.are_settled(first(3), None, 21));
        assert!(!doubts.are_settled(first(3), beyond, 20 + BELIEVED_AFTER));
    }
}
