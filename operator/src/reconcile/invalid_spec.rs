//! Why a resource's spec cannot be used.

use super::conditions::Verdict;
use super::credentials::CredentialsError;
use super::reason::Reason;

/// Why a resource cannot be used as it is declared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpec {
    /// A person must change the spec: every fault by its path.
    #[error("{0}")]
    Spec(String),
    /// A Secret must come, or change.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl InvalidSpec {
    /// As the resource's conditions say it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Spec(faults) => Verdict::stalled(Reason::InvalidSpec, faults.clone()),
            Self::Credentials(error) => Verdict::reconciling(error.reason(), error.to_string()),
        }
    }
}
