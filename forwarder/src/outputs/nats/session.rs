//! One connection, from its first publish to its end.
//!
//! The loop is in here, with what it reads and what time brings. [`writing`] fills the output with what may be sent.
//! [`answering`] puts answers to subscribers among it, and [`mirroring`] copies for those that stay. [`refusals`] says which record a server's answer is about, and what becomes of that record.

mod answering;
mod mirroring;
mod refusals;
mod writing;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::ops::ControlFlow;
use std::pin::Pin;
use std::time::Duration;

use bytes::BytesMut;
use forwarder_core::delivery::outbox::Ticket;
use forwarder_core::document::PublishMode;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tracing::debug;

use self::answering::Answered;
use self::writing::WRITE_SIZE;
use super::Publisher;
use super::ended::Ended;
use super::stream_watch::StreamWatch;
use crate::lease::{Guard, NotHeld};
use crate::metrics::RetryReason;
use forwarder_nats::WriteGate as _;
use forwarder_nats::connection::Connection;
use forwarder_nats::protocol::{self, Op, Parser};
use forwarder_nats::server::ServerAddress;
use forwarder_service::clock::micros;

/// How often an idle connection is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(2);

/// The finest step of timers: retries and timeouts need no better.
const TICK: Duration = Duration::from_millis(5);

/// What a PONG answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ping {
    /// Everything written before it was read by the server.
    Fence,
    /// As [`Ping::Fence`], behind a record that was written alone.
    Alone(Ticket),
    /// The connection lives.
    KeepAlive,
}

/// The parts of a session that are not the publisher's.
struct Session {
    /// Bytes to send; the first `sent` are gone.
    output: Vec<u8>,
    sent: usize,
    /// Stands before the socket: bytes of records pass only while we hold the lease.
    guard: Guard,
    /// All bytes are written, but TLS may keep some that it has encrypted.
    needs_flush: bool,
    /// When the socket last took bytes.
    wrote_at: u64,
    /// PINGs without a PONG, and when each was sent.
    pings: VecDeque<(Ping, u64)>,
    /// How many PONGs have come. Together with `pings` that numbers PINGs.
    pongs: u64,
    /// When the server last said anything.
    heard_at: u64,
    /// When the last PING was sent.
    pinged_at: u64,
    /// Since when the server asks us to leave. Nothing more is written then, and what is out is awaited.
    leaving: Option<u64>,
    /// Largest payload, with headers, that the server takes.
    max_payload: usize,
    /// Where acks arrive: the subject up to the ticket.
    inbox: Vec<u8>,
    /// What becomes of the stream while acks are awaited.
    stream: StreamWatch,
    /// Answers to subscribers that this connection has written.
    answered: Answered,
    parser: Parser,
    /// Scratch.
    reply: Vec<u8>,
    tickets: Vec<Ticket>,
}

impl Session {
    /// Asks for a PONG behind what was written.
    fn ping(&mut self, ping: Ping, now: u64) {
        protocol::encode_ping(&mut self.output);
        self.pings.push_back((ping, now));
        self.pinged_at = now;
    }

    /// The socket took the next `count` bytes.
    fn advance(&mut self, count: usize, now: u64) {
        self.sent += count;
        self.wrote_at = now;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            self.needs_flush = true;
        } else if self.sent >= WRITE_SIZE {
            // Under back-pressure the rest never runs empty: what is gone must not pile up.
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl Publisher {
    /// Publishes until the connection ends (continue, with the reason) or nobody gives commands any more (break).
    pub(super) async fn session(&mut self, connection: Connection, server: &ServerAddress) -> ControlFlow<(), Ended> {
        let Connection {
            info,
            mut io,
            leftover: mut input,
        } = connection;
        let guard = Guard::new(self.lease.clone());
        io.set_gate(guard.clone());
        let (mut reader, mut writer) = tokio::io::split(io);
        let now = self.clock.micros();
        let mut session = Session {
            output: Vec::with_capacity(2 * WRITE_SIZE),
            sent: 0,
            guard,
            needs_flush: false,
            wrote_at: now,
            pings: VecDeque::new(),
            pongs: 0,
            heard_at: now,
            pinged_at: now,
            leaving: None,
            max_payload: info.max_payload,
            inbox: inbox(self.cluster.inbox_prefix()),
            stream: StreamWatch::new(server, self.counters.published.get()),
            answered: Answered::default(),
            parser: Parser::default(),
            reply: Vec::new(),
            tickets: Vec::new(),
        };
        if self.publish.mode == PublishMode::JetStream {
            let mut subject = session.inbox.clone();
            subject.push(b'*');
            protocol::encode_sub(&mut session.output, &subject, 1);
        }
        self.answers.begin();
        self.copies.begin();
        let mut timer = std::pin::pin!(tokio::time::sleep(TICK));
        loop {
            if let Err(ended) = self.read(&mut input, &mut session, server) {
                return ControlFlow::Continue(ended);
            }
            let may_write = self.lease.is_held();
            if let Some(since) = session.leaving {
                if self.may_leave(&session, since) {
                    return ControlFlow::Continue(Ended::LameDuck);
                }
            } else if may_write {
                self.write(&mut session);
                self.write_copies(&mut session);
            }
            self.copies.drop_ending();
            self.show_in_flight();
            self.alone_out = match session.pings.front() {
                Some((Ping::Alone(ticket), _)) => Some(*ticket),
                _ => None,
            };
            // What has left the outbox must not go out late, so it goes back there with the connection. One that owes nothing
            // stays: its PINGs and PONGs are on nobody's behalf, and it is ready when the membership is proved again.
            if session.guard.check().is_err() {
                return ControlFlow::Continue(Ended::Unproven);
            }
            let has_output = session.sent < session.output.len();
            tokio::select! {
                read = reader.read_buf(&mut input) => match read {
                    Ok(0) => return ControlFlow::Continue(Ended::Closed),
                    Ok(_) => session.heard_at = self.clock.micros(),
                    Err(error) => return ControlFlow::Continue(error.into()),
                },
                pushed = push(&mut writer, &session.output[session.sent..]), if has_output || session.needs_flush => match pushed {
                    Ok(Pushed::Written(0)) => return ControlFlow::Continue(Ended::Closed),
                    Ok(Pushed::Written(count)) => session.advance(count, self.clock.micros()),
                    Ok(Pushed::Flushed) => {
                        session.needs_flush = false;
                        session.guard.set_records_wait(false);
                    }
                    Err(error) if NotHeld::is_reason(&error) => return ControlFlow::Continue(Ended::Unproven),
                    Err(error) => return ControlFlow::Continue(error.into()),
                },
                command = self.commands.recv() => match command {
                    Some(command) => {
                        self.take(command);
                        // What else has arrived meanwhile goes into the same write.
                        while self.outbox.len() < WRITE_SIZE && let Ok(command) = self.commands.try_recv() {
                            self.take(command);
                        }
                    }
                    None => return ControlFlow::Break(()),
                },
                Some(answer) = self.answers.next(), if Self::has_room_for_answers(&session) => self.answer(&mut session, answer),
                seen = session.stream.seen() => if let Err(ended) = self.stream_seen(&mut session.stream, seen) {
                    return ControlFlow::Continue(ended);
                },
                () = &mut timer => {}
                () = self.lease.held(), if !may_write => {}
            }
            if self.moved {
                return ControlFlow::Continue(Ended::Moved);
            }
            if !self.cutting.is_empty() {
                if session.sent < session.output.len() || session.needs_flush {
                    return ControlFlow::Continue(Ended::GivenUp);
                }
                self.cutting.clear();
            }
            if let Err(ended) = self.keep_time(&mut session, timer.as_mut()) {
                return ControlFlow::Continue(ended);
            }
        }
    }

    /// Whether all that went out is answered, so that nothing is sent again elsewhere, or has been awaited for long enough.
    fn may_leave(&self, session: &Session, since: u64) -> bool {
        let is_written = session.sent == session.output.len() && !session.needs_flush;
        is_written && self.outbox.in_flight() == 0
            || self.clock.micros().saturating_sub(since) > micros(self.confirm_timeout)
    }

    /// Handles every complete operation of the server in `input`.
    fn read(&mut self, input: &mut BytesMut, session: &mut Session, server: &ServerAddress) -> Result<(), Ended> {
        let result = self.read_ops(input, session, server);
        self.hand_out();
        result
    }

    fn read_ops(&mut self, input: &mut BytesMut, session: &mut Session, server: &ServerAddress) -> Result<(), Ended> {
        let now = self.clock.micros();
        while let Some(op) = session.parser.next_op(input)? {
            match op {
                Op::Ping => protocol::encode_pong(&mut session.output),
                Op::Pong => {
                    session.pongs += 1;
                    self.copies.ponged(session.pongs);
                    if let Some((Ping::Fence | Ping::Alone(_), _)) = session.pings.pop_front()
                        && self.publish.mode == PublishMode::Core
                    {
                        self.outbox.fence_passed(now, &mut self.outcome);
                    }
                }
                Op::Ok => {}
                Op::Info(info) => {
                    session.max_payload = info.max_payload;
                    self.servers.meet(server, &info)?;
                    if info.ldm {
                        session.leaving.get_or_insert(now);
                    }
                }
                Op::Error(error) => self.refused(error, session, now)?,
                Op::Message(message) => {
                    if let Some(ticket) = message
                        .subject
                        .strip_prefix(session.inbox.as_slice())
                        .and_then(parse_ticket)
                    {
                        let ack = protocol::parse_ack(message.headers.as_deref(), &message.payload);
                        self.acked(ticket, &ack, now)?;
                    }
                }
            }
        }
        Ok(())
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
            // A large record on a slow link has it busy without a word: as long as bytes go out, it lives.
            let busy = if session.sent < session.output.len() {
                session.wrote_at
            } else {
                0
            };
            if asked.is_some_and(|asked| now.saturating_sub(session.heard_at.max(asked).max(busy)) > timeout) {
                return Err(Ended::Silent(self.confirm_timeout));
            }
            if self.publish.mode == PublishMode::JetStream {
                if self.expire(&mut session.tickets, now) > 0 {
                    session.stream.doubt();
                }
                self.hand_out();
                self.watch_stream(&mut session.stream);
            }
            if asked.is_none() && now.saturating_sub(session.pinged_at) > micros(PING_INTERVAL) {
                session.ping(Ping::KeepAlive, now);
            }
        }
        // The next thing that time brings: a lane's retry, or a look at the timeouts.
        let look = Instant::now() + PING_INTERVAL.min(self.confirm_timeout) / 4;
        let wake = self
            .outbox
            .next_wake()
            .map(|wake| Instant::from_std(self.clock.instant(wake)));
        // Copies that wait are as many as may be written in a second, or have no room behind records now.
        let wake = if self.copies.is_empty() {
            wake
        } else {
            Some(Instant::now())
        };
        let next = wake.map_or(look, |wake| wake.min(look)).max(Instant::now() + TICK);
        if timer.is_elapsed() || next + TICK < timer.deadline() {
            timer.as_mut().reset(next);
        }
        Ok(())
    }

    /// Has records sent again whose acks are overdue, and counts them. `tickets` is scratch.
    fn expire(&mut self, tickets: &mut Vec<Ticket>, now: u64) -> usize {
        tickets.clear();
        self.outbox.overdue(now, micros(self.confirm_timeout), tickets);
        let expired = tickets.iter().filter(|ticket| self.outbox.is_awaited(**ticket)).count();
        for ticket in tickets.drain(..) {
            self.outbox.expired(ticket, now, &mut self.outcome);
        }
        if expired > 0 {
            debug!(
                cluster = self.cluster.name,
                records = expired,
                "acks are overdue; sending again"
            );
            self.count_failures(RetryReason::Timeout, expired);
        }
        expired
    }

    fn count_failures(&self, reason: RetryReason, records: usize) {
        self.counters.publish_failures.inc_by(records as u64);
        self.counters.retries(reason).inc_by(records as u64);
    }
}

/// What a step of writing did.
enum Pushed {
    /// The socket took so many bytes.
    Written(usize),
    /// Nothing was left to write, and nothing is kept back any more.
    Flushed,
}

/// One step of writing; may be cancelled at any time without losing or repeating a byte.
async fn push(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<Pushed> {
    if bytes.is_empty() {
        writer.flush().await?;
        return Ok(Pushed::Flushed);
    }
    Ok(Pushed::Written(writer.write(bytes).await?))
}

/// A subject that nobody else listens to: acks of another connection must never be taken for this one's.
fn inbox(prefix: &str) -> Vec<u8> {
    let unique = RandomState::new().hash_one(std::process::id());
    let more = RandomState::new().hash_one(unique);
    format!("{prefix}.{unique:016x}{more:016x}.").into_bytes()
}

/// The ticket at the end of an ack's subject; anything else is nobody's.
fn parse_ticket(text: &[u8]) -> Option<Ticket> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Ticket::from_u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc;

    use forwarder_core::decimal;
    use forwarder_nats::protocol::Ack;

    use super::super::tests::{Rig, message, partition, rig};
    use super::*;
    use crate::outputs::Command;

    #[test]
    fn a_ticket_survives_the_way_through_a_subject() {
        for number in [0, 9, 10, u64::MAX, 1 << 40 | 17] {
            let mut text = Vec::new();
            decimal::push(&mut text, number);
            assert_eq!(text, number.to_string().into_bytes());
            assert_eq!(parse_ticket(&text).map(Ticket::to_u64), Some(number));
        }
        assert_eq!(parse_ticket(b"x"), None);
    }

    #[test]
    fn no_two_connections_share_an_inbox() {
        assert_ne!(inbox("_INBOX"), inbox("_INBOX"));
    }

    #[test]
    fn acks_arrive_below_the_declared_prefix() {
        let inbox = String::from_utf8(inbox("_INBOX_f.acks")).unwrap();
        assert!(inbox.starts_with("_INBOX_f.acks.") && inbox.ends_with('.'), "{inbox}");
        assert_eq!(inbox.matches('.').count(), 3, "{inbox}");
    }

    /// A publisher with acks and three records out: one is awaited, one was abandoned, one was recalled.
    fn out() -> (Rig, Vec<Ticket>) {
        let publish = "{mode: JetStream, subject: 'a.{key}.{id}', stream: {name: s}}";
        let mut rig = rig("127.0.0.1:1", publish);
        let publisher = &mut rig.publisher;
        publisher.obey(Command::Deliver(vec![message(0, 1), message(1, 2), message(0, 3)]));
        let tickets = std::iter::from_fn(|| publisher.outbox.next(0).map(|(ticket, _)| ticket)).collect();
        publisher.obey(Command::Abandon {
            assignments: Arc::from([(partition(1), 1)]),
            done: mpsc::channel().0,
        });
        publisher.obey(Command::Recall(vec![3]));
        (rig, tickets)
    }

    #[test]
    fn only_what_is_awaited_is_sent_again_and_counted_when_acks_are_overdue() {
        let (mut rig, tickets) = out();
        assert_eq!(tickets.len(), 3);
        rig.publisher.expire(&mut Vec::new(), u64::MAX / 2);
        assert_eq!(rig.publisher.outbox.len(), 1);
        assert_eq!(rig.counters.publish_failures.get(), 1);
        assert_eq!(rig.counters.retries(RetryReason::Timeout).get(), 1);
    }

    #[test]
    fn only_what_is_awaited_is_sent_again_and_counted_when_the_stream_refuses() {
        let (mut rig, tickets) = out();
        for ticket in tickets {
            assert!(rig.publisher.acked(ticket, &Ack::Malformed, 0).is_ok());
        }
        assert_eq!(rig.publisher.outbox.len(), 1);
        assert_eq!(rig.counters.publish_failures.get(), 1);
        assert_eq!(rig.counters.retries(RetryReason::Refused).get(), 1);
    }
}
