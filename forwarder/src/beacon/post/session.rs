//! One connection of a post, from its subscriptions to its end.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use forwarder_beacon::subjects::QUEUE;
use forwarder_beacon::{Body, Request};
use forwarder_nats::connection::{Connection, Io};
use forwarder_nats::protocol::{self, Message, Op, Parser};
use forwarder_nats::server::ServerAddress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{debug, warn};

use super::{Ended, Event, OWN_DIGESTS, Outgoing, Post};
use crate::beacon::faults::{self, Faults};
use crate::beacon::voice::is_answerable;

/// The subscriptions, by their ids.
const GET: u64 = 1;
const READY: u64 = 2;
const PODS: u64 = 3;
const DIGEST: u64 = 4;

/// How often the connection is looked after.
const TICK: Duration = Duration::from_secs(1);

/// A server that was asked and is silent for so long is left.
const SILENT: Duration = Duration::from_secs(10);

/// How often the server is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(3);

/// A connection that lasts so long without a denial shows that nothing is denied any more.
const PROBATION: Duration = Duration::from_secs(10);

/// What the server denies is tried again after so long, with another connection.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// While so many bytes wait for the socket, answers are dropped.
const MAX_OUTPUT: usize = 1 << 20;

struct Session {
    output: Vec<u8>,
    sent: usize,
    needs_flush: bool,
    max_payload: usize,
    faults: Faults,
    began: Instant,
    /// The server has answered what was sent behind the subscriptions.
    is_subscribed: bool,
    heard_at: Instant,
    /// The oldest PING without an answer.
    asked_at: Option<Instant>,
    pinged_at: Instant,
}

impl Post {
    /// Goes on until the connection ends, or nobody gives anything to send any more; then what was given is written.
    pub(super) async fn session(&mut self, connection: Connection, server: &ServerAddress) -> Result<(), Ended> {
        let Connection {
            info,
            io,
            leftover: mut input,
        } = connection;
        let (mut reader, mut writer): (ReadHalf<Io>, WriteHalf<Io>) = tokio::io::split(io);
        let now = Instant::now();
        let mut session = Session {
            output: Vec::new(),
            sent: 0,
            needs_flush: false,
            max_payload: info.max_payload,
            faults: Faults::default(),
            began: now,
            is_subscribed: false,
            heard_at: now,
            asked_at: Some(now),
            pinged_at: now,
        };
        self.subscribe(&mut session.output);
        let mut parser = Parser::default();
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            while let Some(op) = parser.next_op(&mut input)? {
                self.handle(op, &mut session, server).await?;
            }
            let may_write = session.sent < session.output.len() || session.needs_flush;
            tokio::select! {
                read = reader.read_buf(&mut input) => match read? {
                    0 => return Err(Ended::Closed),
                    _ => session.heard_at = Instant::now(),
                },
                written = push(&mut writer, &session.output[session.sent..]), if may_write => session.advance(written?)?,
                outgoing = self.outgoing.recv() => match outgoing {
                    Some(outgoing) => self.publish(outgoing, &mut session).await,
                    None => {
                        writer.write_all(&session.output[session.sent..]).await?;
                        writer.flush().await?;
                        return Ok(());
                    }
                },
                _ = ticks.tick() => self.keep_time(&mut session).await?,
            }
            reserve(&mut input);
        }
    }

    fn subscribe(&self, output: &mut Vec<u8>) {
        protocol::encode_queue_sub(output, self.subjects.get().as_bytes(), QUEUE.as_bytes(), GET);
        for (subject, sid) in [
            (self.subjects.ready(), READY),
            (self.subjects.pods(), PODS),
            (self.subjects.digest(), DIGEST),
        ] {
            protocol::encode_sub(output, subject.as_bytes(), sid);
        }
        protocol::encode_ping(output);
    }

    async fn handle(&mut self, op: Op, session: &mut Session, server: &ServerAddress) -> Result<(), Ended> {
        match op {
            Op::Ping => protocol::encode_pong(&mut session.output),
            Op::Pong => {
                session.asked_at = None;
                // Denials of the subscriptions have come before it.
                if !std::mem::replace(&mut session.is_subscribed, true) {
                    self.tell(Event::Connected).await;
                }
            }
            Op::Ok => {}
            Op::Info(info) => {
                session.max_payload = info.max_payload;
                self.servers.meet(server, &info)?;
                if info.ldm {
                    return Err(Ended::LameDuck);
                }
            }
            Op::Error(error) => match faults::words(&error, &self.subjects, self.cluster.inbox_prefix()) {
                Some(fault) => self.note_fault(fault, session).await,
                None => return Err(Ended::Server(error.to_string())),
            },
            Op::Message(message) => self.receive(&message, session),
        }
        Ok(())
    }

    async fn note_fault(&mut self, fault: String, session: &mut Session) {
        if !session.faults.add(fault) {
            return;
        }
        let text = session.faults.text();
        if text != self.fault {
            let fault = text.as_deref().unwrap_or_default();
            warn!(
                cluster = self.cluster.name,
                fault,
                "the beacon is at fault. Subscribers there learn of the ring late or not at all; records are not affected"
            );
        }
        self.fault = text.clone();
        self.metrics.faulty.set(1);
        self.tell(Event::Fault(text)).await;
    }

    fn receive(&mut self, message: &Message, session: &mut Session) {
        match message.sid {
            GET => self.answer_get(message, session),
            READY => self.answer_ready(message),
            PODS => self.hear_pod(&message.payload),
            DIGEST => self.hear_digest(&message.payload),
            _ => {}
        }
    }

    /// The nonce and the subject for an answer, where the request is sound.
    fn request(&self, message: &Message) -> Option<(String, Bytes)> {
        let reply = message.reply.as_ref()?;
        if !is_answerable(reply, self.cluster.inbox_prefix(), &self.subjects) {
            debug!(cluster = self.cluster.name, reply = %reply.escape_ascii(), "a request asks for an answer where none is given");
            return None;
        }
        let request = Request::parse(&message.payload);
        request.ok().map(|request| (request.nonce, reply.clone()))
    }

    fn answer_get(&mut self, message: &Message, session: &mut Session) {
        if !self.gets.take(self.clock.micros()) || session.output.len() - session.sent > MAX_OUTPUT {
            self.metrics.dropped.inc();
            return;
        }
        let Some((nonce, reply)) = self.request(message) else {
            return;
        };
        let Some(answer) = self.voice.borrow().announce(nonce) else {
            return;
        };
        if session.publish(&reply, &answer) {
            self.metrics.announcements.inc();
        }
    }

    fn answer_ready(&mut self, message: &Message) {
        if !self.readies.take(self.clock.micros()) {
            self.metrics.dropped.inc();
            return;
        }
        let Some((nonce, reply)) = self.request(message) else {
            return;
        };
        let voice = self.voice.borrow();
        let Some(answers) = &voice.answers else { return };
        let Some(answer) = voice.ready(&self.cluster.name, nonce) else {
            return;
        };
        if answers.send(reply, answer) {
            self.metrics.readies.inc();
        } else {
            self.metrics.dropped.inc();
        }
    }

    fn hear_pod(&mut self, signed: &[u8]) {
        if let Some(Body::Statement(statement)) = self.open(signed) {
            self.tell_if_there_is_room(Event::Statement(Box::new(statement)));
        }
    }

    fn hear_digest(&mut self, signed: &[u8]) {
        if let Some((epoch, _)) = self.own.iter().rev().find(|(_, own)| own == signed) {
            self.tell_if_there_is_room(Event::Echo(*epoch));
            return;
        }
        // One digest goes to several clusters, so it may be known from another one.
        let is_known = self.voice.borrow().key.has_opened(signed);
        if is_known || matches!(self.open(signed), Some(Body::Digest(_))) {
            self.tell_if_there_is_room(Event::Digest);
        }
    }

    /// The body; none: it is not of this ring's key, is known already, or is over the budget.
    fn open(&mut self, signed: &[u8]) -> Option<Body> {
        let key = self.voice.borrow().key.clone();
        if key.has_opened(signed) {
            return None;
        }
        if !self.opens.take(self.clock.micros()) {
            self.metrics.dropped.inc();
            return None;
        }
        let opened = key.open(signed);
        if opened.is_err() {
            self.metrics.forged.inc();
        }
        opened.ok()
    }

    async fn publish(&mut self, outgoing: Outgoing, session: &mut Session) {
        let fits = match outgoing {
            Outgoing::Digest(epoch, signed) => {
                if self.own.len() == OWN_DIGESTS {
                    self.own.pop_front();
                }
                let fits = session.publish(self.subjects.digest().as_bytes(), &signed);
                self.own.push_back((epoch, signed));
                self.metrics.digests.inc();
                fits
            }
            Outgoing::Statement(signed) => session.publish(self.subjects.pods().as_bytes(), &signed),
        };
        if !fits {
            let most = session.max_payload;
            let fault = format!(
                "a message of the beacon is larger than the {most} bytes that the server takes: raise its max_payload"
            );
            self.note_fault(fault, session).await;
        }
    }

    async fn keep_time(&mut self, session: &mut Session) -> Result<(), Ended> {
        let now = Instant::now();
        let silent = |asked: Instant| now.duration_since(asked.max(session.heard_at)) > SILENT;
        if session.asked_at.is_some_and(silent) {
            return Err(Ended::Silent(SILENT));
        }
        if session.asked_at.is_none() && now.duration_since(session.pinged_at) > PING_INTERVAL {
            protocol::encode_ping(&mut session.output);
            session.asked_at = Some(now);
            session.pinged_at = now;
        }
        let denied = self
            .voice
            .borrow()
            .answers
            .as_ref()
            .is_some_and(|answers| answers.are_denied());
        if denied {
            let fault = faults::denied_answers(self.cluster.inbox_prefix());
            self.note_fault(fault, session).await;
        }
        let lasted = now.duration_since(session.began);
        if session.faults.text().is_some() {
            if lasted > TRY_AGAIN {
                return Err(Ended::Again);
            }
        } else if self.fault.is_some() && lasted > PROBATION {
            self.fault = None;
            self.metrics.faulty.set(0);
            self.tell(Event::Fault(None)).await;
        }
        Ok(())
    }
}

impl Session {
    /// Whether it is written: a message that is larger than the server takes would end the connection.
    fn publish(&mut self, subject: &[u8], payload: &[u8]) -> bool {
        let fits = payload.len() <= self.max_payload;
        if fits {
            protocol::encode_pub(&mut self.output, subject, None, &[], payload);
        }
        fits
    }

    /// The socket took so many bytes; none: all is flushed.
    fn advance(&mut self, written: Option<usize>) -> Result<(), Ended> {
        match written {
            None => self.needs_flush = false,
            Some(0) => return Err(Ended::Closed),
            Some(count) => {
                self.sent += count;
                self.needs_flush = true;
                if self.sent == self.output.len() {
                    self.output.clear();
                    self.sent = 0;
                } else if self.sent >= MAX_OUTPUT / 4 {
                    self.output.drain(..self.sent);
                    self.sent = 0;
                }
            }
        }
        Ok(())
    }
}

/// One step of writing; may be cancelled at any time. None: there was nothing to write, and nothing is kept back any more.
async fn push(writer: &mut WriteHalf<Io>, bytes: &[u8]) -> std::io::Result<Option<usize>> {
    if bytes.is_empty() {
        writer.flush().await?;
        return Ok(None);
    }
    writer.write(bytes).await.map(Some)
}

/// Room for the next read.
fn reserve(input: &mut BytesMut) {
    input.reserve(4 << 10);
}
