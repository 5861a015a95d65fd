//! Who we are. Files are read at every connect, so that a rotated secret needs no restart.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forwarder_core::document::NatsAuth;
use forwarder_core::document::server::Userinfo;
use nkeys::{KeyPair, KeyPairType};
use tokio::io::AsyncReadExt;

/// Larger than any credentials file; a wrong path (a disk image, a device) must not be read to its end.
const MAX_FILE: usize = 64 << 10;

/// What is wrong with a credentials file.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// It cannot be read.
    #[error("failed to read the credentials file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds nothing but white space.
    #[error("the credentials file {path} is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// It holds something else.
    #[error("the credentials file {path} holds {problem}")]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What it holds or lacks; never its content.
        problem: &'static str,
    },
    /// The server asks for no signature, but our credentials need one.
    #[error("the server sent no nonce to sign: it is not set up for NKEYs or JWTs")]
    NoNonce,
}

/// What a CONNECT says about who we are.
#[derive(Clone, Default)]
pub struct Presented {
    /// A token.
    pub token: Option<String>,
    /// A user's name.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// A user's JWT.
    pub jwt: Option<String>,
    /// A public key.
    pub nkey: Option<String>,
    /// The signed nonce, in unpadded URL-safe base64.
    pub signature: Option<String>,
}

/// The contents of the files. [`Self::present`] signs the server's nonce later.
pub struct Secrets {
    /// All but the signature.
    presented: Presented,
    /// What signs, and the file that it comes from.
    key: Option<(PathBuf, KeyPair)>,
}

impl Secrets {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file does not hold what it should.
    pub async fn read(auth: Option<&NatsAuth>, userinfo: Option<&Userinfo>) -> Result<Self, CredentialsError> {
        let mut presented = Presented::default();
        let mut key = None;
        match auth {
            None => {}
            Some(NatsAuth::Token { file }) => presented.token = Some(read(file).await?),
            Some(NatsAuth::UserPassword {
                username,
                password_file,
            }) => {
                presented.user = Some(username.clone());
                presented.password = Some(read(password_file).await?);
            }
            Some(NatsAuth::NKey { seed_file }) => {
                let seed = read(seed_file).await?;
                let pair = parse_seed(&seed).map_err(|problem| garbled(seed_file, problem))?;
                presented.nkey = Some(pair.public_key());
                key = Some((seed_file.clone(), pair));
            }
            Some(NatsAuth::Creds { file }) => {
                let text = read(file).await?;
                let (jwt, pair) = parse_creds(&text).map_err(|problem| garbled(file, problem))?;
                presented.jwt = Some(jwt.to_owned());
                key = Some((file.clone(), pair));
            }
        }
        match userinfo {
            None => {}
            Some(Userinfo::Token(token)) => {
                (presented.user, presented.password) = (None, None);
                presented.token = Some(token.clone());
            }
            Some(Userinfo::UserPassword(user, password)) => {
                presented.token = None;
                (presented.user, presented.password) = (Some(user.clone()), Some(password.clone()));
            }
        }
        Ok(Self { presented, key })
    }

    /// With the server's nonce signed, where there is a key.
    ///
    /// # Errors
    /// When there is no nonce to sign.
    pub fn present(&self, nonce: Option<&str>) -> Result<Presented, CredentialsError> {
        let mut presented = self.presented.clone();
        if let Some((file, key)) = &self.key {
            let nonce = nonce.ok_or(CredentialsError::NoNonce)?;
            let signature = key
                .sign(nonce.as_bytes())
                .map_err(|_| garbled(file, "a key that cannot sign"))?;
            presented.signature = Some(URL_SAFE_NO_PAD.encode(signature));
        }
        Ok(presented)
    }
}

impl Presented {
    /// Reads the files and signs the server's nonce.
    ///
    /// # Errors
    /// When a file does not hold what it should, or there is no nonce to sign.
    pub async fn new(
        auth: Option<&NatsAuth>,
        userinfo: Option<&Userinfo>,
        nonce: Option<&str>,
    ) -> Result<Self, CredentialsError> {
        Secrets::read(auth, userinfo).await?.present(nonce)
    }
}

async fn read(path: &Path) -> Result<String, CredentialsError> {
    let failed = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    file.take(MAX_FILE as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(failed)?;
    if bytes.len() > MAX_FILE {
        return Err(garbled(path, "more bytes than any credentials have"));
    }
    let text = String::from_utf8(bytes).map_err(|_| garbled(path, "bytes that are not text"))?;
    match text.trim() {
        "" => Err(CredentialsError::Empty { path: path.to_owned() }),
        trimmed => Ok(trimmed.to_owned()),
    }
}

/// The key pair of a user's seed.
///
/// # Errors
/// What is there instead; never the text itself.
pub fn parse_seed(seed: &str) -> Result<KeyPair, &'static str> {
    let key = KeyPair::from_seed(seed).map_err(|_| "no valid NKEY seed (SU…)")?;
    match key.key_pair_type() {
        KeyPairType::User => Ok(key),
        _ => Err("an NKEY seed that is not a user's (SU…)"),
    }
}

/// The user JWT and the key pair of a credentials file.
///
/// # Errors
/// What is there instead; never the text itself.
pub fn parse_creds(text: &str) -> Result<(&str, KeyPair), &'static str> {
    let jwt = section(text, "NATS USER JWT").ok_or("no \"BEGIN NATS USER JWT\" section with its end")?;
    if jwt.split('.').count() != 3 {
        return Err("a malformed user JWT: it must have three parts");
    }
    let seed = section(text, "USER NKEY SEED").ok_or("no \"BEGIN USER NKEY SEED\" section with its end")?;
    Ok((jwt, parse_seed(seed)?))
}

/// What stands between the BEGIN and END lines of a section. The number of dashes differs between tools.
fn section<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let is = |line: &str, word: &str| {
        let inner = line.trim_matches(['-', ' ']).strip_prefix(word);
        line.starts_with("---") && inner.is_some_and(|rest| rest.trim() == name)
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let mut lines = lines.skip_while(|line| !is(line, "BEGIN ")).skip(1);
    let content = lines.next()?;
    lines.next().filter(|line| is(line, "END ")).map(|_| content)
}

fn garbled(path: &Path, problem: &'static str) -> CredentialsError {
    CredentialsError::Garbled {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests;
