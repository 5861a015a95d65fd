//! What a resource's Secrets hold, as named files and as the forwarder's configuration that names them.
//!
//! ```text
//! secrets_of_… ─▶ Secrets::read ─▶ nats / kafka ─▶ configuration + Files ─▶ a projected Secret, or a private folder
//! (names)         (GET, no cache)  (pure)
//! ```
//! One Secret per forwarder holds the files of all its clusters, so a file's name begins with its owner's: [`prefix`].

mod content;
mod files;
mod kafka;
mod nats;
mod room;
mod value;

use super::reason::Reason;

pub use self::files::{Files, prefix};
pub use self::kafka::{KafkaCredentials, kafka, secrets_of_kafka};
pub use self::nats::{ClusterAccess, NatsCredentials, nats, secrets_of_nats};
pub use self::room::Room;
pub use crate::index::{ALLOW_USE, Secrets, SecretsError};

/// Why credentials cannot be used. Never holds what a Secret holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// It may be on its way.
    #[error("there is no Secret {namespace}/{name}; create it, or correct the reference")]
    SecretMissing {
        /// The namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
    },
    /// The operator was told to use only Secrets that say so.
    #[error(
        "the operator may not use the Secret {namespace}/{name}: give it the label {ALLOW_USE}: \"true\", which the operator is \
         set to require"
    )]
    NotOptedIn {
        /// The namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
    },
    /// The Secret has other keys.
    #[error("the Secret {namespace}/{name} has no key {key:?}; add it, or name another key in the reference")]
    KeyMissing {
        /// The namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The key that is looked for.
        key: String,
    },
    /// The key's value is something else than what it is referred to as.
    #[error("the key {key:?} of the Secret {namespace}/{name} {problem}")]
    BadContent {
        /// The namespace.
        namespace: String,
        /// The Secret's name.
        name: String,
        /// The key.
        key: String,
        /// What it holds or lacks, and what to do: never its content.
        problem: &'static str,
    },
    /// The values of one resource are too large together.
    #[error(
        "its credentials have {kib} KiB together, but the limit is {most_kib} KiB; store only the certificates and credentials \
         that are needed"
    )]
    TooLarge {
        /// What they have.
        kib: usize,
        /// What they may have.
        most_kib: usize,
    },
    /// The forwarder's Secret of all credentials has no room for these.
    #[error(
        "its credentials have {kib} KiB. With them the forwarder's Secret of all credentials would have {all_kib} KiB, but the \
         limit is {most_kib} KiB. Shorten the certificates of one of its clusters, or give some of its clusters to another \
         forwarder"
    )]
    NoRoom {
        /// What they have.
        kib: usize,
        /// What the Secret would have.
        all_kib: usize,
        /// What it may have.
        most_kib: usize,
    },
}

impl CredentialsError {
    /// The word for a condition.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::SecretMissing { .. } => Reason::SecretMissing,
            Self::NotOptedIn { .. } => Reason::SecretNotOptedIn,
            Self::KeyMissing { .. } => Reason::SecretKeyMissing,
            Self::BadContent { .. } | Self::TooLarge { .. } | Self::NoRoom { .. } => Reason::SecretInvalid,
        }
    }
}

#[cfg(test)]
mod tests;
