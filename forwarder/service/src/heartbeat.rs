//! Whether the loops run.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A task that has panicked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the task `{task}` has panicked: {reason}. The process ends, because this task does not restart. Please report this fault"
)]
pub struct Panicked {
    /// The task.
    pub task: String,
    /// What it said.
    pub reason: String,
}

/// The heartbeats of all loops, on one clock that only goes forward, and whether a task has panicked.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    // Locked when a loop begins or ends and when a probe asks; a beat takes no lock.
    loops: Mutex<Vec<Arc<Loop>>>,
    panicked: OnceLock<Panicked>,
}

#[derive(Debug)]
struct Loop {
    name: &'static str,
    bound: Duration,
    last_millis: AtomicU64,
}

/// One loop's heartbeat. Dropped with the loop, which is then no longer waited for.
#[derive(Debug)]
pub struct Heartbeat {
    health: Health,
    this: Arc<Loop>,
}

/// Why the process is ill, so that a restart helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ill {
    /// A loop is stuck.
    #[error("{0}")]
    Stalled(Stalled),
    /// A task is gone.
    #[error(transparent)]
    Panicked(Panicked),
}

/// A loop that has not run for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// The loop.
    pub name: &'static str,
    /// Since when.
    pub silent: Duration,
    /// How long it may be silent.
    pub bound: Duration,
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, silent, bound } = self;
        write!(
            f,
            "the loop `{name}` has not run for {} ms; its limit is {} ms",
            silent.as_millis(),
            bound.as_millis()
        )
    }
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            loops: Mutex::default(),
            panicked: OnceLock::new(),
        }))
    }
}

impl Health {
    /// Waits from now on for the beats of a loop, at most `bound` apart.
    #[must_use]
    pub fn heartbeat(&self, name: &'static str, bound: Duration) -> Heartbeat {
        let this = Arc::new(Loop {
            name,
            bound,
            last_millis: AtomicU64::new(self.millis()),
        });
        self.0
            .loops
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(this.clone());
        Heartbeat {
            health: self.clone(),
            this,
        }
    }

    /// Records that a task has panicked: from now on the check fails.
    pub fn fall(&self, panicked: Panicked) {
        // The first one is the cause of those behind it.
        self.0.panicked.get_or_init(|| panicked);
    }

    /// Whether every loop runs and no task has panicked.
    ///
    /// # Errors
    /// The task, or the loop that has been silent for longest beyond its bound.
    pub fn check(&self) -> Result<(), Ill> {
        if let Some(panicked) = self.0.panicked.get() {
            return Err(Ill::Panicked(panicked.clone()));
        }
        let now = self.millis();
        let loops = self.0.loops.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = loops.iter().filter_map(|it| {
            let silent = Duration::from_millis(now.saturating_sub(it.last_millis.load(Ordering::Relaxed)));
            (silent > it.bound).then_some(Stalled {
                name: it.name,
                silent,
                bound: it.bound,
            })
        });
        stalled
            .max_by_key(|it| it.silent)
            .map_or(Ok(()), |it| Err(Ill::Stalled(it)))
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Heartbeat {
    /// The loop has run.
    pub fn beat(&self) {
        self.this.last_millis.store(self.health.millis(), Ordering::Relaxed);
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        let mut loops = self.health.0.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.retain(|it| !Arc::ptr_eq(it, &self.this));
    }
}
