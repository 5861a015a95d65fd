//! A cluster in an answer.

use forwarder_core::fanout::ring::LeanRing;
use forwarder_core::fanout::table::{Member, Summary};
use serde::Serialize;

/// A cluster that owns assets. Whatever else clients are to know of a cluster belongs here: all answers have it then.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Cluster<'a> {
    cluster_name: &'a str,
    /// Without user and password.
    nats_urls: Vec<&'a str>,
    /// Where subscribers reach it: `clientServers` of the NatsCluster, or the same as `nats_urls` where none are declared.
    client_urls: Vec<&'a str>,
}

impl<'a> Cluster<'a> {
    /// A member of a ring.
    pub(super) fn of(member: Member<'a>) -> Self {
        Self {
            cluster_name: member.name,
            nats_urls: member.nats_urls().collect(),
            client_urls: member.client_urls().collect(),
        }
    }

    /// Who owns an asset by `ring`, which is that of `summary`; none only where that member is not there, which it always is.
    pub(super) fn owner(summary: &'a Summary, ring: &LeanRing, asset: &str) -> Option<Self> {
        summary.members().nth(ring.owner(asset.as_bytes())).map(Self::of)
    }
}
