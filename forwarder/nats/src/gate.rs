//! What may stop a write at the last moment.

use std::fmt;
use std::io;

/// Stands before one connection's socket and says whether its next bytes may pass. It is asked at each attempt to write to the socket, so
/// again after each wait for room; never for each record.
pub trait WriteGate: fmt::Debug + Send + Sync + 'static {
    /// Whether the next byte may pass.
    ///
    /// # Errors
    /// Why not. The write fails with it, and nothing of it has passed.
    fn check(&self) -> io::Result<()>;
}
