//! Judges what was read: who is a member, which ring that makes, whether pods can be configured. Pure.

mod configuration;
mod source;

use std::collections::BTreeMap;

use crds::AssetForwarderSpec;
use crds::asset_forwarder::{Publish, PublishMode, RingUpdate};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;

use self::configuration::configuration;
use self::source::{after_the_old_source, common, not_ready, usable};
use super::beacon::Beacon;
use super::decide::{Decided, Scale};
use super::dereference::{Dereferenced, Existing};
use super::members::{self, Members};
use super::names::{self, Identity};
use super::readers::{Images, Readers};
use super::recorded::Recorded;
use super::ring::claims::{self, Ignored, Seen};
use super::ring::{self, RingFault, Shape};
use super::rivals::Rival;
use super::rollout::{self, Rollout};
use super::rollout_trigger::RolloutTrigger;
use super::sources::Sources;
use crate::context::Settings;
use crate::reconcile::conditions::Verdict;
use crate::reconcile::credentials::{Files, Room};
use crate::reconcile::reason::Reason;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Validated {
    /// Who the forwarder is.
    pub identity: Identity,
    /// Its spec, with as many replicas as its lag asks for where that is declared.
    pub spec: AssetForwarderSpec,
    /// Who says so.
    pub scale: Scale,
    /// How many pods there are to be now.
    pub replicas: i32,
    /// Who is a member, and who is not.
    pub members: Members,
    /// Who reads the ring, and what of it.
    pub readers: Readers,
    /// The ring as it was found.
    pub recorded: Recorded,
    /// The ring as it is to be; none: there is no member, and there never was one.
    pub ring: Option<Recorded>,
    /// Epochs that pods claim and that are not believed.
    pub ignored: Vec<Ignored>,
    /// The beacon, if one is declared: with all that is declared of it, also where the ring goes on without it.
    pub beacon: Option<Beacon>,
    /// The credentials to project.
    pub credentials: Files,
    /// The pods' configuration, or why there is none for now: pods that run go on with theirs.
    pub config: Result<Configuration, Verdict>,
    /// The image that pods begin with which roll now.
    pub image: String,
    /// When their image is pulled.
    pub image_pull_policy: &'static str,
    /// Whether pods that roll now name their user and groups by number.
    pub security_ids: bool,
    /// Another forwarder that has a source of this one and goes before it.
    pub rival: Option<Rival>,
    /// Which channels of the sources are not ready, and why; none: all are, or there is no configuration at all.
    pub channel_not_ready: Option<String>,
}

/// A configuration of pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// The document's text.
    pub text: String,
    /// Its hash.
    pub hash: String,
    /// What is read: channels, topics and group.
    pub sources: Sources,
    /// What pods may still read besides, until the rollout is complete.
    pub former_sources: Option<Sources>,
    /// A hash of the Kafka credentials that are read at the start.
    pub kafka_credentials: String,
    /// The epoch of the ring in the document, if it holds one.
    pub ring_epoch: Option<u64>,
    /// For what it was made.
    pub trigger: RolloutTrigger,
    /// Most bytes that a pod holds for confirmation.
    pub max_pending_bytes: usize,
    /// The longest drain, in milliseconds.
    pub drain_timeout_ms: u64,
}

/// Judges what was read.
///
/// # Errors
/// What can never work: nothing is written but that.
pub fn validate(decided: &Decided, settings: &Settings) -> Result<Validated, Verdict> {
    let Decided { found, scale } = decided;
    let identity = Identity::of(&found.forwarder);
    let spec = &found.forwarder.spec;
    check_name(&identity.name)?;
    check_selector("spec.clusters.selector", &spec.clusters.selector)?;
    if let Some(selector) = &spec.clusters.namespace_selector {
        check_selector("spec.clusters.namespaceSelector", selector)?;
    }
    let source = common(&spec.sources)?;

    let existing = &found.existing;
    let stored = stored(existing);
    let recorded = recorded(found);
    let images = Images {
        declared: spec.image.as_deref(),
        default: &settings.forwarder_image,
        policy: spec.upgrade_policy,
        ring_rolls: spec.ring.update == RingUpdate::Roll,
    };
    let readers = Readers::of(existing, &recorded, &images);
    let mut room = Room::of(&stored);
    let mut channels = channel_credentials(found, &identity.namespace);
    // Without room for them pods go on with the old ones, and with the configuration that names those.
    let has_room = room.renew(&channels).map_err(|error| {
        channels = Files::default();
        Verdict::reconciling(error.reason(), format!("spec.sources[0].channelRef: {error}"))
    });
    let mut members = members::choose(&found.candidates, &recorded, room, readers.version);
    let beacon = Beacon::of(&identity, &spec.ring, found.beacon.as_ref());
    let shape = Shape {
        replicas: spec.ring.replicas,
        handover_timeout_ms: u64::from(spec.ring.handover_timeout_seconds).saturating_mul(1_000),
        beacon: beacon
            .as_ref()
            .and_then(|beacon| members.fit_beacon(&beacon.document, readers.version)),
        mirror_moved_ms: mirror_moved_ms(&spec.publish)?
            .and_then(|moved_ms| members.fit_mirror(moved_ms, readers.version)),
    };
    let noted = readers.noted(&members);
    let (seen, ignored) = seen(found, &recorded);
    let ring = ring::declare(&members.members, shape, &recorded, seen, noted, |name| {
        has_left(existing, &recorded, name)
    })
    .map_err(|fault| told(&fault))?;

    let document = ring.as_ref().and_then(|ring| ring.document.as_ref());
    let config = configuration(found, source, document)
        .and_then(|config| match &found.rival {
            // Two may want what the other one's pods read. So pods of an old source end for what is about to be free.
            Some(rival) if rival.lets_go => after_the_old_source(existing, config).and(Err(rival.verdict())),
            Some(rival) if !rival.we_read => Err(rival.verdict()),
            Some(_) | None => Ok(config),
        })
        // Before the old source ends: its pods go on where the new one could not begin.
        .and_then(|config| has_room.map(|()| config))
        .and_then(|config| after_the_old_source(existing, config));
    let live = existing.deployment.as_ref().map(rollout::desired);
    let is_taken = matches!(&config, Err(verdict) if verdict.words().reason == Reason::SourceTaken);
    let changes_source = matches!(&config, Err(verdict) if verdict.words().reason == Reason::SourceChanging);
    let mut needed = Files::default();
    for member in &members.members {
        needed.merge(member.files.clone());
    }
    needed.merge(channels);
    needed.merge(beacon.as_ref().map(Beacon::files).unwrap_or_default());
    // Pods that are behind may still name files that are no longer needed.
    let is_kept = |config: &Configuration| {
        existing
            .deployment
            .as_ref()
            .is_some_and(|live| config.trigger.is_of(live))
    };
    let is_settled = |config: &Configuration| {
        (uses(existing, &identity, config) || is_kept(config))
            && ring.as_ref().is_none_or(|ring| is_settled(existing, &recorded, ring))
    };
    let credentials = if config.as_ref().is_ok_and(is_settled) {
        needed
    } else {
        let mut all = stored;
        all.merge(needed);
        all
    };
    let is_idle = ring.as_ref().is_none_or(|ring| ring.idle);
    let scale = scale.while_ring_stays(ring.as_ref() != Some(&recorded));
    // From here on it is one number, wherever it comes from.
    let spec = AssetForwarderSpec {
        replicas: scale.replicas(spec.replicas),
        ..spec.clone()
    };
    Ok(Validated {
        replicas: if spec.suspend || is_idle || changes_source {
            0
        } else if config.is_err() && live == Some(0) {
            // They would begin with the configuration of before, and what that reads may be another's by now.
            0
        } else if is_taken && found.rival.as_ref().is_some_and(|rival| rival.topic.is_none()) {
            // Pods that there are read what they read. Of one source there is to be none more.
            live.unwrap_or(0)
        } else {
            spec.replicas
        },
        image: spec.image.clone().unwrap_or_else(|| settings.forwarder_image.clone()),
        image_pull_policy: settings.forwarder_image_pull_policy,
        security_ids: settings.pod_security_ids,
        channel_not_ready: not_ready(&found.sources),
        rival: found.rival.clone(),
        spec,
        scale,
        identity,
        members,
        readers,
        recorded,
        ring,
        ignored,
        beacon,
        credentials,
        config,
    })
}

/// Says which share of the hash space a new ring moves. It blocks while rings are made.
///
/// # Errors
/// The members make no ring.
pub fn measured(mut validated: Validated) -> Result<Validated, Verdict> {
    if let Some(ring) = &mut validated.ring {
        ring::measure(&validated.recorded, ring).map_err(|fault| invalid(fault.to_string()))?;
    }
    Ok(validated)
}

/// A fault of the ring's document at the field that the person wrote.
fn told(fault: &RingFault) -> Verdict {
    let text = fault.to_string();
    let text = text.replace("beacon.graceMs", "spec.ring.subscriberGraceSeconds");
    let text = text.replace("mirror.movedMs", "spec.publish.mirrorMovedSeconds");
    let text = text.replace("beacon.subject", "spec.ring.beacon.subject");
    invalid(text.replace("handoverTimeoutMs", "handoverTimeoutSeconds"))
}

/// For how long copies are made for subscribers that stay.
fn mirror_moved_ms(publish: &Publish) -> Result<Option<u64>, Verdict> {
    if publish.mirror_moved_seconds.is_some() && publish.mode == PublishMode::JetStream {
        return Err(invalid(
            "spec.publish.mirrorMovedSeconds: is not used in mode: JetStream, because a stream keeps its records: remove it, or write \
             mode: Core"
                .to_owned(),
        ));
    }
    let seconds = publish.mirror_moved_seconds;
    Ok(seconds.map(|seconds| u64::from(seconds).saturating_mul(1_000)))
}

fn invalid(message: String) -> Verdict {
    Verdict::stalled(Reason::InvalidSpec, message)
}

/// The name is part of the pods' labels and of the Service's name.
fn check_name(name: &str) -> Result<(), Verdict> {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.');
    if is_plain && name.len() <= names::MAX_NAME {
        return Ok(());
    }
    Err(invalid(format!(
        "metadata.name: {name:?} cannot be the name of a Service and of pods. Recreate the resource with a name of at most {} \
         characters that begins with a letter and has no dot",
        names::MAX_NAME
    )))
}

fn check_selector(field: &str, selector: &LabelSelector) -> Result<(), Verdict> {
    match Selector::try_from(selector.clone()) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid(format!("{field}: {error}"))),
    }
}

/// The files that the usable channels need. All sources have one login, so the first one's files are those of the others too.
fn channel_credentials(found: &Dereferenced, own: &str) -> Files {
    let mut files = Files::default();
    for reference in found.sources.first().into_iter().chain(&found.dead_letter) {
        if let Ok((_, credentials)) = usable(reference, own, "") {
            files.merge(credentials.files.clone());
        }
    }
    files
}

/// What was projected before.
fn stored(existing: &Existing) -> Files {
    let data = existing.credentials.as_ref().and_then(|secret| secret.data.clone());
    let data = data.unwrap_or_default().into_iter();
    let files: BTreeMap<_, _> = data.map(|(name, bytes)| (name, bytes.0)).collect();
    let mut files = Files::from(files);
    files.retain(|name| name != names::VERSION_FILE);
    files
}

/// What the ring's ConfigMap says; without it, what the status knows of those that pods may publish to.
fn recorded(found: &Dereferenced) -> Recorded {
    let status = found.forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
    let known = status
        .into_iter()
        .flat_map(|ring| ring.member_refs.iter().chain(&ring.leaving));
    Recorded::read(found.existing.ring.as_ref(), known.cloned())
}

fn seen(found: &Dereferenced, recorded: &Recorded) -> (Seen, Vec<Ignored>) {
    let status = found.forwarder.status.as_ref().and_then(|status| status.ring.as_ref());
    let status = status.and_then(|ring| u64::try_from(ring.epoch).ok());
    claims::judge(recorded.epoch(), status.unwrap_or(0), &found.existing.pods)
}

/// Whether no pod publishes to a cluster any more that was leaving when we last looked.
fn has_left(existing: &Existing, recorded: &Recorded, ring_name: &str) -> bool {
    let pods = &existing.pods;
    if recorded.idle {
        // The document still has it: only who is not there does not publish.
        let none_to_come = existing
            .deployment
            .as_ref()
            .is_none_or(|deployment| rollout::desired(deployment) == 0 && Rollout::of(deployment) == Rollout::Complete);
        return pods.is_empty() && none_to_come;
    }
    let epoch = recorded.epoch();
    epoch > 0
        && pods.iter().all(|pod| pod.has_left(ring_name, epoch))
        && !rollout::may_begin_below(&existing.replica_sets, epoch)
}

/// Whether all pods run what is declared, so that nothing older is needed any more.
fn is_settled(existing: &Existing, recorded: &Recorded, ring: &Recorded) -> bool {
    let is_current = |pod: &super::pods::Observed| !pod.terminating && pod.epoch() == Some(recorded.epoch());
    let deployment = existing.deployment.as_ref();
    recorded == ring
        && ring.leaving.is_empty()
        && existing.pods.iter().all(is_current)
        && deployment.is_none_or(|deployment| Rollout::of(deployment) == Rollout::Complete)
}

/// Whether the pods' template has that configuration: until then pods may begin with an older one, and need what that names.
fn uses(existing: &Existing, identity: &Identity, config: &Configuration) -> bool {
    let Some(deployment) = &existing.deployment else {
        return true;
    };
    let pod = deployment.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let mut volumes = pod.into_iter().flat_map(|pod| pod.volumes.iter().flatten());
    let name = identity.config_map(&config.hash);
    volumes.any(|volume| volume.config_map.as_ref().is_some_and(|map| map.name == name))
}
