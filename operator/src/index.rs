//! What the watches report, in plain maps. So a reconcile of something unchanged needs no request.

mod children;
mod latest;
mod readiness;
mod references;
pub(crate) mod rings;
mod secrets;
mod trust;

pub use self::children::{Children, Standing, WATCHED};
pub use self::latest::Latest;
pub use self::readiness::Readiness;
pub use self::references::{Name, References};
pub use self::rings::turn::in_turn;
pub use self::rings::watch::follow as follow_rings;
pub use self::rings::{Key, Rings, map as ring_map};
pub use self::secrets::{
    ALLOW_USE, Content, SecretCache, SecretWakes, Secrets, SecretsError, Woken, follow_secrets, secret_wakes,
};

/// A resource version as a number that grows with each write of its kind; none: it is no number, and versions cannot be compared.
#[must_use]
pub fn version(object: &impl kube::Resource) -> Option<u64> {
    object.meta().resource_version.as_ref()?.parse().ok()
}
