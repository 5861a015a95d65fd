//! Copies for subscribers that stay, among the records of a connection. They never change what becomes of a record.

use tracing::warn;

use super::{Ping, Session};
use crate::outputs::nats::Publisher;
use crate::outputs::nats::mirror::Denial;
use forwarder_core::delivery::deliverable::Deliverable as _;
use forwarder_nats::protocol;

impl Publisher {
    /// Writes copies behind records, as far as these leave room. The caller holds the lease.
    pub(super) fn write_copies(&mut self, session: &mut Session) {
        // Where none is declared, this is all.
        if self.copies.is_empty() || self.is_hunting(session) {
            return;
        }
        let now = self.clock.micros();
        let ping = session.pongs + session.pings.len() as u64;
        let mut has_written = false;
        let mut headers = std::mem::take(&mut session.reply);
        while Self::has_room_for_answers(session)
            && let Some(copy) = self.copies.next(session.max_payload, &mut headers, now)
        {
            // As bound to the lease as the record, which others may own.
            session.guard.set_records_wait(true);
            let message = copy.message();
            protocol::encode_pub(&mut session.output, message.subject(), None, &headers, message.body());
            self.copies.written(copy, ping);
            has_written = true;
        }
        session.reply = headers;
        if has_written {
            session.ping(Ping::KeepAlive, now);
        }
    }

    /// Whether a denial of this subject is that of a copy. It is no word about any record then.
    pub(super) fn is_denied_copy(&mut self, subject: &[u8], now: u64) -> bool {
        let denial = self.copies.deny(subject, now);
        if denial == Some(Denial::First) {
            warn!(
                cluster = self.cluster.name,
                subject = %subject.escape_ascii(),
                "the server denies a copy for subscribers of an asset that has moved; such copies are dropped, and records are not affected"
            );
        }
        denial.is_some()
    }
}
