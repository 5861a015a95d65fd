//! What every replica answers over HTTP, the leader or not.

pub mod probes;
pub mod router;
