//! What can go wrong, and how a script is told of it.

use std::fmt;
use std::io;

use serde::Serialize;

/// How the program ends. The numbers are in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// All is well.
    Fine = 0,
    /// Something failed.
    Fault = 1,
    /// The command line cannot be.
    Usage = 2,
    /// What it names is not there.
    NotFound = 3,
    /// The API server refuses it.
    Forbidden = 4,
    /// The ring has not converged, or `--timeout` was over.
    NotYet = 5,
}

/// What somebody must be allowed to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Right {
    /// The verbs.
    pub(crate) verbs: &'static str,
    /// The resource, with its API group.
    pub(crate) resource: &'static str,
    /// The namespace.
    pub(crate) namespace: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verbs,
            resource,
            namespace,
        } = self;
        write!(f, "{verbs} on {resource} in the namespace {namespace}")
    }
}

/// Why a command has not done what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// There is no way to the API server.
    #[error("failed to find the API server: {0}")]
    Connect(String),
    /// The API server refuses it.
    #[error("failed to {what}: you lack the right {right}")]
    Forbidden {
        /// What was to be done.
        what: String,
        /// What is missing.
        right: Right,
    },
    /// The API server does not know the user.
    #[error("failed to {what}: the API server does not accept your login. Log in again")]
    Unauthorized {
        /// What was to be done.
        what: String,
    },
    /// The API server, or the way to it, failed.
    #[error("failed to {what}: {why}")]
    Api {
        /// What was to be done.
        what: String,
        /// Its words.
        why: String,
    },
    /// What the command names is not there.
    #[error("{0}")]
    NotFound(String),
    /// The command line cannot be carried out.
    #[error("{0}")]
    Usage(String),
    /// The time was over.
    #[error("{0}")]
    NotYet(String),
    /// The ring's document, or what was asked of it, makes no ring.
    #[error("{0}")]
    Ring(String),
    /// A file could not be read.
    #[error("failed to read {file}: {source}")]
    File {
        /// Its name.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The output could not be written.
    #[error("failed to write the output: {0}")]
    Output(#[from] io::Error),
}

impl Fault {
    /// The exit code for it.
    pub(crate) fn code(&self) -> Code {
        match self {
            // Whoever read the output wanted no more of it.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Code::Fine,
            Self::Connect(_) | Self::Api { .. } | Self::Ring(_) | Self::File { .. } | Self::Output(_) => Code::Fault,
            Self::Forbidden { .. } | Self::Unauthorized { .. } => Code::Forbidden,
            Self::NotFound(_) => Code::NotFound,
            Self::Usage(_) => Code::Usage,
            Self::NotYet(_) => Code::NotYet,
        }
    }

    /// The same as something that is missing beside what could be read.
    pub(crate) fn gap(&self) -> Gap {
        let missing_right = match self {
            Self::Forbidden { right, .. } => Some(right.clone()),
            _ => None,
        };
        Gap {
            message: self.to_string(),
            missing_right,
        }
    }

    /// Whether it may be gone when the same is tried again.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(self, Self::Api { .. })
    }
}

/// Something that could not be read, beside much else that could.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Gap {
    /// What happened, and what to do.
    pub(crate) message: String,
    /// The right that is missing; absent: that is not the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) missing_right: Option<Right>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_the_exit_code_that_the_help_says() {
        let text = String::new;
        let right = Right {
            verbs: "list",
            resource: "pods",
            namespace: "plant".to_owned(),
        };
        let broken = |kind: io::ErrorKind| Fault::Output(io::Error::from(kind));
        for (fault, code) in [
            (Fault::Connect(text()), 1),
            (Fault::Ring(text()), 1),
            (Fault::Usage(text()), 2),
            (Fault::NotFound(text()), 3),
            (Fault::Unauthorized { what: text() }, 4),
            (Fault::Forbidden { what: text(), right }, 4),
            (Fault::NotYet(text()), 5),
            (broken(io::ErrorKind::StorageFull), 1),
            (broken(io::ErrorKind::BrokenPipe), 0),
        ] {
            assert_eq!(fault.code() as u8, code, "{fault:?}");
        }
    }

    #[test]
    fn who_lacks_a_right_is_told_which() {
        let forbidden = Fault::Forbidden {
            what: "list the pods of assets".to_owned(),
            right: Right {
                verbs: "list",
                resource: "pods",
                namespace: "plant".to_owned(),
            },
        };
        let gap = forbidden.gap();
        assert_eq!(
            gap.message,
            "failed to list the pods of assets: you lack the right list on pods in the namespace plant"
        );
        assert_eq!(gap.missing_right.unwrap().verbs, "list");
        assert_eq!(Fault::Ring("why".to_owned()).gap().missing_right, None);
    }
}
