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
mod secrets;

pub use self::files::{Files, prefix};
pub use self::kafka::{KafkaCredentials, kafka, secrets_of_kafka};
pub use self::nats::{NatsCredentials, nats, secrets_of_nats};
pub use self::secrets::{Secrets, SecretsError, referrers};

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
}

impl CredentialsError {
    /// The word for a condition.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::SecretMissing { .. } => "SecretMissing",
            Self::KeyMissing { .. } => "SecretKeyMissing",
            Self::BadContent { .. } => "SecretInvalid",
        }
    }
}

#[cfg(test)]
mod tests;
