//! One connection, from its first publish to its end.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use forwarder_core::config::PublishMode;
use forwarder_core::outbox::{Item, Ticket};
use forwarder_core::record::Invalid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tracing::{debug, warn};

use super::{Ended, MAX_UNACKED, Publisher, undeliverable};
use crate::clock::micros;
use crate::nats::connection::Connection;
use crate::nats::protocol::{self, Ack, Op, ServerError};
use crate::parcel::Receipts;

/// A write is begun when this much is waiting, so that one system call carries many records; also the most that one
/// fence covers, so that confirmations keep coming however much is in flight.
const WRITE_SIZE: usize = 64 << 10;

/// How often an idle connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// The finest step of timers: retries and timeouts need no better.
const TICK: Duration = Duration::from_millis(5);

/// What a PONG answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    /// Everything written before it was read by the server.
    Fence,
    /// The connection lives.
    KeepAlive,
}

/// The parts of a session that are not the publisher's.
struct Session {
    /// Bytes to send; the first `sent` are gone.
    output: Vec<u8>,
    sent: usize,
    /// PINGs without a PONG, and when each was sent.
    pings: VecDeque<(Ping, u64)>,
    /// When the server last said anything.
    heard_at: u64,
    /// When the last PING was sent.
    pinged_at: u64,
    /// Largest payload, with headers, that the server takes.
    max_payload: usize,
    /// Where acks arrive: the subject up to the ticket.
    inbox: Vec<u8>,
    /// Scratch.
    reply: Vec<u8>,
    tickets: Vec<Ticket>,
}

impl Publisher {
    /// Publishes until the connection ends (continue, with the reason) or nobody gives orders any more (break).
    pub(super) async fn session(&mut self, connection: Connection) -> ControlFlow<(), Ended> {
        let Connection { info, io, leftover: mut input, .. } = connection;
        let (mut reader, mut writer) = tokio::io::split(io);
        let now = self.clock.micros();
        let mut session = Session {
            output: Vec::with_capacity(2 * WRITE_SIZE),
            sent: 0,
            pings: VecDeque::new(),
            heard_at: now,
            pinged_at: now,
            max_payload: info.max_payload,
            inbox: format!("_INBOX.{}.", protocol::unique_token()).into_bytes(),
            reply: Vec::new(),
            tickets: Vec::new(),
        };
        if self.publish.mode == PublishMode::JetStream {
            let mut subject = session.inbox.clone();
            subject.push(b'*');
            protocol::encode_sub(&mut session.output, &subject, 1);
        }
        let mut timer = std::pin::pin!(tokio::time::sleep(TICK));
        loop {
            if let Err(ended) = self.read(&mut input, &mut session) {
                return ControlFlow::Continue(ended);
            }
            self.write(&mut session);
            let has_output = session.sent < session.output.len();
            tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => return ControlFlow::Continue(Ended::Closed),
                    Ok(_) => session.heard_at = self.clock.micros(),
                    Err(error) => return ControlFlow::Continue(error.into()),
                },
                written = writer.write(&session.output[session.sent..]), if has_output => match written {
                    Ok(0) => return ControlFlow::Continue(Ended::Closed),
                    Ok(count) => {
                        session.sent += count;
                        if session.sent == session.output.len() {
                            session.output.clear();
                            session.sent = 0;
                            // TLS keeps what it has encrypted until it is flushed.
                            if let Err(error) = writer.flush().await {
                                return ControlFlow::Continue(error.into());
                            }
                        }
                    }
                    Err(error) => return ControlFlow::Continue(error.into()),
                },
                order = self.orders.recv() => match order {
                    Some(order) => {
                        self.take(order);
                        // What else has arrived meanwhile goes into the same write.
                        while self.outbox.len() < WRITE_SIZE && let Ok(order) = self.orders.try_recv() {
                            self.take(order);
                        }
                    }
                    None => return ControlFlow::Break(()),
                },
                () = &mut timer => {}
            }
            if let Err(ended) = self.keep_time(&mut session, timer.as_mut()) {
                return ControlFlow::Continue(ended);
            }
        }
    }

    /// Handles every complete operation of the server in `input`.
    fn read(&mut self, input: &mut BytesMut, session: &mut Session) -> Result<(), Ended> {
        let result = self.read_ops(input, session);
        self.hand_out();
        result
    }

    fn read_ops(&mut self, input: &mut BytesMut, session: &mut Session) -> Result<(), Ended> {
        let now = self.clock.micros();
        while let Some(op) = protocol::next_op(input)? {
            match op {
                Op::Ping => protocol::encode_pong(&mut session.output),
                Op::Pong => {
                    if let Some((Ping::Fence, _)) = session.pings.pop_front() {
                        self.outbox.fence_passed(now, &mut self.outcome);
                    }
                }
                Op::Ok => {}
                Op::Info(info) => {
                    session.max_payload = info.max_payload;
                    self.servers.learn(&info.connect_urls);
                    if info.ldm {
                        return Err(Ended::LameDuck);
                    }
                }
                Op::Err(error) => self.refused(error, session, now)?,
                Op::Msg { subject, headers, payload, .. } => {
                    if let Some(ticket) = subject.strip_prefix(session.inbox.as_slice()).and_then(parse_ticket) {
                        self.acked(ticket, protocol::parse_ack(headers.as_deref(), &payload), now)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The server said `-ERR`.
    fn refused(&mut self, error: ServerError, session: &mut Session, now: u64) -> Result<(), Ended> {
        match error {
            ServerError::PublishDenied { subject } => {
                let text = String::from_utf8_lossy(&subject).into_owned();
                let found = match self.publish.mode {
                    PublishMode::Core => self.outbox.denied(&subject),
                    PublishMode::JetStream => {
                        session.tickets.clear();
                        self.outbox.out_to(&subject, &mut session.tickets);
                        for ticket in &session.tickets {
                            self.outbox.failed(*ticket, now, &mut self.outcome);
                        }
                        !session.tickets.is_empty()
                    }
                };
                self.count_failure("permission");
                if !found {
                    // Which records that was cannot be told, so none of this connection's may count as confirmed.
                    return Err(Ended::Server(format!("publishing to `{text}` is denied, which was not sent")));
                }
                if self.denials.admit() {
                    warn!(cluster = self.name, subject = text, "the server denies a subject; its asset's records wait");
                }
                Ok(())
            }
            ServerError::SubscribeDenied { subject } => Err(Ended::InboxDenied(subject)),
            ServerError::Other { text, .. } => Err(Ended::Server(text)),
        }
    }

    fn acked(&mut self, ticket: Ticket, ack: Ack, now: u64) -> Result<(), Ended> {
        let (reason, text) = match ack {
            Ack::Stored { stream, .. } => {
                let declared = self.publish.stream.as_ref().map(|stream| stream.name.as_str());
                if declared.is_some_and(|declared| declared != stream)
                    && self.denials.admit()
                {
                    warn!(cluster = self.name, stream, declared, "another stream than the declared one stores the records");
                }
                self.outbox.acked(ticket, &mut self.outcome);
                return Ok(());
            }
            Ack::NoResponders => {
                self.count_failure("no_stream");
                // The stream is gone or JetStream is down: a new connection begins with a look at the stream.
                let prefix = self.publish.subject.clone();
                return Err(Ended::NoStream(prefix));
            }
            Ack::Refused { code, err_code, description } => ("refused", format!("{description} ({code}, {err_code})")),
            Ack::Malformed(text) => ("malformed_ack", text),
        };
        self.count_failure(reason);
        if self.denials.admit() {
            warn!(cluster = self.name, reason = text, "the stream refuses a record; its asset's records wait");
        }
        self.outbox.failed(ticket, now, &mut self.outcome);
        Ok(())
    }

    /// Fills the output with what may be sent.
    fn write(&mut self, session: &mut Session) {
        if session.output.len() - session.sent >= WRITE_SIZE {
            return;
        }
        let now = self.clock.micros();
        let jetstream = self.publish.mode == PublishMode::JetStream;
        let mut rejected = Vec::new();
        while session.output.len() - session.sent < WRITE_SIZE && !(jetstream && self.outbox.in_flight() >= MAX_UNACKED) {
            let Some((ticket, parcel)) = self.outbox.next(now) else { break };
            if parcel.payload_len() > session.max_payload {
                rejected.extend(self.outbox.reject(ticket));
                continue;
            }
            let reply = if jetstream {
                session.reply.clear();
                session.reply.extend_from_slice(&session.inbox);
                protocol::push_number(&mut session.reply, ticket.to_u64());
                Some(session.reply.as_slice())
            } else {
                None
            };
            protocol::encode_pub(&mut session.output, parcel.subject(), reply, parcel.headers(), parcel.body());
        }
        if self.outbox.fence() {
            protocol::encode_ping(&mut session.output);
            session.pings.push_back((Ping::Fence, now));
            session.pinged_at = now;
        }
        if !rejected.is_empty() {
            let receipts = rejected.into_iter().map(|parcel| undeliverable(parcel, Invalid::TooLarge)).collect();
            self.receipts.send(Receipts { outlet: self.index, receipts }).ok();
        }
    }

    /// Timeouts, retries that are due, keep-alive.
    fn keep_time(&mut self, session: &mut Session, mut timer: Pin<&mut Sleep>) -> Result<(), Ended> {
        let now = self.clock.micros();
        self.outbox.wake(now);
        let timeout = micros(self.confirm_timeout);
        if timer.is_elapsed() {
            // Slowness is no death: a server is given up that was asked and has said nothing at all since then. A fence
            // covers one write at most, so a slow one has something to say soon enough.
            let asked = session.pings.front().map(|(_, at)| *at);
            if asked.is_some_and(|asked| now.saturating_sub(session.heard_at.max(asked)) > timeout) {
                return Err(Ended::Silent(self.confirm_timeout));
            }
            if self.publish.mode == PublishMode::JetStream {
                session.tickets.clear();
                self.outbox.overdue(now, timeout, &mut session.tickets);
                if !session.tickets.is_empty() {
                    debug!(cluster = self.name, records = session.tickets.len(), "acks are overdue; sending again");
                }
                for ticket in std::mem::take(&mut session.tickets) {
                    self.count_failure("timeout");
                    self.outbox.failed(ticket, now, &mut self.outcome);
                }
                self.hand_out();
            }
            if asked.is_none() && now.saturating_sub(session.pinged_at) > micros(PING_INTERVAL) {
                protocol::encode_ping(&mut session.output);
                session.pings.push_back((Ping::KeepAlive, now));
                session.pinged_at = now;
            }
        }
        // The next thing that time brings: a lane's retry, or a look at the timeouts.
        let look = Instant::now() + PING_INTERVAL.min(self.confirm_timeout) / 4;
        let wake = self.outbox.next_wake().map(|wake| Instant::from_std(self.clock.instant(wake)));
        let next = wake.map_or(look, |wake| wake.min(look)).max(Instant::now() + TICK);
        if timer.is_elapsed() || next + TICK < timer.deadline() {
            timer.as_mut().reset(next);
        }
        Ok(())
    }

    fn count_failure(&self, reason: &'static str) {
        self.counters().failures.inc();
        self.metrics.retries(self.index, reason).inc();
    }
}

/// The ticket at the end of an ack's subject; anything else is nobody's.
fn parse_ticket(text: &[u8]) -> Option<Ticket> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Ticket::from_u64)
}
