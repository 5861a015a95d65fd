//! Until when records may be written: the proof that we are a member of the group, and a deadline.
//!
//! A process that was stopped, or cut off from Kafka, does not notice that its partitions were given to somebody else.
//! What it can know is that it *was* a member when the coordinator said yes to a commit, and that it stays one for a
//! session from then on. So the deadline is counted from the moment that commit was sent, is shorter than the session,
//! and is looked at again before each write (see [`Guard`]). The intake renews the lease, the publishers ask it.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use forwarder_nats::WriteGate;
use tokio::sync::Notify;

use forwarder_service::clock::{Clock, micros};

/// The right to write records, for a while. Cheap to clone: all clones are one.
#[derive(Clone, Debug)]
pub struct Lease(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    duration: Duration,
    /// Microseconds of the clock; 0: not held. One thread writes it, every publisher reads it before every write.
    until: AtomicU64,
    /// Wakes those who wait for the lease to come back.
    renewed: Notify,
}

impl Lease {
    /// A lease that is not held yet, and lasts so long with every renewal.
    #[must_use]
    pub fn new(clock: Clock, duration: Duration) -> Self {
        Self(Arc::new(Inner {
            clock,
            duration,
            until: AtomicU64::new(0),
            renewed: Notify::new(),
        }))
    }

    /// How long it lasts, from the moment that what proves the membership was sent.
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.0.duration
    }

    /// The membership is proved as of `sent_at`, in the clock's microseconds: when the proof was asked for, not when it came.
    /// An answer that comes late, or behind a newer one, prolongs nothing.
    pub fn renew(&self, sent_at: u64) {
        let until = sent_at.saturating_add(micros(self.0.duration));
        self.0.until.fetch_max(until, Ordering::SeqCst);
        self.0.renewed.notify_waiters();
    }

    /// Ends it at once.
    pub fn revoke(&self) {
        self.0.until.store(0, Ordering::SeqCst);
    }

    /// Whether records may be written now.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.clock.micros() < self.0.until.load(Ordering::SeqCst)
    }

    /// Waits until it is held.
    pub async fn held(&self) {
        loop {
            let mut renewed = std::pin::pin!(self.0.renewed.notified());
            // From here on no renewal is missed, so it is looked at only afterwards.
            renewed.as_mut().enable();
            if self.is_held() {
                return;
            }
            renewed.await;
        }
    }
}

/// Stands before one connection's socket: while bytes of records wait to be written, nothing passes without the lease.
///
/// What says nothing on an asset's behalf (login, PING, PONG) passes without one, so that a member without partitions keeps
/// its connections.
#[derive(Clone, Debug)]
pub struct Guard {
    lease: Lease,
    /// Bytes of records wait here or in TLS. Shared by the session, which writes, and the socket's wrapper.
    records_wait: Arc<AtomicBool>,
}

impl Guard {
    /// For a connection that has sent no record yet.
    #[must_use]
    pub fn new(lease: Lease) -> Self {
        Self {
            lease,
            records_wait: Arc::new(AtomicBool::new(false)),
        }
    }

    /// Whether bytes of records wait to be written from here on.
    pub fn set_records_wait(&self, wait: bool) {
        self.records_wait.store(wait, Ordering::SeqCst);
    }
}

/// Fails with [`NotHeld`].
impl WriteGate for Guard {
    fn check(&self) -> io::Result<()> {
        if self.records_wait.load(Ordering::SeqCst) && !self.lease.is_held() {
            return Err(io::Error::other(NotHeld));
        }
        Ok(())
    }
}

/// Bytes of records were to be written without the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease is lost: no recent commit proves that this process is a member of its consumer group")]
pub struct NotHeld;

impl NotHeld {
    /// Whether this is why a write failed.
    #[must_use]
    pub fn is_reason(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}
