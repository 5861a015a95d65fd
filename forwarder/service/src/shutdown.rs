//! Shutdown is an argument: what should stop gets a [`Shutdown`], and whoever decides holds the [`Trigger`].

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
    /// Requests the stop. A second request changes nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Whether a stop was requested. A dropped trigger counts as a request, because no other could come.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until a stop is requested.
    pub async fn requested(&mut self) {
        // An error says that the trigger is gone, which counts as asked.
        self.0.wait_for(|stop| *stop).await.ok();
    }
}
