//! Signed bodies: the signature in base64url without padding, a line feed, then the JSON that it is of.
//!
//! What is signed is [`DOMAIN`] and then the JSON's bytes, so that nothing else the key may ever sign can be taken for a body.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nkeys::KeyPair;

use crate::body::Body;

/// What is signed before the JSON.
pub const DOMAIN: &[u8] = b"fanout-beacon-1\n";

/// Longest body that is looked at, in bytes: what a NATS server takes by default.
pub const MAX_BYTES: usize = 1 << 20;

/// Why a key cannot be used. The key itself is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is no seed of a user.
    #[error("the key is no nkey seed of a user: it must begin with SU; make one with `nk -gen user`")]
    Seed,
    /// It is no public key of a user.
    #[error("the key is no public nkey of a user: it must begin with U")]
    Public,
}

/// Why a body is not believed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Over [`MAX_BYTES`].
    #[error("the body has {0} bytes, more than {MAX_BYTES}")]
    TooLong(usize),
    /// There is no signature in front.
    #[error("the body has no signature")]
    Unsigned,
    /// Somebody else has signed it, or it was changed.
    #[error("the signature is not of the expected key")]
    Forged,
    /// It is signed, and cannot be read: a later version may say what this one does not know.
    #[error("the signed body cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// It is signed, and what it says can never be.
    #[error("the signed body is unsound: {0}")]
    Unsound(&'static str),
}

/// Signs bodies.
pub struct Signer(KeyPair);

/// The seed is never shown.
impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signer").field(&self.public_key()).finish()
    }
}

impl Signer {
    /// By the seed of a user, `SU…`; blanks around it are passed over.
    ///
    /// # Errors
    /// [`KeyError::Seed`].
    pub fn from_seed(seed: &str) -> Result<Self, KeyError> {
        let seed = seed.trim();
        let pair = KeyPair::from_seed(seed).map_err(|_| KeyError::Seed)?;
        pair.public_key()
            .starts_with('U')
            .then_some(Self(pair))
            .ok_or(KeyError::Seed)
    }

    /// The public key, `U…`: what subscribers pin.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.0.public_key()
    }

    /// The body as it is sent.
    ///
    /// # Errors
    /// [`OpenError::Unreadable`] where it cannot be written as JSON, and [`KeyError`]'s fault as [`OpenError::Forged`]: neither happens
    /// with a seed.
    pub fn sign(&self, body: &Body) -> Result<Vec<u8>, OpenError> {
        let json = serde_json::to_vec(body).map_err(OpenError::Unreadable)?;
        let signature = self.0.sign(&tbs(&json)).map_err(|_| OpenError::Forged)?;
        let mut signed = URL_SAFE_NO_PAD.encode(signature).into_bytes();
        signed.push(b'\n');
        signed.extend_from_slice(&json);
        Ok(signed)
    }
}

/// Opens bodies that one key has signed.
pub struct Verifier(KeyPair);

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Verifier").field(&self.0.public_key()).finish()
    }
}

impl Verifier {
    /// Of a public key, `U…`; blanks around it are passed over.
    ///
    /// # Errors
    /// [`KeyError::Public`].
    pub fn of(public_key: &str) -> Result<Self, KeyError> {
        let public_key = public_key.trim();
        if !public_key.starts_with('U') {
            return Err(KeyError::Public);
        }
        KeyPair::from_public_key(public_key)
            .map(Self)
            .map_err(|_| KeyError::Public)
    }

    /// The body, where the key has signed it.
    ///
    /// # Errors
    /// [`OpenError`]: it is to be passed over.
    pub fn open(&self, signed: &[u8]) -> Result<Body, OpenError> {
        if signed.len() > MAX_BYTES {
            return Err(OpenError::TooLong(signed.len()));
        }
        let end = signed
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or(OpenError::Unsigned)?;
        let (signature, rest) = signed.split_at(end);
        let json = rest.get(1..).unwrap_or_default();
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| OpenError::Unsigned)?;
        self.0.verify(&tbs(json), &signature).map_err(|_| OpenError::Forged)?;
        let body: Body = serde_json::from_slice(json).map_err(OpenError::Unreadable)?;
        body.check().map_err(OpenError::Unsound)?;
        Ok(body)
    }
}

/// What the signature is of.
fn tbs(json: &[u8]) -> Vec<u8> {
    [DOMAIN, json].concat()
}

#[cfg(test)]
mod tests;
