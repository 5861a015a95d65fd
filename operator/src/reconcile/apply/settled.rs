//! Children of which the API server has made something else than was declared.

use std::sync::{MutexGuard, PoisonError};

use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;

use super::declared::{digest, is_stamped};
use super::surplus::Surplus;
use super::{Applier, compare};
use crate::index::Latest;

/// For how many children this is kept. No event says that a child has gone with its owner, so the oldest entries go. A child that
/// was forgotten too early is written once more.
pub(super) const MOST_SETTLED: usize = 16_384;

/// What was declared, and what has come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    declared: String,
    live: String,
    /// List items that are not declared and stay after our own write. An event has named them.
    left: Vec<String>,
}

impl Applier {
    /// Whether a child is as declared, or as the API server has made of that before.
    pub(super) fn is_settled<K: Resource<DynamicType = ()> + Serialize>(
        &self,
        declared: &Value,
        hash: &str,
        live: &K,
    ) -> bool {
        if !is_stamped(live, hash) {
            return false;
        }
        let Ok(value) = serde_json::to_value(live) else {
            return false;
        };
        if compare::holds(&value, declared) && Surplus::of(&value, declared).is_empty() {
            return true;
        }
        let settled = self.lock_settled();
        let known = live.uid().and_then(|uid| settled.get(&uid).cloned());
        known.is_some_and(|known| known.declared == hash && known.live == digest(&compare::lasting(value)))
    }

    /// A child was just written, or found, as the API server has it.
    pub(super) fn settle<K: Resource<DynamicType = ()> + Serialize>(&self, declared: &Value, hash: String, live: &K) {
        let (Some(uid), Ok(value)) = (live.uid(), serde_json::to_value(live)) else {
            return;
        };
        self.children.verify(live, &hash);
        let left = Surplus::of(&value, declared).items;
        let mut settled = self.lock_settled();
        if left.is_empty() && compare::holds(&value, declared) {
            settled.remove(&uid);
        } else {
            let live = digest(&compare::lasting(value));
            let declared = hash;
            settled.insert(uid, Settled { declared, live, left });
            if settled.len() > MOST_SETTLED {
                settled.forget_oldest();
            }
        }
    }

    /// Whether the owner was told of just these items.
    pub(super) fn was_told<K: Resource<DynamicType = ()>>(&self, child: &K, left: &[String]) -> bool {
        let settled = self.lock_settled();
        let known = child
            .uid()
            .and_then(|uid| settled.get(&uid).map(|known| known.left == left));
        known.unwrap_or(false)
    }

    /// A child is gone.
    pub(super) fn forget_settled(&self, uid: &str) {
        self.lock_settled().remove(uid);
    }

    fn lock_settled(&self) -> MutexGuard<'_, Latest<String, Settled>> {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
