//! What all controllers share, of whatever kind: none of it knows one of them.

pub mod apply;
pub(crate) mod child;
pub mod cluster;
pub mod conditions;
pub mod credentials;
pub mod drive;
pub mod events;
pub mod finalizer;
pub mod invalid_spec;
pub mod own_writes;
pub(crate) mod pod;
pub mod reason;
pub mod reference;
pub mod status;
