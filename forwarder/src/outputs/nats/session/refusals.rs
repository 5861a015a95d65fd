//! What a server answers that is no confirmation by itself: `-ERR`, and JetStream's acks.

use forwarder_core::delivery::outbox::{Refusal, Ticket};
use forwarder_core::document::PublishMode;
use tracing::warn;

use super::{Ping, Session};
use crate::metrics::RetryReason;
use crate::outputs::nats::Publisher;
use crate::outputs::nats::ended::Ended;
use forwarder_nats::protocol::{Ack, ServerError};

impl Publisher {
    /// The server said `-ERR`.
    pub(super) fn refused(&mut self, error: ServerError, session: &mut Session, now: u64) -> Result<(), Ended> {
        let subject = match error {
            ServerError::PublishViolation { subject } => subject,
            ServerError::SubscriptionViolation { subject: inbox } | ServerError::ReplyViolation { reply: inbox } => {
                return Err(Ended::InboxDenied {
                    inbox: lossy(&inbox),
                    prefix: self.cluster.inbox_prefix().to_owned(),
                });
            }
            ServerError::OtherViolation { text } => return self.denied_somewhere(text, session, now),
            // The connection ends, and a record may be why.
            error @ (ServerError::MaximumPayload
            | ServerError::MaximumControlLine
            | ServerError::Protocol { .. }
            | ServerError::Other { .. }) => {
                self.blame_or_suspect(session, now);
                return Err(Ended::Server(error.to_string()));
            }
            // Who we are, not what we send.
            error @ (ServerError::Authorization { .. } | ServerError::Limit { .. } | ServerError::StaleConnection) => {
                return Err(Ended::Server(error.to_string()));
            }
        };
        let (found, denied) = match self.publish.mode {
            PublishMode::Core => (self.outbox.denied(&subject), 1),
            PublishMode::JetStream => {
                session.tickets.clear();
                let found = self.outbox.out_to(&subject, &mut session.tickets);
                for ticket in &session.tickets {
                    self.outbox.refused(*ticket, Refusal::Denied, now, &mut self.outcome);
                }
                (found, session.tickets.len())
            }
        };
        if !found && (self.is_denied_answer(session, &subject) || self.is_denied_copy(&subject, now)) {
            return Ok(());
        }
        if !found {
            // A server with account mappings names the subject that it has mapped ours to.
            let text = format!(
                "the server denies publishing to `{}`, to which nothing was sent",
                lossy(&subject)
            );
            return self.denied_somewhere(text, session, now);
        }
        self.count_failures(RetryReason::Refused, denied);
        if self.may_log_refusal() {
            let subject = lossy(&subject);
            warn!(
                cluster = self.cluster.name,
                subject, "the server denies a subject; the asset's records wait until the server allows it"
            );
            self.link
                .set_fault(Some(format!("the server denies the subject {subject}")));
        }
        Ok(())
    }

    /// The server denies a record, and what it says does not tell which. The one that was sent alone can be told; else each that it may
    /// be is sent alone by the next connection.
    fn denied_somewhere(&mut self, text: String, session: &Session, now: u64) -> Result<(), Ended> {
        if let Some((Ping::Alone(ticket), _)) = session.pings.front()
            && self.outbox.blame(*ticket, now, &mut self.outcome)
        {
            self.count_failures(RetryReason::Refused, 1);
            if self.may_log_refusal() {
                warn!(
                    cluster = self.cluster.name,
                    error = text,
                    "the server denies a record that was sent alone; its asset's records wait until the server allows it"
                );
                self.link.set_fault(Some(text));
            }
            return Ok(());
        }
        let suspects = self.outbox.suspect();
        Err(Ended::Unattributed { text, suspects })
    }

    /// The connection ends, and nobody says over which record. The one that was sent alone waits; else each that was out is sent alone by
    /// the next connection.
    fn blame_or_suspect(&mut self, session: &Session, now: u64) {
        let blamed = match session.pings.front() {
            Some((Ping::Alone(ticket), _)) => self.outbox.blame_at_the_end(*ticket, now, &mut self.outcome),
            _ => false,
        };
        if blamed {
            self.count_failures(RetryReason::Refused, 1);
            warn!(
                cluster = self.cluster.name,
                "the server ended the connection over a record that was sent alone; its asset's records wait"
            );
        } else {
            self.outbox.suspect();
        }
    }

    pub(super) fn acked(&mut self, ticket: Ticket, ack: &Ack<'_>, now: u64) -> Result<(), Ended> {
        let refusal = match ack {
            Ack::Stored { stream, .. } => {
                let declared = self.publish.stream.as_ref().map_or("", |stream| stream.name.as_str());
                if declared == stream {
                    self.outbox.acked(ticket, &mut self.outcome);
                    return Ok(());
                }
                // Whoever reads the declared stream does not get the record.
                let text = format!("stream {stream} stores the records, but publish.stream.name is {declared}");
                return self.refused_by_stream(ticket, Refusal::Denied, &text, now);
            }
            // The stream is gone or JetStream is down: a new connection begins with a look at the stream.
            Ack::NoResponders => return Err(Ended::NoStream(self.publish.subject.clone())),
            Ack::Refused(_) | Ack::Malformed => ack.refusal().unwrap_or(Refusal::Transient),
        };
        let text = match ack {
            Ack::Refused(error) => format!("{} (JetStream's error {})", error.description, error.err_code),
            _ => "the answer is not a JetStream ack".to_owned(),
        };
        self.refused_by_stream(ticket, refusal, &text, now)
    }

    fn refused_by_stream(&mut self, ticket: Ticket, refusal: Refusal, text: &str, now: u64) -> Result<(), Ended> {
        if self.outbox.is_awaited(ticket) {
            self.count_failures(RetryReason::Refused, 1);
            if self.may_log_refusal() {
                let cluster = &self.cluster.name;
                match refusal {
                    Refusal::Impossible => {
                        warn!(
                            cluster,
                            error = text,
                            "the stream can never store a record; the forwarder does not send it again"
                        );
                    }
                    Refusal::Denied | Refusal::Unattributed => {
                        warn!(
                            cluster,
                            error = text,
                            "the stream refuses a record; its asset's records wait"
                        );
                    }
                    Refusal::Transient => {
                        warn!(cluster, error = text, "the stream accepts no records now; trying again");
                    }
                }
                self.link.set_fault(Some(text.to_owned()));
            }
        }
        self.outbox.refused(ticket, refusal, now, &mut self.outcome);
        Ok(())
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
