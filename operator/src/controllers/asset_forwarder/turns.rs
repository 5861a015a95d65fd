//! One forwarder of a consumer group begins to read at a time.
//!
//! Whether another one has a source is asked before the first pod is made. Between the two lie seconds, and another forwarder of the group may
//! begin in them: its own question has found nobody either. One leader reconciles all forwarders, so it can let one after the other do both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::timeout;

/// For so long a reconcile waits for its turn. It holds a slot meanwhile, and whoever has the turn may have met an API server that hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// By consumer group.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<String, Weak<Turn<()>>>>);

impl Turns {
    /// The turn of a group, until it is dropped; none: others have it for too long.
    pub async fn of(&self, group: &str) -> Option<OwnedMutexGuard<()>> {
        let turn = self.group(group);
        timeout(PATIENCE, turn.lock_owned()).await.ok()
    }

    fn group(&self, name: &str) -> Arc<Turn<()>> {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = groups.get(name).and_then(Weak::upgrade) {
            return turn;
        }
        groups.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::new(()));
        groups.insert(name.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_group_has_one_turn_and_other_groups_have_theirs() {
        let turns = Turns::default();
        let first = turns.of("a").await.unwrap();
        let began = tokio::time::Instant::now();
        assert!(turns.of("b").await.is_some());
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(turns.of("a").await.is_none());
        assert_eq!(
            began.elapsed(),
            PATIENCE,
            "a turn that does not end holds nobody for long"
        );
        drop(first);
        assert!(turns.of("a").await.is_some());
        drop(turns.of("c").await);
        assert!(turns.of("d").await.is_some());
        assert_eq!(
            turns.0.lock().unwrap().len(),
            1,
            "groups that nobody waits for are forgotten"
        );
    }
}
