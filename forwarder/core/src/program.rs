//! What is made of records: a program.
//!
//! The engine takes records, delivers what a program makes of them, and commits. All else about records is the program's:
//!
//! ```text
//!                 ┌────────────── program ──────────────┐
//!  record ── key ─┼─▶ place: which output, which lane   │──▶ the engine decides whether it is delivered now
//!     └─ all of it┼─▶ write: the message, in a draft    │──▶ output
//!                 └─────────────────────────────────────┘
//! ```
//!
//! A program is pure, and the engine knows it as a type: no call of it is dynamic, and none allocates for a record.
//! Forwarding by a hash ring is one: [`fanout::route::Router`](crate::fanout::route::Router).

use crate::record::{Header, Invalid, Origin, Timestamp};

/// See the module.
pub trait Program {
    /// What the record's place depends on: its asset.
    ///
    /// # Errors
    /// A record that has no asset. It can never be delivered.
    fn asset(key: Option<&[u8]>) -> Result<&[u8], Invalid>;

    /// Where an asset's records go. Between two changes of the program it is always the same place.
    fn place(&mut self, asset: &[u8]) -> Place;

    /// Writes a record's message to `draft`. After an error, what `draft` holds is unspecified.
    ///
    /// `headers`: those of the record. `now_millis`: the time of day.
    ///
    /// # Errors
    /// A record of which no message can be made, now or ever.
    fn write<'h>(
        &mut self,
        incoming: &Incoming<'_>,
        headers: impl Iterator<Item = Header<'h>>,
        now_millis: i64,
        draft: &mut Draft,
    ) -> Result<(), Invalid>;
}

/// Where an asset's records go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the member, and so of its output, that owns the asset.
    pub owner: usize,
    /// Records of one lane are delivered in their order. In a ring it is the leading 64 bits of the key's hash, the same in every
    /// ring.
    pub lane: u64,
}

/// A record as it comes in, except for its headers.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// The asset.
    pub key: Option<&'a [u8]>,
    /// The payload; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// When Kafka says it was made.
    pub timestamp: Option<Timestamp>,
    /// Where it was read.
    pub origin: Origin<'a>,
}

/// A message in the making; its buffers are used again and again.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// The subject: UTF-8, without a byte that would end it in a control line.
    pub subject: Vec<u8>,
    /// A complete NATS header block, or empty: then the message has no headers.
    pub headers: Vec<u8>,
    /// The payload.
    pub body: Vec<u8>,
}
