//! Random passwords.

use super::ManagedError;

/// 192 bits.
const BYTES: usize = 24;

/// A new password: letters and digits, which mean the same in a configuration and in a URL.
pub(super) fn password() -> Result<String, ManagedError> {
    let mut bytes = [0_u8; BYTES];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut bytes)
        .map_err(|_| ManagedError::Random)?;
    // A number at the beginning would be read as one.
    Ok(bytes
        .iter()
        .fold("p".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}
