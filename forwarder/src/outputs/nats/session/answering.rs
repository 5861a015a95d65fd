//! Answers to subscribers, among the records of a connection. They never change what becomes of a record.

use std::collections::VecDeque;

use tracing::debug;

use super::writing::WRITE_SIZE;
use super::{Ping, Session};
use crate::outputs::nats::answers::Answer;
use crate::outputs::nats::{MAX_SILENT_ENDS, Publisher};
use forwarder_nats::protocol;

/// So many subjects of answers are remembered, to tell a denial of one from that of a record: those of two seconds at most.
const REMEMBERED: usize = 1_024;

/// The subjects of the last answers of a connection.
#[derive(Debug, Default)]
pub(super) struct Answered(VecDeque<bytes::Bytes>);

impl Answered {
    fn note(&mut self, subject: bytes::Bytes) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(subject);
    }

    fn has(&self, subject: &[u8]) -> bool {
        self.0.iter().any(|answered| answered == subject)
    }
}

impl Publisher {
    /// Whether an answer may be written between records now: there is room, so that it delays none.
    pub(super) fn has_room_for_answers(session: &Session) -> bool {
        session.output.len() - session.sent < WRITE_SIZE
    }

    /// Whether records are sent alone, to find the one that ends connections. Nothing else may be written then.
    pub(super) fn is_hunting(&self, session: &Session) -> bool {
        let mut pings = session.pings.iter();
        self.silent_ends >= MAX_SILENT_ENDS || pings.any(|(ping, _)| matches!(ping, Ping::Alone(_)))
    }

    /// Writes an answer, or drops it: without the lease others may own what we answer for, a server that asks us to leave gets nothing more,
    /// and while records are sent alone nothing may be taken for what ends the connection.
    pub(super) fn answer(&self, session: &mut Session, answer: Answer) {
        let Answer { subject, payload } = answer;
        if session.leaving.is_some()
            || self.is_hunting(session)
            || payload.len() > session.max_payload
            || !self.lease.is_held()
        {
            return;
        }
        // Behind records they are as bound to the lease as those: readiness is claimed by members only.
        session.guard.set_records_wait(true);
        protocol::encode_pub(&mut session.output, &subject, None, &[], &payload);
        session.answered.note(subject);
    }

    /// Whether a denial of this subject is that of an answer. It is no word about any record then.
    pub(super) fn is_denied_answer(&self, session: &Session, subject: &[u8]) -> bool {
        let denied = session.answered.has(subject);
        if denied {
            debug!(cluster = self.cluster.name, subject = %subject.escape_ascii(), "the server denies an answer to a subscriber");
            self.answers.note_denied();
        }
        denied
    }
}
