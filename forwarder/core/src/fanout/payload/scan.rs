//! Reading JSON as RFC 8259 has it, without keeping any of it.

use std::ops::Range;

use super::MAX_DEPTH;
use crate::record::Invalid;

/// A text that is known to be UTF-8. Where it is read is said by whoever reads, and each step returns where it ends.
pub(super) struct Scanner<'v> {
    bytes: &'v [u8],
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
        Self { bytes }
    }

    /// A byte. What is past the end reads as 0, which no part of JSON takes.
    #[inline(always)]
    pub(super) fn peek(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn eat(&self, at: usize, byte: u8) -> Option<usize> {
        (self.peek(at) == byte).then_some(at + 1)
    }

    #[inline(always)]
    pub(super) fn expect(&self, at: usize, byte: u8) -> Result<usize, Invalid> {
        self.eat(at, byte).ok_or(Invalid::NotJson)
    }

    #[inline(always)]
    pub(super) fn skip_space(&self, mut at: usize) -> usize {
        while matches!(self.peek(at), b' ' | b'\n' | b'\r' | b'\t') {
            at += 1;
        }
        at
    }

    /// White space to the end.
    pub(super) fn end(&self, at: usize) -> Result<(), Invalid> {
        if self.skip_space(at) == self.bytes.len() {
            Ok(())
        } else {
            Err(Invalid::NotJson)
        }
    }

    /// Past a value, with `depth` containers around it.
    #[inline(always)]
    pub(super) fn value(&self, at: usize, depth: usize) -> Result<usize, Invalid> {
        match self.peek(at) {
            b'{' | b'[' => self.container(at, depth),
            first => self.scalar(at, first),
        }
    }

    #[inline(always)]
    fn scalar(&self, at: usize, first: u8) -> Result<usize, Invalid> {
        match first {
            b'"' => self.string(at).map(|(_, end)| end),
            b'-' | b'0'..=b'9' => self.number(at),
            b't' => self.word(at, b"true"),
            b'f' => self.word(at, b"false"),
            b'n' => self.word(at, b"null"),
            _ => Err(Invalid::NotJson),
        }
    }

    /// A loop with a bit for each open container instead of a recursion: no input can exhaust the stack.
    fn container(&self, mut at: usize, outer: usize) -> Result<usize, Invalid> {
        let mut open = Open {
            objects: [0; MAX_DEPTH / 64],
            depth: outer,
        };
        loop {
            // At a value.
            let first = self.peek(at);
            if first == b'{' || first == b'[' {
                let is_object = first == b'{';
                open.push(is_object)?;
                at = self.skip_space(at + 1);
                if self.peek(at) != if is_object { b'}' } else { b']' } {
                    if is_object {
                        (_, at) = self.name(at)?;
                    }
                    continue;
                }
                at += 1;
                open.depth -= 1;
            } else {
                at = self.scalar(at, first)?;
            }
            // Past a value.
            loop {
                if open.depth == outer {
                    return Ok(at);
                }
                at = self.skip_space(at);
                let is_object = open.is_object();
                match self.peek(at) {
                    b',' => {
                        at = self.skip_space(at + 1);
                        if is_object {
                            (_, at) = self.name(at)?;
                        }
                        break;
                    }
                    b'}' if is_object => {}
                    b']' if !is_object => {}
                    _ => return Err(Invalid::NotJson),
                }
                at += 1;
                open.depth -= 1;
            }
        }
    }

    /// A member's name and its colon; then comes the value.
    #[inline(always)]
    pub(super) fn name(&self, at: usize) -> Result<(Text, usize), Invalid> {
        let (name, at) = self.string(at)?;
        let at = self.expect(self.skip_space(at), b':')?;
        Ok((name, self.skip_space(at)))
    }

    #[inline(always)]
    fn word<const N: usize>(&self, at: usize, word: &[u8; N]) -> Result<usize, Invalid> {
        match self.bytes.get(at..).and_then(<[u8]>::first_chunk::<N>) {
            Some(found) if found == word => Ok(at + N),
            _ => Err(Invalid::NotJson),
        }
    }

    #[inline(always)]
    pub(super) fn string(&self, at: usize) -> Result<(Text, usize), Invalid> {
        let start = self.expect(at, b'"')?;
        let mut at = start;
        let mut escaped = false;
        loop {
            at = skip_plain(self.bytes, at);
            match self.peek(at) {
                b'"' => {
                    let range = start..at;
                    return Ok((Text { range, escaped }, at + 1));
                }
                b'\\' => {
                    escaped = true;
                    at += escape(&self.bytes[at..])?;
                }
                // A control character, or the end.
                _ => return Err(Invalid::NotJson),
            }
        }
    }

    #[inline(always)]
    fn number(&self, at: usize) -> Result<usize, Invalid> {
        let at = self.eat(at, b'-').unwrap_or(at);
        // No digit follows a leading zero: what follows a number is checked by whoever asked for it.
        let mut at = match self.eat(at, b'0') {
            Some(at) => at,
            None => self.digits(at)?,
        };
        if self.peek(at) == b'.' {
            at = self.digits(at + 1)?;
        }
        if matches!(self.peek(at), b'e' | b'E') {
            at += 1;
            if matches!(self.peek(at), b'+' | b'-') {
                at += 1;
            }
            at = self.digits(at)?;
        }
        Ok(at)
    }

    #[inline(always)]
    fn digits(&self, start: usize) -> Result<usize, Invalid> {
        let mut at = start;
        while self.peek(at).is_ascii_digit() {
            at += 1;
        }
        if at > start { Ok(at) } else { Err(Invalid::NotJson) }
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
