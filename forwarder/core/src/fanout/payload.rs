//! The payload edit: stamps in, the message ID out, every other byte as it came.
//!
//! The value is read once (after a look at whether it is UTF-8). What is to be kept is copied in long runs; no tree is built, so that `1.0`, `1e400`, members
//! of the same name and lone surrogate escapes come through as they are.
//!
//! # Choices that JSON leaves open
//! - **Depth.** Containers nest up to [`MAX_DEPTH`] levels, the record's own object being the first. Deeper values are
//!   [`Invalid::TooDeep`].
//! - **Several members `attributes`.** The last one counts, as for every reader that keeps the last of two members: it
//!   must be an object, and it gets the stamps. The ones before it are not touched.
//! - **Several stamps of one name** in it are all replaced, so that it does not matter which one a reader keeps.
//! - **No Kafka timestamp.** The two Kafka fields are left out, which includes such members that the record came with:
//!   a reader who finds `kafka_timestamp` can rely on it being Kafka's, of this record.
//! - **Zero.** A number is zero by its digits (`-0.00e7`), not by what a float makes of it (`1e-400` is an ID).
//! - **The first fault counts** in this order: UTF-8, JSON (or depth, whichever comes first), object, attributes, ID.

mod scan;

use std::ops::Range;

use self::scan::{Scanner, Text, unescape};
use crate::record::Invalid;

/// How many containers may be open at once. Far above what records need, far below what a reader's stack bears.
pub const MAX_DEPTH: usize = 512;

/// Room for `,"attributes":{…}` with all stamps.
const STAMPS_SIZE: usize = 192;

const FORWARDER_TIME: &[u8] = b"asset_forwarder_timestamp";
const KAFKA_TIME: &[u8] = b"kafka_timestamp";
const KAFKA_KIND: &[u8] = b"kafka_timestamp_type";

/// What `attributes` is to say. All texts are written as they are: no quotes, backslashes or control characters.
#[derive(Clone, Copy, Debug)]
pub struct Stamps<'a> {
    /// `asset_forwarder_timestamp`: now.
    pub forwarder: &'a str,
    /// `kafka_timestamp` and `kafka_timestamp_type`.
    pub kafka: Option<(&'a str, &'static str)>,
}

/// Reads `value` and writes the message's `body` and its `id`, both cleared first.
///
/// After an error, what the buffers hold is unspecified.
pub fn edit(value: &[u8], stamps: &Stamps<'_>, body: &mut Vec<u8>, id: &mut Vec<u8>) -> Result<(), Invalid> {
    body.clear();
    body.reserve(value.len() + STAMPS_SIZE);
    std::str::from_utf8(value).map_err(|_| Invalid::NotUtf8)?;

    let scan = Scanner::new(value);
    let at = scan.skip_space(0);
    if scan.peek(at) != b'{' {
        let at = scan.value(at, 0)?;
        scan.end(at)?;
        return Err(Invalid::NotAnObject);
    }
    let splice = Splice { value, from: 0, body };
    let mut editor = Editor {
        value,
        scan,
        splice,
        stamps,
        scratch: id,
        name: None,
        id: Id::Unfit,
        attributes: None,
    };
    let at = editor.record(at)?;
    editor.scan.end(at)?;

    let Editor {
        attributes, id: found, ..
    } = editor;
    if attributes.is_some_and(|attributes| !attributes.is_object) {
        return Err(Invalid::BadAttributes);
    }
    id.clear();
    match found {
        Id::Unfit => return Err(Invalid::NoId),
        Id::Text(text) if text.escaped => unescape(&value[text.range], id).map_err(|_| Invalid::BadSubject)?,
        Id::Text(Text { range, .. }) | Id::Number(range) => id.extend_from_slice(&value[range]),
    }
    Ok(())
}

struct Editor<'v, 'o> {
    value: &'v [u8],
    scan: Scanner<'v>,
    splice: Splice<'v, 'o>,
    stamps: &'o Stamps<'o>,
    /// Where names with escapes are unescaped.
    scratch: &'o mut Vec<u8>,
    /// How the ID member spells its name: the first spelling decides.
    name: Option<[u8; 2]>,
    id: Id,
    /// The last `attributes` so far.
    attributes: Option<Attributes>,
}

/// The value of the last ID member so far.
enum Id {
    /// None yet, or one that is no message ID.
    Unfit,
    /// A string that is not empty.
    Text(Text),
    /// A number other than zero.
    Number(Range<usize>),
}

/// Where an `attributes` was, and what became of it.
struct Attributes {
    source: Range<usize>,
    written: Range<usize>,
    is_object: bool,
}

// Positions are passed on by value: kept in the scanner, that is in memory, each step would wait for the one before to
// be stored.
impl Editor<'_, '_> {
    /// The record's own object, its brace being at `at`. Returns where it ends, like all below.
    fn record(&mut self, at: usize) -> Result<usize, Invalid> {
        let mut list = Members::new(at + 1);
        let mut at = at + 1;
        loop {
            let name = match self.next_name(&mut list, at)? {
                Next::Member(name, value) => {
                    at = value;
                    name
                }
                Next::End(end) => {
                    at = end;
                    break;
                }
            };
            at = match spelling(self.value, &name, self.scratch) {
                b"attributes" => {
                    self.restore();
                    list.kept = true;
                    self.attributes(at)?
                }
                &[i @ (b'i' | b'I'), d @ (b'd' | b'D')] if self.name.is_none_or(|name| name == [i, d]) => {
                    self.name = Some([i, d]);
                    self.cut(&mut list);
                    self.id(at)?
                }
                _ => {
                    list.kept = true;
                    self.scan.value(at, 1)?
                }
            };
        }
        if self.attributes.is_none() {
            let Splice { body, .. } = &mut self.splice;
            body.extend_from_slice(if list.kept {
                b",\"attributes\":{"
            } else {
                b"\"attributes\":{"
            });
            self.add_stamps(false, [false; 3]);
            self.splice.body.push(b'}');
        }
        self.splice.body.push(b'}');
        Ok(at)
    }

    /// The value of an ID member.
    fn id(&mut self, start: usize) -> Result<usize, Invalid> {
        let first = self.scan.peek(start);
        if first == b'"' {
            let (text, end) = self.scan.string(start)?;
            self.id = if text.range.is_empty() {
                Id::Unfit
            } else {
                Id::Text(text)
            };
            return Ok(end);
        }
        let end = self.scan.value(start, 1)?;
        let is_number = matches!(first, b'-' | b'0'..=b'9');
        self.id = if is_number && !is_zero(&self.value[start..end]) {
            Id::Number(start..end)
        } else {
            Id::Unfit
        };
        Ok(end)
    }

    /// The value of a member `attributes`.
    fn attributes(&mut self, start: usize) -> Result<usize, Invalid> {
        self.splice.keep_to(start);
        let written = self.splice.body.len();
        let is_object = self.scan.peek(start) == b'{';
        let end = if is_object {
            self.stamp(start)?
        } else {
            self.scan.value(start, 1)?
        };
        self.splice.keep_to(end);
        self.attributes = Some(Attributes {
            source: start..end,
            written: written..self.splice.body.len(),
            is_object,
        });
        Ok(end)
    }

    /// The object `attributes`, its brace being at `at`.
    fn stamp(&mut self, at: usize) -> Result<usize, Invalid> {
        let kafka = self.stamps.kafka;
        let mut done = [false; 3];
        let mut list = Members::new(at + 1);
        let mut at = at + 1;
        loop {
            let name = match self.next_name(&mut list, at)? {
                Next::Member(name, value) => {
                    at = value;
                    name
                }
                Next::End(end) => {
                    at = end;
                    break;
                }
            };
            let (which, stamp) = match spelling(self.value, &name, self.scratch) {
                FORWARDER_TIME => (0, Some(self.stamps.forwarder)),
                KAFKA_TIME => (1, kafka.map(|(time, _)| time)),
                KAFKA_KIND => (2, kafka.map(|(_, kind)| kind)),
                _ => {
                    list.kept = true;
                    at = self.scan.value(at, 2)?;
                    continue;
                }
            };
            if let Some(stamp) = stamp {
                self.splice.keep_to(at);
                self.splice.quote(stamp);
                at = self.scan.value(at, 2)?;
                self.splice.from = at;
                list.kept = true;
                done[which] = true;
            } else {
                self.cut(&mut list);
                at = self.scan.value(at, 2)?;
            }
        }
        self.add_stamps(list.kept, done);
        self.splice.body.push(b'}');
        Ok(at)
    }

    /// Adds the stamps that are not `done` to the members written so far, if any are (`follow`).
    fn add_stamps(&mut self, mut follow: bool, done: [bool; 3]) {
        let body = &mut *self.splice.body;
        if let (Some((time, kind)), [false, false, false]) = (self.stamps.kafka, done) {
            // Nearly always. Texts of a length that is known here are copied without a call.
            if follow {
                body.push(b',');
            }
            body.extend_from_slice(b"\"asset_forwarder_timestamp\":\"");
            body.extend_from_slice(self.stamps.forwarder.as_bytes());
            body.extend_from_slice(b"\",\"kafka_timestamp\":\"");
            body.extend_from_slice(time.as_bytes());
            body.extend_from_slice(b"\",\"kafka_timestamp_type\":\"");
            body.extend_from_slice(kind.as_bytes());
            body.push(b'"');
            return;
        }
        let (time, kind) = self.stamps.kafka.unzip();
        let all = [
            (FORWARDER_TIME, Some(self.stamps.forwarder)),
            (KAFKA_TIME, time),
            (KAFKA_KIND, kind),
        ];
        for ((name, stamp), done) in all.into_iter().zip(done) {
            let Some(stamp) = stamp.filter(|_| !done) else { continue };
            if follow {
                body.push(b',');
            }
            body.push(b'"');
            body.extend_from_slice(name);
            body.extend_from_slice(b"\":\"");
            body.extend_from_slice(stamp.as_bytes());
            body.push(b'"');
            follow = true;
        }
    }

    /// Takes the stamps out of an `attributes` that turns out not to be the last one.
    ///
    /// The bytes after it move; as those are the ones between two of this name, all of them together move once.
    fn restore(&mut self) {
        if let Some(Attributes { source, written, .. }) = self.attributes.take() {
            self.splice.body.splice(written, self.value[source].iter().copied());
        }
    }

    /// What comes next in an object, after its brace or a value. At its end everything up to there is written, but not
    /// the brace.
    #[inline(always)]
    fn next_name(&mut self, list: &mut Members, at: usize) -> Result<Next, Invalid> {
        let separator = self.scan.skip_space(at);
        let mut at = separator;
        let first = self.scan.peek(at);
        if list.cut {
            list.cut = false;
            // The comma after what was cut goes with it unless it now separates what is before and after.
            self.splice.from = separator + usize::from(!list.kept && first == b',');
        }
        if first == b'}' {
            self.splice.keep_to(separator);
            self.splice.from = separator + 1;
            return Ok(Next::End(separator + 1));
        }
        if list.first {
            list.first = false;
            list.separator = separator;
        } else {
            at = self.scan.expect(at, b',')?;
            at = self.scan.skip_space(at);
            list.separator = if list.kept { separator } else { at };
        }
        let (name, at) = self.scan.name(at)?;
        Ok(Next::Member(name, at))
    }

    /// Leaves out the member whose value comes next, and the comma before it if a member stands before that.
    fn cut(&mut self, list: &mut Members) {
        self.splice.keep_to(list.separator);
        list.cut = true;
    }
}

/// See [`Editor::next_name`].
enum Next {
    /// A member of this name, whose value is there.
    Member(Text, usize),
    /// The object's end is there.
    End(usize),
}

/// How far the members of an object are read.
struct Members {
    /// Where the text begins that goes when the current member is cut.
    separator: usize,
    /// No member has been read.
    first: bool,
    /// A member stands in the body, so that the next one there needs a comma.
    kept: bool,
    /// The current member is being cut.
    cut: bool,
}

impl Members {
    fn new(separator: usize) -> Self {
        Self {
            separator,
            first: true,
            kept: false,
            cut: false,
        }
    }
}

/// A copy of a text with changes.
struct Splice<'v, 'o> {
    value: &'v [u8],
    /// Up to here, everything is either in `body` or left out.
    from: usize,
    body: &'o mut Vec<u8>,
}

impl Splice<'_, '_> {
    fn keep_to(&mut self, end: usize) {
        if self.from < end {
            self.body.extend_from_slice(&self.value[self.from..end]);
            self.from = end;
        }
    }

    fn quote(&mut self, text: &str) {
        self.body.push(b'"');
        self.body.extend_from_slice(text.as_bytes());
        self.body.push(b'"');
    }
}

/// A name without its escapes, unescaped into `scratch` if need be; empty if that is no text.
fn spelling<'a>(value: &'a [u8], name: &Text, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let raw = &value[name.range.clone()];
    if !name.escaped {
        return raw;
    }
    scratch.clear();
    match unescape(raw, scratch) {
        Ok(()) => scratch,
        Err(_) => b"",
    }
}

/// Whether a JSON number is zero: no digit before the exponent is another.
fn is_zero(number: &[u8]) -> bool {
    number
        .iter()
        .take_while(|byte| !matches!(byte, b'e' | b'E'))
        .all(|byte| matches!(byte, b'-' | b'.' | b'0'))
}

#[cfg(test)]
mod tests;
