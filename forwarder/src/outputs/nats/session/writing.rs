//! What may be sent, as bytes.

use forwarder_core::decimal;
use forwarder_core::delivery::deliverable::Deliverable;
use forwarder_core::document::PublishMode;
use forwarder_core::record::Invalid;

use super::{Ping, Session};
use crate::outputs::nats::receipts::undeliverable;
use crate::outputs::nats::{MAX_SILENT_ENDS, MAX_UNACKED, Publisher};
use forwarder_nats::protocol;

/// A write is begun when this much is waiting, so that one system call carries many records; also the most that one
/// fence covers, so that confirmations keep coming however much is in flight.
pub(super) const WRITE_SIZE: usize = 64 << 10;

impl Publisher {
    /// Fills the output with what may be sent.
    pub(super) fn write(&mut self, session: &mut Session) {
        if session.output.len() - session.sent >= WRITE_SIZE {
            return;
        }
        // Where connections end without a word, only a record that is out alone can be told.
        let one_by_one = self.silent_ends >= MAX_SILENT_ENDS;
        let is_alone_out = |session: &Session| session.pings.iter().any(|(ping, _)| matches!(ping, Ping::Alone(_)));
        let now = self.clock.micros();
        let jetstream = self.publish.mode == PublishMode::JetStream;
        let mut rejected = Vec::new();
        while session.output.len() - session.sent < WRITE_SIZE && !(jetstream && self.outbox.in_flight() >= MAX_UNACKED)
        {
            if one_by_one && is_alone_out(session) {
                break;
            }
            let alone = self.outbox.next_is_alone();
            if alone {
                self.ping(session, Ping::Fence, now);
            }
            let Some((ticket, message)) = self.outbox.next(now) else {
                break;
            };
            let mut untraced = None;
            if message.payload_len() > session.max_payload {
                untraced = message.untraced_headers();
                let fits = |headers: &Vec<u8>| headers.len() + message.body().len() <= session.max_payload;
                if !untraced.as_ref().is_some_and(fits) {
                    rejected.extend(self.outbox.reject(ticket));
                    continue;
                }
            }
            let reply = if jetstream {
                session.reply.clear();
                session.reply.extend_from_slice(&session.inbox);
                decimal::push(&mut session.reply, ticket.to_u64());
                Some(session.reply.as_slice())
            } else {
                None
            };
            session.guard.set_records_wait(true);
            protocol::encode_pub(
                &mut session.output,
                message.subject(),
                reply,
                untraced.as_deref().unwrap_or_else(|| message.headers()),
                message.body(),
            );
            if alone {
                self.ping(session, Ping::Alone(ticket), now);
            }
        }
        if !jetstream {
            self.ping(session, Ping::Fence, now);
        }
        if !rejected.is_empty() {
            let receipts = rejected
                .into_iter()
                .map(|message| undeliverable(message, Invalid::TooLarge))
                .collect();
            self.report(Vec::new(), receipts);
        }
    }

    /// Asks for a PONG behind what was written. With fences there must be something that it proves.
    fn ping(&mut self, session: &mut Session, ping: Ping, now: u64) {
        if self.publish.mode == PublishMode::Core && !self.outbox.fence() {
            return;
        }
        session.ping(ping, now);
    }
}
