//! Kafka headers as a NATS header block, and back.
//!
//! | Kafka header | NATS header |
//! |---|---|
//! | `trace: abc` | `trace: abc` |
//! | `Nats-Rollup: all` (any case) | `Kafka-Nats-Rollup: all` |
//! | anything that NATS cannot carry, or that would be taken for something else | `Kafka-Encoded-<name>: <value>` |
//! | a header without a value (null) | `Kafka-Null-<name>:` |
//!
//! In the last two, name and value are percent-encoded: every byte but ASCII letters, digits and marks (U+0021–U+007E
//! without `%`, and in names without `:`) is `%XX`. What cannot be carried: in names anything but U+0021–U+007E without
//! `:`, and the empty name; in values anything but UTF-8, control characters and line separators (some clients end a line
//! there), and white space at the start or the end (clients trim it).
//!
//! What would be taken for something else, in any case of letters: names that begin with `Kafka-Nats-`,
//! `Kafka-Encoded-` or `Kafka-Null-`, and those that the forwarder writes itself (`Kafka-Topic`, `Kafka-Partition`,
//! `Kafka-Offset`, `Kafka-Timestamp`, `Kafka-Timestamp-Type`, `Fanout-Mirrored`), whether it is set to or not. So a consumer can rely on
//! each of them, and [`decode`] gives back every header as it was. The order of headers is kept, values of one name included.

use crate::decimal;
use crate::percent::{escape, unescape};
use crate::record::{Origin, Timestamp};

const VERSION: &[u8] = b"NATS/1.0\r\n";
const NATS: &str = "Nats-";
const RENAMED: &str = "Kafka-Nats-";
const ENCODED: &str = "Kafka-Encoded-";
const NULL: &str = "Kafka-Null-";
/// The length of `Kafka-` in [`RENAMED`].
const KAFKA: usize = RENAMED.len() - NATS.len();

const MESSAGE_ID: &str = "Nats-Msg-Id";
const TOPIC: &str = "Kafka-Topic";
const PARTITION: &str = "Kafka-Partition";
const OFFSET: &str = "Kafka-Offset";
const TIMESTAMP: &str = "Kafka-Timestamp";
const TIMESTAMP_KIND: &str = "Kafka-Timestamp-Type";
const OWN: [&str; 5] = [TOPIC, PARTITION, OFFSET, TIMESTAMP, TIMESTAMP_KIND];

/// The header of a copy for the subscribers of an asset's previous owner: see [`super::mirror`].
pub const MIRRORED: &str = "Fanout-Mirrored";
/// The beginning of [`MIRRORED`], and of hardly any other name.
const FANOUT: &str = "Fanout-";

/// Writes the header block of a copy to `out`, which is cleared: `Fanout-Mirrored: 1`, and behind it what the message has.
///
/// `headers` is what a [`Block`] wrote, which may be empty.
pub fn mirrored(headers: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(VERSION);
    out.extend_from_slice(MIRRORED.as_bytes());
    out.extend_from_slice(b": 1\r\n");
    match headers.strip_prefix(VERSION) {
        Some(rest) => out.extend_from_slice(rest),
        None => out.extend_from_slice(b"\r\n"),
    }
}

/// Writes a header block.
#[derive(Debug)]
pub struct Block<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Block<'o> {
    /// An empty block in `out`, which is cleared.
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        out.clear();
        Self { out }
    }

    /// A block in `out`, which is cleared, with `Nats-Msg-Id: {topic}.{partition}.{offset}.{timestamp}`, by which JetStream
    /// knows a repeat. Without a timestamp its last part is `-1`, as in Kafka's own format.
    ///
    /// The ID cannot be added later, as it has to come first: nats-server up to 2.10 looks for the first place in the
    /// block where its name stands, be it within `Kafka-Nats-Msg-Id` or a value, and gives up if that does not begin a line.
    pub fn with_message_id(out: &'o mut Vec<u8>, origin: &Origin<'_>, timestamp: Option<Timestamp>) -> Self {
        let mut block = Self::new(out);
        block.name(MESSAGE_ID);
        escape(origin.topic.as_bytes(), b'%', block.out);
        let timestamp = timestamp.map_or(-1, |timestamp| timestamp.millis);
        for number in [i64::from(origin.partition), origin.offset, timestamp] {
            block.out.push(b'.');
            decimal::push_signed(block.out, number);
        }
        block.end_line();
        block
    }

    /// `Kafka-Topic`, `Kafka-Partition`, `Kafka-Offset` and, if there is one, `Kafka-Timestamp` (milliseconds since 1970)
    /// with `Kafka-Timestamp-Type`.
    pub fn origin(&mut self, origin: &Origin<'_>, timestamp: Option<Timestamp>) {
        self.name(TOPIC);
        escape(origin.topic.as_bytes(), b'%', self.out);
        self.end_line();
        self.number(PARTITION, origin.partition.into());
        self.number(OFFSET, origin.offset);
        if let Some(Timestamp { millis, kind }) = timestamp {
            self.number(TIMESTAMP, millis);
            self.name(TIMESTAMP_KIND);
            self.out.extend_from_slice(kind.as_str().as_bytes());
            self.end_line();
        }
    }

    /// A header of the record.
    pub fn append(&mut self, name: &str, value: Option<&[u8]>) {
        match value {
            Some(value) if is_plain_name(name) && !is_taken(name) && is_plain_value(value) => {
                if starts_with(name, NATS) {
                    self.start_line(&RENAMED[..KAFKA]);
                } else {
                    self.start_line("");
                }
                self.out.extend_from_slice(name.as_bytes());
                self.out.extend_from_slice(b": ");
                self.out.extend_from_slice(value);
            }
            Some(value) => {
                self.start_line(ENCODED);
                escape(name.as_bytes(), b':', self.out);
                self.out.extend_from_slice(b": ");
                escape(value, b'%', self.out);
            }
            None => {
                self.start_line(NULL);
                escape(name.as_bytes(), b':', self.out);
                self.out.extend_from_slice(b": ");
            }
        }
        self.end_line();
    }

    /// Ends the block. Without headers it stays empty, for a message without.
    pub fn finish(self) {
        if !self.out.is_empty() {
            self.out.extend_from_slice(b"\r\n");
        }
    }

    fn number(&mut self, name: &str, number: i64) {
        self.name(name);
        decimal::push_signed(self.out, number);
        self.end_line();
    }

    fn name(&mut self, name: &str) {
        self.start_line(name);
        self.out.extend_from_slice(b": ");
    }

    fn start_line(&mut self, text: &str) {
        if self.out.is_empty() {
            self.out.extend_from_slice(VERSION);
        }
        self.out.extend_from_slice(text.as_bytes());
    }

    fn end_line(&mut self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// The Kafka header that a NATS header was made from: its name, and its value or null.
///
/// `None` for headers that the forwarder adds of its own, and for what it cannot have written.
#[must_use]
pub fn decode(name: &str, value: &[u8]) -> Option<(String, Option<Vec<u8>>)> {
    if let Some(name) = name.strip_prefix(ENCODED) {
        return Some((text(name)?, Some(unescape(value)?)));
    }
    if let Some(name) = name.strip_prefix(NULL) {
        return value.is_empty().then_some((text(name)?, None));
    }
    let name = if name.starts_with("Kafka-") && starts_with(name, RENAMED) {
        &name[KAFKA..]
    } else if starts_with(name, NATS) || is_taken(name) {
        return None;
    } else {
        name
    };
    Some((name.to_owned(), Some(value.to_vec())))
}

/// Whether a header of this name would be taken for one that the forwarder wrote.
fn is_taken(name: &str) -> bool {
    // Nearly all names have neither prefix.
    if starts_with(name, FANOUT) {
        return MIRRORED.eq_ignore_ascii_case(name);
    }
    starts_with(name, &RENAMED[..KAFKA])
        && ([RENAMED, ENCODED, NULL].iter().any(|prefix| starts_with(name, prefix))
            || OWN.iter().any(|own| own.eq_ignore_ascii_case(name)))
}

fn starts_with(name: &str, prefix: &str) -> bool {
    name.as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
}

fn is_plain_value(value: &[u8]) -> bool {
    if let [first, .., last] | [first @ last] = value
        && value.iter().all(|byte| matches!(byte, b' '..=b'~'))
    {
        return *first != b' ' && *last != b' ';
    }
    std::str::from_utf8(value).is_ok_and(|text| {
        !text.contains(|char: char| char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')) && text.trim() == text
    })
}

fn text(name: &str) -> Option<String> {
    String::from_utf8(unescape(name.as_bytes())?).ok()
}

#[cfg(test)]
mod tests;
