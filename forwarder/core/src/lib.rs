//! The pure part of the asset forwarder.
//!
//! No I/O, no clock, no async runtime: what is decided here is decided the same way in a test, in a simulation
//! and in production. The modules stand in the order in which a record meets them:
//!
//! 1. [`document`]: what the forwarder is told to do, before any record.
//! 2. [`start`]: where a partition begins when it is assigned.
//! 3. [`record`]: what a record is, and why one cannot be forwarded.
//! 4. [`offsets`]: what was received, and how far it may be committed. What cannot be read is measured by [`damage`].
//! 5. [`route`]: a record becomes a message. It uses, in this order:
//!    - [`clock`]: times as text;
//!    - [`payload`]: the edit that yields body and ID;
//!    - [`subject`]: key and ID as a subject;
//!    - [`headers`]: Kafka headers as NATS headers;
//!    - [`ring`]: which cluster owns the key.
//! 6. [`dispatch`]: who gets the record, who waits, what is parked, what may be committed.
//! 7. [`outbox`]: what waits for a cluster, and what may be sent next.
//! 8. [`commit`]: what travels with a committed offset.
//! 9. [`status`]: what the process says of itself; [`table`]: what it answers who asks for an asset's owner.
//!
//! Several of them write numbers by [`decimal`].

pub mod document;

pub mod start;

pub mod record;

pub mod damage;
pub mod offsets;

pub mod route;

pub mod clock;
pub mod payload;
pub mod subject;
pub mod trace;

pub mod headers;

pub mod ring;

pub mod dispatch;

pub mod outbox;

pub mod commit;

pub mod status;
pub mod table;

pub mod decimal;
mod percent;
