//! The credentials of a `NatsCluster`.

use std::collections::BTreeSet;
use std::path::Path;

use crds::nats_cluster::{NatsAuth, NatsAuthSecretRef, NatsAuthType};
use crds::reference::{SECRET_KEYS, Tls};
use forwarder_core::document::{self, JetStreamApi};

use super::{CredentialsError, Files, Secrets, content};

/// How clients reach a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterAccess {
    /// The servers, as the ring's document has them.
    pub servers: Vec<String>,
    /// How to authenticate.
    pub auth: Option<NatsAuth>,
    /// TLS.
    pub tls: Option<Tls>,
    /// Whether announced servers are used; none: nobody has said.
    pub discover_servers: Option<bool>,
    /// Where JetStream's API is; none: at its usual place.
    pub jet_stream: Option<JetStreamApi>,
    /// What answers' subjects begin with; none: as usual.
    pub inbox_prefix: Option<String>,
    /// Where subscribers reach it; empty: at [`Self::servers`].
    pub client_servers: Vec<String>,
}

/// How to authenticate to a NATS cluster, and the files for it.
#[derive(Clone, Debug, PartialEq)]
pub struct NatsCredentials {
    /// How to authenticate.
    pub auth: Option<document::NatsAuth>,
    /// TLS.
    pub tls: Option<document::Tls>,
    /// The files that the two name.
    pub files: Files,
}

/// The Secrets that a cluster refers to, all in its own namespace.
#[must_use]
pub fn secrets_of_nats(access: &ClusterAccess) -> BTreeSet<String> {
    let auth = access.auth.iter().map(|auth| auth.secret_ref.name.clone());
    auth.chain(secrets_of_tls(access.tls.as_ref())).collect()
}

/// Resolves what a cluster refers to. The files' names begin with `prefix`, and the configuration names them in `folder`.
///
/// # Errors
/// The first that is missing or holds something else, or all that are too large together.
pub fn nats(
    access: &ClusterAccess,
    secrets: &Secrets,
    prefix: &str,
    folder: &Path,
) -> Result<NatsCredentials, CredentialsError> {
    let mut files = Files::default();
    let auth = match &access.auth {
        None => None,
        Some(auth) => Some(resolve_auth(auth, secrets, prefix, folder, &mut files)?),
    };
    let tls = match &access.tls {
        None => None,
        Some(tls) => Some(resolve_tls(tls, secrets, prefix, folder, &mut files)?),
    };
    let files = files.within_bound()?;
    Ok(NatsCredentials { auth, tls, files })
}

fn resolve_auth(
    auth: &NatsAuth,
    secrets: &Secrets,
    prefix: &str,
    folder: &Path,
    files: &mut Files,
) -> Result<document::NatsAuth, CredentialsError> {
    let NatsAuthSecretRef {
        name,
        key,
        username_key,
    } = &auth.secret_ref;
    let (default, check): (_, content::Check) = match auth.type_ {
        NatsAuthType::Creds => ("user.creds", content::creds),
        NatsAuthType::NKey => ("seed", content::seed),
        NatsAuthType::Token => ("token", content::text),
        NatsAuthType::UserPassword => ("password", content::text),
    };
    let key = key.as_deref().unwrap_or(default);
    let value = secrets.value(name, key, check)?;
    let file = format!("{prefix}_auth");
    let path = folder.join(&file);
    files.add(file, value.to_owned());
    Ok(match auth.type_ {
        NatsAuthType::Creds => document::NatsAuth::Creds { file: path },
        NatsAuthType::NKey => document::NatsAuth::NKey { seed_file: path },
        NatsAuthType::Token => document::NatsAuth::Token { file: path },
        NatsAuthType::UserPassword => document::NatsAuth::UserPassword {
            username: username(secrets, name, username_key.as_deref(), key)?,
            password_file: path,
        },
    })
}

/// A user's name stands in the configuration itself, which more people may read than the Secret. So it is not taken from a key that is for
/// what must stay secret: `password_key`, and those of [`SECRET_KEYS`].
pub(super) fn username(
    secrets: &Secrets,
    name: &str,
    key: Option<&str>,
    password_key: &str,
) -> Result<String, CredentialsError> {
    let key = key.unwrap_or("username");
    let is_secret = key == password_key || SECRET_KEYS.contains(&key);
    let check = |value: &[u8]| {
        if is_secret {
            return Err(
                "is a key of secret data, and the user name appears in a ConfigMap; name another key in usernameKey",
            );
        }
        content::text(value)
    };
    let value = secrets.value(name, key, check)?;
    Ok(content::trimmed(value).unwrap_or_default().to_owned())
}

pub(super) fn secrets_of_tls(tls: Option<&Tls>) -> impl Iterator<Item = String> {
    tls.into_iter().flat_map(|tls| {
        let ca = tls.ca_secret_ref.iter().map(|secret| secret.name.clone());
        let client = tls.client_secret_ref.iter().map(|secret| secret.name.clone());
        ca.chain(client)
    })
}

pub(super) fn resolve_tls(
    tls: &Tls,
    secrets: &Secrets,
    prefix: &str,
    folder: &Path,
    files: &mut Files,
) -> Result<document::Tls, CredentialsError> {
    let Tls {
        ca_secret_ref,
        client_secret_ref,
    } = tls;
    let mut add = |part: &str, value: &[u8]| {
        let file = format!("{prefix}_{part}");
        let path = folder.join(&file);
        files.add(file, value.to_owned());
        path
    };
    let mut resolved = document::Tls::default();
    if let Some(ca) = ca_secret_ref {
        let key = ca.key.as_deref().unwrap_or("ca.crt");
        resolved.ca_file = Some(add("ca.crt", secrets.value(&ca.name, key, content::certificates)?));
    }
    if let Some(client) = client_secret_ref {
        let certificate = secrets.value(&client.name, "tls.crt", content::certificates)?;
        resolved.cert_file = Some(add("tls.crt", certificate));
        let key = secrets.value(&client.name, "tls.key", content::private_key)?;
        resolved.key_file = Some(add("tls.key", key));
    }
    Ok(resolved)
}
