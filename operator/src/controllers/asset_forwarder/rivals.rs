//! Two forwarders that read one topic in one consumer group: which of them waits. Pure.
//!
//! Kafka shares the partitions among all members of a group, whichever forwarder they belong to. So two forwarders consume each record
//! once, but each of them by its own ring: an asset's records would go to this cluster or that one, as the partitions move.
//!
//! - Who runs no pods for a source begins none while pods of another forwarder may read it, or while an older one declares it. With several
//!   sources that is true of each: one that is added is not taken up while another forwarder has it, and pods go on with those that they read.
//! - What pods may read says their Deployment, not the spec: a spec is edited long before the last pod has followed it. So nobody waits for
//!   one that only waits itself, unless that one is older. Ages are in one order, so two never wait for each other because of one source.
//! - Who runs pods already keeps them, also if the other one is older: an operator before this one may have let both begin. To end them
//!   would move the whole load to pods that were not made for it, and to a ring that may name other clusters. That is for a person to
//!   decide. Nothing is lost meanwhile: each record is still consumed by one member and confirmed. The condition says what is wrong.
//!
//! - A younger one may have begun before it could know of the older one: both were made within moments, or both were edited. The older one
//!   waits until the younger one has shown what it does with its present spec.
//!
//! So no forwarder stops the pods of another one. A forwarder that changes its source does not disturb one that already reads there.

use crds::AssetForwarder;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::reconcile::conditions::{Verdict, are_ready, ready};
use crate::reconcile::reason::Reason;

/// Another forwarder with the same source, which goes before ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// `namespace/name`; none: it is in another namespace, of which nothing is told.
    pub name: Option<String>,
    /// The consumer group of both.
    pub group: String,
    /// Whether ours has pods that read the source.
    pub we_read: bool,
    /// The topic of both, where ours has several.
    pub topic: Option<String>,
    /// Whether the other one declares nothing of what ours wants: only its pods still read it.
    pub lets_go: bool,
}

impl Rival {
    /// The `other` one, for the forwarder `us`, which reads that `topic` too or wants to.
    #[must_use]
    pub fn new(us: &AssetForwarder, other: &AssetForwarder, we_read: bool, topic: &str) -> Self {
        let namespace = other.namespace().unwrap_or_default();
        let is_near = us.namespace().unwrap_or_default() == namespace;
        Self {
            name: is_near.then(|| format!("{namespace}/{}", other.name_any())),
            group: group(us).unwrap_or_default().to_owned(),
            we_read,
            topic: (us.spec.sources.len() > 1).then(|| topic.to_owned()),
            lets_go: false,
        }
    }

    /// What is to be told of it.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Self {
            name,
            group,
            we_read,
            topic,
            lets_go: _,
        } = self;
        let other = name.as_ref().map_or_else(
            || "an AssetForwarder of another namespace".to_owned(),
            |name| format!("the AssetForwarder {name}"),
        );
        let meanwhile = if *we_read {
            "the pods of both go on. Each record is consumed once, but its cluster depends on which of the two rings places it"
        } else if topic.is_some() {
            "this one does not start to read it, and its pods go on with the topics that they read"
        } else {
            "this one starts no pods"
        };
        if let Some(topic) = topic {
            return Verdict::stalled(
                Reason::SourceTaken,
                format!(
                    "{other} also has the topic {topic:?} and the consumer group {group:?}; {meanwhile}. Delete or suspend one of \
                     the two, remove the source from one, or set another group in all spec.sources of one"
                ),
            );
        }
        Verdict::stalled(
            Reason::SourceTaken,
            format!(
                "{other} has the same topic and the consumer group {group:?}; {meanwhile}. Delete or suspend one of the two, or \
                 set another spec.sources[0].group in one"
            ),
        )
    }
}

/// The channels that a forwarder reads, as `namespace/name`.
pub fn channels(forwarder: &AssetForwarder) -> impl Iterator<Item = String> {
    let references = forwarder.spec.sources.iter().map(|source| &source.channel_ref);
    references.filter_map(|reference| {
        let namespace = reference.namespace.clone().or_else(|| forwarder.namespace())?;
        Some(format!("{namespace}/{}", reference.name))
    })
}

/// The consumer group of a forwarder, the same for all its sources.
#[must_use]
pub fn group(forwarder: &AssetForwarder) -> Option<&str> {
    forwarder.spec.sources.first().map(|source| source.group.as_str())
}

/// Whether a forwarder's condition `Ready` is true.
#[must_use]
pub fn is_ready(forwarder: &AssetForwarder) -> bool {
    let status = forwarder.status.as_ref();
    status.is_some_and(|status| are_ready(&status.conditions))
}

/// Whether a forwarder waits for another one to let its source go.
#[must_use]
pub fn waits(forwarder: &AssetForwarder) -> bool {
    let ready = forwarder.status.as_ref().and_then(|status| ready(&status.conditions));
    ready.is_some_and(|ready| Reason::parse(&ready.reason) == Some(Reason::SourceTaken))
}

/// How another forwarder uses a source of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Pods of it may read the source.
    Reads,
    /// Its spec declares the source.
    Declares,
}

/// Whether `other`, which uses a source of ours so, goes before `us`. `we_read`: pods of ours read the source.
#[must_use]
pub fn goes_before(other: &AssetForwarder, us: &AssetForwarder, theirs: Use, we_read: bool, now: Timestamp) -> bool {
    let is_older = age(other) < age(us);
    match (theirs, we_read) {
        (Use::Reads, false) => true,
        (Use::Reads, true) => is_older,
        (Use::Declares, false) => wants_pods(other) && (is_older || may_have_begun(other, us, now)),
        (Use::Declares, true) => false,
    }
}

/// Whether `other`, which declares a source of ours and is younger, may have begun to read it without knowing of us, and has not shown yet
/// what it does.
fn may_have_begun(other: &AssetForwarder, us: &AssetForwarder, now: Timestamp) -> bool {
    let (Some(theirs), Some(ours)) = (other.creation_timestamp(), us.creation_timestamp()) else {
        return false;
    };
    if waits(other) {
        return false;
    }
    // Of an edited spec nobody says when that was.
    let was_edited =
        |forwarder: &AssetForwarder| forwarder.metadata.generation.is_some_and(|generation| generation > 1);
    if has_pods(other) {
        return was_edited(other) && !is_observed(other);
    }
    // What cannot begin for another reason never shows it.
    let is_new = now.duration_since(theirs.0) < UNDECIDED;
    is_new && (was_edited(us) || theirs.0.duration_since(ours.0) <= TOGETHER)
}

/// Who was made so long after another one knows of it. It is made of the seconds of a timestamp, and of how far clocks may differ.
const TOGETHER: SignedDuration = SignedDuration::from_secs(2);

/// By then the younger one has looked again, and knows of the older one.
const UNDECIDED: SignedDuration = SignedDuration::from_secs(15);

/// Whether a forwarder has pods, or is to have some.
#[must_use]
pub fn is_active(forwarder: &AssetForwarder) -> bool {
    wants_pods(forwarder) || has_pods(forwarder)
}

/// Whether a forwarder is to have pods. Where the operator chooses their number, it is at least one, and `replicas` says nothing.
#[must_use]
pub fn wants_pods(forwarder: &AssetForwarder) -> bool {
    let spec = &forwarder.spec;
    !spec.suspend && (spec.replicas > 0 || spec.autoscaling.is_some())
}

/// Whether a forwarder has pods, by its status.
#[must_use]
pub fn has_pods(forwarder: &AssetForwarder) -> bool {
    let status = forwarder.status.as_ref();
    status.is_some_and(|status| status.replicas > 0 || status.desired_replicas.is_some_and(|desired| desired > 0))
}

/// Whether a forwarder's present spec was looked at to the end.
#[must_use]
pub fn is_observed(forwarder: &AssetForwarder) -> bool {
    let observed = forwarder.status.as_ref().and_then(|status| status.observed_generation);
    observed == forwarder.metadata.generation
}

fn age(forwarder: &AssetForwarder) -> (Option<Timestamp>, String, String) {
    let created = forwarder.creation_timestamp().map(|time| time.0);
    (created, forwarder.namespace().unwrap_or_default(), forwarder.name_any())
}
