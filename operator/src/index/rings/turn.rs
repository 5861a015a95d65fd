//! Whole rings take memory, so the process makes one at a time.

use std::sync::{Mutex, PoisonError};

static TURN: Mutex<()> = Mutex::new(());

/// Does something that takes the memory of whole rings: one after the other in this process. It blocks, so it has no place on a thread of
/// the runtime.
pub fn in_turn<T>(make: impl FnOnce() -> T) -> T {
    // There is nothing behind the lock that a panic could have left half done.
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    make()
}
