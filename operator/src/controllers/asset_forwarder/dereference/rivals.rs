//! Whether another forwarder has a source of ours.

use std::collections::BTreeSet;

use crds::{AssetForwarder, KafkaChannel};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use super::resources::namespace_labels;
use super::{Channel, Claim, Claimed, DereferenceError, Dereferenced};
use crate::context::Context;
use crate::controllers::asset_forwarder::rivals::{Rival, channels};
use crate::controllers::asset_forwarder::stores::Stores;
use crate::reconcile::reference::grants;

/// The forwarder that has a source of `found` and goes before it; none: there is no such one.
///
/// Before the first pod reads a source the API server itself is asked, where the watch tells of any, for it may be behind; and channels are
/// compared by what they name. Of a source that pods read only the watch is believed, and the channel that both refer to: nothing is stopped
/// for what is found then. So what may not begin is looked for first.
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
    if let Some(rival) = before_a_wanted_one(context, stores, found, &claim).await? {
        return Ok(Some(rival));
    }
    Ok(before_one_that_is_read(stores, found, &claim))
}

async fn before_a_wanted_one(
    context: &Context,
    stores: &Stores,
    found: &Dereferenced,
    claim: &Claim<'_>,
) -> Result<Option<Rival>, DereferenceError> {
    // One watch tells of all forwarders in their order: whoever is in it knows of all that were made before. One that was made after it and
    // goes before it all the same waits for it.
    let is_candidate = |other: &AssetForwarder| claim.goes_before(other, false);
    if claim.wanted.is_empty() || stores.forwarders.find(is_candidate).is_none() {
        return Ok(None);
    }
    let api = context.scope.api::<AssetForwarder>(&context.client);
    let listed = api
        .list(&ListParams::default())
        .await
        .map_err(DereferenceError::api("the AssetForwarders"))?;
    for other in listed.items.iter().filter(|other| is_candidate(other)) {
        if let Some(shared) = shared(context, stores, found, &claim.wanted, other).await? {
            return Ok(Some(Rival::new(&found.forwarder, other, false, &shared.channel.topic)));
        }
    }
    Ok(None)
}

fn before_one_that_is_read(stores: &Stores, found: &Dereferenced, claim: &Claim<'_>) -> Option<Rival> {
    if claim.read.is_empty() {
        return None;
    }
    let others = stores.forwarders.state_filter(|other| claim.goes_before(other, true));
    others.iter().find_map(|other| {
        let theirs: BTreeSet<String> = channels(other).collect();
        let shared = claim.read.iter().find(|ours| theirs.contains(ours.reference))?;
        Some(Rival::new(&found.forwarder, other, true, &shared.channel.topic))
    })
}

/// Whether there may be one, by the word of the watches alone.
pub fn may_have_rival(stores: &Stores, found: &Dereferenced) -> bool {
    let claim = Claim::of(found);
    claim.is_some_and(|claim| stores.forwarders.find(|other| claim.is_rival(other)).is_some())
}

/// The first of our sources that `other` has too: a channel of it lets it in and names the topic.
async fn shared<'a>(
    context: &Context,
    stores: &Stores,
    found: &Dereferenced,
    ours: &[Claimed<'a>],
    other: &AssetForwarder,
) -> Result<Option<Claimed<'a>>, DereferenceError> {
    for theirs in channels(other) {
        let (namespace, name) = theirs.split_once('/').unwrap_or_default();
        if !context.scope.includes(namespace) {
            continue;
        }
        let api = Api::<KafkaChannel>::namespaced(context.client.clone(), namespace);
        let channel = api
            .get_opt(name)
            .await
            .map_err(DereferenceError::api(format!("the KafkaChannel {theirs}")))?;
        let Some(channel) = channel else {
            continue;
        };
        let is_shared = |claimed: &&Claimed<'_>| claimed.reference == theirs;
        let named = ours.iter().find(is_shared);
        let Some(claimed) = named.or_else(|| ours.iter().find(|ours| is_same_topic(ours.channel, &channel))) else {
            continue;
        };
        let from = other.namespace().unwrap_or_default();
        let labels = namespace_labels(stores, &from);
        if !grants(channel.spec.allowed_namespaces.as_ref(), namespace, &from, &labels) {
            continue;
        }
        // Whoever may write a channel may name any topic. Only pods that Kafka has let in show that it is more than a name.
        let is_ready = || other.status.as_ref().is_some_and(|status| status.ready_replicas > 0);
        if named.is_some() || other.namespace() == found.forwarder.namespace() || is_ready() {
            return Ok(Some(*claimed));
        }
    }
    Ok(None)
}

fn is_same_topic(ours: &Channel, theirs: &KafkaChannel) -> bool {
    let servers = |servers: &[String]| servers.iter().cloned().collect::<BTreeSet<_>>();
    ours.topic == theirs.spec.topic.name
        && servers(&ours.connection.bootstrap_servers) == servers(&theirs.spec.connection.bootstrap_servers)
}
