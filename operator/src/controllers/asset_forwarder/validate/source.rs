//! What is read, and whether it may be read now.

mod one_kafka;

use crds::asset_forwarder::Source;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;

use self::one_kafka::difference;
use super::{Configuration, invalid};
use crate::controllers::asset_forwarder::config::Topic;
use crate::controllers::asset_forwarder::dereference::{Existing, Found, Reference};
use crate::controllers::asset_forwarder::rollout::Rollout;
use crate::controllers::asset_forwarder::sources::Sources;
use crate::controllers::asset_forwarder::{names, rollout};
use crate::reconcile::conditions::Verdict;
use crate::reconcile::credentials::KafkaCredentials;
use crate::reconcile::reason::Reason;

/// What all sources declare: one consumer reads them, so they say the same of it.
pub(super) fn common(sources: &[Source]) -> Result<&Source, Verdict> {
    let Some((first, further)) = sources.split_first() else {
        return Err(invalid("spec.sources: has 0 entries; write at least one".to_owned()));
    };
    for (place, source) in (1..).zip(further) {
        if let Some(field) = first_difference(first, source) {
            return Err(invalid(format!(
                "spec.sources[{place}].{field}: differs from that of spec.sources[0]; one consumer reads all sources, so write \
                 the same {field} in each"
            )));
        }
    }
    Ok(first)
}

fn first_difference(one: &Source, other: &Source) -> Option<&'static str> {
    let Source {
        channel_ref: _,
        group,
        start_from,
        missing_offset,
        protocol,
        client_config,
    } = one;
    let fields = [
        ("group", *group == other.group),
        ("startFrom", *start_from == other.start_from),
        ("missingOffset", *missing_offset == other.missing_offset),
        ("protocol", *protocol == other.protocol),
        ("clientConfig", *client_config == other.client_config),
    ];
    fields.into_iter().find_map(|(field, same)| (!same).then_some(field))
}

/// The topics that one consumer reads, the first source first: each of them usable, all of one Kafka, and none twice.
pub(super) fn topics<'a>(sources: &'a [Reference], own: &str) -> Result<Vec<Topic<'a>>, Verdict> {
    let mut topics = Vec::<Topic<'a>>::new();
    for (place, reference) in sources.iter().enumerate() {
        let field = format!("spec.sources[{place}].channelRef");
        let (name, credentials) = usable(reference, own, &field)?;
        let channel = &reference.name;
        if let Some(first) = topics.first()
            && let Some(differs) = difference(first.credentials, credentials)
        {
            return Err(invalid(format!(
                "{field}: the KafkaChannel {channel} has a different {differs} than the KafkaChannel {}. One consumer reads all \
                 sources: make both the same, or read {channel} with another AssetForwarder",
                first.channel
            )));
        }
        if let Some(same) = topics.iter().find(|topic| topic.name == name) {
            return Err(invalid(format!(
                "{field}: the KafkaChannel {channel} has the same topic {name:?} as the KafkaChannel {}; name each topic once",
                same.channel
            )));
        }
        topics.push(Topic {
            channel,
            name,
            credentials,
        });
    }
    Ok(topics)
}

/// Which channels are not ready, and why; none: all are, or nothing is known of them.
pub(super) fn not_ready(sources: &[Reference]) -> Option<String> {
    let sentences = sources.iter().filter_map(|reference| {
        let reason = reference.channel()?.not_ready.as_ref()?;
        let name = reference.name.split_once('/').map_or("", |(_, name)| name);
        Some(format!("the KafkaChannel {name} is not ready: {reason}"))
    });
    let sentences: Vec<_> = sentences.collect();
    (!sentences.is_empty()).then(|| sentences.join("; "))
}

/// Pods of other channels, topics, or of another group must be gone before the first of this one begins: two groups at once would deliver
/// records of one asset side by side, and no epoch is common to them.
///
/// Where the group stays and a topic is common to both, sources come and go with a roll: Kafka gives each partition to one member of the
/// group, whatever else that reads.
pub(super) fn after_the_old_source(existing: &Existing, config: Configuration) -> Result<Configuration, Verdict> {
    let Some(deployment) = &existing.deployment else {
        return Ok(config);
    };
    let before = deployment.annotations().get(names::SOURCE);
    let is_down = existing.pods.is_empty() && rollout::desired(deployment) == 0;
    // What cannot be read may be anything.
    let stays = |before: &str| Sources::parse(before).is_some_and(|before| before.overlap(&config.sources));
    if let Some(before) = before.filter(|before| !stays(before) && !is_down) {
        return Err(Verdict::reconciling(
            Reason::SourceChanging,
            format!(
                "waiting until all pods that read \"{before}\" (channel, topic, group) have ended; then pods that read \"{}\" \
                 start",
                config.sources
            ),
        ));
    }
    let former_sources = if is_down {
        None
    } else {
        still_read(existing, deployment, &config.sources)
    };
    Ok(Configuration {
        former_sources,
        ..config
    })
}

/// What pods may still read beside `sources`: another forwarder must not begin to read it before they are gone.
fn still_read(existing: &Existing, live: &Deployment, sources: &Sources) -> Option<Sources> {
    let is_noted = Sources::noted(live).as_ref() == Some(sources);
    let are_all_new = Rollout::of(live) == Rollout::Complete && existing.pods.iter().all(|pod| !pod.terminating);
    if is_noted && are_all_new {
        return None;
    }
    Sources::of_pods(live)?.without(sources)
}

/// The topic and credentials behind a reference from the namespace `own`.
/// A namespace does not learn whether a channel exists in another namespace unless that channel allows it. So both cases have the
/// same message and the reason `NotGranted`.
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
                "{field}: the KafkaChannel {name} does not exist or does not allow this namespace; correct the reference, or ask \
                 its owner to set its spec.allowedNamespaces"
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
