//! How a cluster's connection is: its publisher writes it, the intake and people read it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How a cluster's connection is, for people.
#[derive(Clone, Debug, Default)]
pub struct LinkStatus {
    /// The server, while there is a connection.
    pub connected: Option<String>,
    /// Why there is none, or why the last one ended, or what is wrong though there is one.
    pub last_error: Option<String>,
}

/// A cluster's connection state, shared with who reports it.
#[derive(Clone, Debug, Default)]
pub struct Link {
    status: Arc<Mutex<LinkStatus>>,
    in_flight: Arc<AtomicUsize>,
}

impl Link {
    /// Records that are sent and neither confirmed nor refused.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Lets the intake see how much is on its way.
    pub(super) fn set_in_flight(&self, records: usize) {
        self.in_flight.store(records, Ordering::Relaxed);
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> LinkStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // Held for two assignments; taken when a connection comes or goes and when a person asks.
    pub(super) fn set(&self, connected: Option<String>, error: Option<String>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.connected = connected;
        if error.is_some() {
            status.last_error = error;
        }
    }

    /// What is wrong though there is a connection; none: nothing any more.
    pub(super) fn set_fault(&self, fault: Option<String>) {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).last_error = fault;
    }
}
