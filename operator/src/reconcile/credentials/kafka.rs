//! The credentials of a `KafkaChannel`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crds::kafka_channel::{KafkaConnection, Sasl, SaslMechanism, SaslSecretRef};
use forwarder_core::document;

use super::nats::{resolve_tls, secrets_of_tls, username};
use super::{CredentialsError, Files, Secrets, content};

/// How to reach a Kafka, and the files for it.
#[derive(Clone, Debug, PartialEq)]
pub struct KafkaCredentials {
    /// How to reach it, without properties.
    pub connection: document::KafkaConnection,
    /// The files that it names.
    pub files: Files,
}

/// The Secrets that a connection refers to, all in the channel's namespace.
#[must_use]
pub fn secrets_of_kafka(connection: &KafkaConnection) -> BTreeSet<String> {
    let sasl = connection.sasl.iter().map(|sasl| sasl.secret_ref.name.clone());
    sasl.chain(secrets_of_tls(connection.tls.as_ref())).collect()
}

/// Resolves what a connection refers to. The files' names begin with `prefix`, and the configuration names them in `folder`.
///
/// # Errors
/// The first that is missing or holds something else, or all that are too large together.
pub fn kafka(
    connection: &KafkaConnection,
    secrets: &Secrets,
    prefix: &str,
    folder: &Path,
) -> Result<KafkaCredentials, CredentialsError> {
    let KafkaConnection {
        bootstrap_servers,
        tls,
        sasl,
    } = connection;
    let mut files = Files::default();
    let sasl = match sasl {
        None => None,
        Some(sasl) => Some(resolve_sasl(sasl, secrets, prefix, folder, &mut files)?),
    };
    let tls = match tls {
        None => None,
        Some(tls) => Some(resolve_tls(tls, secrets, prefix, folder, &mut files)?),
    };
    let connection = document::KafkaConnection {
        bootstrap_servers: bootstrap_servers.clone(),
        tls,
        sasl,
        properties: BTreeMap::new(),
    };
    let files = files.within_bound()?;
    Ok(KafkaCredentials { connection, files })
}

fn resolve_sasl(
    sasl: &Sasl,
    secrets: &Secrets,
    prefix: &str,
    folder: &Path,
    files: &mut Files,
) -> Result<document::Sasl, CredentialsError> {
    let SaslSecretRef {
        name,
        username_key,
        key,
    } = &sasl.secret_ref;
    let is_token = sasl.mechanism == SaslMechanism::OAuthBearer;
    let (default, check): (_, content::Check) = if is_token {
        ("token", content::token)
    } else {
        ("password", content::text)
    };
    let key = key.as_deref().unwrap_or(default);
    let value = secrets.value(name, key, check)?;
    let file = format!("{prefix}_sasl");
    let path = folder.join(&file);
    files.add(file, value.to_owned());
    let username = || username(secrets, name, username_key.as_deref(), key);
    Ok(match sasl.mechanism {
        SaslMechanism::Plain => document::Sasl::Plain {
            username: username()?,
            password_file: path,
        },
        SaslMechanism::ScramSha256 => document::Sasl::ScramSha256 {
            username: username()?,
            password_file: path,
        },
        SaslMechanism::ScramSha512 => document::Sasl::ScramSha512 {
            username: username()?,
            password_file: path,
        },
        SaslMechanism::OAuthBearer => document::Sasl::OAuthBearer { token_file: path },
    })
}
