//! What is left of a record that can never be forwarded.

use forwarder_core::record::Invalid;

use super::{Origin, Original};

/// A record that can never be forwarded.
#[derive(Debug)]
pub struct DeadLetter {
    /// Where it came from.
    pub origin: Origin,
    /// Why it cannot be forwarded.
    pub reason: Invalid,
    /// How long the value was, where it is left out.
    pub truncated: Option<usize>,
    /// The packed [`Original`]; empty where no dead letter is declared.
    original: Box<[u8]>,
}

impl DeadLetter {
    /// A letter with the packed original.
    #[must_use]
    pub fn new(origin: Origin, reason: Invalid, original: &[u8]) -> Self {
        Self {
            origin,
            reason,
            truncated: None,
            original: original.into(),
        }
    }

    /// Of a record whose value, of this many bytes, is left out.
    #[must_use]
    pub fn without_value(origin: Origin, reason: Invalid, original: &[u8], length: usize) -> Self {
        Self {
            truncated: Some(length),
            ..Self::new(origin, reason, original)
        }
    }

    /// The record as it came.
    #[must_use]
    pub fn original(&self) -> Original<'_> {
        Original::unpack(&self.original)
    }

    /// What counts against the caps.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.original.len() + size_of::<Self>()
    }
}
