//! What a client writes.

use forwarder_core::decimal;
use serde::Serialize;

/// The options of a CONNECT. `None` fields are left out.
#[derive(Default, Serialize)]
pub struct Connect<'a> {
    /// `+OK` after every operation. Left off: a PONG is the fence.
    pub verbose: bool,
    /// Extra checks of subjects by the server; their `-ERR` would not stop the message, so they prove nothing.
    pub pedantic: bool,
    /// The connection is encrypted.
    pub tls_required: bool,
    /// Whether our own messages come back to our own subscriptions: an echo can serve as a fence.
    pub echo: bool,
    /// We understand HMSG.
    pub headers: bool,
    /// A publish with a reply subject that nobody listens to is answered with status 503.
    pub no_responders: bool,
    /// 1: we understand an INFO at any time.
    pub protocol: u8,
    /// Our name in the server's monitoring.
    pub name: &'a str,
    /// The client's language.
    pub lang: &'a str,
    /// The client's version.
    pub version: &'a str,
    /// A token.
    #[serde(rename = "auth_token", skip_serializing_if = "Option::is_none")]
    pub token: Option<&'a str>,
    /// A user's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<&'a str>,
    /// A user's password.
    #[serde(rename = "pass", skip_serializing_if = "Option::is_none")]
    pub password: Option<&'a str>,
    /// The public key that `signature` is checked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nkey: Option<&'a str>,
    /// The user's JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<&'a str>,
    /// The signed nonce, in unpadded URL-safe base64.
    #[serde(rename = "sig", skip_serializing_if = "Option::is_none")]
    pub signature: Option<&'a str>,
}

/// Appends a CONNECT.
///
/// # Errors
/// When the options do not serialize, which strings and booleans always do.
pub fn encode_connect(out: &mut Vec<u8>, connect: &Connect<'_>) -> Result<(), serde_json::Error> {
    out.extend_from_slice(b"CONNECT ");
    serde_json::to_writer(&mut *out, connect)?;
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Appends a publish: HPUB when there are headers, else PUB.
///
/// `headers` is a complete `NATS/1.0` block with its empty line, or empty. `subject` and `reply` must be valid: a space
/// or line break in them would be read as the next argument or operation, so whoever builds them checks them
/// (here only debug builds do).
pub fn encode_pub(out: &mut Vec<u8>, subject: &[u8], reply: Option<&[u8]>, headers: &[u8], body: &[u8]) {
    debug_assert!(is_single_argument(subject), "the subject is not a single argument");
    debug_assert!(
        reply.is_none_or(is_single_argument),
        "the reply subject is not a single argument"
    );
    // Both sizes and the separators fit in 64 bytes.
    out.reserve(subject.len() + reply.map_or(0, <[u8]>::len) + headers.len() + body.len() + 64);
    out.extend_from_slice(if headers.is_empty() { b"PUB " } else { b"HPUB " });
    out.extend_from_slice(subject);
    out.push(b' ');
    if let Some(reply) = reply {
        out.extend_from_slice(reply);
        out.push(b' ');
    }
    if !headers.is_empty() {
        decimal::push(out, headers.len() as u64);
        out.push(b' ');
    }
    decimal::push(out, (headers.len() + body.len()) as u64);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(headers);
    out.extend_from_slice(body);
    out.extend_from_slice(b"\r\n");
}

/// Appends a subscription under the id `sid`.
pub fn encode_sub(out: &mut Vec<u8>, subject: &[u8], sid: u64) {
    debug_assert!(is_single_argument(subject), "the subject is not a single argument");
    out.extend_from_slice(b"SUB ");
    out.extend_from_slice(subject);
    out.push(b' ');
    out.extend_from_slice(sid.to_string().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a subscription under the id `sid` in a queue group: one of the group gets each message.
pub fn encode_queue_sub(out: &mut Vec<u8>, subject: &[u8], queue: &[u8], sid: u64) {
    debug_assert!(is_single_argument(subject), "the subject is not a single argument");
    debug_assert!(is_single_argument(queue), "the queue group is not a single argument");
    for part in [b"SUB ", subject, b" ", queue, b" ", sid.to_string().as_bytes(), b"\r\n"] {
        out.extend_from_slice(part);
    }
}

/// Appends a PING. Its PONG is written after the server has handled all that stood before it.
pub fn encode_ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PING\r\n");
}

/// Appends a PONG.
pub fn encode_pong(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PONG\r\n");
}

fn is_single_argument(text: &[u8]) -> bool {
    !text.is_empty() && !text.iter().any(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0))
}

#[cfg(test)]
mod tests;
