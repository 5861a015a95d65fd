//! Partitions of which nothing comes although Kafka has more.
//!
//! On a busy machine a partition that was paused, assigned anew and resumed has been seen to stand still for a minute. librdkafka reported
//! no error. Such a partition goes on when it is assigned anew, so the statistics are watched for it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use forwarder_core::delivery::partition::PartitionId;

/// So long nothing comes before a partition counts as stalled. Longer than a fetch that waits for its broker.
const PATIENCE: Duration = Duration::from_secs(15);

/// A partition without a broker is asked for again and again in vain: ever less often, down to this.
const MOST_PATIENCE: Duration = Duration::from_secs(240);

/// What the statistics say of a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
    /// The next offset that is expected, or up to where librdkafka has handed all out, whichever is greater.
    pub(super) next: i64,
    /// One past the newest record that can be read. None: it is not known.
    pub(super) end: Option<i64>,
    /// Records that librdkafka holds, ready to be handed out.
    pub(super) queued: i64,
}

impl Fetched {
    /// Whether something should come.
    fn is_behind(self) -> bool {
        self.queued == 0 && self.end.is_none_or(|end| self.next < end)
    }
}

/// Since when a partition stands still.
#[derive(Clone, Copy, Debug)]
struct Still {
    next: i64,
    since: Instant,
    patience: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    still: BTreeMap<PartitionId, Still>,
}

impl Stalls {
    /// Takes note of statistics of a partition that is fetched and not paused. Returns for how long it has been standing still, if it is
    /// to be asked for anew.
    pub(super) fn note(&mut self, partition: PartitionId, fetched: Fetched, now: Instant) -> Option<Duration> {
        if !fetched.is_behind() {
            self.forget(partition);
            return None;
        }
        let begin = Still {
            next: fetched.next,
            since: now,
            patience: PATIENCE,
        };
        let still = self.still.entry(partition).or_insert(begin);
        if still.next != fetched.next {
            *still = begin;
        }
        let lasting = now.saturating_duration_since(still.since);
        if lasting < still.patience {
            return None;
        }
        still.patience = still.patience.saturating_add(still.patience.min(MOST_PATIENCE));
        Some(lasting)
    }

    /// The partition is not ours, or is not to be fetched now.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.still.remove(&partition);
    }

    /// Keeps only partitions that are ours.
    pub(super) fn keep(&mut self, is_ours: impl Fn(PartitionId) -> bool) {
        self.still.retain(|partition, _| is_ours(*partition));
    }
}

#[cfg(test)]
mod tests {
    use forwarder_core::delivery::partition::Input;

    use super::*;

    const BEHIND: Fetched = Fetched {
        next: 10,
        end: Some(20),
        queued: 0,
    };

    fn partition() -> PartitionId {
        PartitionId::new(Input::FIRST, 0).unwrap()
    }

    /// The seconds, of those that are given, at which the partition is asked for anew.
    fn asked_at(stalls: &mut Stalls, seen: impl IntoIterator<Item = (u64, Fetched)>) -> Vec<u64> {
        let begin = Instant::now();
        let asked = seen.into_iter().filter(|(second, fetched)| {
            let now = begin + Duration::from_secs(*second);
            stalls.note(partition(), *fetched, now).is_some()
        });
        asked.map(|(second, _)| second).collect()
    }

    #[test]
    fn a_partition_of_which_nothing_comes_is_asked_for_anew_ever_less_often() {
        let seen = (0..=1000).map(|second| (second, BEHIND));
        assert_eq!(
            asked_at(&mut Stalls::default(), seen),
            [15, 30, 60, 120, 240, 480, 720, 960]
        );
    }

    #[test]
    fn one_of_which_no_end_is_known_is_asked_for_anew() {
        let unknown = Fetched { end: None, ..BEHIND };
        let seen = (0..=20).map(|second| (second, unknown));
        assert_eq!(asked_at(&mut Stalls::default(), seen), [15]);
    }

    #[test]
    fn one_that_goes_on_slowly_has_not_stalled() {
        let seen = (0..=100_i64).map(|second| {
            let fetched = Fetched {
                next: 10 + second / 10,
                ..BEHIND
            };
            (second.unsigned_abs(), fetched)
        });
        assert_eq!(asked_at(&mut Stalls::default(), seen), [] as [u64; 0]);
    }

    #[test]
    fn one_that_is_read_to_its_end_or_waits_in_the_queue_has_not_stalled() {
        for well in [
            Fetched {
                end: Some(10),
                ..BEHIND
            },
            Fetched { queued: 1, ..BEHIND },
        ] {
            let seen = (0..=20).map(|second| (second, if second == 10 { well } else { BEHIND }));
            assert_eq!(asked_at(&mut Stalls::default(), seen), [] as [u64; 0], "{well:?}");
        }
    }

    #[test]
    fn one_that_was_not_to_be_fetched_meanwhile_begins_anew() {
        let mut stalls = Stalls::default();
        assert_eq!(asked_at(&mut stalls, [(0, BEHIND), (14, BEHIND)]), [] as [u64; 0]);
        stalls.keep(|_| false);
        assert_eq!(asked_at(&mut stalls, [(15, BEHIND), (29, BEHIND), (30, BEHIND)]), [30]);
    }
}
