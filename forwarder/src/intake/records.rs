//! The record's path, and what comes back on it.
//!
//! ```text
//!  accept ─▶ place ─▶ admitted? ─┬─▶ forward ─▶ write ─┬─▶ batch of its output ─┐
//!            └── program         └▶ parked    program ─┘─▶ dead letter ─────────┤ hand out
//!  replay ─▶ place ─▶ its turn? ───▶ forward                                    ▼
//!  settle ◀────────────────────────── receipts ◀──────────────────────────── outputs
//! ```
//!
//! What a record becomes is the [`Program`]'s to say, which is known as a type: no call of it is dynamic.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::Inputs;
use forwarder_core::fanout::dispatch::{Admission, Again, Dispatcher, Job};
use forwarder_core::program::{Draft, Incoming, Place, Program};
use forwarder_core::record::{self, Header, Invalid, Timestamp, TimestampKind};
use forwarder_core::trace;
use rdkafka::Message as KafkaRecord;
use tracing::error;

use super::client::{Client, partition_of};
use super::headers;
use super::identity::Identity;
use super::mirroring::Mirroring;
use super::reject::Rejects;
use crate::message::{DeadLetter, Message, Origin, Original, record_bytes};
use crate::metrics::Metrics;
use crate::outputs::dead_letter::DeadLetterQueue;
use crate::outputs::nats::Publishers;
use crate::outputs::{Command, Fate, Receipts, Undeliverable};
use crate::traces::{End, Trace, Tracer};
use forwarder_service::clock::{Clock, wall_millis};

/// Where a record goes beside its output, and where receipts come from.
pub(super) struct Channels {
    pub(super) dead_letter: Option<DeadLetterQueue>,
    pub(super) tracer: Option<Tracer>,
    pub(super) receipts: Receiver<Receipts>,
}

/// See the module.
pub(super) struct Records<P> {
    program: P,
    channels: Channels,
    mirroring: Mirroring,
    rejects: Rejects,
    inputs: Inputs,
    metrics: Metrics,
    clock: Clock,
    /// A record above this is not copied: what the caps have room for.
    max_record_bytes: usize,
    /// The time of day and of the clock, as they were last read.
    now_millis: i64,
    now_micros: u64,
    /// Buffers that are used again and again.
    draft: Draft,
    original: Vec<u8>,
}

impl<P: Program> Records<P> {
    /// Nothing is on its way.
    pub(super) fn new(
        program: P,
        client: &Client,
        channels: Channels,
        mirroring: Mirroring,
        metrics: Metrics,
        clock: Clock,
    ) -> Self {
        Self {
            program,
            channels,
            mirroring,
            rejects: Rejects::default(),
            inputs: client.inputs.clone(),
            metrics,
            clock,
            max_record_bytes: client.config.engine.max_record_bytes(),
            now_millis: 0,
            now_micros: 0,
            draft: Draft::default(),
            original: Vec::new(),
        }
    }

    /// The program, for who changes what it goes by.
    pub(super) fn program(&mut self) -> &mut P {
        &mut self.program
    }

    /// The copies for former owners, for who changes the ring.
    pub(super) fn mirroring(&mut self) -> &mut Mirroring {
        &mut self.mirroring
    }

    /// What the next records' times are.
    pub(super) fn read_clocks(&mut self) {
        self.now_millis = wall_millis();
        self.now_micros = self.clock.micros();
    }

    /// A record came from the group.
    pub(super) fn accept(
        &mut self,
        record: &impl KafkaRecord,
        dispatcher: &mut Dispatcher<Message>,
        identity: &Identity,
    ) {
        let offset = record.offset();
        // One of another topic was never asked for.
        let Some(partition) = partition_of(&self.inputs, record) else {
            return;
        };
        let (admission, place) = match P::asset(record.key()) {
            Ok(key) => {
                let place = self.program.place(key);
                let admission = dispatcher.receive(partition, offset, key, place);
                (admission, Some(place))
            }
            Err(_) => (dispatcher.receive_stray(partition, offset), None),
        };
        match admission {
            Admission::Take(tag) => {
                self.metrics.consumed.inc();
                self.forward(tag, place, record, dispatcher, identity);
            }
            Admission::Parked => self.metrics.consumed.inc(),
            Admission::Unwanted => {}
        }
    }

    /// A parked record was read again.
    pub(super) fn replay(
        &mut self,
        job: Job,
        record: &impl KafkaRecord,
        dispatcher: &mut Dispatcher<Message>,
        identity: &Identity,
    ) -> Again {
        let key = P::asset(record.key()).ok();
        let mut again = dispatcher.read_again(job.number, record.offset(), key);
        // To wait it would be copied; and no cluster needs room for it.
        if again == Again::Wait && self.is_too_large(record) {
            again = dispatcher.read_again_for_nobody(job.number, record.offset(), key);
        }
        if let (Again::Take(tag), Some(key)) = (again, key) {
            let place = self.program.place(key);
            self.forward(tag, Some(place), record, dispatcher, identity);
        }
        again
    }

    fn is_too_large(&self, record: &impl KafkaRecord) -> bool {
        let headers = headers::read(record).unwrap_or_default();
        record_bytes(record.key(), record.payload(), &headers) > self.max_record_bytes
    }

    /// Makes a message of a record that is ours to deliver. `place`: none where it belongs to no asset.
    fn forward(
        &mut self,
        tag: Tag,
        place: Option<Place>,
        record: &impl KafkaRecord,
        dispatcher: &mut Dispatcher<Message>,
        identity: &Identity,
    ) {
        let timestamp = timestamp(record);
        let origin = Origin::new(tag, timestamp);
        let headers = headers::read(record);
        let plain = headers.as_deref().unwrap_or_default();
        // Before anything is copied: a compressed batch of a megabyte may hold a record of a gigabyte.
        if record_bytes(record.key(), record.payload(), plain) > self.max_record_bytes {
            let letter = self.without_value(origin, record, plain);
            self.reject(letter, None, dispatcher, identity);
            return;
        }
        let incoming = Incoming {
            key: record.key(),
            value: record.payload(),
            timestamp,
            origin: record::Origin {
                topic: self.inputs.topic_of(tag.partition),
                partition: tag.partition.number(),
                offset: tag.offset,
            },
        };
        let tracer = self.channels.tracer.as_mut();
        let sampled = tracer.and_then(|tracer| Some((tracer.sample(plain)?, tracer.now())));
        let written = match (&headers, &sampled) {
            (Ok(headers), None) => {
                let headers = headers.iter().copied();
                self.program.write(&incoming, headers, self.now_millis, &mut self.draft)
            }
            (Ok(headers), Some((sampled, _))) => {
                let parent = sampled.message().text();
                let headers = headers.iter().copied().filter(|(name, _)| !sampled.replaces(name));
                let headers = headers.chain([(trace::TRACEPARENT, Some(parent.as_slice()))]);
                self.program.write(&incoming, headers, self.now_millis, &mut self.draft)
            }
            (Err(headers::Unreadable), _) => Err(Invalid::BadHeaders),
        };
        let trace = sampled.map(|(sampled, taken_at)| Trace::new(sampled, taken_at, self.clock.micros()));
        self.original.clear();
        if self.channels.dead_letter.is_some() {
            Original::pack(incoming.key, incoming.value, plain, &mut self.original);
        }
        match (written, place) {
            (Ok(()), Some(Place { owner, lane })) => {
                let Draft {
                    subject, headers, body, ..
                } = &self.draft;
                let mut message = Message::pack(origin, lane, self.now_micros, subject, headers, body, &self.original);
                message.trace = trace;
                message.has_moved = self.mirroring.moves(lane, dispatcher.ring_epoch());
                dispatcher.enter(message, owner);
            }
            (written, _) => {
                let reason = written.err().unwrap_or(Invalid::BadKey);
                self.end_trace(trace, tag, End::Invalid(reason));
                let letter = DeadLetter::new(origin, reason, &self.original);
                self.reject(letter, None, dispatcher, identity);
            }
        }
    }

    /// The record is too large to be handled: what is left of it says where it is. Its value is not copied, nor is anything that is
    /// too large without it.
    fn without_value(&mut self, origin: Origin, record: &impl KafkaRecord, headers: &[Header<'_>]) -> DeadLetter {
        self.original.clear();
        if self.channels.dead_letter.is_some() {
            let fits = record_bytes(record.key(), None, headers) <= self.max_record_bytes;
            let (key, headers) = if fits { (record.key(), headers) } else { (None, &[][..]) };
            Original::pack(key, None, headers, &mut self.original);
        }
        let length = record.payload().map_or(0, <[u8]>::len);
        DeadLetter::without_value(origin, Invalid::RecordTooLarge, &self.original, length)
    }

    /// A record can never be forwarded. `from`: where it was, and its lane, if it had been handed out.
    fn reject(
        &mut self,
        letter: DeadLetter,
        from: Option<(u32, u64)>,
        dispatcher: &mut Dispatcher<Message>,
        identity: &Identity,
    ) {
        let (tag, weight) = (letter.origin.tag(), letter.weight());
        // Its next owner finds that out, too. Those of a former topic have none.
        if !dispatcher.is_current(tag) && !identity.is_former(tag) {
            return;
        }
        self.rejects.note(&letter, &self.inputs, &self.metrics);
        let Some(dead_letter) = &mut self.channels.dead_letter else {
            dispatcher.settle(tag);
            return;
        };
        match from {
            Some((output, lane)) => dispatcher.bury_from(output, tag, lane, weight),
            None => dispatcher.bury(tag, weight),
        }
        dead_letter.push(letter);
    }

    /// A record is settled; if it was traced, that is told.
    fn end_trace(&mut self, trace: Option<Box<Trace>>, tag: Tag, end: End) {
        if let (Some(trace), Some(tracer)) = (trace, &mut self.channels.tracer) {
            tracer.end(trace, tag, end);
        }
    }

    /// Sends each output its batch. Lanes are opened first: what a batch has of them is to be taken.
    pub(super) fn hand_out(&mut self, dispatcher: &mut Dispatcher<Message>, publishers: &Publishers) {
        if let Some(dead_letter) = &mut self.channels.dead_letter {
            dead_letter.flush();
        }
        // Ahead of the batches: a former owner may get its asset's records again.
        let clock = self.clock;
        self.mirroring
            .hand_out(dispatcher.ring_epoch(), publishers, || clock.micros());
        command_lanes(publishers, dispatcher.take_openings(), Command::Open);
        dispatcher.take_batches(|output, batch| {
            if let Some(member) = publishers.get(output) {
                member.command(Command::Deliver(batch));
            }
        });
        // Behind the batches: an output gives back only what it has.
        command_lanes(publishers, dispatcher.take_excess(), Command::Recall);
    }

    /// Counts what came back, without waiting.
    pub(super) fn settle(&mut self, dispatcher: &mut Dispatcher<Message>, identity: &Identity) {
        while let Ok(receipts) = self.channels.receipts.try_recv() {
            self.count(receipts, dispatcher, identity);
        }
        // A record of a former topic may be among them, and nobody reads that again: its letter is not left to the next turn.
        if let Some(dead_letter) = &mut self.channels.dead_letter {
            dead_letter.flush();
        }
    }

    /// Waits for receipts, at most so long.
    pub(super) fn await_receipts(
        &mut self,
        patience: Duration,
        dispatcher: &mut Dispatcher<Message>,
        identity: &Identity,
    ) {
        match self.channels.receipts.recv_timeout(patience) {
            Ok(receipts) => self.count(receipts, dispatcher, identity),
            Err(RecvTimeoutError::Timeout) => {}
            // Cannot be while publishers live; without them there is nothing to hurry for either.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(patience),
        }
    }

    fn count(&mut self, receipts: Receipts, dispatcher: &mut Dispatcher<Message>, identity: &Identity) {
        let Receipts {
            output,
            closed,
            receipts,
        } = receipts;
        dispatcher.close(output, &closed);
        let mut gone = 0_u64;
        for receipt in receipts {
            dispatcher.leave(output, receipt.weight);
            match receipt.fate {
                Fate::Confirmed => {
                    dispatcher.settle(receipt.tag);
                    self.end_trace(receipt.trace, receipt.tag, End::Confirmed);
                }
                Fate::ConfirmedMoved(message) => {
                    // What an older assignment had is read again by its next owner, who makes the copy.
                    if dispatcher.is_current(receipt.tag) {
                        self.mirroring.confirmed(output, message);
                    }
                    dispatcher.settle(receipt.tag);
                    self.end_trace(receipt.trace, receipt.tag, End::Confirmed);
                }
                Fate::Dropped => self.end_trace(receipt.trace, receipt.tag, End::Dropped),
                Fate::Undeliverable(undeliverable) => {
                    let Undeliverable { lane, letter } = *undeliverable;
                    self.end_trace(receipt.trace, receipt.tag, End::Invalid(letter.reason));
                    self.reject(letter, Some((output, lane)), dispatcher, identity);
                }
                Fate::Recalled(mut message) => {
                    gone += u64::from(identity.is_former(receipt.tag));
                    message.has_moved = self.mirroring.moves(message.lane, dispatcher.ring_epoch());
                    dispatcher.take_back(output, *message);
                }
                Fate::Returned(lane) => {
                    self.end_trace(receipt.trace, receipt.tag, End::Dropped);
                    gone += u64::from(identity.is_former(receipt.tag));
                    dispatcher.give_back(output, receipt.tag, lane);
                }
            }
        }
        if gone > 0 {
            error!(
                records = gone,
                "NATS did not accept records of the deleted topic, and they cannot be read again"
            );
        }
    }
}

/// Commands something about lanes of each output. An output that has ended has none.
fn command_lanes(publishers: &Publishers, mut lanes: Vec<(u32, u64)>, command: impl Fn(Vec<u64>) -> Command<Message>) {
    lanes.sort_unstable();
    for of_output in lanes.chunk_by(|one, next| one.0 == next.0) {
        if let Some(member) = publishers.get(of_output[0].0) {
            member.command(command(of_output.iter().map(|(_, lane)| *lane).collect()));
        }
    }
}

fn timestamp(record: &impl KafkaRecord) -> Option<Timestamp> {
    match record.timestamp() {
        rdkafka::Timestamp::NotAvailable => None,
        rdkafka::Timestamp::CreateTime(millis) => Some(Timestamp {
            millis,
            kind: TimestampKind::Producer,
        }),
        rdkafka::Timestamp::LogAppendTime(millis) => Some(Timestamp {
            millis,
            kind: TimestampKind::Broker,
        }),
    }
}
