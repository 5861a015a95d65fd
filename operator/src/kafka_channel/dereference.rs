//! Reads what a channel refers to.

use crds::KafkaChannel;
use kube::{Resource as _, ResourceExt as _};

use crate::context::Context;
use crate::credentials::{Secrets, SecretsError, secrets_of_kafka};
use crate::reference::namespace_is_deleted;

/// What belongs to a channel.
#[derive(Clone, Debug)]
pub(super) struct Dereferenced {
    pub(super) secrets: Secrets,
    /// Whether its whole namespace is being deleted.
    pub(super) namespace_goes: bool,
}

/// What could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum DereferenceError {
    #[error(transparent)]
    Secrets(#[from] SecretsError),
    #[error("failed to read the namespace {name}")]
    Namespace { name: String, source: Box<kube::Error> },
}

pub(super) async fn dereference(channel: &KafkaChannel, context: &Context) -> Result<Dereferenced, DereferenceError> {
    let namespace = channel.namespace().unwrap_or_default();
    let secrets = Secrets::read(&context.client, &namespace, secrets_of_kafka(&channel.spec.connection)).await?;
    let namespace_goes = channel.meta().deletion_timestamp.is_some()
        && namespace_is_deleted(context, &namespace)
            .await
            .map_err(|source| DereferenceError::Namespace {
                name: namespace,
                source: Box::new(source),
            })?;
    Ok(Dereferenced {
        secrets,
        namespace_goes,
    })
}
