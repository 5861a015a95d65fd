//! Whether another forwarder has the source of ours.

use std::collections::BTreeSet;

use crds::{AssetForwarder, KafkaChannel};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::resources::namespace_labels;
use super::{Channel, DereferenceError, Dereferenced};
use crate::context::Context;
use crate::controllers::asset_forwarder::names;
use crate::controllers::asset_forwarder::rivals::{Rival, goes_before, group, may_have_begun, wants_pods};
use crate::controllers::asset_forwarder::rollout;
use crate::controllers::asset_forwarder::stores::Stores;
use crate::reconcile::reference::grants;

/// The forwarder that has the source of `found` and goes before it; none: there is no such one.
///
/// Before the first pod the API server itself is asked, where the watch tells of any, for it may be behind; and channels are compared by what they name. Of one that
/// has pods only the watch is believed, and the channel that both refer to: nothing is stopped for what is found then.
///
/// # Errors
/// [`DereferenceError`]
pub async fn rival(
    context: &Context,
    stores: &Stores,
    found: &Dereferenced,
) -> Result<Option<Rival>, DereferenceError> {
    let Some(claim) = Claim::of(found) else {
        return Ok(None);
    };
    let candidates = stores.forwarders.state_filter(|other| claim.is_rival(other));
    if claim.we_read {
        let others = candidates
            .iter()
            .find(|other| reference(other).as_ref() == Some(&found.source.name));
        return Ok(others.map(|other| Rival::new(&found.forwarder, other, true)));
    }
    // One watch tells of all forwarders in their order: whoever is in it knows of all that were made before. One that was made after it and
    // goes before it all the same waits for it.
    if candidates.is_empty() {
        return Ok(None);
    }
    let api = context.scope.api::<AssetForwarder>(&context.client);
    let listed = api
        .list(&ListParams::default())
        .await
        .map_err(DereferenceError::api("the AssetForwarders"))?;
    for other in listed.items.iter().filter(|other| claim.is_rival(other)) {
        if reads_the_same(context, stores, found, claim.channel, other).await? {
            return Ok(Some(Rival::new(&found.forwarder, other, false)));
        }
    }
    Ok(None)
}

/// Whether there may be one, by the word of the watches alone.
pub fn may_have_rival(stores: &Stores, found: &Dereferenced) -> bool {
    let claim = Claim::of(found);
    claim.is_some_and(|claim| stores.forwarders.find(|other| claim.is_rival(other)).is_some())
}

/// What a forwarder wants to read.
struct Claim<'a> {
    us: &'a AssetForwarder,
    group: &'a str,
    channel: &'a Channel,
    /// Whether pods of ours read it, or are about to.
    we_read: bool,
}

impl<'a> Claim<'a> {
    /// None: it wants no pods, or it is not known yet what they would read.
    fn of(found: &'a Dereferenced) -> Option<Self> {
        let us = &found.forwarder;
        if !wants_pods(us) {
            return None;
        }
        let (group, channel) = (group(us)?, found.source.channel()?);
        Some(Self {
            us,
            group,
            channel,
            we_read: reads(found, &names::source_text(&found.source.name, &channel.topic, group)),
        })
    }

    fn is_rival(&self, other: &AssetForwarder) -> bool {
        let may_read = || {
            goes_before(other, self.us, self.we_read)
                || (!self.we_read && may_have_begun(other, self.us, Timestamp::now()))
        };
        other.uid() != self.us.uid() && group(other) == Some(self.group) && may_read()
    }
}

/// Whether pods of ours read that source, or are about to.
fn reads(found: &Dereferenced, source: &str) -> bool {
    let existing = &found.existing;
    let Some(deployment) = &existing.deployment else {
        return false;
    };
    deployment.annotations().get(names::SOURCE).map(String::as_str) == Some(source)
        && (rollout::desired(deployment) > 0 || !existing.pods.is_empty())
}

/// `namespace/name` of a forwarder's channel.
fn reference(forwarder: &AssetForwarder) -> Option<String> {
    let reference = &forwarder.spec.sources.first()?.channel_ref;
    let namespace = reference.namespace.clone().or_else(|| forwarder.namespace())?;
    Some(format!("{namespace}/{}", reference.name))
}

/// Whether the channel of `other` lets it in and names the topic of ours.
async fn reads_the_same(
    context: &Context,
    stores: &Stores,
    found: &Dereferenced,
    ours: &Channel,
    other: &AssetForwarder,
) -> Result<bool, DereferenceError> {
    let Some(theirs) = reference(other) else {
        return Ok(false);
    };
    let (namespace, name) = theirs.split_once('/').unwrap_or_default();
    if !context.scope.includes(namespace) {
        return Ok(false);
    }
    let api = Api::<KafkaChannel>::namespaced(context.client.clone(), namespace);
    let channel = api
        .get_opt(name)
        .await
        .map_err(DereferenceError::api(format!("the KafkaChannel {theirs}")))?;
    let Some(channel) = channel else {
        return Ok(false);
    };
    let is_shared = theirs == found.source.name;
    if !is_shared && !is_same_topic(ours, &channel) {
        return Ok(false);
    }
    let from = other.namespace().unwrap_or_default();
    let labels = namespace_labels(stores, &from);
    if !grants(channel.spec.allowed_namespaces.as_ref(), namespace, &from, &labels) {
        return Ok(false);
    }
    // Whoever may write a channel may name any topic. Only pods that Kafka has let in show that it is more than a name.
    let is_ready = || other.status.as_ref().is_some_and(|status| status.ready_replicas > 0);
    Ok(is_shared || other.namespace() == found.forwarder.namespace() || is_ready())
}

fn is_same_topic(ours: &Channel, theirs: &KafkaChannel) -> bool {
    let servers = |servers: &[String]| servers.iter().cloned().collect::<BTreeSet<_>>();
    ours.topic == theirs.spec.topic.name
        && servers(&ours.connection.bootstrap_servers) == servers(&theirs.spec.connection.bootstrap_servers)
}
