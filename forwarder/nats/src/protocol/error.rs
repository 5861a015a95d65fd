//! `-ERR`: what the server's texts mean.
//!
//! The texts are those of nats-server 2.15 (`client.go`, `errors.go`, `auth.go`, `parser.go`); there are no codes.

use std::fmt;

/// What an `-ERR` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// We may not publish to this subject. The message was dropped, the connection stays, and later PONGs come:
    /// whoever takes a PONG as proof must look for this first.
    PublishViolation {
        /// The subject, byte for byte as it was published.
        subject: Vec<u8>,
    },
    /// We may not ask for answers on this subject. The message was dropped, the connection stays.
    ReplyViolation {
        /// The reply subject.
        reply: Vec<u8>,
    },
    /// We may not subscribe to this subject. The connection stays.
    SubscriptionViolation {
        /// The subject.
        subject: Vec<u8>,
    },
    /// A permission is missing, in words that do not tell for what. Which message was dropped is unknown.
    OtherViolation {
        /// The server's words.
        text: String,
    },
    /// Who we are was not accepted, or no longer is. The server closes the connection.
    Authorization {
        /// The server's words.
        text: String,
    },
    /// A message was larger than `max_payload`. The server closes the connection.
    MaximumPayload,
    /// The argument line was longer than the server's `max_control_line`: a subject is too long.
    /// The server closes the connection.
    MaximumControlLine,
    /// Too many connections or subscriptions. The server closes the connection, except for one subscription too many.
    Limit {
        /// The server's words.
        text: String,
    },
    /// Our PONGs were late. The server closes the connection.
    StaleConnection,
    /// The server and we do not understand each other: TLS is required, an operation is not known, the port is meant for
    /// other servers. The server closes the connection.
    Protocol {
        /// The server's words.
        text: String,
    },
    /// Words that we do not know. What they mean for our messages is unknown too.
    Other {
        /// The server's words.
        text: String,
    },
}

const AUTHORIZATION: [&str; 7] = [
    "Authorization Violation",
    "Authentication Timeout",
    "User Authentication Expired",
    "User Authentication Revoked",
    "Account Authentication Expired",
    "Account Authentication Revoked",
    "Failed Account Registration",
];

const SUBSCRIPTION_LIMIT: &str = "maximum subscriptions exceeded";

const LIMITS: [&str; 4] = [
    "maximum connections exceeded",
    "maximum account active connections exceeded",
    SUBSCRIPTION_LIMIT,
    "Connection throttling is active. Please try again later.",
];

const PROTOCOL: [&str; 9] = [
    "Secure Connection - TLS Required",
    "Unknown Protocol Operation",
    "Parser Error",
    "invalid client protocol",
    "no responders requires headers support",
    "message headers not supported",
    "attempted to connect to route port",
    "attempted to connect to leaf node port",
    "attempted to connect to gateway port",
];

impl ServerError {
    /// Reads the argument of an `-ERR`, with its single quotes or without.
    #[must_use]
    pub fn parse(argument: &[u8]) -> Self {
        // Only the outermost quotes: the text may itself end with one (a subject may hold any).
        let text = argument
            .strip_prefix(b"'")
            .and_then(|rest| rest.strip_suffix(b"'"))
            .unwrap_or(argument);
        if let Some(violation) = violation(text) {
            return violation;
        }
        let text = String::from_utf8_lossy(text).into_owned();
        let is = |known: &&str| text.eq_ignore_ascii_case(known);
        if AUTHORIZATION.iter().any(is) {
            Self::Authorization { text }
        } else if is(&"Maximum Payload Violation") {
            Self::MaximumPayload
        } else if is(&"maximum control line exceeded") {
            Self::MaximumControlLine
        } else if is(&"Stale Connection") {
            Self::StaleConnection
        } else if LIMITS.iter().any(is) {
            Self::Limit { text }
        } else if PROTOCOL.iter().any(is) {
            Self::Protocol { text }
        } else {
            Self::Other { text }
        }
    }

    /// Whether the server closes the connection after this. Words that we do not know count as such:
    /// nothing can be proved on a connection whose state we do not know.
    #[must_use]
    pub fn closes_connection(&self) -> bool {
        match self {
            Self::PublishViolation { .. }
            | Self::ReplyViolation { .. }
            | Self::SubscriptionViolation { .. }
            | Self::OtherViolation { .. } => false,
            Self::Limit { text } => !text.eq_ignore_ascii_case(SUBSCRIPTION_LIMIT),
            Self::Authorization { .. }
            | Self::MaximumPayload
            | Self::MaximumControlLine
            | Self::StaleConnection
            | Self::Protocol { .. }
            | Self::Other { .. } => true,
        }
    }

    /// Whether other credentials would help: what we presented was not accepted, or no longer is.
    #[must_use]
    pub fn is_authorization(&self) -> bool {
        matches!(self, Self::Authorization { .. })
    }

    /// A fixed label for metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::PublishViolation { .. } => "publish_violation",
            Self::ReplyViolation { .. } => "reply_violation",
            Self::SubscriptionViolation { .. } => "subscription_violation",
            Self::OtherViolation { .. } => "other_violation",
            Self::Authorization { .. } => "authorization",
            Self::MaximumPayload => "maximum_payload",
            Self::MaximumControlLine => "maximum_control_line",
            Self::Limit { .. } => "limit",
            Self::StaleConnection => "stale_connection",
            Self::Protocol { .. } => "protocol",
            Self::Other { .. } => "other",
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PublishViolation { subject } => {
                write!(f, "no permission to publish to \"{}\"", subject.escape_ascii())
            }
            Self::ReplyViolation { reply } => {
                write!(
                    f,
                    "no permission to publish with the reply subject \"{}\"",
                    reply.escape_ascii()
                )
            }
            Self::SubscriptionViolation { subject } => {
                write!(f, "no permission to subscribe to \"{}\"", subject.escape_ascii())
            }
            Self::MaximumPayload => f.write_str("Maximum Payload Violation"),
            Self::MaximumControlLine => f.write_str("maximum control line exceeded"),
            Self::StaleConnection => f.write_str("Stale Connection"),
            Self::OtherViolation { text }
            | Self::Authorization { text }
            | Self::Limit { text }
            | Self::Protocol { text }
            | Self::Other { text } => f.write_str(text),
        }
    }
}

impl std::error::Error for ServerError {}

fn violation(text: &[u8]) -> Option<ServerError> {
    let (start, rest) = text.split_at_checked("Permissions Violation".len())?;
    if !start.eq_ignore_ascii_case(b"Permissions Violation") {
        return None;
    }
    let other = || ServerError::OtherViolation {
        text: String::from_utf8_lossy(text).into_owned(),
    };
    let after = |words: &[u8]| rest.strip_prefix(words).and_then(unquote);
    let found = if let Some((subject, [])) = after(b" for Publish to ") {
        ServerError::PublishViolation { subject }
    } else if let Some((reply, [])) = after(b" for Publish with Reply of ") {
        ServerError::ReplyViolation { reply }
    } else if let Some((subject, _)) = after(b" for Subscription to ") {
        // A queue group, an id or a reason may follow.
        ServerError::SubscriptionViolation { subject }
    } else {
        other()
    };
    Some(found)
}

/// Undoes Go's `%q` of bytes: a double-quoted Go string literal at the start of `text`. Returns the bytes and what follows.
/// `None`: not such a literal.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut out = Vec::with_capacity(rest.len());
    loop {
        match rest {
            [b'"', after @ ..] => return Some((out, after)),
            [b'\\', escape, after @ ..] => {
                rest = after;
                match escape {
                    b'a' => out.push(0x07),
                    b'b' => out.push(0x08),
                    b'f' => out.push(0x0c),
                    b'n' => out.push(b'\n'),
                    b'r' => out.push(b'\r'),
                    b't' => out.push(b'\t'),
                    b'v' => out.push(0x0b),
                    b'\\' | b'"' => out.push(*escape),
                    // A byte that is no valid UTF-8, or a control character.
                    b'x' => out.push(u8::try_from(take_hex(&mut rest, 2)?).ok()?),
                    // A character that Go does not print.
                    b'u' => push_char(&mut out, take_hex(&mut rest, 4)?)?,
                    b'U' => push_char(&mut out, take_hex(&mut rest, 8)?)?,
                    _ => return None,
                }
            }
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

fn take_hex(rest: &mut &[u8], digits: usize) -> Option<u32> {
    let (hex, after) = rest.split_at_checked(digits)?;
    *rest = after;
    hex.iter().try_fold(0_u32, |value, digit| {
        Some(value << 4 | char::from(*digit).to_digit(16)?)
    })
}

fn push_char(out: &mut Vec<u8>, code: u32) -> Option<()> {
    let character = char::from_u32(code)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Some(())
}

#[cfg(test)]
mod tests;
