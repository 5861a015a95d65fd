//! The subject of a message: a template filled with the record's key and the message ID.

use crate::record::Invalid;

/// The longest subject that is made.
///
/// nats-server closes a connection whose control line is over 4096 bytes. In `HPUB <subject> <reply> <n> <n>` what counts
/// is all after `HPUB `: 96 bytes are left for a reply subject of up to 77, three spaces and two sizes of 8 digits.
pub const MAX_SUBJECT_BYTES: usize = 4000;

/// Why a text is no subject template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Without the key, assets would share subjects; without the ID, so would an asset's data items.
    #[error("the subject template {template:?} lacks {missing}")]
    Missing {
        /// The template.
        template: String,
        /// `{key}` or `{id}`.
        missing: &'static str,
    },
    /// A brace that belongs to neither `{key}` nor `{id}`.
    #[error("the subject template {0:?} has a brace that belongs to neither {{key}} nor {{id}}")]
    Brace(String),
    /// A character that no subject may have, or an empty token.
    #[error("the subject template {0:?} has an empty token, a wildcard, a space or a control character")]
    Literal(String),
    /// A first token that NATS keeps for itself.
    #[error("the subject template {0:?} begins with a token that NATS reserves")]
    Reserved(String),
    /// No room is left for key and ID.
    #[error("the subject template is over {MAX_SUBJECT_BYTES} bytes long")]
    TooLong,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Key,
    Id,
}

/// A subject with places for the key and the ID, such as `{key}.{id}` or `plants.a-{key}.{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    prefix: String,
    /// Subjects that no record may have, and below which none may be: see [`Template::keep_off`].
    off: Vec<String>,
}

/// So many subjects are kept off at most: one for each ring with another beacon, of which there are few at a time.
const MAX_KEPT_OFF: usize = 16;

impl Template {
    /// Reads a template: `{key}` and `{id}`, each at least once, among literal text.
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("{key}") {
                parts.push(Part::Key);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("{id}") {
                parts.push(Part::Id);
                rest = after;
            } else {
                let (literal, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
                if literal.is_empty() || literal.contains('}') {
                    return Err(TemplateError::Brace(template.to_owned()));
                }
                parts.push(Part::Literal(literal.to_owned()));
                rest = after;
            }
        }
        for (part, missing) in [(Part::Key, "{key}"), (Part::Id, "{id}")] {
            if !parts.contains(&part) {
                return Err(TemplateError::Missing {
                    template: template.to_owned(),
                    missing,
                });
            }
        }
        let prefix = match parts.first() {
            // A token that goes on in the placeholder is no literal token.
            Some(Part::Literal(literal)) => literal.rsplit_once('.').map_or("", |(tokens, _)| tokens).to_owned(),
            _ => String::new(),
        };
        let parsed = Self {
            parts,
            prefix,
            off: Vec::new(),
        };

        // With a plain key and ID, whatever is wrong is the template's doing.
        let mut sample = Vec::new();
        parsed.fill(b"k", b"i", &mut sample);
        if !is_clean(&sample) {
            return Err(TemplateError::Literal(template.to_owned()));
        }
        if is_reserved(&sample) {
            return Err(TemplateError::Reserved(template.to_owned()));
        }
        if sample.len() > MAX_SUBJECT_BYTES {
            return Err(TemplateError::TooLong);
        }
        Ok(parsed)
    }

    /// The literal tokens before the first placeholder, without the last dot; empty if there are none.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        &self.prefix
    }

    /// Keeps records off a literal subject and all subjects below it, for as long as the template lives. Of more than 16 such subjects
    /// the first ones are given up.
    pub fn keep_off(&mut self, subject: &str) {
        if self.off.iter().any(|known| known == subject) {
            return;
        }
        if self.off.len() == MAX_KEPT_OFF {
            self.off.remove(0);
        }
        self.off.push(subject.to_owned());
    }

    /// Writes the subject of `key` and `id` to `out`, which is cleared first. Both are known to be UTF-8.
    ///
    /// Refused, as [`Invalid::BadSubject`]: in key or ID `*`, `>`, a space, a control character, an empty token, a leading
    /// or trailing dot; of the whole a first token that is `_INBOX` or `_GR_`, or starts with `$`; a subject that is
    /// [kept off](Self::keep_off); more than [`MAX_SUBJECT_BYTES`]. A dot in key or ID makes tokens.
    pub fn render(&self, key: &[u8], id: &[u8], out: &mut Vec<u8>) -> Result<(), Invalid> {
        out.clear();
        // The lengths first: an ID of megabytes is not copied to find out.
        if !is_clean(key) || !is_clean(id) || key.len() + id.len() > MAX_SUBJECT_BYTES {
            return Err(Invalid::BadSubject);
        }
        self.fill(key, id, out);
        if is_reserved(out) || out.len() > MAX_SUBJECT_BYTES {
            return Err(Invalid::BadSubject);
        }
        if self.off.iter().any(|base| is_within(base, out)) {
            return Err(Invalid::BadSubject);
        }
        Ok(())
    }

    fn fill(&self, key: &[u8], id: &[u8], out: &mut Vec<u8>) {
        for part in &self.parts {
            out.extend_from_slice(match part {
                Part::Literal(literal) => literal.as_bytes(),
                Part::Key => key,
                Part::Id => id,
            });
        }
    }
}

/// Whether the pattern takes everything below a literal prefix (`prefix.>`), as a stream must that is to store what a
/// template makes: keys and IDs have as many tokens as they have dots, and one more.
#[must_use]
pub fn covers(pattern: &str, prefix: &str) -> bool {
    let mut prefix = prefix.split('.');
    for token in pattern.split('.') {
        match (token, prefix.next()) {
            // Also below the whole prefix: `>` stands for one token or more, and there is at least one.
            (">", _) => return true,
            ("*", Some(_)) => {}
            (_, Some(literal)) if token == literal => {}
            _ => return false,
        }
    }
    // Without a `>` at its end a pattern takes subjects of one length only.
    false
}

/// Whether a subject is `base`, or below it.
#[must_use]
pub fn is_within(base: &str, subject: &[u8]) -> bool {
    subject
        .strip_prefix(base.as_bytes())
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'.')))
}

/// Whether a pattern takes a literal subject.
#[must_use]
pub fn takes(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for token in pattern.split('.') {
        match (token, tokens.next()) {
            (_, None) => return false,
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(literal)) if token == literal => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Whether every token of `text` is one, and literal: not empty, no wildcard, no space, no control character.
///
/// nats-server splits control lines at ASCII white space only; C1 controls (U+0080–U+009F) are refused as control
/// characters, other spaces of Unicode are letters to NATS and pass.
#[must_use]
pub fn is_clean(text: &[u8]) -> bool {
    let mut before = b'.';
    for &byte in text {
        match byte {
            0..=b' ' | 0x7f | b'*' | b'>' => return false,
            b'.' if before == b'.' => return false,
            // In UTF-8, C1 controls are the byte 0xC2 and their code point; after 0xC2 nothing else is below 0xA0.
            0x80..=0x9f if before == 0xc2 => return false,
            _ => before = byte,
        }
    }
    before != b'.'
}

/// Whether a subject's first token is one of NATS's own: `$JS.API.…` calls an API, `_INBOX.…` answers a request, and every server
/// denies `_GR_.…`, by which gateways carry answers, to every client.
#[must_use]
pub fn is_reserved(subject: &[u8]) -> bool {
    let first = memchr::memchr(b'.', subject).map_or(subject, |end| &subject[..end]);
    first.first() == Some(&b'$') || first == b"_INBOX" || first == b"_GR_"
}

#[cfg(test)]
mod tests;
