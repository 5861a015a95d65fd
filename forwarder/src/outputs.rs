//! Where records go.
//!
//! Every output speaks one protocol: [`Command`]s go in, [`Receipts`] come out. Receipts of all outputs share a channel.
//!
//! ```text
//!  intake ── commands ──▶ output: nats · kafka · file ──▶ records
//!    ▲                       │
//!    └────── receipts ───────┘
//! ```
//!
//! - [`nats`]: a NATS cluster, with a task of its own. [`nats::Publishers`] starts and ends these tasks.
//! - [`kafka`], [`mod@file`]: a topic and a file. [`batches`] is the task that both need.
//! - [`dead_letter`]: which of the two takes the records that can never be forwarded, and how one is encoded.

pub mod batches;
pub mod dead_letter;
pub mod file;
pub mod kafka;
pub mod nats;

use std::sync::Arc;
use std::sync::mpsc as blocking;

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::Closed;

use crate::message::{DeadLetter, Message};
use crate::traces::Trace;

/// What the intake asks of an output. An output handles commands in sequence.
#[derive(Debug)]
pub enum Command<T> {
    /// Deliver these, each asset's in this order, behind all that came before.
    Deliver(Vec<T>),
    /// Give back all records of these lanes: somebody else takes care of them.
    ///
    /// An output that has one target for all lanes keeps them. Nobody else could take them.
    Recall(Vec<u64>),
    /// Take records of these lanes again: see [`forwarder_core::delivery::outbox::Outbox::close`].
    ///
    /// An output that closes no lane has nothing to do.
    Open(Vec<u64>),
    /// Send nothing more on behalf of these assignments.
    Abandon {
        /// Partition and assignment epoch.
        assignments: Arc<[(PartitionId, u32)]>,
        /// Dropped when it is done.
        done: blocking::Sender<()>,
    },
}

/// What became of a record. Each one that was handed out comes back exactly once: the caps are counted by it.
#[derive(Debug)]
pub struct Receipt {
    /// Which record it is.
    pub tag: Tag,
    /// What the record weighed against the caps.
    pub weight: usize,
    /// Its trace, if it was sampled; it ends with the receipt.
    pub trace: Option<Box<Trace>>,
    /// What became of it.
    pub fate: Fate,
}

/// See [`Receipt`].
#[derive(Debug)]
pub enum Fate {
    /// Confirmed by the target.
    Confirmed,
    /// As [`Fate::Confirmed`]. Its asset has moved lately, so former owners may get a copy.
    ConfirmedMoved(Arc<Message>),
    /// Given up together with its assignment: whoever owns the partition now handles it.
    Dropped,
    /// Can never be delivered.
    Undeliverable(Box<Undeliverable>),
    /// Given back, as it was asked for.
    Recalled(Box<Message>),
    /// Given back, since its lane, which is told, is closed.
    Returned(u64),
}

/// What cannot be delivered.
#[derive(Debug)]
pub struct Undeliverable {
    /// Its asset's lane.
    pub lane: u64,
    /// What becomes of it.
    pub letter: DeadLetter,
}

/// Receipts of one output.
#[derive(Debug)]
pub struct Receipts {
    /// The output's number.
    pub output: u32,
    /// Lanes that it has closed: see [`forwarder_core::delivery::outbox::Outbox::close`].
    pub closed: Vec<Closed>,
    /// In no particular order.
    pub receipts: Vec<Receipt>,
}
