//! Several addresses of which one is wanted: each has a head start over the next, and the first that answers counts.
//!
//! An address that refuses has the next one tried at once. One that is silent, as that of a machine that is gone, costs the head start and
//! not a whole timeout.

use std::collections::VecDeque;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

/// What RFC 8305 recommends: longer than most handshakes, and short against anybody's patience.
const HEAD_START: Duration = Duration::from_millis(250);

/// Attempts at keys of type `K`, in their order.
pub struct Race<K, B, F> {
    waiting: VecDeque<K>,
    begin: B,
    running: FuturesUnordered<F>,
    /// Those of `running`, the longest first.
    begun: Vec<K>,
}

impl<K, B, F, T, E> Race<K, B, F>
where
    K: Clone + PartialEq,
    B: FnMut(K) -> F,
    F: Future<Output = (K, Result<T, E>)>,
{
    /// A race in which nothing has begun. What `begin` makes must yield the key that it was given.
    pub fn new(keys: impl IntoIterator<Item = K>, begin: B) -> Self {
        Self {
            waiting: keys.into_iter().collect(),
            begin,
            running: FuturesUnordered::new(),
            begun: Vec::new(),
        }
    }

    /// The next success; none: each has been tried. Failures are handed to `failed`. Attempts that were under way beside the
    /// successful one are ended, and begin anew with the next call, should the caller need another success.
    pub async fn next(&mut self, mut failed: impl FnMut(K, E)) -> Option<(K, T)> {
        loop {
            if self.running.is_empty() && !self.begin_one() {
                return None;
            }
            tokio::select! {
                biased;
                Some((key, result)) = self.running.next() => {
                    self.begun.retain(|begun| *begun != key);
                    match result {
                        Ok(value) => {
                            self.running.clear();
                            self.begun.drain(..).rev().for_each(|begun| self.waiting.push_front(begun));
                            return Some((key, value));
                        }
                        Err(error) => {
                            failed(key, error);
                            self.begin_one();
                        }
                    }
                }
                () = tokio::time::sleep(HEAD_START), if !self.waiting.is_empty() => {
                    self.begin_one();
                }
            }
        }
    }

    fn begin_one(&mut self) -> bool {
        let Some(key) = self.waiting.pop_front() else {
            return false;
        };
        self.begun.push(key.clone());
        self.running.push((self.begin)(key));
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    /// What an address does.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Address {
        Answers(u8),
        /// When the gate is open.
        AnswersLate(u8),
        Refuses(u8),
        Silent,
    }

    use Address::{Answers, AnswersLate, Refuses, Silent};

    async fn attempt(address: Address, mut gate: watch::Receiver<bool>) -> (Address, Result<(), ()>) {
        let result = match address {
            Answers(_) => Ok(()),
            AnswersLate(_) => gate.wait_for(|open| *open).await.map(drop).map_err(drop),
            Refuses(_) => Err(()),
            Silent => std::future::pending().await,
        };
        (address, result)
    }

    #[tokio::test]
    async fn addresses_are_tried_one_after_the_other_until_one_answers() {
        let (_open, gate) = watch::channel(false);
        let (mut begun, mut failed) = (Vec::new(), Vec::new());
        let mut race = Race::new([Refuses(1), Refuses(2), Answers(3), Answers(4)], |address| {
            begun.push(address);
            attempt(address, gate.clone())
        });
        let won = race.next(|address, ()| failed.push(address)).await;
        drop(race);
        assert_eq!(won, Some((Answers(3), ())));
        assert_eq!(failed, [Refuses(1), Refuses(2)]);
        assert_eq!(begun, [Refuses(1), Refuses(2), Answers(3)]);
    }

    #[tokio::test]
    async fn an_address_that_is_silent_does_not_stop_the_next_one() {
        let (_open, gate) = watch::channel(false);
        let mut race = Race::new([Silent, Answers(1)], |address| attempt(address, gate.clone()));
        assert_eq!(race.next(|_, ()| {}).await, Some((Answers(1), ())));
    }

    #[tokio::test]
    async fn who_was_overtaken_is_tried_again_when_the_first_is_not_enough() {
        let (open, gate) = watch::channel(false);
        let mut failed = Vec::new();
        let keys = [AnswersLate(1), AnswersLate(2), Answers(3), Refuses(4)];
        let mut race = Race::new(keys, |address| attempt(address, gate.clone()));
        assert_eq!(
            race.next(|address, ()| failed.push(address)).await,
            Some((Answers(3), ()))
        );
        open.send_replace(true);
        let mut winners = Vec::new();
        while let Some((address, ())) = race.next(|address, ()| failed.push(address)).await {
            winners.push(address);
        }
        assert_eq!(winners, [AnswersLate(1), AnswersLate(2)]);
        assert_eq!(failed, [Refuses(4)]);
    }
}
