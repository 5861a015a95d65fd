//! Reading JSON as RFC 8259 has it, without keeping any of it.

use std::ops::Range;

use super::MAX_DEPTH;
use crate::record::Invalid;

/// A position in a text that is known to be UTF-8.
pub(super) struct Scanner<'v> {
    bytes: &'v [u8],
    at: usize,
}

/// A string without its quotes.
pub(super) struct Text {
    /// Where it is.
    pub(super) range: Range<usize>,
    /// Whether it holds escapes.
    pub(super) escaped: bool,
}

impl<'v> Scanner<'v> {
    pub(super) fn new(bytes: &'v [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next byte. The end of the text reads as 0, which no part of JSON takes.
    #[inline(always)]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline(always)]
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    #[inline(always)]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == byte;
        self.at += usize::from(eaten);
        eaten
    }

    #[inline(always)]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.eat(byte) { Ok(()) } else { Err(Invalid::NotJson) }
    }

    #[inline(always)]
    pub(super) fn skip_space(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    /// White space to the end.
    pub(super) fn end(&mut self) -> Result<(), Invalid> {
        self.skip_space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Invalid::NotJson)
        }
    }

    /// Past a value, with `depth` containers around it.
    #[inline(always)]
    pub(super) fn value(&mut self, depth: usize) -> Result<(), Invalid> {
        match self.peek() {
            b'{' | b'[' => self.container(depth),
            _ => self.scalar(),
        }
    }

    #[inline(always)]
    fn scalar(&mut self) -> Result<(), Invalid> {
        match self.peek() {
            b'"' => self.string().map(|_| ()),
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => Err(Invalid::NotJson),
        }
    }

    /// A loop with a bit for each open container instead of a recursion: no input can exhaust the stack.
    fn container(&mut self, outer: usize) -> Result<(), Invalid> {
        let mut open = Open {
            objects: [0; MAX_DEPTH / 64],
            depth: outer,
        };
        loop {
            // At a value.
            let first = self.peek();
            if first == b'{' || first == b'[' {
                let is_object = first == b'{';
                open.push(is_object)?;
                self.at += 1;
                self.skip_space();
                if self.peek() != if is_object { b'}' } else { b']' } {
                    if is_object {
                        self.name()?;
                    }
                    continue;
                }
                self.at += 1;
                open.depth -= 1;
            } else {
                self.scalar()?;
            }
            // Past a value.
            loop {
                if open.depth == outer {
                    return Ok(());
                }
                self.skip_space();
                let is_object = open.is_object();
                match self.peek() {
                    b',' => {
                        self.at += 1;
                        self.skip_space();
                        if is_object {
                            self.name()?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return Err(Invalid::NotJson),
                }
                self.at += 1;
                open.depth -= 1;
            }
        }
    }

    /// A member's name and its colon, up to the value.
    #[inline(always)]
    fn name(&mut self) -> Result<(), Invalid> {
        self.string()?;
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Ok(())
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Invalid> {
        if self.bytes[self.at..].starts_with(word) {
            self.at += word.len();
            Ok(())
        } else {
            Err(Invalid::NotJson)
        }
    }

    /// Past a string. Positions are in local variables, that is in registers, until the end: through memory, every
    /// step would wait for the one before.
    #[inline(always)]
    pub(super) fn string(&mut self) -> Result<Text, Invalid> {
        let bytes = self.bytes;
        if self.peek() != b'"' {
            return Err(Invalid::NotJson);
        }
        let start = self.at + 1;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = skip_plain(bytes, at);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Text {
                        range: start..at,
                        escaped,
                    });
                }
                Some(b'\\') => {
                    escaped = true;
                    at += escape(&bytes[at..])?;
                }
                // A control character, or the end.
                _ => return Err(Invalid::NotJson),
            }
        }
    }

    #[inline(always)]
    fn number(&mut self) -> Result<(), Invalid> {
        self.eat(b'-');
        // No digit follows a leading zero: what follows a number is checked by whoever asked for it.
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    #[inline(always)]
    fn digits(&mut self) -> Result<(), Invalid> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(Invalid::NotJson) }
    }
}

/// The open containers: one bit each, set for an object.
struct Open {
    objects: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Open {
    fn push(&mut self, is_object: bool) -> Result<(), Invalid> {
        let word = self.objects.get_mut(self.depth / 64).ok_or(Invalid::TooDeep)?;
        let bit = 1 << (self.depth % 64);
        if is_object {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        self.depth += 1;
        Ok(())
    }

    fn is_object(&self) -> bool {
        let last = self.depth - 1;
        self.objects[last / 64] >> (last % 64) & 1 == 1
    }
}

/// Where the next quote, backslash or control character is from `at` on, or the end.
#[inline(always)]
fn skip_plain(bytes: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let special = special(u64::from_le_bytes(*chunk));
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes
        .get(at)
        .is_some_and(|byte| !matches!(byte, 0..0x20 | b'"' | b'\\'))
    {
        at += 1;
    }
    at
}

/// The length of the escape at the start of `bytes`.
fn escape(bytes: &[u8]) -> Result<usize, Invalid> {
    match bytes.get(1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(2),
        Some(b'u') => match bytes.get(2..6) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => Ok(6),
            _ => Err(Invalid::NotJson),
        },
        _ => Err(Invalid::NotJson),
    }
}

/// The high bit of each byte that is a quote, a backslash or below 0x20. Bytes after the first such may be wrong.
#[inline(always)]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    // Flipping this bit puts the quote, and nothing else, next to the control characters: all are below 0x21.
    let low = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    // What is below the subtrahend borrows; bytes from 0x80 on may seem to and are masked out.
    (low | backslash) & !word & HIGH
}

/// An escape of half a surrogate pair without the other half: there is no such text.
#[derive(Debug)]
pub(super) struct LoneSurrogate;

/// Appends a string's text to `out`. Its escapes are known to be well-formed.
pub(super) fn unescape(mut raw: &[u8], out: &mut Vec<u8>) -> Result<(), LoneSurrogate> {
    while let Some(at) = memchr::memchr(b'\\', raw) {
        out.extend_from_slice(&raw[..at]);
        let escape = raw.get(at + 1).copied().unwrap_or(b'\\');
        let plain = match escape {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let first = unit(&raw[at..]).ok_or(LoneSurrogate)?;
                let second = unit(&raw[at + 6..]);
                let pair = [first, second.unwrap_or(0)];
                let paired = (0xd800..0xdc00).contains(&first);
                let decoded = char::decode_utf16(pair)
                    .next()
                    .and_then(Result::ok)
                    .ok_or(LoneSurrogate)?;
                out.extend_from_slice(decoded.encode_utf8(&mut [0; 4]).as_bytes());
                raw = &raw[at + if paired { 12 } else { 6 }..];
                continue;
            }
            other => other,
        };
        out.push(plain);
        raw = &raw[at + 2..];
    }
    out.extend_from_slice(raw);
    Ok(())
}

/// The UTF-16 unit of a `\uXXXX` at the start of `raw`.
fn unit(raw: &[u8]) -> Option<u16> {
    let digits = raw.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
