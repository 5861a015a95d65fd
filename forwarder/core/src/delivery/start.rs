//! Where a partition begins when it is assigned.
//!
//! `Latest` loses nothing either: the end is looked up once, when the group begins, and committed before the first
//! record is read. A partition that appears later is read from its beginning, and an offset that the broker no longer
//! has is a fault with a declared policy, never a silent jump.
//!
//! A log may also not be the one that was read. A topic that was made anew is read from its beginning: nothing of it was read. A log that
//! was cut short goes on where it was cut: all before was read.

mod logs;

use std::fmt;

pub use self::logs::{Doubts, Sameness, after_cut};
use crate::delivery::commit::{Ahead, Metadata};
use crate::document::{MissingOffset, StartFrom};

/// What the group committed for the whole topic, as far as it matters for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// Nothing: the group begins now.
    None,
    /// Offsets without our metadata: another consumer (the original forwarder) went before us.
    Foreign,
    /// Our own; the topic had this many partitions when the group began.
    Ours {
        /// See [`Metadata::partitions`].
        partitions: u32,
    },
}

impl History {
    /// From the metadata of every offset that the group has committed for the topic.
    pub fn of<'a>(commits: impl IntoIterator<Item = &'a str>) -> Self {
        commits
            .into_iter()
            .map(Metadata::parse)
            .fold(Self::None, |history, metadata| match (history, metadata) {
                (Self::Ours { partitions: one }, Some(Metadata { partitions: other, .. })) => Self::Ours {
                    partitions: one.min(other),
                },
                (_, Some(Metadata { partitions, .. })) => Self::Ours { partitions },
                (Self::None, None) => Self::Foreign,
                (history, None) => history,
            })
    }

    /// What the metadata of this group's commits says from here on, where the topic now has `partitions`.
    #[must_use]
    pub const fn partitions(self, partitions: u32) -> u32 {
        match self {
            Self::None => partitions,
            // Which of them the other consumer knew cannot be told: each without an offset is read from its beginning.
            Self::Foreign => 0,
            Self::Ours { partitions } => partitions,
        }
    }
}

/// What is known of a partition at its assignment.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its number.
    pub partition: u32,
    /// The offset that the group committed for it.
    pub committed: Option<i64>,
    /// The oldest offset that the broker has.
    pub low: i64,
    /// One past the newest.
    pub high: i64,
    /// The first offset at or after the time of [`StartFrom::Timestamp`], where there is one.
    pub at_time: Option<i64>,
    /// What the group has settled behind `committed`, where that was said under the ring in use.
    pub ahead: Option<&'a Ahead>,
    /// Whether `committed` is of this topic.
    pub topic: Sameness,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The first offset to read; `None`: stay paused until a person has decided ([`MissingOffset::Stop`]).
    pub offset: Option<i64>,
    /// Whether the broker holds that offset for the group already. Otherwise it is committed before anything is read.
    pub committed: bool,
    /// What is wrong with the committed offset.
    pub fault: Option<Missing>,
    /// Clusters with the first of their records that is to be delivered though it lies before `offset`.
    pub away: Vec<(String, i64)>,
    /// Lanes with the first of their records that is to be delivered: see [`Ahead::lanes`].
    pub lanes: Vec<(u64, i64)>,
}

/// The broker no longer has the committed offset, or the record before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It expired: so many offsets behind it are gone.
    Expired {
        /// Offsets between the committed one and the oldest that is there.
        gone: i64,
    },
    /// It lies behind the end: the log was cut short, or somebody has committed what never was.
    Beyond {
        /// Offsets between the end and the committed one.
        by: i64,
    },
    /// The log was cut short before it, and may have grown since.
    Cut {
        /// Where it was cut.
        at: i64,
        /// Offsets between there and the next one to read.
        gone: i64,
    },
    /// It is of a topic of the same name that was deleted.
    Anew {
        /// What was committed of that.
        former: i64,
    },
}

/// What has happened, for people.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired { gone } => write!(f, "Kafka has deleted offsets before they were read: {gone}"),
            Self::Beyond { by } => write!(f, "the log ends before the next offset to read; missing offsets: {by}"),
            Self::Cut { at, gone } => write!(
                f,
                "Kafka truncated the log at offset {at}; offsets that were read and are cut: {gone}"
            ),
            Self::Anew { former } => write!(
                f,
                "the topic was deleted and recreated; offset {former} belongs to the former topic, whose unread records are lost"
            ),
        }
    }
}

/// Decides where a partition begins.
#[must_use]
pub fn start(known: &Known<'_>, history: History, start_from: StartFrom, policy: MissingOffset) -> Start {
    let Known {
        partition,
        committed,
        low,
        high,
        at_time,
        ahead,
        topic,
    } = *known;
    if let Some(committed) = committed {
        if topic == Sameness::Anew {
            return Start {
                // Nothing of it was read, so nothing is skipped.
                offset: match policy {
                    MissingOffset::Earliest | MissingOffset::Latest => Some(low),
                    MissingOffset::Stop => None,
                },
                committed: false,
                fault: Some(Missing::Anew { former: committed }),
                away: Vec::new(),
                lanes: Vec::new(),
            };
        }
        // What has expired is the clusters' that were away. All others go on behind what is settled ahead.
        if let Some(ahead) = ahead.filter(|ahead| committed < low && (low..=high).contains(&ahead.upto)) {
            let away = ahead.away.iter().map(|(name, from)| (name.clone(), (*from).max(low)));
            let lanes = ahead.lanes.iter().map(|told| (told.lane, told.from.max(low)));
            return Start {
                offset: Some(ahead.upto),
                committed: true,
                fault: Some(Missing::Expired { gone: low - committed }),
                away: away.collect(),
                lanes: lanes.collect(),
            };
        }
        let fault = if committed < low {
            Missing::Expired { gone: low - committed }
        } else if committed > high {
            Missing::Beyond { by: committed - high }
        } else {
            // An end that the partition does not reach is of a topic that was made anew: nothing is settled ahead there.
            let ahead = ahead.filter(|ahead| (committed..=high).contains(&ahead.upto));
            let away = ahead.map(|ahead| ahead.away.clone()).unwrap_or_default();
            let lanes = ahead.into_iter().flat_map(|ahead| &ahead.lanes);
            return Start {
                offset: Some(ahead.map_or(committed, |ahead| ahead.upto)),
                committed: true,
                fault: None,
                away: away
                    .into_iter()
                    .map(|(name, from)| (name, from.max(committed)))
                    .collect(),
                lanes: lanes.map(|told| (told.lane, told.from.max(committed))).collect(),
            };
        };
        let offset = match (policy, fault) {
            (MissingOffset::Stop, _) => None,
            (MissingOffset::Earliest, Missing::Expired { .. }) => Some(low),
            // All that is there lies before what was committed: it does not come again.
            (MissingOffset::Earliest | MissingOffset::Latest, _) => Some(high),
        };
        return Start {
            offset,
            committed: false,
            fault: Some(fault),
            away: Vec::new(),
            lanes: Vec::new(),
        };
    }
    let appeared_later = match history {
        History::None => false,
        History::Foreign => true,
        History::Ours { partitions } => partition >= partitions,
    };
    let offset = match start_from {
        _ if appeared_later => low,
        StartFrom::Earliest => low,
        StartFrom::Latest => high,
        StartFrom::Timestamp { .. } => at_time.unwrap_or(high),
    };
    Start {
        offset: Some(offset),
        committed: false,
        fault: None,
        away: Vec::new(),
        lanes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Known<'static> = Known {
        partition: 3,
        committed: None,
        low: 10,
        high: 90,
        at_time: Some(50),
        ahead: None,
        topic: Sameness::Unknown,
    };
    const POLICY: MissingOffset = MissingOffset::Earliest;

    fn offset(known: Known<'_>, history: History, from: StartFrom) -> Option<i64> {
        start(&known, history, from, POLICY).offset
    }

    #[test]
    fn a_new_group_begins_where_it_is_told() {
        assert_eq!(offset(KNOWN, History::None, StartFrom::Latest), Some(90));
        assert_eq!(offset(KNOWN, History::None, StartFrom::Earliest), Some(10));
        assert_eq!(
            offset(KNOWN, History::None, StartFrom::Timestamp { millis: 1 }),
            Some(50)
        );
        let late = Known { at_time: None, ..KNOWN };
        assert_eq!(
            offset(late, History::None, StartFrom::Timestamp { millis: 1 }),
            Some(90)
        );
        assert!(!start(&KNOWN, History::None, StartFrom::Latest, POLICY).committed);
    }

    #[test]
    fn a_partition_that_appeared_later_is_read_from_its_beginning() {
        assert_eq!(
            offset(KNOWN, History::Ours { partitions: 3 }, StartFrom::Latest),
            Some(10)
        );
        assert_eq!(
            offset(KNOWN, History::Ours { partitions: 4 }, StartFrom::Latest),
            Some(90)
        );
        assert_eq!(offset(KNOWN, History::Foreign, StartFrom::Latest), Some(10));
    }

    #[test]
    fn a_committed_offset_is_where_to_go_on() {
        let known = Known {
            committed: Some(40),
            ..KNOWN
        };
        let expected = Start {
            offset: Some(40),
            committed: true,
            fault: None,
            away: Vec::new(),
            lanes: Vec::new(),
        };
        for from in [StartFrom::Latest, StartFrom::Earliest] {
            assert_eq!(start(&known, History::Foreign, from, POLICY), expected);
        }
        for edge in [10, 90] {
            let known = Known {
                committed: Some(edge),
                ..KNOWN
            };
            assert_eq!(start(&known, History::Foreign, StartFrom::Latest, POLICY).fault, None);
        }
    }

    #[test]
    fn what_is_settled_ahead_is_not_read_again_but_for_the_clusters_that_were_away() {
        let ahead = Ahead {
            members: 1,
            upto: 60,
            away: vec![("C2".to_owned(), 45)],
            lanes: Vec::new(),
        };
        let known = Known {
            committed: Some(40),
            ahead: Some(&ahead),
            ..KNOWN
        };
        let begin = start(&known, History::Foreign, StartFrom::Latest, POLICY);
        assert_eq!((begin.offset, begin.committed), (Some(60), true));
        assert_eq!(begin.away, [("C2".to_owned(), 45)]);
        // The first ones have expired.
        let begin = start(
            &Known { low: 50, ..known },
            History::Foreign,
            StartFrom::Latest,
            MissingOffset::Latest,
        );
        assert_eq!((begin.offset, begin.committed), (Some(60), true));
        assert_eq!(begin.fault, Some(Missing::Expired { gone: 10 }));
        assert_eq!(begin.away, [("C2".to_owned(), 50)]);
        // Of a topic that has been made anew since, or of an offset that somebody has set back by hand.
        for (committed, high) in [(40, 59), (61, 90)] {
            let known = Known {
                committed: Some(committed),
                high,
                ..known
            };
            let begin = start(&known, History::Foreign, StartFrom::Latest, POLICY);
            assert_eq!((begin.offset, begin.away), (Some(committed), Vec::new()));
        }
    }

    #[test]
    fn what_was_skipped_by_hand_is_not_read_for_the_clusters_that_were_away() {
        let ahead = Ahead {
            members: 1,
            upto: 60,
            away: vec![("C2".to_owned(), 45), ("C3".to_owned(), 55)],
            lanes: Vec::new(),
        };
        let known = Known {
            committed: Some(50),
            ahead: Some(&ahead),
            ..KNOWN
        };
        let begin = start(&known, History::Foreign, StartFrom::Latest, POLICY);
        assert_eq!(begin.away, [("C2".to_owned(), 50), ("C3".to_owned(), 55)]);
    }

    #[test]
    fn what_is_settled_ahead_of_another_topic_says_nothing_where_the_offset_is_gone() {
        // An end that the partition does not reach, and one that has expired as well.
        for upto in [91, 9] {
            let ahead = Ahead {
                members: 1,
                upto,
                away: Vec::new(),
                lanes: Vec::new(),
            };
            let known = Known {
                committed: Some(4),
                ahead: Some(&ahead),
                ..KNOWN
            };
            let begin = start(&known, History::Foreign, StartFrom::Latest, POLICY);
            assert_eq!((begin.offset, begin.committed), (Some(10), false), "up to {upto}");
        }
    }

    #[test]
    fn an_offset_that_is_gone_is_a_fault_with_a_policy() {
        let expired = Known {
            committed: Some(4),
            ..KNOWN
        };
        let ours = History::Ours { partitions: 12 };
        for (policy, offset) in [
            (MissingOffset::Earliest, Some(10)),
            (MissingOffset::Latest, Some(90)),
            (MissingOffset::Stop, None),
        ] {
            let start = start(&expired, ours, StartFrom::Latest, policy);
            assert_eq!(
                start,
                Start {
                    offset,
                    committed: false,
                    fault: Some(Missing::Expired { gone: 6 }),
                    away: Vec::new(),
                    lanes: Vec::new(),
                }
            );
        }
        let beyond = Known {
            committed: Some(100),
            ..KNOWN
        };
        assert_eq!(
            start(&beyond, ours, StartFrom::Latest, POLICY).fault,
            Some(Missing::Beyond { by: 10 })
        );
    }

    /// Wherever nobody is to decide, with what was told of the former log.
    fn offsets_by_policy(known: &Known<'_>) -> [Option<i64>; 3] {
        [MissingOffset::Earliest, MissingOffset::Latest, MissingOffset::Stop]
            .map(|policy| start(known, History::Foreign, StartFrom::Latest, policy).offset)
    }

    #[test]
    fn an_offset_beyond_the_end_goes_on_at_the_end() {
        for topic in [Sameness::Unknown, Sameness::Same] {
            let beyond = Known {
                committed: Some(100),
                topic,
                ..KNOWN
            };
            assert_eq!(offsets_by_policy(&beyond), [Some(90), Some(90), None]);
        }
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_beginning_wherever_the_former_one_was() {
        let ahead = Ahead {
            members: 1,
            upto: 60,
            away: vec![("C2".to_owned(), 45)],
            lanes: Vec::new(),
        };
        for committed in [4, 40, 100] {
            let anew = Known {
                committed: Some(committed),
                ahead: Some(&ahead),
                topic: Sameness::Anew,
                ..KNOWN
            };
            assert_eq!(offsets_by_policy(&anew), [Some(10), Some(10), None]);
            let begin = start(&anew, History::Foreign, StartFrom::Latest, POLICY);
            assert_eq!((begin.committed, begin.away), (false, Vec::new()));
            assert_eq!(begin.fault, Some(Missing::Anew { former: committed }));
        }
    }

    #[test]
    fn the_history_is_the_least_that_any_commit_knows() {
        assert_eq!(History::of([]), History::None);
        assert_eq!(History::of([""]), History::Foreign);
        let commits = ["", "fanout1 partitions=12 ring=1", "fanout1 partitions=6 ring=1", "x"];
        assert_eq!(History::of(commits), History::Ours { partitions: 6 });
        assert_eq!(History::None.partitions(8), 8);
        assert_eq!(History::Foreign.partitions(8), 0);
        assert_eq!(History::Ours { partitions: 6 }.partitions(8), 6);
    }
}
