//! How far each record is, and what may be committed.
//!
//! Whoever forwards records stands on this wing, whatever they make of the records. So nothing here looks into a ring: an output is a
//! number, an asset is a lane, a cluster is a name, and a ring is an epoch with a fingerprint. The modules stand in the order in which
//! a partition meets them:
//!
//! 1. [`partition`]: which partition it is. [`deliverable`]: a record on its way. [`start`]: where a partition begins when it is
//!    assigned.
//! 2. [`offsets`]: what was received, and how far it is settled. [`damage`] measures what cannot be read.
//! 3. [`caps`]: how much may be out, and which output is not worth waiting for.
//! 4. [`outbox`]: what waits for a cluster, and what may be sent next.
//! 5. [`commit`]: what may be committed, and what travels with it.

pub mod deliverable;
pub mod partition;
pub mod start;

pub mod damage;
pub mod offsets;

pub mod caps;
pub mod outbox;

pub mod commit;

/// The output of records that can never be forwarded. The clusters' outputs are numbered from 1 on.
pub const DEAD_LETTER: u32 = 0;
