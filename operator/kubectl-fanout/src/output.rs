//! Puts what is shown onto standard output, and what is missing beside it onto standard error.

use std::io::{self, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use crate::fault::{Fault, Gap};
use crate::text::{clean, is_unsafe};

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// Shows something once: `lines` are for people.
    pub(crate) fn show<V: Serialize>(self, shown: &V, lines: impl FnOnce() -> Vec<String>) -> Result<(), Fault> {
        let text = match self {
            Self::Table => joined(&lines()),
            Self::Json => format!("{}\n", json(shown, true)?),
            Self::Yaml => yaml(shown)?,
        };
        write(&text)
    }

    /// Shows something again and again: a line each time, or a document.
    pub(crate) fn repeat<V: Serialize>(self, shown: &V, line: impl FnOnce() -> String) -> Result<(), Fault> {
        let text = match self {
            Self::Table => format!("{}\n", line()),
            Self::Json => format!("{}\n", json(shown, false)?),
            Self::Yaml => format!("---\n{}", yaml(shown)?),
        };
        write(&text)
    }
}

/// Tells people what is missing in what they see.
pub(crate) fn warn(gaps: &[Gap]) {
    for gap in gaps {
        note(&format!("not everything could be read: {}", gap.message));
    }
}

/// A line for people beside the output.
pub(crate) fn note(line: &str) {
    // Nobody is left to report a broken standard error to.
    drop(writeln!(io::stderr().lock(), "{}", clean(line)));
}

/// Writes text that is clean already.
pub(crate) fn write(text: &str) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// JSON whose strings hold no character that a terminal obeys: such characters are escaped, so nothing is lost.
fn json<V: Serialize>(shown: &V, is_pretty: bool) -> Result<String, Fault> {
    let text = if is_pretty {
        serde_json::to_string_pretty(shown)
    } else {
        serde_json::to_string(shown)
    };
    let text = text.map_err(io::Error::from)?;
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        // Line ends are between values: within strings they are escaped already.
        if letter != '\n' && is_unsafe(letter) {
            let mut units = [0; 2];
            for unit in letter.encode_utf16(&mut units) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(letter);
        }
    }
    Ok(safe)
}

/// YAML whose strings are cleaned.
fn yaml<V: Serialize>(shown: &V) -> Result<String, Fault> {
    let mut value = serde_json::to_value(shown).map_err(io::Error::from)?;
    clean_all(&mut value);
    serde_saphyr::to_string(&value).map_err(|error| Fault::Output(io::Error::other(error)))
}

fn clean_all(value: &mut Value) {
    match value {
        Value::String(text) => *text = clean(text),
        Value::Array(values) => values.iter_mut().for_each(clean_all),
        Value::Object(fields) => {
            let cleaned = std::mem::take(fields).into_iter().map(|(name, mut value)| {
                clean_all(&mut value);
                (clean(&name), value)
            });
            *fields = cleaned.collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_hold_nothing_that_a_terminal_obeys() {
        let shown = json!({"a\u{9b}": ["\u{1b}[2J\u{7f}\u{202e}x\n", 1, null]});
        for is_pretty in [true, false] {
            let text = json(&shown, is_pretty).unwrap();
            assert!(
                !text.chars().any(|letter| letter != '\n' && is_unsafe(letter)),
                "{text:?}"
            );
            assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), shown, "nothing is lost");
        }
        let text = yaml(&shown).unwrap();
        assert!(
            !text.chars().any(|letter| letter != '\n' && is_unsafe(letter)),
            "{text:?}"
        );
        assert!(text.contains("[2Jx"), "{text}");
    }
}
