//! Why a child could not be written, and which one.

use kube::{Resource, ResourceExt as _};
use serde::Serialize;
use serde_json::Value;
use tracing::info;

use crate::error::describe;
use crate::index::Children;
use crate::reconcile::conditions::Verdict;
use crate::reconcile::reason::Reason;

/// Why a child could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The name is taken by an object that is not ours.
    #[error(
        "{kind} {namespace}/{name} exists and does not belong to this resource: delete or rename it, or rename this resource"
    )]
    NotOurs {
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The object is still being deleted.
    #[error("{kind} {namespace}/{name} is being deleted; the operator creates it again when it is gone")]
    Deleting {
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// It is not what the decision was made upon.
    #[error("{kind} {namespace}/{name} has changed meanwhile; the operator decides again")]
    Changed {
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The API server refuses, or is not there.
    #[error("failed to {verb} {kind} {namespace}/{name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why not.
        source: Box<kube::Error>,
    },
    /// The object cannot be written as JSON.
    #[error("failed to serialize {kind} {name}")]
    Serialize {
        /// The object's kind.
        kind: String,
        /// Its name.
        name: String,
        /// Why not.
        source: serde_json::Error,
    },
}

impl ApplyError {
    /// What it means for the resource whose child it is.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::NotOurs { .. } => Verdict::stalled(Reason::NameTaken, describe(self)),
            Self::Deleting { .. } => Verdict::reconciling(Reason::ChildDeleting, describe(self)),
            Self::Changed { .. } | Self::Api { .. } | Self::Serialize { .. } => {
                Verdict::reconciling(Reason::ApplyFailed, describe(self))
            }
        }
    }

    /// Whether the API server says that something is not there: the object, or what it needs to be judged.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Api { source, .. } if matches!(source.as_ref(), kube::Error::Api(refusal) if refusal.code == 404))
    }
}

/// A child by its names.
pub(super) struct About {
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    /// Whether a watch tells of it.
    pub(super) is_watched: bool,
}

impl About {
    pub(super) fn of<K: Resource<DynamicType = ()>>(object: &K) -> Self {
        Self {
            kind: K::kind(&()).into_owned(),
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
            is_watched: Children::are_told_of(object),
        }
    }

    pub(super) fn failed(&self, verb: &'static str, error: kube::Error) -> ApplyError {
        ApplyError::Api {
            verb,
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            source: Box::new(error),
        }
    }

    pub(super) fn unserializable(&self, source: serde_json::Error) -> ApplyError {
        ApplyError::Serialize {
            kind: self.kind.clone(),
            name: self.name.clone(),
            source,
        }
    }

    /// The object as JSON.
    pub(super) fn json(&self, object: &impl Serialize) -> Result<Value, ApplyError> {
        serde_json::to_value(object).map_err(|source| self.unserializable(source))
    }

    pub(super) fn tell(&self, done: &str) {
        info!(kind = self.kind, namespace = self.namespace, name = self.name, "{done}");
    }

    pub(super) fn not_ours(&self) -> ApplyError {
        ApplyError::NotOurs {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    pub(super) fn changed(&self) -> ApplyError {
        ApplyError::Changed {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    pub(super) fn deleting(&self) -> ApplyError {
        ApplyError::Deleting {
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }
}
