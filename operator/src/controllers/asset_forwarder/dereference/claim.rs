//! What a forwarder wants to read, source by source. Pure.

use crds::AssetForwarder;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::{Channel, Dereferenced};
use crate::controllers::asset_forwarder::rivals::{goes_before, group, may_have_begun, wants_pods};
use crate::controllers::asset_forwarder::rollout;
use crate::controllers::asset_forwarder::sources::Sources;

/// What a forwarder wants to read.
pub struct Claim<'a> {
    us: &'a AssetForwarder,
    group: &'a str,
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

    /// Whether `other` goes before us with any source, if it has that one too.
    #[must_use]
    pub fn is_rival(&self, other: &AssetForwarder) -> bool {
        (!self.read.is_empty() && self.goes_before(other, true))
            || (!self.wanted.is_empty() && self.goes_before(other, false))
    }

    /// Whether `other` goes before us with a source that it has too. `we_read`: pods of ours read it.
    #[must_use]
    pub fn goes_before(&self, other: &AssetForwarder, we_read: bool) -> bool {
        let may_read =
            || goes_before(other, self.us, we_read) || (!we_read && may_have_begun(other, self.us, Timestamp::now()));
        other.uid() != self.us.uid() && group(other) == Some(self.group) && may_read()
    }
}

/// What pods of ours read, or are about to; none: there are no such pods.
fn noted(found: &Dereferenced) -> Option<Sources> {
    let existing = &found.existing;
    let deployment = existing.deployment.as_ref()?;
    let has_pods = rollout::desired(deployment) > 0 || !existing.pods.is_empty();
    Sources::noted(deployment).filter(|_| has_pods)
}
