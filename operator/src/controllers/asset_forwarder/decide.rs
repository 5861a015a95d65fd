//! Decides how many pods there are to be, from what was read. Pure, but for the memory of measured lag.

use std::time::Instant;

use super::autoscale::{self, Histories};
use super::dereference::Dereferenced;

/// What was read, with what was decided from it before anything is judged.
#[derive(Clone, Debug)]
pub struct Decided {
    /// What was read.
    pub found: Dereferenced,
    /// How many pods there are to be.
    pub scale: Scale,
}

/// Who says how many pods there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The spec says it.
    Declared,
    /// Measured lag asks for it.
    ByLag {
        /// How many there were to be so far; none: that was never decided.
        from: Option<i32>,
        /// How many there are to be.
        to: i32,
    },
}

/// Decides what measured lag asks for, where the forwarder is scaled by it.
#[must_use]
pub fn decide(found: Dereferenced, histories: &Histories, now: Instant) -> Decided {
    let scale = histories
        .decide(&found, now)
        .map_or(Scale::Declared, |to| Scale::ByLag {
            from: autoscale::pods(&found),
            to,
        });
    Decided { found, scale }
}

impl Decided {
    /// As the spec says: no lag is measured for it.
    #[must_use]
    pub const fn as_declared(found: Dereferenced) -> Self {
        Self {
            found,
            scale: Scale::Declared,
        }
    }
}

impl Scale {
    /// How many pods there are to be. `declared` is what the spec says.
    #[must_use]
    pub const fn replicas(self, declared: i32) -> i32 {
        match self {
            Self::Declared => declared,
            Self::ByLag { to, .. } => to,
        }
    }

    /// The same while the ring stays. One step at a time: a change of the ring does not change the number of pods too.
    #[must_use]
    pub const fn while_ring_stays(self, ring_changes: bool) -> Self {
        match self {
            Self::ByLag { from: Some(pods), .. } if ring_changes => Self::ByLag {
                from: Some(pods),
                to: pods,
            },
            scale => scale,
        }
    }

    /// From how many pods to how many others; none: as many as before, or lag does not say it.
    #[must_use]
    pub fn step(self) -> Option<(i32, i32)> {
        match self {
            Self::ByLag { from: Some(from), to } if from != to => Some((from, to)),
            Self::ByLag { .. } | Self::Declared => None,
        }
    }
}
