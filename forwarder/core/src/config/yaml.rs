//! Between the document's text and its type.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_saphyr::{Options, budget, options};

use super::fault::{ConfigError, Fault};
use super::{Config, Document, RingConfig};

/// No document of ours comes near it: a Kubernetes object ends at about this size.
const MAX_BYTES: usize = 1 << 20;

/// The document nests eight levels deep; a text that nests deeper is no document, and must not cost a stack.
const MAX_DEPTH: usize = 32;

impl Config {
    /// Reads a document.
    ///
    /// # Errors
    /// The first place at which the text is no YAML, names an unknown field, names one twice, or has a value of a
    /// wrong type. What the values mean is for [`Config::check`].
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        read(text)
    }

    /// Writes a document, such that [`Config::from_yaml`] reads the same one.
    ///
    /// # Errors
    /// A path of a file that is not UTF-8 cannot be written.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        write(self)
    }
}

impl Document {
    /// Reads a document that may be without its ring.
    ///
    /// # Errors
    /// Those of [`Config::from_yaml`].
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        read(text)
    }

    /// Writes a document, such that [`Document::from_yaml`] reads the same one.
    ///
    /// # Errors
    /// A path of a file that is not UTF-8 cannot be written.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        write(self)
    }
}

impl RingConfig {
    /// Reads a ring's own document, which has the ring's fields at its top level.
    ///
    /// # Errors
    /// Those of [`Config::from_yaml`].
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        read(text)
    }

    /// Writes a ring's own document, such that [`RingConfig::from_yaml`] reads the same ring.
    ///
    /// # Errors
    /// A path of a file that is not UTF-8 cannot be written.
    pub fn to_yaml(&self) -> Result<String, ConfigError> {
        write(self)
    }
}

fn read<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    if text.len() > MAX_BYTES {
        let problem = format!("the document has {} bytes, more than {MAX_BYTES}", text.len());
        return Err(unreadable(String::new(), problem, 0, 0));
    }
    let mut path = String::new();
    serde_saphyr::with_deserializer_from_str_with_options(text, reading(), |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string();
            error.into_inner()
        })
    })
    .map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        let parent = path.strip_suffix('?').unwrap_or(&path).trim_end_matches('.');
        let (path, problem) = match error {
            // Such a key is refused before serde sees it: its place in the path is a question mark.
            serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
                let path = if parent.is_empty() {
                    key.clone()
                } else {
                    format!("{parent}.{key}")
                };
                (path, "stands there twice".to_owned())
            }
            error => (parent.to_owned(), message(error, line, column)),
        };
        unreadable(path, problem, line, column)
    })
}

fn write(document: &impl Serialize) -> Result<String, ConfigError> {
    serde_saphyr::to_string(document).map_err(|error| unreadable(String::new(), error.to_string(), 0, 0))
}

fn reading() -> Options {
    options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            max_nodes: 100_000,
            max_documents: 1,
        },
        with_snippet: false,
        strict_booleans: true,
    }
}

/// The parser's sentence without the position, which stands at the end of ours.
fn message(error: &serde_saphyr::Error, line: u64, column: u64) -> String {
    let text = error.to_string();
    for position in [
        format!(" at line {line}, column {column}"),
        format!("line {line} column {column}: "),
    ] {
        if let Some(at) = text.find(&position) {
            return format!("{}{}", &text[..at], &text[at + position.len()..]);
        }
    }
    text
}

const fn unreadable(path: String, problem: String, line: u64, column: u64) -> ConfigError {
    ConfigError::Unreadable {
        fault: Fault {
            path,
            problem,
            remedy: String::new(),
        },
        line,
        column,
    }
}
