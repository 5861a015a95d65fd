//! How subscribers learn of the ring: the key that signs what pods announce, and what the ring's document says of it. Pure, but for new keys.
//!
//! Subscribers pin the public key. So the operator makes a key once, and makes another one only where there is none that signs anything.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crds::asset_forwarder::{BeaconStatus, Ring};
use forwarder_beacon::{Signer, Subjects};
use forwarder_core::document;
use k8s_openapi::api::core::v1::Secret;
use nkeys::KeyPair;

use super::names::{self, Identity};
use crate::reconcile::credentials::Files;

/// The key that signs what pods announce.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    seed: String,
    public: String,
}

/// The seed is never shown.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Key").field(&self.public).finish()
    }
}

impl Key {
    /// The key that a Secret of ours holds; none: there is no such Secret, or what it holds is no seed of a user.
    #[must_use]
    pub fn read(secret: Option<&Secret>) -> Option<Self> {
        let seed = secret?.data.as_ref()?.get(names::BEACON_SEED)?;
        let seed = std::str::from_utf8(&seed.0).ok()?;
        let public = Signer::from_seed(seed).ok()?.public_key();
        Some(Self {
            seed: seed.to_owned(),
            public,
        })
    }

    /// A new key, drawn at random.
    ///
    /// # Errors
    /// The key has no seed, which never happens with a new one.
    pub fn make() -> Result<Self, nkeys::error::Error> {
        let pair = KeyPair::new_user();
        Ok(Self {
            seed: pair.seed()?,
            public: pair.public_key(),
        })
    }

    /// The nkey seed, `SU…`.
    #[must_use]
    pub fn seed(&self) -> &str {
        &self.seed
    }

    /// The public nkey, `U…`.
    #[must_use]
    pub fn public(&self) -> &str {
        &self.public
    }
}

/// A beacon that is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beacon {
    /// Its key.
    pub key: Key,
    /// What the ring's document says of it, as far as its readers know that field.
    pub document: document::Beacon,
}

/// Whether the ring is to be announced.
#[must_use]
pub fn is_declared(ring: &Ring) -> bool {
    ring.beacon.as_ref().is_some_and(|beacon| beacon.enabled)
}

impl Beacon {
    /// As declared; none: nothing is to be announced.
    #[must_use]
    pub fn of(identity: &Identity, ring: &Ring, key: Option<&Key>) -> Option<Self> {
        let declared = ring.beacon.as_ref().filter(|_| is_declared(ring))?;
        let default = || Subjects::default_base(&identity.namespace, &identity.name);
        let grace = ring.subscriber_grace_seconds.unwrap_or_default();
        Some(Self {
            key: key?.clone(),
            document: document::Beacon {
                subject: declared.subject.clone().unwrap_or_else(default),
                ring: identity.uid.clone(),
                key_file: Path::new(names::CREDENTIALS_FOLDER).join(names::BEACON_FILE),
                grace_ms: u64::from(grace).saturating_mul(1_000),
            },
        })
    }

    /// The file that pods sign with. It is there also while the ring does not name it yet: credentials come first.
    #[must_use]
    pub fn files(&self) -> Files {
        let seed = self.key.seed().as_bytes().to_owned();
        Files::from(BTreeMap::from([(names::BEACON_FILE.to_owned(), seed)]))
    }

    /// What subscribers are given.
    #[must_use]
    pub fn status(&self) -> BeaconStatus {
        BeaconStatus {
            public_key: self.key.public().to_owned(),
            ring: self.document.ring.clone(),
            subject: self.document.subject.clone(),
        }
    }
}
