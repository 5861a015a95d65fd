//! A record on its way through the engine.
//!
//! The intake makes a [`Message`] of a record, or a [`DeadLetter`] where it can make none. Either is one allocation.

mod dead_letter;
mod original;

use forwarder_core::delivery::deliverable::{Deliverable, subject_hash};
use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::record::{Invalid, Timestamp};
use forwarder_core::trace::TRACEPARENT;
use memchr::memmem;

pub use self::dead_letter::DeadLetter;
pub use self::original::{Original, record_bytes};
use crate::traces::Trace;

/// Where in Kafka a record came from, and on behalf of which assignment it is handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The partition.
    pub partition: PartitionId,
    /// The assignment epoch: a receipt of an older one is ignored.
    pub epoch: u32,
    /// The offset.
    pub offset: i64,
    /// The name of the record in its partition's [`forwarder_core::delivery::offsets::Offsets`].
    pub sequence: u64,
    /// The record's timestamp.
    pub timestamp: Option<Timestamp>,
}

impl Origin {
    /// Of a record that was taken.
    #[must_use]
    pub fn new(tag: Tag, timestamp: Option<Timestamp>) -> Self {
        let Tag {
            partition,
            epoch,
            offset,
            sequence,
        } = tag;
        Self {
            partition,
            epoch,
            offset,
            sequence,
            timestamp,
        }
    }

    /// The record's name.
    #[must_use]
    pub fn tag(&self) -> Tag {
        let Self {
            partition,
            epoch,
            offset,
            sequence,
            timestamp: _,
        } = *self;
        Tag {
            partition,
            epoch,
            offset,
            sequence,
        }
    }
}

/// A routed record: all that is needed to publish it, in one allocation.
#[derive(Debug)]
pub struct Message {
    /// Where it came from.
    pub origin: Origin,
    /// Its asset's lane.
    pub lane: u64,
    /// When it was taken from Kafka, in the engine's microseconds.
    pub taken_at: u64,
    /// Its trace, if it is sampled.
    pub trace: Option<Box<Trace>>,
    /// Its asset has moved lately: see [`Fate::ConfirmedMoved`](crate::outputs::Fate::ConfirmedMoved).
    pub has_moved: bool,
    /// Subject, header block, body, and the original record where a dead letter may need it.
    bytes: Box<[u8]>,
    subject_hash: u64,
    subject_end: usize,
    headers_end: usize,
    body_end: usize,
}

impl Message {
    /// Packs the parts; `original` is what [`Original::pack`] wrote, or empty.
    #[must_use]
    pub fn pack(
        origin: Origin,
        lane: u64,
        taken_at: u64,
        subject: &[u8],
        headers: &[u8],
        body: &[u8],
        original: &[u8],
    ) -> Self {
        let mut bytes = Vec::with_capacity(subject.len() + headers.len() + body.len() + original.len());
        bytes.extend_from_slice(subject);
        let subject_end = bytes.len();
        bytes.extend_from_slice(headers);
        let headers_end = bytes.len();
        bytes.extend_from_slice(body);
        let body_end = bytes.len();
        bytes.extend_from_slice(original);
        Self {
            origin,
            lane,
            taken_at,
            trace: None,
            has_moved: false,
            bytes: bytes.into_boxed_slice(),
            subject_hash: subject_hash(subject),
            subject_end,
            headers_end,
            body_end,
        }
    }

    /// A complete NATS header block, or empty.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        &self.bytes[self.subject_end..self.headers_end]
    }

    /// The payload.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.headers_end..self.body_end]
    }

    /// What the server counts against its `max_payload`.
    #[must_use]
    pub fn payload_len(&self) -> usize {
        self.body_end - self.subject_end
    }

    /// The header block without the `traceparent` that we have given the record, where it came without one: it may be what makes the
    /// message too large, and a trace must not decide whether a record can be delivered.
    #[must_use]
    pub fn untraced_headers(&self) -> Option<Vec<u8>> {
        self.trace.as_ref().filter(|trace| trace.begins_here())?;
        let (line, headers) = (format!("\r\n{TRACEPARENT}:"), self.headers());
        let start = memmem::find(headers, line.as_bytes())?;
        let rest = &headers[start + line.len()..];
        let end = memmem::find(rest, b"\r\n")?;
        let untraced = [&headers[..start], &rest[end..]].concat();
        // A block without a header would be one more thing that an untraced record does not have.
        let is_empty = untraced == b"NATS/1.0\r\n\r\n";
        Some(if is_empty { Vec::new() } else { untraced })
    }

    /// What counts against the caps: the memory that the record holds.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.bytes.len() + size_of::<Self>() + self.trace.as_ref().map_or(0, |_| size_of::<Trace>())
    }

    /// The dead letter that the record becomes.
    #[must_use]
    pub fn into_dead_letter(self, reason: Invalid) -> DeadLetter {
        let original = self.bytes.get(self.body_end..).unwrap_or_default();
        DeadLetter::new(self.origin, reason, original)
    }
}

impl Deliverable for Message {
    fn tag(&self) -> Tag {
        self.origin.tag()
    }

    fn lane(&self) -> u64 {
        self.lane
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }

    fn subject(&self) -> &[u8] {
        &self.bytes[..self.subject_end]
    }

    fn subject_hash(&self) -> u64 {
        self.subject_hash
    }
}

#[cfg(test)]
mod tests {
    use forwarder_core::delivery::partition::Input;
    use forwarder_core::trace::Sampled;

    use super::*;

    const ORIGIN: Origin = Origin {
        partition: PartitionId::new(Input::FIRST, 1).unwrap(),
        epoch: 2,
        offset: 3,
        sequence: 4,
        timestamp: None,
    };

    #[test]
    fn a_message_keeps_its_parts_apart() {
        let mut original = Vec::new();
        Original::pack(Some(b"key"), None, &[("a", Some(b"1")), ("a", None)], &mut original);
        let message = Message::pack(ORIGIN, 7, 0, b"key.id", b"NATS/1.0\r\n\r\n", b"{}", &original);
        assert_eq!(message.subject(), b"key.id");
        assert_eq!(message.headers(), b"NATS/1.0\r\n\r\n");
        assert_eq!(message.body(), b"{}");
        assert_eq!(message.payload_len(), 14);
        let letter = message.into_dead_letter(Invalid::Refused);
        let headers = vec![(&b"a"[..], Some(&b"1"[..])), (&b"a"[..], None)];
        assert_eq!(
            letter.original(),
            Original {
                key: Some(b"key"),
                value: None,
                headers
            }
        );
    }

    #[test]
    fn a_trace_that_begins_here_can_be_taken_out_of_the_headers_again() {
        let untraced = |headers: &[u8], parent| {
            let sampled = Sampled {
                trace: [1; 16],
                parent,
                way: [2; 8],
                publish: [3; 8],
            };
            let mut message = Message::pack(ORIGIN, 7, 0, b"key.id", headers, b"{}", b"");
            assert_eq!(message.untraced_headers(), None, "it has no trace");
            message.trace = Some(Trace::new(sampled, 0, 0));
            message.untraced_headers()
        };
        let with = b"NATS/1.0\r\na: 1\r\ntraceparent: 00-x-y-01\r\nb: 2\r\n\r\n";
        assert_eq!(untraced(with, None).unwrap(), b"NATS/1.0\r\na: 1\r\nb: 2\r\n\r\n");
        assert_eq!(
            untraced(b"NATS/1.0\r\ntraceparent: 00-x-y-01\r\n\r\n", None).unwrap(),
            b""
        );
        assert_eq!(
            untraced(with, Some([4; 8])),
            None,
            "the record brought one that is as long"
        );
    }

    #[test]
    fn without_an_original_a_dead_letter_is_empty() {
        let letter = Message::pack(ORIGIN, 7, 0, b"s", b"", b"{}", b"").into_dead_letter(Invalid::TooLarge);
        assert_eq!(letter.original(), Original::default());
    }
}
