//! What a server writes.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Deserializer};

use super::ServerError;

/// One operation of the server.
#[derive(Debug)]
pub enum Op {
    /// The server describes itself: at first, and whenever its cluster changes.
    Info(Box<ServerInfo>),
    /// To be answered with a PONG.
    Ping,
    /// The answer to a PING of ours: everything before that PING has been handled.
    Pong,
    /// Success in verbose mode.
    Ok,
    /// A fault, after which the connection may or may not go on.
    Error(ServerError),
    /// A message of a subscription.
    Message(Message),
}

/// A message of a subscription. All parts share one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The subject that it was published to.
    pub subject: Bytes,
    /// The subscription's id.
    pub sid: u64,
    /// Where an answer is expected.
    pub reply: Option<Bytes>,
    /// The complete `NATS/1.0` block.
    pub headers: Option<Bytes>,
    /// The body.
    pub payload: Bytes,
}

/// How the server describes itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// Its unique id: new with each start.
    pub server_id: String,
    /// Its name.
    pub server_name: String,
    /// Its version.
    pub version: String,
    /// Its protocol; 1 and above allow an INFO at any time.
    pub proto: i64,
    /// Largest size of headers and body together; `usize::MAX` where there is no limit.
    #[serde(default = "unlimited", deserialize_with = "max_payload")]
    pub max_payload: usize,
    /// Headers are understood.
    pub headers: bool,
    /// JetStream is enabled.
    pub jetstream: bool,
    /// A CONNECT without credentials is refused.
    pub auth_required: bool,
    /// Only encrypted connections are served.
    pub tls_required: bool,
    /// Encrypted connections are served as well.
    pub tls_available: bool,
    /// Lame duck mode: the server is about to go away.
    pub ldm: bool,
    /// `host:port` of the cluster's servers.
    #[serde(deserialize_with = "null_is_empty")]
    pub connect_urls: Vec<String>,
    /// What an NKEY signs.
    pub nonce: Option<String>,
    /// Our number in the server's monitoring.
    pub client_id: u64,
    /// Our address as the server sees it.
    pub client_ip: String,
    /// The name of the server's cluster.
    pub cluster: String,
}

/// What the parser accepts at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest line but INFO. An `-ERR` quotes subjects, four characters per byte.
    pub line: usize,
    /// Longest INFO: it lists a cluster's addresses.
    pub info: usize,
    /// Largest message, with headers.
    pub message: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // We subscribe to acks and echoes only. nats-server allows no `max_payload` above 64 MiB.
        Self {
            line: 64 << 10,
            info: 1 << 20,
            message: 64 << 20,
        }
    }
}

/// What the peer sent is not the NATS protocol. The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// No operation starts like this.
    #[error("not a NATS operation: {0:?}")]
    UnknownOperation(String),
    /// A line that does not end.
    #[error("a line of more than {limit} bytes: {start:?}")]
    LineTooLong {
        /// The limit.
        limit: usize,
        /// How the line starts.
        start: String,
    },
    /// A message that is larger than we allow.
    #[error("a message of {size} bytes, more than {limit}")]
    MessageTooLarge {
        /// Its announced size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// A known operation with arguments that make no sense.
    #[error("malformed {operation}: {line:?}")]
    Malformed {
        /// The operation.
        operation: &'static str,
        /// How its line starts.
        line: String,
    },
    /// An INFO whose JSON cannot be read.
    #[error("failed to read the server's INFO")]
    Info(#[source] serde_json::Error),
}

/// Cuts operations off a growing buffer.
#[derive(Debug, Default)]
pub struct Parser {
    limits: Limits,
    /// So many bytes at the buffer's start hold no line feed: a long line that comes in crumbs is searched once.
    searched: usize,
}

#[derive(Clone, Copy)]
enum Verb {
    Info,
    Ping,
    Pong,
    Ok,
    Err,
    Msg,
    Hmsg,
}

const VERBS: [(&str, Verb); 7] = [
    ("MSG", Verb::Msg),
    ("HMSG", Verb::Hmsg),
    ("PONG", Verb::Pong),
    ("PING", Verb::Ping),
    ("-ERR", Verb::Err),
    ("+OK", Verb::Ok),
    ("INFO", Verb::Info),
];

impl Parser {
    /// A parser with limits of its own.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, searched: 0 }
    }

    /// Takes the next complete operation off the buffer's start; `None`: more bytes are needed.
    /// The buffer must be the same one every time and only grow at its end in between.
    ///
    /// # Errors
    /// When the bytes are not the protocol. The buffer is then in no defined state: close the connection.
    pub fn next_op(&mut self, buffer: &mut BytesMut) -> Result<Option<Op>, ProtocolError> {
        let unsearched = buffer.get(self.searched..).unwrap_or_default();
        let Some(line_feed) = memchr::memchr(b'\n', unsearched).map(|at| at + self.searched) else {
            self.check_unfinished(buffer)?;
            self.searched = buffer.len();
            return Ok(None);
        };
        let line = line_without_end(buffer, line_feed);
        let verb_end = line
            .iter()
            .position(|byte| matches!(byte, b' ' | b'\t'))
            .unwrap_or(line.len());
        let verb = find_verb(&line[..verb_end]).ok_or_else(|| ProtocolError::UnknownOperation(start_of(line)))?;
        self.check_length(Some(verb), line)?;
        let arguments = line[verb_end..].trim_ascii();
        let body = line_feed + 1;
        let op = match verb {
            Verb::Ping => Op::Ping,
            Verb::Pong => Op::Pong,
            Verb::Ok => Op::Ok,
            Verb::Err => Op::Error(ServerError::parse(arguments)),
            Verb::Info => Op::Info(serde_json::from_slice(arguments).map_err(ProtocolError::Info)?),
            Verb::Msg | Verb::Hmsg => {
                // The line feed is found again at once: it stands where the search for it ends.
                self.searched = line_feed;
                let layout = Layout::parse(line, verb_end, matches!(verb, Verb::Hmsg))?;
                if layout.size > self.limits.message {
                    return Err(ProtocolError::MessageTooLarge {
                        size: layout.size,
                        limit: self.limits.message,
                    });
                }
                return self.take_message(buffer, body, &layout);
            }
        };
        self.searched = 0;
        buffer.advance(body);
        Ok(Some(op))
    }

    fn take_message(
        &mut self,
        buffer: &mut BytesMut,
        body: usize,
        layout: &Layout,
    ) -> Result<Option<Op>, ProtocolError> {
        // The sum fits: the size is bounded by the limit.
        let end = body + layout.size;
        match buffer.get(end..) {
            Some([b'\r', b'\n', ..]) => {}
            Some([] | [b'\r']) | None => return Ok(None),
            Some(_) => return Err(malformed("message end", &buffer[..body])),
        }
        self.searched = 0;
        let whole = buffer.split_to(end + 2).freeze();
        let payload = body + layout.headers.unwrap_or(0);
        Ok(Some(Op::Message(Message {
            subject: whole.slice(layout.subject.clone()),
            sid: layout.sid,
            reply: layout.reply.clone().map(|range| whole.slice(range)),
            headers: layout.headers.map(|_| whole.slice(body..payload)),
            payload: whole.slice(payload..end),
        })))
    }

    /// A peer that does not speak NATS is found out by its first bytes, not by a timeout.
    fn check_unfinished(&self, buffer: &[u8]) -> Result<(), ProtocolError> {
        let Some(verb_end) = buffer
            .iter()
            .take(5)
            .position(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        else {
            let start = buffer.get(..5).unwrap_or(buffer);
            let possible = |verb: &str| {
                verb.as_bytes()
                    .get(..start.len())
                    .is_some_and(|prefix| prefix.eq_ignore_ascii_case(start))
            };
            return match VERBS.iter().any(|(verb, _)| possible(verb)) {
                true => Ok(()),
                false => Err(ProtocolError::UnknownOperation(start_of(buffer))),
            };
        };
        let verb = find_verb(&buffer[..verb_end]).ok_or_else(|| ProtocolError::UnknownOperation(start_of(buffer)))?;
        self.check_length(Some(verb), buffer)
    }

    fn check_length(&self, verb: Option<Verb>, line: &[u8]) -> Result<(), ProtocolError> {
        let limit = if matches!(verb, Some(Verb::Info)) {
            self.limits.info
        } else {
            self.limits.line
        };
        match line.len() > limit {
            true => Err(ProtocolError::LineTooLong {
                limit,
                start: start_of(line),
            }),
            false => Ok(()),
        }
    }
}

/// Where the parts of a message stand in its line, and how large it is.
struct Layout {
    subject: Range<usize>,
    sid: u64,
    reply: Option<Range<usize>>,
    /// Size of the headers, for HMSG.
    headers: Option<usize>,
    /// Size of headers and body.
    size: usize,
}

impl Layout {
    fn parse(line: &[u8], verb_end: usize, has_headers: bool) -> Result<Self, ProtocolError> {
        let operation = if has_headers { "HMSG" } else { "MSG" };
        let wrong = || malformed(operation, line);
        // subject, sid, reply, header size, total size; MSG has no header size, the reply may be missing.
        let mut found: [Range<usize>; 5] = Default::default();
        let mut count = 0;
        let mut at = verb_end;
        while at < line.len() {
            let rest = &line[at..];
            let skip = rest
                .iter()
                .position(|byte| !matches!(byte, b' ' | b'\t'))
                .unwrap_or(rest.len());
            let start = at + skip;
            let rest = &line[start..];
            let length = rest
                .iter()
                .position(|byte| matches!(byte, b' ' | b'\t'))
                .unwrap_or(rest.len());
            if length > 0 {
                *found.get_mut(count).ok_or_else(wrong)? = start..start + length;
                count += 1;
            }
            at = start + length;
        }
        let numbers = if has_headers { 2 } else { 1 };
        let reply = match count.checked_sub(2 + numbers) {
            Some(0) => None,
            Some(1) => Some(found[2].clone()),
            _ => return Err(wrong()),
        };
        let number = |range: &Range<usize>| decimal(&line[range.clone()]).ok_or_else(wrong);
        let size = usize::try_from(number(&found[count - 1])?).map_err(|_| wrong())?;
        let headers = match has_headers {
            true => Some(usize::try_from(number(&found[count - 2])?).map_err(|_| wrong())?),
            false => None,
        };
        if headers.is_some_and(|headers| headers > size) {
            return Err(wrong());
        }
        Ok(Self {
            subject: found[0].clone(),
            sid: number(&found[1])?,
            reply,
            headers,
            size,
        })
    }
}

fn line_without_end(buffer: &[u8], line_feed: usize) -> &[u8] {
    let line = &buffer[..line_feed];
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn find_verb(text: &[u8]) -> Option<Verb> {
    VERBS
        .iter()
        .find(|(verb, _)| verb.as_bytes().eq_ignore_ascii_case(text))
        .map(|(_, verb)| *verb)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

fn malformed(operation: &'static str, line: &[u8]) -> ProtocolError {
    ProtocolError::Malformed {
        operation,
        line: start_of(line),
    }
}

/// Enough of a line to recognize what it is.
fn start_of(line: &[u8]) -> String {
    String::from_utf8_lossy(line.get(..64).unwrap_or(line)).into_owned()
}

/// A server that names no limit must not make every record too large.
const fn unlimited() -> usize {
    usize::MAX
}

/// The server's "no limit" is negative.
fn max_payload<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    i64::deserialize(deserializer).map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Option::<Vec<String>>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
