//! What became of the records that a publisher was given, told to the intake.

use std::sync::Arc;

use forwarder_core::delivery::outbox::Outcome;
use forwarder_core::fanout::dispatch::Closed;
use forwarder_core::record::Invalid;

use super::Publisher;
use crate::message::Message;
use crate::outputs::{Fate, Receipt, Receipts, Undeliverable};

impl Publisher {
    /// Closes the lanes whose heads are refused for longer than now: what is behind each head goes back to the intake.
    fn close_denied(&mut self) -> Vec<Closed> {
        let mut closed = Vec::new();
        for lane in std::mem::take(&mut self.outcome.denied) {
            let head = self.outbox.close(lane, &mut self.outcome);
            closed.extend(head.map(|head| Closed {
                lane,
                weight: head.weight(),
            }));
        }
        closed
    }

    /// Turns what the outbox let go into receipts.
    pub(super) fn hand_out(&mut self) {
        let closed = self.close_denied();
        let Outcome {
            confirmed,
            given_up,
            impossible,
            denied: _,
            returned,
            dropped,
            recalled,
        } = &mut self.outcome;
        let rare = given_up.len() + impossible.len() + returned.len() + dropped.len() + recalled.len();
        if confirmed.is_empty() && rare == 0 && closed.is_empty() {
            return;
        }
        let overtaken = self.outbox.overtaken().saturating_sub(self.counters.overtaken.get());
        self.counters.overtaken.inc_by(overtaken);
        let now = self.clock.micros();
        let mut receipts = Vec::with_capacity(confirmed.len() + rare);
        if !confirmed.is_empty() {
            self.counters.published.inc_by(confirmed.len() as u64);
            let latency = self.counters.confirmed.local();
            let processing = self.metrics.message_processing_latency.local();
            let queueing = self.metrics.queue_time.local();
            for (mut message, sent_at) in confirmed.drain(..) {
                latency.observe(seconds(now.saturating_sub(message.taken_at)));
                processing.observe(seconds(now.saturating_sub(sent_at)));
                queueing.observe(seconds(sent_at.saturating_sub(message.taken_at)));
                if let Some(trace) = &mut message.trace {
                    trace.published(&self.cluster.name, sent_at, now);
                }
                receipts.push(confirmed_receipt(message));
            }
            latency.flush();
            processing.flush();
            queueing.flush();
        }
        receipts.extend(
            given_up
                .drain(..)
                .map(|message| undeliverable(message, Invalid::Refused)),
        );
        receipts.extend(
            impossible
                .drain(..)
                .map(|message| undeliverable(message, Invalid::Impossible)),
        );
        let sent = returned.iter().filter(|(_, sent)| *sent).count();
        self.counters.repeats_possible.inc_by(sent as u64);
        receipts.extend(returned.drain(..).map(|(mut message, _)| {
            let fate = Fate::Returned(message.lane);
            receipt(&mut message, fate)
        }));
        receipts.extend(
            dropped
                .drain(..)
                .map(|mut message| receipt(&mut message, Fate::Dropped)),
        );
        let sent = recalled.iter().filter(|(_, sent)| *sent).count();
        self.counters.repeats_possible.inc_by(sent as u64);
        receipts.extend(recalled.drain(..).map(|(message, _)| Receipt {
            tag: message.origin.tag(),
            weight: message.weight(),
            // It goes on with the record.
            trace: None,
            fate: Fate::Recalled(Box::new(message)),
        }));
        self.report(closed, receipts);
    }

    /// When the intake is gone nobody counts any more: what is uncommitted is read again by who comes next.
    pub(super) fn report(&self, closed: Vec<Closed>, receipts: Vec<Receipt>) {
        self.receipts
            .send(Receipts {
                output: self.output,
                closed,
                receipts,
            })
            .ok();
    }
}

/// Of a message that is confirmed. It goes along where somebody may get a copy of it.
fn confirmed_receipt(mut message: Message) -> Receipt {
    let receipt = receipt(&mut message, Fate::Confirmed);
    if !message.has_moved {
        return receipt;
    }
    Receipt {
        fate: Fate::ConfirmedMoved(Arc::new(message)),
        ..receipt
    }
}

/// Of a message that goes no further. Its trace ends with the receipt.
fn receipt(message: &mut Message, fate: Fate) -> Receipt {
    Receipt {
        tag: message.origin.tag(),
        // With its trace, as it was counted.
        weight: message.weight(),
        trace: message.trace.take(),
        fate,
    }
}

/// The server can never take the message, for this reason.
pub(super) fn undeliverable(mut message: Message, reason: Invalid) -> Receipt {
    let (tag, weight, lane) = (message.origin.tag(), message.weight(), message.lane);
    let trace = message.trace.take();
    let letter = message.into_dead_letter(reason);
    Receipt {
        tag,
        weight,
        trace,
        fate: Fate::Undeliverable(Box::new(Undeliverable { lane, letter })),
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}
