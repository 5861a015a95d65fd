//! The pure part of the asset forwarder.
//!
//! No I/O, no clock, no async runtime: what is decided here is decided the same way in a test, in a simulation
//! and in production. There are three wings. Each uses only those before it:
//!
//! 1. [`document`]: what the forwarder is told to do, before any record.
//! 2. [`delivery`]: how far each record is, and what may be committed.
//! 3. [`fanout`]: who gets a record, and what they get.
//!
//! Between the engine and a wing that makes messages stands [`program`]: what the engine must know of it.
//!
//! Beside them stand the words that several of them speak, and what only the forwarder needs:
//!
//! - [`record`]: what a record is, and why one cannot be forwarded;
//! - [`subject`]: a template, and the subject that it makes of a key and an ID;
//! - [`trace`]: which records are traced;
//! - [`decimal`]: numbers as text.
//!
//! Above them is [`status`]: what the process says of itself.

pub mod document;

pub mod delivery;

pub mod program;

pub mod fanout;

pub mod decimal;
mod percent;
pub mod record;
pub mod subject;
pub mod trace;

pub mod status;
