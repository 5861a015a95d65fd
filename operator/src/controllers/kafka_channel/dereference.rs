//! Reads what a channel refers to.

use crds::KafkaChannel;
use kube::ResourceExt as _;

use crate::context::Context;
use crate::reconcile::credentials::{Secrets, SecretsError, secrets_of_kafka};

/// The Secrets of the channel's connection.
pub(super) async fn secrets(channel: &KafkaChannel, context: &Context) -> Result<Secrets, SecretsError> {
    let namespace = channel.namespace().unwrap_or_default();
    let names = secrets_of_kafka(&channel.spec.connection);
    let of = channel.metadata.uid.as_deref();
    context.secrets.read(context, &namespace, names, of).await
}
