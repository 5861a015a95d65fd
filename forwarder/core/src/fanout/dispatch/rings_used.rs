//! The rings under which a partition's records may be on their way. Whoever asks which rings are left asks this: see [`super::left`].

/// So many older rings are remembered. Of more, two count as the older one.
const MAX_OLDER: usize = 64;

/// The rings under which a partition's records may be on their way.
#[derive(Debug, Default)]
pub(super) struct RingsUsed {
    /// The older ones, oldest first. All of a ring's records lie before its offset.
    older: Vec<(u64, i64)>,
    /// The one by which records are handed out. `None`: this process has not begun.
    current: Option<u64>,
}

impl RingsUsed {
    /// Others have delivered everything before `start` under the ring of that epoch.
    pub(super) fn of_others(epoch: Option<u64>, start: i64) -> Self {
        Self {
            older: epoch.map(|epoch| (epoch, start)).into_iter().collect(),
            current: None,
        }
    }

    /// Whether this process has handed anything out.
    pub(super) fn has_begun(&self) -> bool {
        self.current.is_some()
    }

    /// Records from `next` on go by the ring of this epoch. All before `position` is settled.
    pub(super) fn begin(&mut self, epoch: u64, next: i64, position: i64) {
        if self.current == Some(epoch) {
            return;
        }
        self.older.retain(|(older, until)| *older < epoch && position < *until);
        self.older
            .extend(self.current.replace(epoch).map(|former| (former, next)));
        while self.older.len() > MAX_OLDER {
            let (_, until) = self.older.remove(1);
            if let Some(oldest) = self.older.first_mut() {
                oldest.1 = until;
            }
        }
    }

    /// The oldest ring under which anything is on its way.
    pub(super) fn oldest(&self, position: impl FnOnce() -> i64) -> Option<u64> {
        let Some((first, _)) = self.older.first() else {
            return self.current;
        };
        let Some(current) = self.current else {
            return Some(*first);
        };
        let position = position();
        let unsettled = self.older.iter().find(|(_, until)| position < *until);
        Some(unsettled.map_or(current, |(epoch, _)| *epoch))
    }
}
