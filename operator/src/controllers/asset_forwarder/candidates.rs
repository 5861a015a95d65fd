//! The clusters that a selector chooses.

use crds::NatsCluster;
use kube::ResourceExt as _;

use crate::reconcile::credentials::{CredentialsError, NatsCredentials};

/// A cluster that the selector chooses.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The resource.
    pub cluster: NatsCluster,
    /// Whether it lets our namespace in, and with which credentials.
    pub access: Access,
}

/// Whether a cluster lets our namespace in.
#[derive(Clone, Debug)]
pub enum Access {
    /// It does not: its Secrets have not been looked at.
    Denied,
    /// It does.
    Granted(Result<NatsCredentials, CredentialsError>),
}

/// `namespace/name`.
#[must_use]
pub fn reference(cluster: &NatsCluster) -> String {
    format!("{}/{}", cluster.namespace().unwrap_or_default(), cluster.name_any())
}

/// Whether there is no cluster whose credentials could not be read.
pub(super) fn are_readable(candidates: &[Candidate]) -> bool {
    let is_readable = |access: &Access| !matches!(access, Access::Granted(Err(_)));
    candidates.iter().all(|candidate| is_readable(&candidate.access))
}
