//! A burst of events about one object is one reconcile, however long the burst lasts.

use std::collections::{HashSet, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, sleep_until};

struct Coalesce<T> {
    events: BoxStream<'static, T>,
    window: Duration,
    waiting: HashSet<T>,
    // All windows are of one length, so they end in the order in which they begin.
    queue: VecDeque<(Instant, T)>,
}

/// Yields each item once, `window` after its first event. Further events within the window change nothing: no flood of them holds an
/// item up, as it would if each began the pause anew. Ends with `events`.
pub fn coalesce<T>(
    events: impl Stream<Item = T> + Send + 'static,
    window: Duration,
) -> impl Stream<Item = T> + Send + 'static
where
    T: Clone + Eq + Hash + Send + 'static,
{
    let state = Coalesce {
        events: events.boxed(),
        window,
        waiting: HashSet::new(),
        queue: VecDeque::new(),
    };
    stream::unfold(state, |mut state| async move {
        loop {
            let due = state.queue.front().map(|(due, _)| *due);
            let event = tokio::select! {
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
                event = state.events.next() => Some(event?),
            };
            match event {
                Some(item) => {
                    if state.waiting.insert(item.clone()) {
                        state.queue.push_back((Instant::now() + state.window, item));
                    }
                }
                None => {
                    if let Some((_, item)) = state.queue.pop_front() {
                        state.waiting.remove(&item);
                        return Some((item, state));
                    }
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    #[tokio::test(start_paused = true)]
    async fn a_flood_does_not_hold_its_object_up() {
        let began = Instant::now();
        // Two hundred a second, for ever.
        let flood = stream::unfold((), |()| async {
            sleep(Duration::from_millis(5)).await;
            Some(("a", ()))
        });
        let mut items = Box::pin(coalesce(flood, WINDOW));
        for number in 1..=3_u32 {
            assert_eq!(items.next().await, Some("a"));
            let most = (WINDOW + Duration::from_millis(10)) * number;
            assert!(began.elapsed() <= most, "the {number}th after {:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one() {
        let burst = stream::iter(["a", "b", "a", "a", "b"]).chain(stream::pending());
        let items = coalesce(burst, WINDOW).take_until(sleep(Duration::from_secs(5)));
        assert_eq!(items.collect::<Vec<_>>().await, ["a", "b"]);
    }
}
