//! The pure part of the asset forwarder.
//!
//! No I/O, no clock, no async runtime: what is decided here is decided the same way in a test, in a simulation
//! and in production. The modules stand in the order in which a record meets them:
//!
//! 1. [`document`]: what the forwarder is told to do, before any record.
//! 2. [`delivery`]: how far each record is, and what may be committed.
//! 3. [`record`]: what a record is, and why one cannot be forwarded.
//! 4. [`route`]: a record becomes a message. It uses, in this order:
//!    - [`clock`]: times as text;
//!    - [`payload`]: the edit that yields body and ID;
//!    - [`subject`]: key and ID as a subject;
//!    - [`headers`]: Kafka headers as NATS headers;
//!    - [`ring`]: which cluster owns the key.
//! 5. [`dispatch`]: who gets the record, who waits, what is parked, what may be committed.
//! 6. [`status`]: what the process says of itself; [`table`]: what it answers who asks for an asset's owner.
//!
//! Several of them write numbers by [`decimal`].

pub mod document;

pub mod delivery;

pub mod record;

pub mod route;

pub mod clock;
pub mod payload;
pub mod subject;
pub mod trace;

pub mod headers;

pub mod ring;

pub mod dispatch;

pub mod status;
pub mod table;

pub mod decimal;
mod percent;
