//! Fair shares of work: no namespace's resources hold up those of another one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How many reconciles run at once, shared out by namespace.
///
/// A free slot goes to the waiting namespace that holds the fewest, and among equals to the one that has waited longest. One namespace
/// never holds all slots of several, so a newcomer need not wait until one of its reconciles has ended.
#[derive(Debug)]
pub struct Slots {
    state: Mutex<State>,
    /// Most slots of one namespace.
    most: usize,
}

#[derive(Debug)]
struct State {
    free: usize,
    namespaces: BTreeMap<String, Share>,
    // The number of the next one that waits.
    next: u64,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Share {
    held: usize,
    waiting: VecDeque<(u64, oneshot::Sender<Slot>)>,
}

/// The right to work, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    /// Whose slot it is, and for which namespace; none: it was given back.
    held: Option<(Arc<Slots>, String)>,
}

impl Slots {
    /// So many slots, at least one.
    #[must_use]
    pub fn new(slots: u16) -> Arc<Self> {
        let free = usize::from(slots).max(1);
        Arc::new(Self {
            state: Mutex::new(State {
                free,
                namespaces: BTreeMap::new(),
                next: 0,
                is_closed: false,
            }),
            most: (free * 3 / 4).max(1),
        })
    }

    /// Waits for a slot for work in `namespace`. None: no work is to begin any more.
    pub async fn take(self: &Arc<Self>, namespace: &str) -> Option<Slot> {
        let (granted, slot) = oneshot::channel();
        {
            let mut state = self.lock();
            if state.is_closed {
                return None;
            }
            let number = state.next;
            state.next += 1;
            let share = state.namespaces.entry(namespace.to_owned()).or_default();
            share.waiting.push_back((number, granted));
        }
        self.grant();
        // The sender goes by a grant, or by the end.
        slot.await.ok()
    }

    /// From now on no work begins. Waiting calls return without a slot.
    pub fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        for share in state.namespaces.values_mut() {
            share.waiting.clear();
        }
        state.namespaces.retain(|_, share| share.held > 0);
    }

    /// Gives free slots to those that wait.
    fn grant(self: &Arc<Self>) {
        loop {
            let (namespace, granted) = {
                let mut state = self.lock();
                let Some(chosen) = state.choose(self.most) else { return };
                chosen
            };
            let slot = Slot {
                held: Some((Arc::clone(self), namespace)),
            };
            // Whoever waited may have gone. Then it is given back here: its drop would call this again, once more for each of thousands,
            // until the stack is used up.
            if let Err(mut slot) = granted.send(slot)
                && let Some((_, namespace)) = slot.held.take()
            {
                self.lock().give_back(&namespace);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement, so a panic elsewhere has left nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who is next, with the slot counted as held.
    fn choose(&mut self, most: usize) -> Option<(String, oneshot::Sender<Slot>)> {
        if self.free == 0 {
            return None;
        }
        let waiting = self.namespaces.iter_mut().filter(|(_, share)| share.held < most);
        let next = waiting
            .filter_map(|(namespace, share)| Some((share.held, share.waiting.front()?.0, namespace.clone())))
            .min()?;
        let (_, _, namespace) = next;
        let share = self.namespaces.get_mut(&namespace)?;
        let (_, granted) = share.waiting.pop_front()?;
        share.held += 1;
        self.free -= 1;
        Some((namespace, granted))
    }

    fn give_back(&mut self, namespace: &str) {
        self.free += 1;
        if let Some(share) = self.namespaces.get_mut(namespace) {
            share.held = share.held.saturating_sub(1);
            if share.held == 0 && share.waiting.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((slots, namespace)) = self.held.take() {
            slots.lock().give_back(&namespace);
            slots.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn a_namespace_never_holds_all_slots_of_several() {
        let slots = Slots::new(8);
        let mut held: Vec<Slot> = Vec::new();
        while let Some(slot) = slots.take("loud").now_or_never() {
            held.push(slot.unwrap());
        }
        assert_eq!(held.len(), 6);
        assert!(slots.take("quiet").now_or_never().is_some());
        let one = Slots::new(1);
        assert!(one.take("only").now_or_never().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_free_slot_goes_to_whoever_holds_the_fewest() {
        let slots = Slots::new(2);
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let first = slots.take("loud").await;
        let second = slots.take("other").await;
        for (namespace, number) in [("loud", 1), ("loud", 2), ("loud", 3), ("quiet", 1), ("quiet", 2)] {
            let (slots, done) = (Arc::clone(&slots), done.clone());
            tokio::spawn(async move {
                let slot = slots.take(namespace).await;
                done.send((namespace, number)).unwrap();
                sleep(Duration::from_secs(1)).await;
                drop(slot);
            });
            // In this order.
            tokio::task::yield_now().await;
        }
        drop(second);
        // The loud one holds a slot, so the one that came later goes first.
        assert_eq!(order.recv().await, Some(("quiet", 1)));
        drop(first);
        let mut rest = Vec::new();
        for _ in 0..4 {
            rest.push(order.recv().await.unwrap());
        }
        assert_eq!(rest, [("loud", 1), ("quiet", 2), ("loud", 2), ("loud", 3)]);
    }

    #[tokio::test]
    async fn whoever_stops_waiting_takes_no_slot_along() {
        let slots = Slots::new(1);
        let slot = slots.take("a").await;
        let mut waits = Box::pin(slots.take("b"));
        assert!((&mut waits).now_or_never().is_none());
        drop(waits);
        drop(slot);
        assert!(slots.take("c").now_or_never().is_some());
        assert!(slots.lock().namespaces.is_empty());
    }

    #[tokio::test]
    async fn a_crowd_that_stops_waiting_needs_no_stack() {
        let slots = Slots::new(1);
        let slot = slots.take("a").await.unwrap();
        let mut crowd: Vec<_> = (0..100_000).map(|_| Box::pin(slots.take("b"))).collect();
        assert!(crowd.iter_mut().all(|waits| waits.now_or_never().is_none()));
        drop(crowd);
        drop(slot);
        assert!(slots.lock().namespaces.is_empty());
        assert!(slots.take("c").now_or_never().is_some());
    }

    #[tokio::test]
    async fn at_the_end_nobody_waits() {
        let slots = Slots::new(1);
        let slot = slots.take("a").await.unwrap();
        let mut waits = Box::pin(slots.take("b"));
        assert!((&mut waits).now_or_never().is_none());
        slots.close();
        assert!(waits.now_or_never().unwrap().is_none());
        drop(slot);
        assert!(slots.take("c").now_or_never().unwrap().is_none());
        assert!(slots.lock().namespaces.is_empty());
    }
}
