//! A record on its way through the engine, and what comes back of it.

use forwarder_core::delivery::offsets::Tag;
use forwarder_core::delivery::outbox::{Item, subject_hash};
use forwarder_core::delivery::partition::PartitionId;
use forwarder_core::fanout::dispatch::{Closed, Freight};
use forwarder_core::record::{Header, Invalid, Timestamp};
use forwarder_core::trace::TRACEPARENT;
use memchr::memmem;

use crate::traces::Trace;

/// How large a record is: key, value and headers.
#[must_use]
pub fn record_bytes(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>]) -> usize {
    let length = |field: Option<&[u8]>| field.map_or(0, <[u8]>::len);
    let headers = headers.iter().map(|(name, value)| name.len() + length(*value));
    headers.fold(length(key) + length(value), usize::saturating_add)
}

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
pub struct Parcel {
    /// Where it came from.
    pub origin: Origin,
    /// Its asset's lane.
    pub lane: u64,
    /// When it was taken from Kafka, in the engine's microseconds.
    pub taken_at: u64,
    /// Its trace, if it is sampled.
    pub trace: Option<Box<Trace>>,
    /// Subject, header block, body, and the original record where a dead letter may need it.
    bytes: Box<[u8]>,
    subject_hash: u64,
    subject_end: usize,
    headers_end: usize,
    body_end: usize,
}

impl Parcel {
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
    pub fn into_letter(self, reason: Invalid) -> Letter {
        let original = self.bytes.get(self.body_end..).unwrap_or_default().into();
        Letter {
            origin: self.origin,
            reason,
            truncated: None,
            original,
        }
    }
}

impl Item for Parcel {
    fn lane(&self) -> u64 {
        self.lane
    }

    fn subject(&self) -> &[u8] {
        &self.bytes[..self.subject_end]
    }

    fn subject_hash(&self) -> u64 {
        self.subject_hash
    }

    fn assignment(&self) -> (PartitionId, u32) {
        (self.origin.partition, self.origin.epoch)
    }
}

impl Freight for Parcel {
    fn tag(&self) -> Tag {
        self.origin.tag()
    }

    fn lane(&self) -> u64 {
        self.lane
    }

    fn weight(&self) -> usize {
        Self::weight(self)
    }
}

/// A record that can never be forwarded.
#[derive(Debug)]
pub struct Letter {
    /// Where it came from.
    pub origin: Origin,
    /// Why it cannot be forwarded.
    pub reason: Invalid,
    /// How long the value was, where it is left out.
    pub truncated: Option<usize>,
    /// The packed [`Original`]; empty where no dead letter is declared.
    original: Box<[u8]>,
}

impl Letter {
    /// A letter with the packed original.
    #[must_use]
    pub fn new(origin: Origin, reason: Invalid, original: &[u8]) -> Self {
        Self {
            origin,
            reason,
            truncated: None,
            original: original.into(),
        }
    }

    /// Of a record whose value, of this many bytes, is left out.
    #[must_use]
    pub fn without_value(origin: Origin, reason: Invalid, original: &[u8], length: usize) -> Self {
        Self {
            truncated: Some(length),
            ..Self::new(origin, reason, original)
        }
    }

    /// The record as it came.
    #[must_use]
    pub fn original(&self) -> Original<'_> {
        Original::unpack(&self.original)
    }

    /// What counts against the caps.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.original.len() + size_of::<Self>()
    }
}

/// A record as it came from Kafka.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Original<'a> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// The headers, in order. Names are bytes: what came need not have been UTF-8.
    pub headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Original<'a> {
    /// Appends key, value and headers, each with its length.
    pub fn pack(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header<'_>], out: &mut Vec<u8>) {
        pack_one(key, out);
        pack_one(value, out);
        for (name, value) in headers {
            pack_one(Some(name.as_bytes()), out);
            pack_one(*value, out);
        }
    }

    fn unpack(mut bytes: &'a [u8]) -> Self {
        let key = unpack_one(&mut bytes);
        let value = unpack_one(&mut bytes);
        let mut headers = Vec::new();
        while !bytes.is_empty() {
            let name = unpack_one(&mut bytes).unwrap_or_default();
            headers.push((name, unpack_one(&mut bytes)));
        }
        Self { key, value, headers }
    }
}

/// The length that stands for "none". No Kafka field is that long.
const NONE: u32 = u32::MAX;

fn pack_one(field: Option<&[u8]>, out: &mut Vec<u8>) {
    let length = field.map_or(NONE, |field| u32::try_from(field.len()).unwrap_or(NONE));
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(field.unwrap_or_default());
}

fn unpack_one<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == NONE {
        *bytes = rest;
        return None;
    }
    let (field, rest) = rest.split_at_checked(length as usize)?;
    *bytes = rest;
    Some(field)
}

/// What became of a dispatched record. Each one dispatched comes back exactly once: the caps are counted by it.
#[derive(Debug)]
pub struct Receipt {
    /// Which record it is.
    pub tag: Tag,
    /// What the record weighed against the caps.
    pub weight: usize,
    /// Its trace, if it was sampled; it ends with the receipt.
    pub trace: Option<Box<Trace>>,
    /// What became of it.
    pub fate: Fate,
}

/// See [`Receipt`].
#[derive(Debug)]
pub enum Fate {
    /// Confirmed by the target.
    Confirmed,
    /// Given up together with its assignment: whoever owns the partition now handles it.
    Dropped,
    /// Can never be delivered.
    Undeliverable(Box<Undeliverable>),
    /// Given back, as it was asked for.
    Recalled(Box<Parcel>),
    /// Given back, since its lane, which is told, is closed.
    Returned(u64),
}

/// What cannot be delivered.
#[derive(Debug)]
pub struct Undeliverable {
    /// Its asset's lane.
    pub lane: u64,
    /// What becomes of it.
    pub letter: Letter,
}

/// Receipts of one outlet.
#[derive(Debug)]
pub struct Receipts {
    /// The outlet.
    pub outlet: u32,
    /// Lanes that it has closed: see [`forwarder_core::delivery::outbox::Outbox::close`].
    pub closed: Vec<Closed>,
    /// In no particular order.
    pub receipts: Vec<Receipt>,
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
    fn a_parcel_keeps_its_parts_apart() {
        let mut original = Vec::new();
        Original::pack(Some(b"key"), None, &[("a", Some(b"1")), ("a", None)], &mut original);
        let parcel = Parcel::pack(ORIGIN, 7, 0, b"key.id", b"NATS/1.0\r\n\r\n", b"{}", &original);
        assert_eq!(parcel.subject(), b"key.id");
        assert_eq!(parcel.headers(), b"NATS/1.0\r\n\r\n");
        assert_eq!(parcel.body(), b"{}");
        assert_eq!(parcel.payload_len(), 14);
        let letter = parcel.into_letter(Invalid::Refused);
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
            let mut parcel = Parcel::pack(ORIGIN, 7, 0, b"key.id", headers, b"{}", b"");
            assert_eq!(parcel.untraced_headers(), None, "it has no trace");
            parcel.trace = Some(Trace::new(sampled, 0, 0));
            parcel.untraced_headers()
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
    fn without_an_original_a_letter_is_empty() {
        let letter = Parcel::pack(ORIGIN, 7, 0, b"s", b"", b"{}", b"").into_letter(Invalid::TooLarge);
        assert_eq!(letter.original(), Original::default());
    }
}
