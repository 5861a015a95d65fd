//! Who owns the assets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::schema::{self, rule};

/// Which `NatsCluster`s are members. Their health never changes that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Clusters {
    /// Labels of the clusters. A cluster that gets them joins, and one that loses them leaves; records stay in order. An empty
    /// selector chooses all.
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub selector: LabelSelector,
    /// Labels of further namespaces whose clusters may be members; each cluster's `allowedNamespaces` must allow this namespace. An
    /// empty selector chooses all. Absent: only the forwarder's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
}

/// The hash ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.subscriberGraceSeconds) || (has(self.beacon) && self.beacon.enabled)")
        .message("subscriberGraceSeconds needs beacon.enabled: true, because without it no subscriber hears of a new ring: enable the \
                  beacon, or remove subscriberGraceSeconds")
        .field_path(".subscriberGraceSeconds"),
    validation = Rule::new(
        "!has(self.subscriberGraceSeconds) \
         || self.subscriberGraceSeconds < (has(self.handoverTimeoutSeconds) ? self.handoverTimeoutSeconds : 60)"
    )
    .message("subscriberGraceSeconds must be less than handoverTimeoutSeconds (by default 60), which begins after it: lower it, or raise \
              handoverTimeoutSeconds")
    .field_path(".subscriberGraceSeconds")
)]
pub struct Ring {
    /// Virtual nodes of a cluster of weight 1. By default 128. A change moves most assets, in order.
    #[serde(default = "default_ring_replicas")]
    #[schemars(range(min = 1, max = 4096))]
    pub replicas: u32,
    /// How changes reach the pods. `Live` (the default): running pods switch to the new ring; `Roll`: the pods are replaced one by one.
    #[serde(default)]
    pub update: RingUpdate,
    /// For how many seconds an asset that changes its owner waits for the old owner to confirm its earlier records. After that
    /// they go to the new owner, in order; the old owner may have them too. By default 60.
    #[serde(default = "default_handover_timeout")]
    #[schemars(range(min = 1, max = 86_400))]
    pub handover_timeout_seconds: u32,
    /// How subscribers learn of the ring: pods announce it on NATS, on every member. Absent: they do not. A change rolls no pods where
    /// `update` is `Live`. All pods of the forwarder must be new enough; until then the condition `PodsTooOld` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beacon: Option<Beacon>,
    /// For how many seconds pods announce a ring that moves assets before they use it, so that subscribers are on both sides by then. Less
    /// than `handoverTimeoutSeconds`, which begins after it. It needs `beacon.enabled`. Absent or 0: no longer than Kafka needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3_600))]
    pub subscriber_grace_seconds: Option<u32>,
}

/// How subscribers learn of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Beacon {
    /// `true`: pods announce the ring, signed by the key in the Secret `NAME-beacon`. The operator makes that key once; `status.beacon`
    /// shows its public half. Deleting the Secret makes a new key, which subscribers must be given. `false`: nothing is announced, and the
    /// key stays.
    pub enabled: bool,
    /// The subject below which the ring is announced. By default `_FANOUT.<namespace>.<name>`. Each forwarder needs one of its own, which no
    /// record and no stream uses. The user of every cluster may publish and subscribe below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "beacon_subject")]
    pub subject: Option<String>,
}

/// How changes of the ring reach the pods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub enum RingUpdate {
    /// Running pods switch to the new ring.
    #[default]
    Live,
    /// The pods are replaced one by one.
    Roll,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            replicas: default_ring_replicas(),
            update: RingUpdate::Live,
            handover_timeout_seconds: default_handover_timeout(),
            beacon: None,
            subscriber_grace_seconds: None,
        }
    }
}

fn beacon_subject(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        1_024,
        &[
            rule(
                r"self.matches(r'^[^.*>\s\p{Cc}]+([.][^.*>\s\p{Cc}]+)*$')",
                "is not a literal subject: write tokens without *, > or blanks, separated by single dots, such as _FANOUT.plant.assets",
            ),
            rule(
                "!self.matches('^([$]|(_INBOX|_GR_)([.]|$))')",
                "begins with a token that NATS reserves: begin with another one, such as _FANOUT",
            ),
        ],
    )
}

const fn default_ring_replicas() -> u32 {
    128
}

const fn default_handover_timeout() -> u32 {
    60
}
