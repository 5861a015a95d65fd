//! Whether what a watch has told still holds.

use std::time::Duration;

use kube::runtime::watcher::{self, Event};
use tokio::time::Instant;

/// A watch that goes on tells nothing as long as nothing changes. So no error for so long means that it goes on: it is tried again after a
/// minute at most, and a try of which nothing is heard fails after another one.
const NO_ERROR: Duration = Duration::from_secs(120);

/// What is known of a watch itself. One that fails tells of no change, and what it has told before may be of long ago.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Whether it has told a whole list, and has begun no other one since.
    is_listed: bool,
    /// When it failed; none: it has told something since.
    failed: Option<Instant>,
}

impl Trust {
    pub(super) fn hear<K>(&mut self, told: &watcher::Result<Event<K>>) {
        match told {
            // Each try to list begins so, also one that fails.
            Ok(Event::Init) => self.is_listed = false,
            Ok(Event::InitApply(_)) => {}
            Ok(Event::InitDone) => {
                self.is_listed = true;
                self.failed = None;
            }
            Ok(Event::Apply(_) | Event::Delete(_)) => self.failed = None,
            Err(_) => self.failed = Some(Instant::now()),
        }
    }

    /// It tells what cannot be compared: until the next list nothing of it holds.
    pub(super) const fn lose(&mut self) {
        self.is_listed = false;
    }

    pub(super) fn holds(&self) -> bool {
        self.is_listed && self.failed.is_none_or(|failed| failed.elapsed() >= NO_ERROR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Trust {
        let mut trust = Trust::default();
        assert!(!trust.holds());
        trust.hear::<()>(&Ok(Event::Init));
        assert!(!trust.holds());
        trust.hear::<()>(&Ok(Event::InitDone));
        assert!(trust.holds());
        trust
    }

    fn fail(trust: &mut Trust) {
        trust.hear::<()>(&Err(watcher::Error::NoResourceVersion));
        assert!(!trust.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_is_not_believed_until_it_goes_on() {
        let mut trust = listed();
        for event in [Event::Apply(()), Event::Delete(()), Event::InitDone] {
            fail(&mut trust);
            trust.hear(&Ok(event));
            assert!(trust.holds());
        }
        // It goes on, and nothing changes.
        fail(&mut trust);
        tokio::time::advance(NO_ERROR).await;
        assert!(trust.holds());
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_for_ever_is_never_believed() {
        let mut trust = listed();
        for _ in 0..9 {
            fail(&mut trust);
            tokio::time::advance(NO_ERROR / 2).await;
            assert!(!trust.holds());
        }
        // A list that does not come to its end.
        trust.hear::<()>(&Ok(Event::Init));
        trust.hear(&Ok(Event::InitApply(())));
        tokio::time::advance(NO_ERROR).await;
        assert!(!trust.holds());
    }
}
