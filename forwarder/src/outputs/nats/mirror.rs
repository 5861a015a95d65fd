//! Copies of what another cluster has confirmed, for subscribers that stay here though their asset has moved.
//!
//! ```text
//!   intake ── commands ──▶ waiting ──▶ connection, behind records ──▶ server
//!     │                       │             │
//!     └─ no room: dropped     └─ dropped    └─ out until the next PONG ─▶ counted
//! ```
//!
//! They are no records. Nobody waits for one, none is sent twice, and each that may not have arrived is counted. They come through the
//! channel of commands, so one of an asset never overtakes a record of that asset, which this cluster had before or gets again.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forwarder_core::delivery::deliverable::Deliverable as _;
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::RingEpoch;
use forwarder_core::fanout::mirror::{NoCopy, may_wait};
use tracing::warn;

use super::Ended;
use crate::budget::Budget;
use crate::message::Message;
use crate::metrics::{MirrorDrop, MirrorMetrics};
use forwarder_service::clock::micros;

/// So many copies of one cluster are waiting or out, at most.
const MAX_COPIES: usize = 8_192;

/// So many bytes they hold, at most.
const MAX_BYTES: usize = 8 << 20;

/// So many are written in a second, at most: several times what a change of four clusters brings a busy forwarder.
const PER_SECOND: u64 = 20_000;

/// After a connection that may have ended over a copy, none is written for so long. Records must not suffer from them.
const PAUSE: Duration = Duration::from_secs(60);

/// A connection that lasts longer has not ended over a copy.
const LASTING: Duration = Duration::from_secs(60);

/// So many denied assets are remembered. Of more, all copies count as denied, until the next connection or after [`PAUSE`].
const MAX_DENIED: usize = 1_024;

/// The room for copies of one cluster: the intake takes it, and who drops a copy gives it back. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Room(Arc<Used>);

#[derive(Debug, Default)]
struct Used {
    copies: AtomicUsize,
    bytes: AtomicUsize,
}

/// A copy on its way. It holds its room until it is dropped.
#[derive(Debug)]
pub struct MirrorCopy {
    message: Arc<Message>,
    room: Room,
}

impl Room {
    /// Whether no copy is waiting or out.
    pub(super) fn is_empty(&self) -> bool {
        self.0.copies.load(Ordering::Relaxed) == 0
    }

    /// A copy of a message; none: there is no room. Only the intake asks, so what it sees free stays free.
    pub(super) fn copy(&self, message: Arc<Message>) -> Option<MirrorCopy> {
        let Used { copies, bytes } = &*self.0;
        let weight = message.weight();
        let is_free =
            copies.load(Ordering::Relaxed) < MAX_COPIES && bytes.load(Ordering::Relaxed) + weight <= MAX_BYTES;
        is_free.then(|| {
            copies.fetch_add(1, Ordering::Relaxed);
            bytes.fetch_add(weight, Ordering::Relaxed);
            MirrorCopy {
                message,
                room: self.clone(),
            }
        })
    }
}

impl MirrorCopy {
    pub(super) fn message(&self) -> &Message {
        &self.message
    }
}

impl Drop for MirrorCopy {
    fn drop(&mut self) {
        let Used { copies, bytes } = &*self.room.0;
        copies.fetch_sub(1, Ordering::Relaxed);
        bytes.fetch_sub(self.message.weight(), Ordering::Relaxed);
    }
}

/// The publisher's end. Time is an argument, in microseconds.
#[derive(Debug)]
pub(super) struct Copies {
    /// Not written yet, in order.
    waiting: VecDeque<MirrorCopy>,
    /// Written by this connection, each with the number of the PING that comes behind it, in order.
    out: VecDeque<(u64, MirrorCopy)>,
    budget: Budget,
    /// Whether there is a connection.
    is_connected: bool,
    /// Assignments that are over. Their copies have one more chance to be written.
    ending: Vec<(PartitionId, u32)>,
    /// Before that time none is taken.
    paused_until: u64,
    /// Lanes that the server denies, as far as this connection knows.
    denied: HashSet<u64>,
    /// When `denied` began to be filled.
    denied_since: u64,
    metrics: MirrorMetrics,
}

impl Copies {
    pub(super) fn new(metrics: MirrorMetrics, now: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            out: VecDeque::new(),
            budget: Budget::new(PER_SECOND, now),
            is_connected: false,
            ending: Vec::new(),
            paused_until: 0,
            denied: HashSet::new(),
            denied_since: now,
            metrics,
        }
    }

    /// Whether none waits, so that nothing else needs to be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Takes a copy from the intake.
    pub(super) fn push(&mut self, copy: MirrorCopy, now: u64) {
        if now < self.paused_until {
            self.drop_one(MirrorDrop::Disconnected);
            return;
        }
        if !self.denied.is_empty() && now.saturating_sub(self.denied_since) > micros(PAUSE) {
            self.denied.clear();
        }
        if self.denied.len() >= MAX_DENIED || self.denied.contains(&copy.message.lane) {
            self.drop_one(MirrorDrop::Denied);
            return;
        }
        self.waiting.push_back(copy);
    }

    /// The next copy that may be written, with its header block in `headers`, which is cleared. `max_payload`: what the server takes.
    pub(super) fn next(&mut self, max_payload: usize, headers: &mut Vec<u8>, now: u64) -> Option<MirrorCopy> {
        while !self.waiting.is_empty() && self.budget.take(now) {
            let copy = self.waiting.pop_front()?;
            forwarder_core::fanout::headers::mirrored(copy.message.headers(), headers);
            if headers.len() + copy.message.body().len() <= max_payload {
                return Some(copy);
            }
            self.drop_one(MirrorDrop::TooLarge);
        }
        None
    }

    /// A copy is written, ahead of the PING of that number.
    pub(super) fn written(&mut self, copy: MirrorCopy, ping: u64) {
        self.out.push_back((ping, copy));
    }

    /// The PONGs of all PINGs before that number have come: the server has accepted what was written ahead of them.
    pub(super) fn ponged(&mut self, pongs: u64) {
        while self.out.front().is_some_and(|(ping, _)| *ping < pongs) {
            self.out.pop_front();
            self.metrics.mirrored.inc();
        }
    }

    /// The server denies a subject to which no record is out. `None`: no copy is out to it either.
    pub(super) fn deny(&mut self, subject: &[u8], now: u64) -> Option<Denial> {
        let place = self
            .out
            .iter()
            .position(|(_, copy)| copy.message.subject() == subject)?;
        let (_, copy) = self.out.remove(place)?;
        self.drop_one(MirrorDrop::Denied);
        let is_first = self.denied.is_empty();
        if is_first {
            self.denied_since = now;
        }
        self.denied.insert(copy.message.lane);
        Some(if is_first { Denial::First } else { Denial::Further })
    }

    /// A connection begins.
    pub(super) fn begin(&mut self) {
        self.is_connected = true;
    }

    /// These assignments are over. What was copied on their behalf is written at once, or not at all: their next owner's copies come later.
    pub(super) fn abandon(&mut self, assignments: &[(PartitionId, u32)]) {
        if self.waiting.is_empty() {
            return;
        }
        self.ending.extend_from_slice(assignments);
        if !self.is_connected {
            self.drop_ending();
        }
    }

    /// Drops what is left of assignments that are over, after what could be written has been.
    pub(super) fn drop_ending(&mut self) {
        if self.ending.is_empty() {
            return;
        }
        let ending = std::mem::take(&mut self.ending);
        self.drop_where(|message| {
            let is_of = |(partition, epoch): &(PartitionId, u32)| {
                message.origin.partition == *partition && message.origin.epoch == *epoch
            };
            ending.iter().any(is_of).then_some(MirrorDrop::Revoked)
        });
    }

    /// A ring is used. Copies are dropped that this cluster, which is `output`, is not to get any more.
    pub(super) fn ring_used(&mut self, output: u32, ring_epoch: &RingEpoch) {
        self.drop_where(|message| match may_wait(output, message.lane, ring_epoch) {
            Ok(()) => None,
            Err(NoCopy::Left) => Some(MirrorDrop::Left),
            Err(NoCopy::OwnsAgain) => Some(MirrorDrop::OwnedAgain),
        });
    }

    /// The connection has ended after so long. What was out may not have arrived. Where a copy may be why it ended, none is written for
    /// some time.
    pub(super) fn connection_lost(&mut self, ended: Option<&Ended>, lasted: Duration, cluster: &str, now: u64) {
        self.is_connected = false;
        self.denied.clear();
        self.drop_ending();
        if self.out.is_empty() {
            return;
        }
        let lost = self.out.len();
        self.out.clear();
        self.metrics.dropped(MirrorDrop::Disconnected).inc_by(lost as u64);
        let may_be_why = match ended {
            Some(Ended::Unattributed { .. } | Ended::Server(_)) => true,
            Some(Ended::Closed | Ended::Io(_) | Ended::Protocol(_)) => lasted < LASTING,
            Some(_) | None => false,
        };
        if may_be_why {
            self.paused_until = now.saturating_add(micros(PAUSE));
            self.drop_where(|_| Some(MirrorDrop::Disconnected));
            warn!(
                cluster,
                seconds = PAUSE.as_secs(),
                "the connection may have ended over a copy for a previous owner's subscribers; no copies are published there for a while"
            );
        }
    }

    fn drop_where(&mut self, why: impl Fn(&Message) -> Option<MirrorDrop>) {
        let metrics = &self.metrics;
        self.waiting.retain(|copy| match why(&copy.message) {
            Some(reason) => {
                metrics.dropped(reason).inc();
                false
            }
            None => true,
        });
    }

    fn drop_one(&self, reason: MirrorDrop) {
        self.metrics.dropped(reason).inc();
    }
}

/// A copy was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// None was denied to this connection before. People are told.
    First,
    /// One of many.
    Further,
}

#[cfg(test)]
mod tests;
