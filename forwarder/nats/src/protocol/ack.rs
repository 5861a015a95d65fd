//! JetStream's answer to a publish.

use std::borrow::Cow;

use forwarder_core::delivery::outbox::Refusal;
use serde::Deserialize;

use crate::jetstream::{Answer, ApiError};

/// JetStream's answer to a publish. Only [`Ack::Stored`] is a confirmation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ack<'a> {
    /// The stream has the message.
    Stored {
        /// The stream's name: a subject may belong to another stream than the one that is meant.
        stream: Cow<'a, str>,
        /// The message's number; that of the earlier one for a duplicate.
        sequence: u64,
        /// The stream had a message of this id already.
        duplicate: bool,
    },
    /// The stream did not take the message.
    Refused(ApiError),
    /// No stream has this subject, or JetStream has no leader at the moment.
    NoResponders,
    /// Neither: something else answers on this subject. This is not a confirmation.
    Malformed,
}

impl Ack<'_> {
    /// What it means for the record that was not stored. `None`: it was.
    ///
    /// The numbers and texts are those of nats-server 2.15 (`errors.json`, `store.go`). What it does not know is taken for the
    /// server's configuration.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Stored { .. } => None,
            // The stream may have the record: whoever answered is not it.
            Self::NoResponders | Self::Malformed => Some(Refusal::Transient),
            Self::Refused(ApiError {
                code,
                err_code,
                description,
            }) => Some(match (*err_code, *code) {
                // Headers over 64 KiB.
                (10097, _) => Refusal::Impossible,
                // Older servers spell it so.
                (10077, _) if description.contains("message too large") || description.contains("message to large") => {
                    Refusal::Impossible
                }
                // With `discard_new_per_subject` only this subject is full.
                (10077, _) if description.contains("per subject") => Refusal::Denied,
                // Limits of the account; the same message ID is being stored; the stream is sealed.
                (10002 | 10158 | 10109, _) => Refusal::Transient,
                // Too many requests; whatever the server says of itself: a full stream, no storage, no leader.
                (_, 429 | 500..) => Refusal::Transient,
                _ => Refusal::Denied,
            }),
        }
    }
}

/// Reads JetStream's answer to a publish.
#[must_use]
pub fn parse_ack<'a>(headers: Option<&[u8]>, payload: &'a [u8]) -> Ack<'a> {
    if let Some(headers) = headers
        && payload.is_empty()
    {
        return if status(headers) == Some(b"503") {
            Ack::NoResponders
        } else {
            Ack::Malformed
        };
    }
    parse_usual(payload).unwrap_or_else(|| parse_any(payload))
}

/// The status of a header block's first line, `NATS/1.0 503 …`.
fn status(headers: &[u8]) -> Option<&[u8]> {
    let digits = headers.strip_prefix(b"NATS/1.0 ")?.trim_ascii_start();
    let end = digits
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(digits.len());
    Some(&digits[..end])
}

/// `{"stream":"S","seq":1}` and `{"stream":"S","seq":1,"duplicate": true}`, letter by letter as nats-server 2.15 writes them
/// (older ones put a space before `"seq"`): an ack comes with every record, and a general JSON reader costs several times
/// as much.
fn parse_usual(payload: &[u8]) -> Option<Ack<'_>> {
    let rest = payload.strip_prefix(br#"{"stream":""#)?;
    let name_end = memchr::memchr(b'"', rest)?;
    let (name, rest) = rest.split_at(name_end);
    if name.contains(&b'\\') {
        return None;
    }
    let rest = rest.strip_prefix(b"\",")?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest).strip_prefix(br#""seq":"#)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let (number, rest) = rest.split_at(digits);
    let duplicate = match rest {
        b"}" => false,
        br#","duplicate": true}"# => true,
        _ => return None,
    };
    stored(
        Cow::Borrowed(std::str::from_utf8(name).ok()?),
        std::str::from_utf8(number).ok()?.parse().ok()?,
        duplicate,
    )
}

fn parse_any(payload: &[u8]) -> Ack<'_> {
    #[derive(Deserialize)]
    struct PubAck<'a> {
        #[serde(borrow, default)]
        stream: Cow<'a, str>,
        #[serde(default)]
        seq: u64,
        #[serde(default)]
        duplicate: bool,
    }
    match serde_json::from_slice(payload) {
        Ok(Answer { error: Some(error), .. }) => Ack::Refused(error),
        Ok(Answer {
            error: None,
            content: PubAck { stream, seq, duplicate },
        }) => stored(stream, seq, duplicate).unwrap_or(Ack::Malformed),
        Err(_) => Ack::Malformed,
    }
}

/// JetStream counts from 1, and a stream has a name: anything else is no confirmation.
fn stored(stream: Cow<'_, str>, sequence: u64, duplicate: bool) -> Option<Ack<'_>> {
    (sequence > 0 && !stream.is_empty()).then_some(Ack::Stored {
        stream,
        sequence,
        duplicate,
    })
}

#[cfg(test)]
mod tests;
