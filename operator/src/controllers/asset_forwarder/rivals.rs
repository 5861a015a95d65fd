//! Two forwarders that read one topic in one consumer group: which of them waits. Pure.
//!
//! Kafka shares the partitions among all members of a group, whichever forwarder they belong to. So two forwarders consume each record
//! once, but each of them by its own ring: an asset's records would go to this cluster or that one, as the partitions move.
//!
//! - Who runs no pods for that source begins none while another one reads it, or is older. With several sources that is true of each: one
//!   that is added is not taken up while another forwarder has it, and pods go on with those that they read.
//! - Who runs pods already keeps them, also if the other one is older: an operator before this one may have let both begin. To end them
//!   would move the whole load to pods that were not made for it, and to a ring that may name other clusters. That is for a person to
//!   decide. Nothing is lost meanwhile: each record is still consumed by one member and confirmed. The condition says what is wrong.
//!
//! - Of two that were made within moments the younger one may have begun before it could know of the older one: names break a tie, and clocks
//!   of API servers differ. The older one waits until the younger one waits for it, or shows pods.
//! So no forwarder stops the pods of another one. A forwarder that changes its source does not disturb one that already reads
//! there.

use crds::AssetForwarder;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use crate::reconcile::conditions::Verdict;
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

/// Whether a forwarder waits for another one to let its source go.
#[must_use]
pub fn waits(forwarder: &AssetForwarder) -> bool {
    let mut conditions = forwarder.status.iter().flat_map(|status| &status.conditions);
    conditions
        .any(|condition| condition.type_ == "Ready" && Reason::parse(&condition.reason) == Some(Reason::SourceTaken))
}

/// Whether `other`, which has the same source, goes before `us`. `we_read`: pods of ours read the source.
#[must_use]
pub fn goes_before(other: &AssetForwarder, us: &AssetForwarder, we_read: bool) -> bool {
    if !is_active(other) {
        return false;
    }
    let is_older = age(other) < age(us);
    if we_read {
        // Of which source its pods are is known once its present spec was looked at.
        is_older && has_pods(other) && !waits(other) && is_observed(other)
    } else {
        is_older || (has_pods(other) && (!waits(other) || has_several(other)))
    }
}

/// Pods of one that waits are of another source, where it has one only. Of several they may read all but the one that it waits for.
fn has_several(forwarder: &AssetForwarder) -> bool {
    forwarder.spec.sources.len() > 1
}

/// Whether `other`, which has the same source and is younger than `us`, may have begun without knowing of us, and has not shown yet which it is.
/// Neither has pods that are known.
#[must_use]
pub fn may_have_begun(other: &AssetForwarder, us: &AssetForwarder, now: Timestamp) -> bool {
    let (Some(theirs), Some(ours)) = (other.creation_timestamp(), us.creation_timestamp()) else {
        return false;
    };
    is_active(other)
        && age(us) < age(other)
        && theirs.0.duration_since(ours.0) <= TOGETHER
        // What cannot begin for another reason never shows it.
        && now.duration_since(theirs.0) < UNDECIDED
        && !waits(other)
        && !has_pods(other)
}

/// Who was made so long after another one knows of it. It is made of the seconds of a timestamp, and of how far clocks may differ.
const TOGETHER: SignedDuration = SignedDuration::from_secs(2);

/// By then the younger one has looked again, and knows of the older one.
const UNDECIDED: SignedDuration = SignedDuration::from_secs(15);

/// Whether a forwarder has pods, or is to have some.
fn is_active(forwarder: &AssetForwarder) -> bool {
    wants_pods(forwarder) || has_pods(forwarder)
}

/// Whether a forwarder is to have pods. Where the operator chooses their number, it is at least one, and `replicas` says nothing.
#[must_use]
pub fn wants_pods(forwarder: &AssetForwarder) -> bool {
    let spec = &forwarder.spec;
    !spec.suspend && (spec.replicas > 0 || spec.autoscaling.is_some())
}

fn has_pods(forwarder: &AssetForwarder) -> bool {
    let status = forwarder.status.as_ref();
    status.is_some_and(|status| status.replicas > 0 || status.desired_replicas.is_some_and(|desired| desired > 0))
}

fn is_observed(forwarder: &AssetForwarder) -> bool {
    let observed = forwarder.status.as_ref().and_then(|status| status.observed_generation);
    observed == forwarder.metadata.generation
}

fn age(forwarder: &AssetForwarder) -> (Option<Timestamp>, String, String) {
    let created = forwarder.creation_timestamp().map(|time| time.0);
    (created, forwarder.namespace().unwrap_or_default(), forwarder.name_any())
}
