//! The rings of one forwarder that its pods may use. Pure.
//!
//! A ring is written first, and pods take it up after that. So the ring before is remembered until the status says that all pods use a
//! newer one. A process that starts in between does not know the ring before: then the ring as written is the answer.

use std::sync::Arc;

use forwarder_core::fanout::table::Summary;

use super::progress::Progress;

/// Rings from before that are remembered for one forwarder, at most. Beyond that the middle ones go: the oldest is the one in use.
const MOST_BEFORE: usize = 3;

/// What is known of a forwarder's ring.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) ring: Last,
    /// Rings that were written before it and that pods may still use, oldest first. A ring of nobody has none.
    before: Vec<Arc<Summary>>,
    /// The epoch that all pods were seen to use. It stays so when a pod is made anew.
    used: Option<u64>,
    /// Whether its document says that there are no members now.
    pub(super) idle: bool,
    /// Whether there is a document. One that a person has deleted is made anew; until then the last one holds.
    pub(super) is_there: bool,
}

/// The last ring that could be read.
#[derive(Clone, Debug, Default)]
pub(super) enum Last {
    #[default]
    None,
    Kept(Arc<Summary>),
    /// It was not kept: there was no room for so many bytes.
    NoRoom(usize),
}

/// How far the written ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is written, and some pods may use the ring before.
    Announced,
    /// All pods use it, or there are no pods.
    InUse,
    /// Some pods do not use it now, and the router does not know whether they use another ring. So it is when the router started during a
    /// change, or while a pod is made anew.
    Unknown,
}

impl Phase {
    /// Its name in answers.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::InUse => "inUse",
            Self::Unknown => "unknown",
        }
    }
}

impl Known {
    /// A ring is written.
    pub(super) fn written(&mut self, summary: Summary) {
        let epoch = summary.epoch();
        let last = std::mem::replace(&mut self.ring, Last::Kept(Arc::new(summary)));
        if std::mem::take(&mut self.idle) {
            // There were no pods, so the ones to come begin with this ring.
            self.before.clear();
            self.used = Some(epoch);
            return;
        }
        match last {
            Last::Kept(last) if last.epoch() < epoch => {
                self.before.push(last);
                if self.before.len() > MOST_BEFORE {
                    self.before.remove(1);
                }
            }
            // One that was edited by hand takes its place.
            Last::Kept(last) if last.epoch() == epoch => {}
            // An epoch was written by hand, and the operator has put it right.
            Last::Kept(_) => self.abandon(),
            Last::NoRoom(_) | Last::None => self.before.clear(),
        }
    }

    /// Takes up what the status says of the pods.
    pub(super) fn settle(&mut self, progress: Progress) {
        let Last::Kept(written) = &self.ring else {
            return;
        };
        let used = match progress {
            Progress::Some => return,
            Progress::Unsaid => written.epoch(),
            // A status is written after the ring, so it may still speak of an earlier one.
            Progress::All(epoch) => self.used.map_or(epoch, |used| used.max(epoch)),
        };
        self.used = Some(used);
        // A ring that is not known any more may be between them: then none of these is surely in use.
        self.before
            .retain(|ring| ring.epoch() >= used && used < written.epoch());
    }

    /// Forgets all but the ring as it is written.
    pub(super) fn forget_before(&mut self) {
        self.before = Vec::new();
    }

    /// As [`Self::forget_before`], of a forwarder that is not there.
    pub(super) fn abandon(&mut self) {
        self.forget_before();
        self.used = None;
    }

    /// How far the ring as written is.
    pub(super) fn phase(&self, written: &Summary) -> Phase {
        if self.used == Some(written.epoch()) {
            Phase::InUse
        } else if self.before.is_empty() {
            Phase::Unknown
        } else {
            Phase::Announced
        }
    }

    /// The oldest ring that pods may still use beside the written one.
    pub(super) fn before(&self) -> Option<&Arc<Summary>> {
        self.before.first()
    }

    /// What its rings take.
    pub(super) fn bytes(&self) -> usize {
        let ring = match &self.ring {
            Last::Kept(summary) => summary.bytes(),
            Last::None | Last::NoRoom(_) => 0,
        };
        ring + self.bytes_before()
    }

    /// What the rings from before take.
    pub(super) fn bytes_before(&self) -> usize {
        self.before.iter().map(|ring| ring.bytes()).sum()
    }
}

#[cfg(test)]
mod tests {
    use forwarder_core::document::RingConfig;

    use super::*;

    fn ring(epoch: u64) -> Summary {
        let text = format!("epoch: {epoch}\nclusters:\n- name: C{epoch}\n  servers: [nats://c:4222]\n");
        Summary::of(&RingConfig::from_yaml(&text).unwrap())
    }

    /// What is known after these rings were written, each with what the status says then.
    fn after(story: &[(u64, Progress)]) -> Known {
        let mut known = Known::default();
        for (epoch, progress) in story {
            known.written(ring(*epoch));
            known.settle(*progress);
        }
        known
    }

    /// Phase of the written ring, and the epoch of the one before.
    fn told(known: &Known) -> (Phase, Option<u64>) {
        let Last::Kept(written) = &known.ring else {
            panic!("{known:?}");
        };
        (known.phase(written), known.before().map(|ring| ring.epoch()))
    }

    #[test]
    fn the_ring_before_is_remembered_until_all_pods_use_the_next() {
        let mut known = after(&[(7, Progress::All(7)), (8, Progress::All(7))]);
        assert_eq!(told(&known), (Phase::Announced, Some(7)));
        known.settle(Progress::Some);
        assert_eq!(told(&known), (Phase::Announced, Some(7)));
        known.settle(Progress::All(8));
        assert_eq!(told(&known), (Phase::InUse, None));
        known.settle(Progress::Some);
        assert_eq!(told(&known), (Phase::InUse, None), "a pod is made anew");
    }

    #[test]
    fn several_changes_at_once_leave_the_ring_in_use_and_the_newest() {
        let mut story = vec![(7, Progress::All(7)), (8, Progress::Some), (9, Progress::Some)];
        let mut known = after(&story);
        assert_eq!(told(&known), (Phase::Announced, Some(7)));
        known.settle(Progress::All(8));
        assert_eq!(
            told(&known),
            (Phase::Announced, Some(8)),
            "8 is used now, and 9 is to come"
        );
        story.extend((10..30).map(|epoch| (epoch, Progress::Some)));
        let mut known = after(&story);
        assert_eq!(told(&known), (Phase::Announced, Some(7)));
        assert_eq!(known.before.len(), MOST_BEFORE);
        known.settle(Progress::All(29));
        assert_eq!(told(&known), (Phase::InUse, None));
    }

    #[test]
    fn who_starts_in_mid_change_does_not_claim_to_know_the_ring_in_use() {
        let mut known = after(&[(8, Progress::Some)]);
        assert_eq!(told(&known), (Phase::Unknown, None));
        known.settle(Progress::All(7));
        assert_eq!(told(&known), (Phase::Unknown, None), "7 was never seen");
        known.settle(Progress::All(8));
        assert_eq!(told(&known), (Phase::InUse, None));
        // The status may tell of a ring before its document does.
        known.settle(Progress::All(9));
        assert_eq!(told(&known), (Phase::Unknown, None));
        known.written(ring(9));
        known.settle(Progress::All(9));
        assert_eq!(told(&known), (Phase::InUse, None));
    }

    #[test]
    fn without_pods_the_ring_as_written_is_the_one() {
        let known = after(&[(7, Progress::All(7)), (8, Progress::Unsaid)]);
        assert_eq!(told(&known), (Phase::InUse, None));
        let mut known = after(&[(7, Progress::All(7))]);
        known.idle = true;
        known.written(ring(8));
        for late in [Progress::Some, Progress::All(7)] {
            known.settle(late);
            assert_eq!(told(&known), (Phase::InUse, None), "pods that come begin with it");
        }
    }

    #[test]
    fn nothing_is_remembered_of_nobody_or_of_a_ring_that_went_back() {
        let mut known = after(&[(7, Progress::All(7))]);
        known.written(ring(8));
        known.abandon();
        assert_eq!(told(&known), (Phase::Unknown, None));
        let known = after(&[(7, Progress::All(7)), (8, Progress::Some), (6, Progress::Some)]);
        assert_eq!(told(&known), (Phase::Unknown, None));
        let known = after(&[(u64::MAX, Progress::Unsaid), (9, Progress::Some), (9, Progress::All(9))]);
        assert_eq!(told(&known), (Phase::InUse, None), "the epoch was put right");
        let known = after(&[(7, Progress::All(7)), (8, Progress::Some), (8, Progress::Some)]);
        assert_eq!(told(&known), (Phase::Announced, Some(7)), "edited by hand");
    }
}
