//! Time as the engine uses it: microseconds since its start, monotonic.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock that every part of one engine shares.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// One that has run since that moment.
    #[must_use]
    pub const fn started_at(start: Instant) -> Self {
        Self { start }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn micros(&self) -> u64 {
        micros(self.start.elapsed())
    }

    /// The moment that [`Clock::micros`] names.
    #[must_use]
    pub fn instant(&self, micros: u64) -> Instant {
        self.start + Duration::from_micros(micros)
    }
}

/// A duration in whole microseconds; 584,000 years fit.
#[must_use]
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The time of day in milliseconds since 1970-01-01T00:00:00Z, for what people read; never for measuring.
#[must_use]
pub fn wall_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
