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
    #[inline]
    pub(super) fn peek(&self) -> u8 {
        self.bytes.get(self.at).copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn step(&mut self) {
        self.at += 1;
    }

    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == byte;
        self.at += usize::from(eaten);
        eaten
    }

    #[inline]
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.eat(byte) { Ok(()) } else { Err(Invalid::NotJson) }
    }

    #[inline]
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
    #[inline]
    pub(super) fn value(&mut self, depth: usize) -> Result<(), Invalid> {
        match self.peek() {
            b'{' | b'[' => self.container(depth),
            _ => self.scalar(),
        }
    }

    #[inline]
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

    #[inline]
    pub(super) fn string(&mut self) -> Result<Text, Invalid> {
        self.expect(b'"')?;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.skip_plain();
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(Text {
                        range: start..self.at - 1,
                        escaped,
                    });
                }
                b'\\' => {
                    escaped = true;
                    self.escape()?;
                }
                // A control character, or the end.
                _ => return Err(Invalid::NotJson),
            }
        }
    }

    /// Up to the next quote, backslash or control character, or the end; eight bytes at a time where there are as many.
    #[inline]
    fn skip_plain(&mut self) {
        while let Some(chunk) = self.bytes[self.at..].first_chunk::<8>() {
            let special = special(u64::from_le_bytes(*chunk));
            if special != 0 {
                self.at += special.trailing_zeros() as usize / 8;
                return;
            }
            self.at += 8;
        }
        while !matches!(self.peek(), 0..0x20 | b'"' | b'\\') {
            self.at += 1;
        }
    }

    fn escape(&mut self) -> Result<(), Invalid> {
        self.at += 1;
        let length = match self.peek() {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => 1,
            b'u' => match self.bytes[self.at..].get(1..5) {
                Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => 5,
                _ => return Err(Invalid::NotJson),
            },
            _ => return Err(Invalid::NotJson),
        };
        self.at += length;
        Ok(())
    }

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

/// The high bit of each byte that is a quote, a backslash or below 0x20. Bytes after the first such may be wrong.
#[inline]
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let quote = word ^ (ONES * b'"' as u64);
    let backslash = word ^ (ONES * b'\\' as u64);
    // A byte that is below the subtrahend borrows; bytes from 0x80 on are masked out.
    let below = |bytes: u64, limit: u64| bytes.wrapping_sub(ONES * limit) & !bytes;
    (below(quote, 1) | below(backslash, 1) | below(word, 0x20)) & HIGH
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
