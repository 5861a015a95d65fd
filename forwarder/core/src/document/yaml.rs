//! Between the document's text and its type.
//!
//! A reading ends at its first fault. All the others are found by reading again, as if those that are known were mended.

mod mend;
mod stand_in;
mod twice;

use serde::Serialize;
use serde::de::{DeserializeOwned, DeserializeSeed as _};
use serde_saphyr::{DuplicateKeyPolicy, Options, budget, options};

use self::mend::{Mended, Patch, Patches, Step, steps};
use self::stand_in::Choice;
use self::twice::Look;
use super::fault::{ConfigError, Fault, Misread, ReadErrors};
use super::{Config, Document, RingConfig};

/// No document of ours comes near it: a Kubernetes object ends at about this size.
const MAX_BYTES: usize = 1 << 20;

/// The document nests eight levels deep; a text that nests deeper is no document, and must not cost a stack.
const MAX_DEPTH: usize = 32;

/// Most faults that are told of one document.
const MAX_FAULTS: usize = 64;

/// Most bytes that are read in all to find them, and readings: a large text has fewer.
const MAX_READ: usize = 1 << 20;
const MIN_READINGS: usize = 4;
const MAX_READINGS: usize = 2 * MAX_FAULTS;

/// So many letters wrong, and a name is another one.
const MISSPELT: usize = 2;

/// What is wrong with a key.
const TWICE: &str = "appears twice";

impl Config {
    /// Reads a document.
    ///
    /// # Errors
    /// The first place at which the text is no YAML. Or every unknown field, every missing one, every one that stands there
    /// twice and every value of a wrong type; with these also what is wrong with what the other values mean. What the values of
    /// a document without such a fault mean is for [`Config::check`].
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

/// What is wrong with what a document means.
trait Meaning {
    fn faults(&self) -> Vec<Fault>;
}

macro_rules! meaning {
    ($($document:ident)*) => {
        $(impl Meaning for $document {
            fn faults(&self) -> Vec<Fault> {
                self.check().err().map(|errors| errors.faults().to_vec()).unwrap_or_default()
            }
        })*
    };
}

meaning! { Config Document RingConfig }

fn read<T: DeserializeOwned + Meaning>(text: &str) -> Result<T, ConfigError> {
    if text.len() > MAX_BYTES {
        let problem = format!("the document has {} bytes, more than {MAX_BYTES}", text.len());
        return Err(unreadable(problem));
    }
    attempt(text, None, DuplicateKeyPolicy::Error).map_err(|first| all_faults::<T>(text, first).into())
}

/// A reading that failed.
struct Failed {
    misread: Misread,
    /// The way to the value at which it failed.
    way: Vec<Step>,
    cause: Cause,
}

/// Why a reading failed, as far as it matters for reading on.
enum Cause {
    Twice,
    UnknownField,
    MissingField(&'static str),
    Other,
}

/// Reads a document once, with `mended` as if those faults were none.
fn attempt<T: DeserializeOwned>(
    text: &str,
    mended: Option<(&Patches, Choice)>,
    twice: DuplicateKeyPolicy,
) -> Result<T, Box<Failed>> {
    let (mut path, mut way) = (String::new(), Vec::new());
    serde_saphyr::with_deserializer_from_str_with_options(text, reading(twice), |deserializer| {
        let done = match mended {
            None => serde_path_to_error::deserialize(deserializer),
            Some((patches, choice)) => serde_path_to_error::deserialize(Mended {
                inner: deserializer,
                patches,
                choice,
            }),
        };
        done.map_err(|error| {
            path = error.path().to_string();
            way = steps(error.path());
            error.into_inner()
        })
    })
    .map_err(|error| Box::new(failed(error.without_snippet(), &path, way)))
}

fn failed(error: &serde_saphyr::Error, path: &str, way: Vec<Step>) -> Failed {
    let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
    let parent = path.strip_suffix('?').unwrap_or(path).trim_end_matches('.');
    let (path, problem, cause) = match error {
        // Such a key is refused before serde sees it: its place in the path is a question mark.
        serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } => {
            let path = if parent.is_empty() {
                key.clone()
            } else {
                format!("{parent}.{key}")
            };
            (path, TWICE.to_owned(), Cause::Twice)
        }
        error => {
            let cause = match error {
                serde_saphyr::Error::SerdeUnknownField { .. } => Cause::UnknownField,
                serde_saphyr::Error::SerdeMissingField { field, .. } => Cause::MissingField(field),
                _ => Cause::Other,
            };
            (parent.to_owned(), message(error, line, column), cause)
        }
    };
    let misread = misread(path, problem, line, column);
    Failed { misread, way, cause }
}

/// All that is wrong with a document of which the first fault is known: what cannot be read, and what the rest means.
fn all_faults<T: DeserializeOwned + Meaning>(text: &str, first: Box<Failed>) -> ReadErrors {
    let (mut found, mut has_keys) = (Vec::new(), false);
    let look = Look {
        found: &mut found,
        has_keys: &mut has_keys,
        path: String::new(),
    };
    let looked = serde_saphyr::with_deserializer_from_str_with_options(
        text,
        reading(DuplicateKeyPolicy::LastWins),
        |deserializer| look.deserialize(deserializer),
    );
    // What is no YAML, or no map, has nothing in it to read on with.
    if looked.is_err() || !has_keys {
        return ReadErrors::new(vec![first.misread], Vec::new(), true);
    }
    let twice = found.into_iter().take(MAX_FAULTS);
    let twice = twice.map(|it| misread(it.path, TWICE.to_owned(), it.line, it.column));
    let mut mending = Mending {
        misread: twice.collect(),
        unknown: Vec::new(),
        patches: Patches::default(),
        readings: (MAX_READ / text.len().max(1)).clamp(MIN_READINGS, MAX_READINGS),
    };
    let mut failed = first;
    let mut base: Option<T> = None;
    while mending.misread.len() < MAX_FAULTS && mending.mend(*failed) {
        match mending.read(text, Choice::Absent) {
            Some(Ok(document)) => {
                base = Some(document);
                break;
            }
            Some(Err(error)) => failed = error,
            None => break,
        }
    }
    let wrong = base.as_ref().map(|base| mending.wrong(text, base)).unwrap_or_default();
    ReadErrors::new(mending.misread, wrong, base.is_some())
}

/// The faults that are known by now, and how the document is read in spite of them.
struct Mending {
    misread: Vec<Misread>,
    /// Unknown fields behind which no missing one has been seen.
    unknown: Vec<Vec<Step>>,
    patches: Patches,
    /// How often the text may still be read.
    readings: usize,
}

impl Mending {
    /// Reads the document as mended. None: it was read often enough.
    fn read<T: DeserializeOwned>(&mut self, text: &str, choice: Choice) -> Option<Result<T, Box<Failed>>> {
        self.readings = self.readings.checked_sub(1)?;
        Some(attempt(
            text,
            Some((&self.patches, choice)),
            DuplicateKeyPolicy::FirstWins,
        ))
    }

    /// Notes a fault, unless another one is its cause, and mends it. False: it cannot be mended.
    fn mend(&mut self, failed: Failed) -> bool {
        let Failed {
            misread,
            mut way,
            cause,
        } = failed;
        match cause {
            // All of them are known by now, but for keys of a kind that is not looked for.
            Cause::Twice if self.misread.iter().any(|known| known.fault.path == misread.fault.path) => {}
            Cause::Twice => self.misread.push(misread),
            Cause::UnknownField if !way.is_empty() => {
                self.patches.mend(&way, Patch::Dropped);
                self.unknown.push(way);
                self.misread.push(misread);
            }
            Cause::MissingField(field) => {
                let parent = way.clone();
                way.push(Step::Key(field.to_owned()));
                let mended = self.patches.at(&way).and_then(|patches| patches.here);
                if mended == Some(Patch::Needed) {
                    return false;
                }
                // A value that is there and cannot be read was told already; so was a field that is only misspelt.
                if mended.is_none() && !self.is_misspelt(&parent, field) {
                    self.misread.push(misread);
                }
                self.patches.mend(&way, Patch::Needed);
            }
            Cause::UnknownField | Cause::Other => {
                let known = match self.patches.on_the_way(&way) {
                    // What stands in for a value does not do: the next larger one is left out.
                    Some(0) => return false,
                    Some(count) => {
                        way.truncate(count - 1);
                        true
                    }
                    None => self.patches.at(&way).is_some(),
                };
                if !known {
                    self.misread.push(misread);
                }
                if way.is_empty() {
                    return false;
                }
                self.patches.mend(&way, Patch::Unread);
            }
        }
        true
    }

    /// Whether a missing field stands there under a name that is not quite its own.
    fn is_misspelt(&mut self, parent: &[Step], field: &str) -> bool {
        let like = self.unknown.iter().position(|way| match way.split_last() {
            Some((Step::Key(unknown), of)) => of == parent && strsim::osa_distance(unknown, field) <= MISSPELT,
            _ => false,
        });
        like.map(|index| self.unknown.swap_remove(index)).is_some()
    }

    /// What the document means wrongly, as far as that does not lie in what stands in for the values that could not be read.
    fn wrong<T: DeserializeOwned + Meaning>(&mut self, text: &str, base: &T) -> Vec<Fault> {
        let mut wrong = base.faults();
        let ways = self.patches.ways();
        wrong.retain(|fault| {
            // Which of two values is meant is not known.
            let path = fault.path.replace("[\"", ".").replace("\"]", "");
            let is_told = self.misread.iter().any(|misread| misread.fault.path == path);
            !is_told && !ways.iter().any(|way| is_within(&fault.path, way))
        });
        for choice in [Choice::Least, Choice::Most] {
            loop {
                match self.read::<T>(text, choice) {
                    Some(Ok(other)) => {
                        let faults = other.faults();
                        wrong.retain(|fault| faults.iter().any(|other| other.path == fault.path));
                        break;
                    }
                    Some(Err(failed)) if self.patches.steady(&failed.way) => {}
                    Some(Err(_)) | None => break,
                }
            }
        }
        wrong
    }
}

/// Whether a fault's path leads to a value or into it.
fn is_within(path: &str, way: &[Step]) -> bool {
    let mut rest = path;
    for step in way {
        let next = match step {
            // Keys that may hold dots stand in brackets: see [`Faults::key`].
            Step::Key(key) => rest
                .strip_prefix(&format!("[{key:?}]"))
                .or_else(|| rest.strip_prefix('.').unwrap_or(rest).strip_prefix(key.as_str())),
            Step::Index(index) => rest.strip_prefix(&format!("[{index}]")),
        };
        let Some(next) = next else {
            return false;
        };
        rest = next;
    }
    rest.is_empty() || rest.starts_with(['.', '['])
}

fn write(document: &impl Serialize) -> Result<String, ConfigError> {
    serde_saphyr::to_string(document).map_err(|error| unreadable(error.to_string()))
}

fn reading(twice: DuplicateKeyPolicy) -> Options {
    options! {
        duplicate_keys: twice,
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

const fn misread(path: String, problem: String, line: u64, column: u64) -> Misread {
    Misread {
        fault: Fault {
            path,
            problem,
            remedy: String::new(),
        },
        line,
        column,
    }
}

/// There is one fault, and it is the whole document's.
fn unreadable(problem: String) -> ConfigError {
    ReadErrors::new(vec![misread(String::new(), problem, 0, 0)], Vec::new(), true).into()
}
