//! The engine's tasks, and what a panic of one of them does.
//!
//! Whoever waits for a task that is gone waits for ever: a panic must not end in silence. It fails `/healthz` at once and
//! ends the process in order.

#[cfg(test)]
pub(crate) mod tests;

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};

use forwarder_service::heartbeat::{Health, Panicked};
use futures::FutureExt as _;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::error;

/// The tasks that the engine cannot be without.
#[derive(Clone, Debug)]
pub struct Tasks {
    runtime: Handle,
    health: Health,
    /// The first one that has panicked.
    panicked: watch::Sender<Option<Panicked>>,
    // Pushed to when a task starts, taken from when the engine ends.
    running: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Tasks {
    /// Without a task. A panic fails `health`.
    #[must_use]
    pub fn new(runtime: Handle, health: Health) -> Self {
        Self {
            runtime,
            health,
            panicked: watch::Sender::new(None),
            running: Arc::default(),
        }
    }

    /// Starts a task. It is awaited with all others: see [`Self::take`].
    pub fn spawn(&self, name: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) {
        let task = self.runtime.spawn(self.guarded(name, task));
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Rings come and go for as long as the process lives: nobody waits for those that have ended already.
        running.retain(|task| !task.is_finished());
        running.push(task);
    }

    /// The same task, whose panic is told.
    pub fn guarded(
        &self,
        name: impl Into<String>,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (name, health, panicked) = (name.into(), self.health.clone(), self.panicked.clone());
        async move {
            // Nothing of the task is used any more.
            let Err(reason) = AssertUnwindSafe(task).catch_unwind().await else {
                return;
            };
            let fall = Panicked {
                task: name,
                reason: said(reason.as_ref()),
            };
            error!("{fall}");
            health.fall(fall.clone());
            panicked.send_if_modified(|first| {
                let is_first = first.is_none();
                first.get_or_insert(fall);
                is_first
            });
        }
    }

    /// Waits until a task panics.
    pub async fn panicked(&self) -> Panicked {
        let mut panicked = self.panicked.subscribe();
        // We hold the other end, so this never fails.
        match panicked.wait_for(Option::is_some).await.map(|first| first.clone()) {
            Ok(Some(first)) => first,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// The first task that has panicked, if one has.
    #[must_use]
    pub fn first_panic(&self) -> Option<Panicked> {
        self.panicked.borrow().clone()
    }

    /// All that were started and have perhaps not ended, to wait for them.
    #[must_use]
    pub fn take(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
impl Tasks {
    /// Of each task that is not forgotten, whether it has ended.
    pub(crate) fn running(&self) -> Vec<bool> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().map(JoinHandle::is_finished).collect()
    }
}

/// What a panic says.
#[must_use]
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it said nothing")
        .to_owned()
}
