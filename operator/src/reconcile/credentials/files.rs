//! Named files: what a projected Secret or a private folder is to hold.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::CredentialsError;

/// Bytes of one resource's credentials, at most: they are copied into a Secret that a forwarder has for all. Those of its two channels
/// fit there in any case, with members beside them.
pub(super) const MOST_OF_ONE: usize = 384 << 10;

/// File names and their content. Its debug form shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Adds all of `other`. Names of different owners differ by their prefix; of one owner the newer stays.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Keeps the files whose name passes.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    /// Names and contents, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The content of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// How many bytes their contents have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the data of a Secret.
    #[must_use]
    pub fn into_map(self) -> BTreeMap<String, Vec<u8>> {
        self.0
    }

    /// SHA-256 over names and contents, the first 16 bytes in hexadecimal: for versions and rollouts.
    #[must_use]
    pub fn hash(&self) -> String {
        let mut digest = Sha256::new();
        for (name, bytes) in &self.0 {
            // With the lengths no two sets of files make the same text.
            for part in [name.as_bytes(), bytes.as_slice()] {
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
        }
        hexadecimal(&digest.finalize()[..16])
    }

    /// Writes them into a folder, each readable by this user alone.
    ///
    /// # Errors
    /// The folder or a file cannot be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        for (name, bytes) in &self.0 {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            options.open(folder.join(name))?.write_all(bytes)?;
        }
        Ok(())
    }

    pub(super) fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.0.insert(name, bytes);
    }

    /// The same files, if one resource may have so much.
    ///
    /// # Errors
    /// [`CredentialsError::TooLarge`]
    pub(super) fn within_bound(self) -> Result<Self, CredentialsError> {
        match self.bytes() {
            bytes if bytes > MOST_OF_ONE => Err(CredentialsError::TooLarge {
                kib: bytes.div_ceil(1 << 10),
                most_kib: MOST_OF_ONE >> 10,
            }),
            _ => Ok(self),
        }
    }
}

/// From a Secret that was written before.
impl From<BTreeMap<String, Vec<u8>>> for Files {
    fn from(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self(files)
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What the names of a resource's files begin with: no two resources have the same, and it is part of a valid key of a Secret.
///
/// `kind` is a word of ours, such as `nats` or `kafka`. Names in Kubernetes have no underscore, so the parts do not run into
/// each other; one that is too long for a key is cut and told apart by its hash.
#[must_use]
pub fn prefix(kind: &str, namespace: &str, name: &str) -> String {
    // A key has at most 253 characters; this leaves enough for the file's own part.
    const MOST: usize = 200;
    let whole = format!("{kind}_{namespace}_{name}");
    if whole.len() <= MOST {
        return whole;
    }
    let hash = hexadecimal(&Sha256::digest(&whole)[..16]);
    let begin: String = whole.chars().take(MOST - hash.len() - 1).collect();
    format!("{begin}_{hash}")
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
