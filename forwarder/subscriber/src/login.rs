//! As whom a client logs in.

use std::fmt;
use std::path::Path;

use async_nats::Auth;
use nkeys::KeyPair;

/// How to log in. It is never shown.
#[derive(Clone)]
pub struct Login(Kind);

#[derive(Clone)]
enum Kind {
    User { user: String, password: String },
    Token(String),
    Nkey(String),
    Jwt { jwt: String, seed: String },
}

/// Why a login cannot be used. The secret itself is never repeated.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The file cannot be read.
    #[error("failed to read the credentials file {path}")]
    Read {
        /// Where it is.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no `.creds` file.
    #[error("the credentials have no JWT with a seed: use a file that `nsc generate creds` has made")]
    Credentials,
    /// It is no seed.
    #[error("the seed is no nkey seed of a user: it must begin with SU")]
    Seed,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::User { .. } => "Login::user",
            Kind::Token(_) => "Login::token",
            Kind::Nkey(_) => "Login::nkey",
            Kind::Jwt { .. } => "Login::credentials",
        })
    }
}

impl Login {
    /// By user and password.
    pub fn user(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Kind::User {
            user: user.into(),
            password: password.into(),
        })
    }

    /// By a token.
    pub fn token(token: impl Into<String>) -> Self {
        Self(Kind::Token(token.into()))
    }

    /// By the seed of an nkey, `SU…`.
    ///
    /// # Errors
    /// [`LoginError::Seed`].
    pub fn nkey(seed: &str) -> Result<Self, LoginError> {
        let seed = seed.trim().to_owned();
        key(&seed)?;
        Ok(Self(Kind::Nkey(seed)))
    }

    /// By the content of a `.creds` file.
    ///
    /// # Errors
    /// [`LoginError::Credentials`] or [`LoginError::Seed`].
    pub fn credentials(text: &str) -> Result<Self, LoginError> {
        let mut lines = text.lines().map(str::trim);
        let mut block = |begins: &str| {
            lines.find(|line| line.starts_with("-----BEGIN") && line.contains(begins))?;
            lines.find(|line| !line.is_empty()).map(str::to_owned)
        };
        let (jwt, seed) = (block("JWT"), block("SEED"));
        let (jwt, seed) = jwt.zip(seed).ok_or(LoginError::Credentials)?;
        key(&seed)?;
        Ok(Self(Kind::Jwt { jwt, seed }))
    }

    /// By a `.creds` file, which is read once.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn credentials_file(path: impl AsRef<Path>) -> Result<Self, LoginError> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|source| LoginError::Read {
            path: path.display().to_string(),
            source,
        })?;
        Self::credentials(&text)
    }

    /// What a server is told that has sent this nonce.
    pub(crate) fn present(&self, nonce: &[u8]) -> Result<Auth, LoginError> {
        let mut auth = Auth::new();
        match &self.0 {
            Kind::User { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(password.clone());
            }
            Kind::Token(token) => auth.token = Some(token.clone()),
            Kind::Nkey(seed) => {
                let key = key(seed)?;
                auth.signature = Some(key.sign(nonce).map_err(|_| LoginError::Seed)?);
                auth.nkey = Some(key.public_key());
            }
            Kind::Jwt { jwt, seed } => {
                auth.signature = Some(key(seed)?.sign(nonce).map_err(|_| LoginError::Seed)?);
                auth.jwt = Some(jwt.clone());
            }
        }
        Ok(auth)
    }
}

fn key(seed: &str) -> Result<KeyPair, LoginError> {
    let key = KeyPair::from_seed(seed).map_err(|_| LoginError::Seed)?;
    key.public_key().starts_with('U').then_some(key).ok_or(LoginError::Seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

    #[test]
    fn a_login_signs_and_is_never_shown() {
        let creds = format!(
            "-----BEGIN NATS USER JWT-----\neyJ0\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        );
        let login = Login::credentials(&creds).unwrap();
        let auth = login.present(b"nonce").unwrap();
        assert_eq!(auth.jwt.as_deref(), Some("eyJ0"));
        KeyPair::from_seed(SEED)
            .unwrap()
            .verify(b"nonce", &auth.signature.unwrap())
            .unwrap();
        let nkey = Login::nkey(SEED).unwrap();
        assert!(nkey.present(b"nonce").unwrap().nkey.unwrap().starts_with('U'));
        for login in [login, nkey, Login::token(SEED), Login::user(SEED, SEED)] {
            assert!(!format!("{login:?}").contains(SEED));
        }
    }

    #[test]
    fn what_is_no_login_is_refused_without_being_repeated() {
        for text in ["", "x", "-----BEGIN NATS USER JWT-----\neyJ0\n", SEED] {
            let error = Login::credentials(text).unwrap_err().to_string();
            assert!(text.is_empty() || text == "x" || !error.contains(text), "{error}");
        }
        let account = KeyPair::new_account().seed().unwrap();
        assert!(matches!(Login::nkey(&account), Err(LoginError::Seed)));
    }
}
