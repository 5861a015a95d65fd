//! How long records may be written after a proof of membership.

use std::time::Duration;

use super::properties::{self, DEFAULT_MAX_POLL_INTERVAL_MS, DEFAULT_SESSION_TIMEOUT_MS};
use super::{Config, GroupProtocol, Source};

/// With the consumer protocol (KIP-848) the session is the broker's, `group.consumer.session.timeout.ms`, which no client is
/// told: 45 s unless somebody changed it. A commit does not prolong it there, a heartbeat does, every 5 s; so a commit that
/// is answered says that at least 40 s are left.
const CONSUMER_FENCE_MS: u64 = 30_000;

impl Config {
    /// How long records may be written after the sending of a commit that the group's coordinator accepted.
    ///
    /// Two thirds of the session; the rest is for a process that is paused between reading the clock and the write.
    #[must_use]
    pub fn fence_timeout(&self) -> Duration {
        let millis = self.engine.fence_timeout_ms.unwrap_or_else(|| {
            let two_thirds = |millis: u64| (millis.saturating_mul(2) / 3).max(1);
            match self.source.protocol {
                GroupProtocol::Classic => two_thirds(session_ms(&self.source)),
                // A member that does not poll for so long leaves by itself, and its partitions move at once.
                GroupProtocol::Consumer => CONSUMER_FENCE_MS.min(two_thirds(poll_ms(&self.source))),
            }
        });
        Duration::from_millis(millis)
    }
}

/// The session of the classic protocol.
pub(super) fn session_ms(source: &Source) -> u64 {
    number(source, "session.timeout.ms", DEFAULT_SESSION_TIMEOUT_MS)
}

/// How long a member may go without polling.
pub(super) fn poll_ms(source: &Source) -> u64 {
    number(source, "max.poll.interval.ms", DEFAULT_MAX_POLL_INTERVAL_MS)
}

fn number(source: &Source, name: &str, default: i64) -> u64 {
    properties::number(&source.connection.properties, name, default).unsigned_abs()
}
