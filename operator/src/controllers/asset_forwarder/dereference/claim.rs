//! What a forwarder wants to read, and what another one has to do with that. Pure.

use crds::AssetForwarder;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::{Channel, Dereferenced};
use crate::controllers::asset_forwarder::names::Identity;
use crate::controllers::asset_forwarder::rivals::{
    Use, channels, goes_before, group, has_pods, is_active, waits, wants_pods,
};
use crate::controllers::asset_forwarder::rollout;
use crate::controllers::asset_forwarder::sources::Sources;

/// What a forwarder wants to read.
pub struct Claim<'a> {
    us: &'a AssetForwarder,
    /// The consumer group.
    pub group: &'a str,
    /// The sources that pods of ours read, or are about to.
    pub read: Vec<Claimed<'a>>,
    /// The others.
    pub wanted: Vec<Claimed<'a>>,
}

/// A source of a claim.
#[derive(Clone, Copy, Debug)]
pub struct Claimed<'a> {
    /// The channel, as `namespace/name`.
    pub reference: &'a str,
    /// The channel itself.
    pub channel: &'a Channel,
}

/// What pods of another forwarder may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing: there are none.
    Nothing,
    /// These sources.
    Sources(Sources),
    /// Nobody has noted it. It may be all that the spec declares.
    Unknown,
}

impl<'a> Claim<'a> {
    /// None: it wants no pods, or it is not known yet what they would read.
    #[must_use]
    pub fn of(found: &'a Dereferenced) -> Option<Self> {
        let us = &found.forwarder;
        if !wants_pods(us) {
            return None;
        }
        let group = group(us)?;
        let noted = noted(found);
        let is_read = |claimed: &Claimed<'_>| {
            let noted = noted.as_ref();
            noted.is_some_and(|noted| noted.contains(claimed.reference, &claimed.channel.topic, group))
        };
        let claimed = found.sources.iter().filter_map(|source| {
            Some(Claimed {
                reference: &source.name,
                channel: source.channel()?,
            })
        });
        let (read, wanted) = claimed.partition(is_read);
        Some(Self {
            us,
            group,
            read,
            wanted,
        })
    }

    /// Whether `other` may have to do with this group: by its spec, or by pods that have not followed its spec, for whatever reason. `read` is
    /// asked only then: what its pods may read.
    #[must_use]
    pub fn concerns(&self, other: &AssetForwarder, read: impl FnOnce() -> Read) -> bool {
        let have_pods_the_group =
            || matches!(read(), Read::Sources(sources) if sources.in_group(self.group).next().is_some());
        other.uid() != self.us.uid()
            && ((is_active(other) && group(other) == Some(self.group)) || have_pods_the_group())
    }

    /// Whether `other`, whose pods may read a source of ours, goes before us.
    #[must_use]
    pub fn reader_goes_before(&self, other: &AssetForwarder, we_read: bool) -> bool {
        goes_before(other, self.us, Use::Reads, we_read, Timestamp::now())
    }

    /// Whether `other`, which declares a source that we want to read, goes before us. One that waits while pods of ours read may wait for
    /// just these: then nobody would ever begin. It looks again before it begins, and finds what has begun.
    #[must_use]
    pub fn declarer_goes_before(&self, other: &AssetForwarder) -> bool {
        let may_wait_for_us = waits(other) && !self.read.is_empty();
        group(other) == Some(self.group)
            && !may_wait_for_us
            && goes_before(other, self.us, Use::Declares, false, Timestamp::now())
    }

    /// The first source that pods of ours read, and those of another one too, by the channel that both refer to.
    #[must_use]
    pub fn read_by_both(&self, other: &AssetForwarder, read: &Read) -> Option<&Claimed<'a>> {
        self.read.iter().find(|ours| match read {
            Read::Nothing => false,
            Read::Sources(sources) => sources.contains(ours.reference, &ours.channel.topic, self.group),
            Read::Unknown => {
                group(other) == Some(self.group) && channels(other).any(|channel| channel == ours.reference)
            }
        })
    }
}

impl Read {
    /// What the pods of `other` may read, by its Deployment; none: there is none of that name. `are_pods_there`: those that are ending
    /// count too, which no number in a status tells.
    #[must_use]
    pub fn by(other: &AssetForwarder, deployment: Option<&Deployment>, are_pods_there: bool) -> Self {
        let owned = deployment.filter(|deployment| Identity::of(other).owns(*deployment));
        let may_have = |deployment: &Deployment| {
            let status = deployment.status.as_ref().and_then(|status| status.replicas);
            rollout::desired(deployment) > 0 || status.unwrap_or(0) > 0
        };
        if !are_pods_there && !has_pods(other) && !owned.is_some_and(may_have) {
            return Self::Nothing;
        }
        owned.and_then(Sources::of_pods).map_or(Self::Unknown, Self::Sources)
    }
}

/// What pods of ours read, or are about to; none: there are no such pods. Those that are ending do not count: another forwarder may wait for
/// their end.
fn noted(found: &Dereferenced) -> Option<Sources> {
    let existing = &found.existing;
    let deployment = existing.deployment.as_ref()?;
    let has_pods = rollout::desired(deployment) > 0 || existing.pods.iter().any(|pod| !pod.terminating);
    Sources::of_pods(deployment).filter(|_| has_pods)
}
