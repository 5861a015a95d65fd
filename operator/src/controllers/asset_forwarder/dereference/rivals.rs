//! Whether another forwarder has a source of ours.

use std::collections::BTreeSet;

use crds::{AssetForwarder, KafkaChannel};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt as _};

use super::pods::{get, pods_of};
use super::resources::namespace_labels;
use super::{Channel, Claim, Claimed, DereferenceError, Dereferenced, Read};
use crate::context::Context;
use crate::controllers::asset_forwarder::names::Identity;
use crate::controllers::asset_forwarder::rivals::{Rival, channels, group, waits};
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
    if !may_be_before_a_wanted_one(stores, claim) {
        return Ok(None);
    }
    let api = context.scope.api::<AssetForwarder>(&context.client);
    let listed = api
        .list(&ListParams::default())
        .await
        .map_err(DereferenceError::api("the AssetForwarders"))?;
    for other in listed.items.iter().filter(|other| concerns(stores, claim, other)) {
        // What it has just written no watch has told yet.
        let identity = Identity::of(other);
        let deployment = get::<Deployment>(context, &identity, &identity.name).await?;
        let read = Read::by(other, deployment.as_ref(), !pods_of(stores, &identity).is_empty());
        let rivalry = Rivalry {
            context,
            stores,
            found,
            claim,
            other,
        };
        let reads = match &read {
            Read::Nothing => None,
            Read::Sources(sources) if claim.reader_goes_before(other, false) => {
                let topics = sources.in_group(claim.group);
                rivalry
                    .shared(topics.map(|(channel, topic)| (channel.to_owned(), Some(topic))))
                    .await?
            }
            // Of two of which nobody has noted what they read one must go on.
            Read::Unknown
                if claim.reader_goes_before(other, false) && group(other) == Some(claim.group) && !waits(other) =>
            {
                rivalry.shared(channels(other).map(|channel| (channel, None))).await?
            }
            Read::Sources(_) | Read::Unknown => None,
        };
        let rival = |shared: Claimed<'_>| Rival::new(&found.forwarder, other, false, &shared.channel.topic);
        if let Some(shared) = reads {
            let has_group = group(other) == Some(claim.group);
            let declares = has_group && rivalry.declared().await?.is_some();
            return Ok(Some(Rival {
                lets_go: !declares,
                ..rival(shared)
            }));
        }
        if claim.declarer_goes_before(other)
            && let Some(shared) = rivalry.declared().await?
        {
            return Ok(Some(rival(shared)));
        }
    }
    Ok(None)
}

fn before_one_that_is_read(stores: &Stores, found: &Dereferenced, claim: &Claim<'_>) -> Option<Rival> {
    if claim.read.is_empty() {
        return None;
    }
    // By the group of the spec alone: this is only told.
    let is_older =
        |other: &AssetForwarder| claim.concerns(other, || Read::Nothing) && claim.reader_goes_before(other, true);
    let others = stores.forwarders.state_filter(is_older);
    others.iter().find_map(|other| {
        let shared = claim.read_by_both(other, &read_as_told(stores, other))?;
        Some(Rival::new(&found.forwarder, other, true, &shared.channel.topic))
    })
}

/// The group in which pods of this forwarder are to begin to read something; none: there is nothing to begin.
pub fn begins_in(found: &Dereferenced) -> Option<String> {
    let claim = Claim::of(found)?;
    (!claim.wanted.is_empty()).then(|| claim.group.to_owned())
}

/// Whether there may be one, by the word of the watches alone.
pub fn may_have_rival(stores: &Stores, found: &Dereferenced) -> bool {
    Claim::of(found).is_some_and(|claim| {
        may_be_before_a_wanted_one(stores, &claim) || before_one_that_is_read(stores, found, &claim).is_some()
    })
}

fn may_be_before_a_wanted_one(stores: &Stores, claim: &Claim<'_>) -> bool {
    !claim.wanted.is_empty() && stores.forwarders.find(|other| concerns(stores, claim, other)).is_some()
}

fn concerns(stores: &Stores, claim: &Claim<'_>, other: &AssetForwarder) -> bool {
    claim.concerns(other, || read_as_told(stores, other))
}

/// What pods of it may read, by the word of the watches and without those that are ending.
fn read_as_told(stores: &Stores, of: &AssetForwarder) -> Read {
    let name = ObjectRef::new(&of.name_any()).within(&of.namespace().unwrap_or_default());
    Read::by(of, stores.deployments.get(&name).as_deref(), false)
}

/// Two forwarders, of which one wants to read what the other one may have.
#[derive(Clone, Copy)]
struct Rivalry<'a> {
    context: &'a Context,
    stores: &'a Stores,
    found: &'a Dereferenced,
    claim: &'a Claim<'a>,
    other: &'a AssetForwarder,
}

impl<'a> Rivalry<'a> {
    /// The first source that we want and that pods of the other one may read: these channels, with the topic that is read by way of each,
    /// or with the one that it names now. What a Deployment notes its namespace could forge, so the channel must let that one in all the same.
    async fn shared(
        self,
        theirs: impl Iterator<Item = (String, Option<&str>)> + Send,
    ) -> Result<Option<Claimed<'a>>, DereferenceError> {
        // Whoever may write a channel may name any topic. Only pods that Kafka has let in show that it is more than a name.
        let status = self.other.status.as_ref();
        let is_ready = status.is_some_and(|status| status.ready_replicas > 0);
        for (reference, topic) in theirs {
            if let Some(claimed) = self.by_channel(&reference, topic, is_ready).await? {
                return Ok(Some(claimed));
            }
        }
        Ok(None)
    }

    /// The first source that we want and that the other one declares too.
    async fn declared(self) -> Result<Option<Claimed<'a>>, DereferenceError> {
        for reference in channels(self.other) {
            if let Some(claimed) = self.by_channel(&reference, None, false).await? {
                return Ok(Some(claimed));
            }
        }
        Ok(None)
    }

    /// The source of ours that the other one has by that channel, which lets it in and names the topic. By another channel than ours, and
    /// from another namespace, it counts only `if_foreign`.
    async fn by_channel(
        self,
        reference: &str,
        topic: Option<&str>,
        if_foreign: bool,
    ) -> Result<Option<Claimed<'a>>, DereferenceError> {
        let (namespace, name) = reference.split_once('/').unwrap_or_default();
        if !self.context.scope.includes(namespace) {
            return Ok(None);
        }
        let api = Api::<KafkaChannel>::namespaced(self.context.client.clone(), namespace);
        let channel = api
            .get_opt(name)
            .await
            .map_err(DereferenceError::api(format!("the KafkaChannel {reference}")))?;
        let wanted = &self.claim.wanted;
        let is_near = self.other.namespace() == self.found.forwarder.namespace();
        let Some(channel) = channel.filter(|channel| topic.is_none_or(|topic| topic == channel.spec.topic.name)) else {
            // The channel is gone or names another topic, and pods go on with the one that they read. Of which Kafka that is nobody says.
            let may_be_it = |ours: &&Claimed<'_>| is_near && topic == Some(ours.channel.topic.as_str());
            return Ok(wanted.iter().find(may_be_it).copied());
        };
        let named = wanted.iter().find(|ours| ours.reference == reference);
        let Some(claimed) = named.or_else(|| wanted.iter().find(|ours| is_same_topic(ours.channel, &channel))) else {
            return Ok(None);
        };
        let from = self.other.namespace().unwrap_or_default();
        let labels = namespace_labels(self.stores, &from);
        let lets_in = grants(channel.spec.allowed_namespaces.as_ref(), namespace, &from, &labels);
        let counts = named.is_some() || is_near || if_foreign;
        Ok((lets_in && counts).then_some(*claimed))
    }
}

fn is_same_topic(ours: &Channel, theirs: &KafkaChannel) -> bool {
    let servers = |servers: &[String]| servers.iter().cloned().collect::<BTreeSet<_>>();
    ours.topic == theirs.spec.topic.name
        && servers(&ours.connection.bootstrap_servers) == servers(&theirs.spec.connection.bootstrap_servers)
}
