//! What is wrong with a document, by the path of the field.

use std::fmt;

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not YAML, or does not have the fields and types of the document.
    #[error(transparent)]
    Unreadable(#[from] ReadErrors),
    /// The document is well-formed, but its values cannot work.
    #[error(transparent)]
    Wrong(#[from] ConfigErrors),
}

/// Every fault of a document that cannot be read: first what prevents the reading, by lines, then the faults of the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadErrors {
    misread: Vec<Misread>,
    wrong: Vec<Fault>,
    complete: bool,
}

impl ReadErrors {
    /// `complete`: there is nothing else.
    pub(super) fn new(mut misread: Vec<Misread>, wrong: Vec<Fault>, complete: bool) -> Self {
        misread.sort_by_key(|misread| (misread.line, misread.column));
        Self {
            misread,
            wrong,
            complete,
        }
    }

    /// What prevents the reading: at least one fault.
    #[must_use]
    pub fn misread(&self) -> &[Misread] {
        &self.misread
    }

    /// The faults of the values in the rest of the document.
    #[must_use]
    pub fn wrong(&self) -> &[Fault] {
        &self.wrong
    }
}

/// One fault per line.
impl fmt::Display for ReadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            misread,
            wrong,
            complete,
        } = self;
        for (index, misread) in misread.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{misread}")?;
        }
        for fault in wrong {
            write!(f, "\n{fault}")?;
        }
        if *complete {
            Ok(())
        } else {
            f.write_str("\nThere may be more faults: fix these and check again.")
        }
    }
}

impl std::error::Error for ReadErrors {}

/// One fault that prevents the reading of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misread {
    /// Where and what.
    pub fault: Fault,
    /// The line, from 1 on; 0: unknown.
    pub line: u64,
    /// The column, from 1 on; 0: unknown.
    pub column: u64,
}

impl fmt::Display for Misread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.fault, At(self.line, self.column))
    }
}

struct At(u64, u64);

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(line, column) = self;
        if *line == 0 {
            Ok(())
        } else {
            write!(f, " (line {line}, column {column})")
        }
    }
}

/// Every fault of a document: never empty, in the order of the document's fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Fault>);

impl ConfigErrors {
    /// Nothing, if there are no faults.
    pub(super) fn from_faults(faults: Vec<Fault>) -> Result<(), Self> {
        if faults.is_empty() { Ok(()) } else { Err(Self(faults)) }
    }

    /// The faults, of which the caller knows that there is one.
    pub(super) const fn of(faults: Vec<Fault>) -> Self {
        Self(faults)
    }

    /// The faults.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.0
    }

    /// The same faults under other names.
    pub(super) fn renamed(self, rename: impl Fn(&str) -> String) -> Self {
        Self(
            self.0
                .into_iter()
                .map(|fault| Fault {
                    path: rename(&fault.path),
                    ..fault
                })
                .collect(),
        )
    }
}

/// One fault per line.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing that is wrong, where it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field, such as `ring.clusters[2].servers[0]`, or the environment variable; empty: the document as a whole.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What to do; empty where the problem says it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, problem, remedy } = self;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        f.write_str(problem)?;
        if remedy.is_empty() {
            Ok(())
        } else {
            write!(f, "; {remedy}")
        }
    }
}

/// Collects faults below a path.
pub(super) struct Faults<'a> {
    list: &'a mut Vec<Fault>,
    path: String,
}

impl<'a> Faults<'a> {
    pub(super) fn new(list: &'a mut Vec<Fault>) -> Self {
        Self {
            list,
            path: String::new(),
        }
    }

    /// Where faults are collected now.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The same collection, one field further down.
    pub(super) fn at(&mut self, field: &str) -> Faults<'_> {
        let path = if self.path.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.path)
        };
        Faults { list: self.list, path }
    }

    /// The same collection, at one element of the list that is here.
    pub(super) fn item(&mut self, index: usize) -> Faults<'_> {
        let path = format!("{}[{index}]", self.path);
        Faults { list: self.list, path }
    }

    /// The same collection, at one key of the map that is here. Keys hold dots, so they stand in brackets.
    pub(super) fn key(&mut self, key: &str) -> Faults<'_> {
        let path = format!("{}[{key:?}]", self.path);
        Faults { list: self.list, path }
    }

    /// One more fault, here.
    pub(super) fn add(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.list.push(Fault {
            path: self.path.clone(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    /// A fault, unless the number is in the range.
    pub(super) fn range<N: PartialOrd + fmt::Display + Copy>(&mut self, value: N, least: N, most: N) {
        if value < least || value > most {
            self.add(
                format!("{value} is out of range"),
                format!("write a number from {least} to {most}"),
            );
        }
    }

    /// A fault if the text is empty or holds control characters; says whether it is sound.
    pub(super) fn text(&mut self, value: &str) -> bool {
        if value.trim().is_empty() {
            self.add("is empty", "write a value or leave the field out");
            false
        } else if value.chars().any(char::is_control) {
            self.add("holds a control character", "remove it");
            false
        } else {
            true
        }
    }

    /// A fault if the path of a file is empty or holds a control character.
    pub(super) fn file(&mut self, value: &std::path::Path) {
        self.text(&value.to_string_lossy());
    }
}
