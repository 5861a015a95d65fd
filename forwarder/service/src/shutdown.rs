//! Shutdown is an argument: who is to stop gets a [`Shutdown`], who decides holds the [`Trigger`].

use tokio::sync::watch;

/// Asks everything that holds its [`Shutdown`] to stop.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Tells when to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A pair of the two.
#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (trigger, shutdown) = watch::channel(false);
    (Trigger(trigger), Shutdown(shutdown))
}

impl Trigger {
    /// Asks to stop. Asking twice is asking once.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether it was asked. A trigger that is gone counts as asked: nobody could ask any more.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is asked.
    pub async fn requested(&mut self) {
        // An error says that the trigger is gone, which counts as asked.
        self.0.wait_for(|stop| *stop).await.ok();
    }
}
