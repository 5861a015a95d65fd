//! What is read, and whether it may be read now.

use super::Configuration;
use crate::controllers::asset_forwarder::dereference::{Existing, Found, Reference};
use crate::controllers::asset_forwarder::{names, rollout};
use crate::reconcile::conditions::Verdict;
use crate::reconcile::credentials::KafkaCredentials;
use crate::reconcile::reason::Reason;

/// Pods of another channel, topic or group must be gone before the first of this one begins: two groups at once would deliver records of
/// one asset side by side, and no epoch is common to them.
pub(super) fn after_the_old_source(existing: &Existing, config: Configuration) -> Result<Configuration, Verdict> {
    let Some(deployment) = &existing.deployment else {
        return Ok(config);
    };
    let annotations = deployment.metadata.annotations.as_ref();
    let before = annotations.and_then(|annotations| annotations.get(names::SOURCE));
    let is_down = existing.pods.is_empty() && rollout::desired(deployment) == 0;
    match before {
        Some(before) if *before != config.source && !is_down => Err(Verdict::reconciling(
            Reason::SourceChanging,
            format!(
                "pods that read \"{before}\" (channel, topic, group) end before the first begins that reads \"{}\"",
                config.source
            ),
        )),
        _ => Ok(config),
    }
}

/// The topic and credentials behind a reference from the namespace `own`.
///
/// Whether another namespace has a channel is told to nobody whom that channel does not let in. So both cases have the same words there.
/// They are `NotGranted`, for that is true of both: what does not exist grants nothing.
pub(super) fn usable<'a>(
    reference: &'a Reference,
    own: &str,
    field: &str,
) -> Result<(&'a str, &'a KafkaCredentials), Verdict> {
    let name = &reference.name;
    let is_ours = name.split_once('/').is_none_or(|(namespace, _)| namespace == own);
    match &reference.found {
        Found::Missing if is_ours => Err(Verdict::reconciling(
            Reason::ChannelMissing,
            format!("{field}: there is no KafkaChannel {name}; create it, or correct the reference"),
        )),
        Found::Missing | Found::Denied => Err(Verdict::reconciling(
            Reason::NotGranted,
            format!(
                "{field}: the KafkaChannel {name} does not exist or does not let this namespace in; \
                 correct the reference, or have its owner set its spec.allowedNamespaces"
            ),
        )),
        Found::Channel(channel) => match &channel.credentials {
            Ok(credentials) => Ok((&channel.topic, credentials)),
            Err(error) => Err(Verdict::reconciling(
                error.reason(),
                format!("the KafkaChannel {name}: {error}"),
            )),
        },
    }
}
