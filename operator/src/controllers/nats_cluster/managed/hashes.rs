//! What says in a few letters that something is another one than before.

use sha2::{Digest as _, Sha256};

/// A short hash of a text.
pub(super) fn hash(text: &str) -> String {
    let digest = Sha256::digest(text);
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
