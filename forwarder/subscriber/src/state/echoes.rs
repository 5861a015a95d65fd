//! Echoes to ourselves: what a cluster accepted before one has arrived when it is back.

use std::time::Instant;

use super::link::Life;
use super::{Action, Fence, State, Timer, Waiting};
use crate::merge::{Cluster, Outcome};

/// A fence is awaited for so many turns of [`crate::Limits::drain`], as long as records come through its connection.
const TURNS: u32 = 6;

impl State {
    /// Sets the bound for a fence.
    pub(super) fn await_fence(&mut self, cluster: Cluster, waiting: Waiting, turn: u32, now: Instant) {
        let had = self.links.get(&cluster).map_or(0, |link| link.records);
        let timer = Timer::Fence {
            waiting,
            cluster,
            had,
            turn,
        };
        self.set(now + self.setup.limits.drain, timer);
    }

    /// A fence was not reached in time. The echo comes behind all records before it, so a client that is behind waits longer.
    pub(super) fn fence_timed_out(&mut self, cluster: Cluster, waiting: Waiting, had: u64, turn: u32, now: Instant) {
        let is_behind = self.links.get(&cluster).is_some_and(|link| link.records > had);
        let is_awaited = self
            .feeds
            .get(&waiting.feed)
            .is_some_and(|feed| feed.awaits(waiting.lane, waiting.number));
        if is_behind && is_awaited && turn + 1 < TURNS {
            return self.await_fence(cluster, waiting, turn + 1, now);
        }
        self.fenced(waiting, Outcome::TimedOut);
    }

    /// Sends echoes for the fences that wait for one. Those of one step share one.
    pub(super) fn echo(&mut self) {
        let waiting: Vec<Cluster> = self
            .links
            .iter()
            .filter(|(_, link)| !link.fences.is_empty() && link.is_up())
            .map(|(cluster, _)| *cluster)
            .collect();
        for cluster in waiting {
            let number = self.number();
            let Some(link) = self.links.get_mut(&cluster) else {
                continue;
            };
            let Some(inbox) = link.inbox() else { continue };
            self.actions.push(Action::Publish {
                cluster,
                generation: link.generation,
                subject: format!("{inbox}.e{number}"),
                reply: None,
                body: Vec::new(),
            });
            let fences = std::mem::take(&mut link.fences);
            link.echoes.insert(number, fences);
        }
    }

    pub(super) fn echoed(&mut self, cluster: Cluster, number: u64) {
        let link = self.links.get_mut(&cluster);
        let fences = link.and_then(|link| link.echoes.remove(&number));
        for waiting in fences.unwrap_or_default() {
            self.drain(Fence {
                waiting,
                cluster,
                is_settled: false,
            });
        }
    }

    /// The channel of a fence's tap is drained.
    pub(crate) fn drained(&mut self, fence: Fence, now: Instant) {
        let has_several = self
            .links
            .get(&fence.cluster)
            .is_some_and(|link| matches!(link.life, Life::Up { has_several: true, .. }));
        if has_several && !fence.is_settled {
            // Servers of a cluster pass on messages of two connections in another order than they took them in.
            return self.set(now + self.setup.limits.settle, Timer::Settle(fence));
        }
        self.fenced(fence.waiting, Outcome::Drained);
    }

    pub(super) fn drain(&mut self, fence: Fence) {
        let tap = self
            .feeds
            .get(&fence.waiting.feed)
            .and_then(|feed| feed.tap(fence.cluster));
        if let Some(tap) = tap {
            let key = tap.key;
            self.actions.push(Action::Drain { key, fence });
        }
    }
}
