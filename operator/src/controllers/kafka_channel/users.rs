//! Who else uses a topic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crds::reference::NamespacesFrom;
use crds::{AssetForwarder, KafkaChannel};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt as _};

use crate::context::{Context, Scope};
use crate::reconcile::reference::{channels_of, grants};
use crate::watch;

/// Which resources use a topic. One in another namespace is named only if the channel allows that namespace; else it is only
/// counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Users {
    /// Those that may be named, in order.
    pub(super) named: Vec<String>,
    /// How many others there are, in other namespaces.
    pub(super) elsewhere: usize,
}

impl Users {
    pub(super) const fn is_empty(&self) -> bool {
        self.named.is_empty() && self.elsewhere == 0
    }
}

impl fmt::Display for Users {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { named, elsewhere } = self;
        out.write_str(&named.join(", "))?;
        match (named.is_empty(), elsewhere) {
            (_, 0) => Ok(()),
            (false, 1) => out.write_str(" and 1 in another namespace"),
            (false, count) => write!(out, " and {count} in other namespaces"),
            (true, 1) => out.write_str("1 resource in another namespace"),
            (true, count) => write!(out, "{count} resources in other namespaces"),
        }
    }
}

/// The labels of namespaces by their names. A namespace that is not here has none.
pub(super) type Labels = BTreeMap<String, BTreeMap<String, String>>;

/// Who uses the topic of `channel` beside itself, as far as the operator's rights reach. From the API server, not from a store: one that
/// is behind would let a topic go that somebody has just begun to use.
pub(super) async fn listed(context: &Context, channel: &KafkaChannel) -> kube::Result<Users> {
    // This very kind is being reconciled, so it is installed: an answer that nobody knows it is a fault, and not that nobody is there.
    let channels = context.scope.api::<KafkaChannel>(&context.client);
    let channels = channels.list(&ListParams::default()).await?.items;
    let forwarders = watch::listed::<AssetForwarder>(context).await?;
    let labels = labels(context, channel, &channels).await?;
    Ok(users(channel, &channels, &forwarders, &labels))
}

/// The labels of all namespaces, if a channel of the topic chooses by them.
async fn labels(context: &Context, channel: &KafkaChannel, channels: &[KafkaChannel]) -> kube::Result<Labels> {
    let chooses = |other: &KafkaChannel| {
        let allowed = other.spec.allowed_namespaces.as_ref();
        same_topic(channel, other) && allowed.is_some_and(|allowed| allowed.from == NamespacesFrom::Selector)
    };
    // Who watches one namespace may not read any, and sees forwarders of no other one.
    if context.scope != Scope::Cluster || !channels.iter().any(chooses) {
        return Ok(Labels::new());
    }
    let namespaces = Api::<Namespace>::all(context.client.clone());
    let namespaces = namespaces.list_metadata(&ListParams::default()).await?;
    let named = namespaces.items.iter();
    let named = named.map(|namespace| (namespace.name_any(), namespace.labels().clone()));
    Ok(named.collect())
}

/// Who uses the topic of `channel` beside itself: other channels of the topic, and the forwarders that name any of them and are let in by
/// it. Channels that are being deleted do not count, or two would wait for each other.
pub(super) fn users(
    channel: &KafkaChannel,
    channels: &[KafkaChannel],
    forwarders: &[AssetForwarder],
    labels: &Labels,
) -> Users {
    let own = place(channel);
    let mut users = Users::default();
    let mut count = |kind: &str, (namespace, name): &(String, String), may_be_named: bool| {
        if may_be_named {
            users.named.push(format!("{kind} {namespace}/{name}"));
        } else {
            users.elsewhere += 1;
        }
    };
    let mut of_topic = BTreeMap::from([(own.clone(), channel)]);
    for other in channels.iter().filter(|other| same_topic(channel, other)) {
        let there = place(other);
        if there != own && other.meta().deletion_timestamp.is_none() {
            count("KafkaChannel", &there, there.0 == own.0);
        }
        of_topic.insert(there, other);
    }
    let no_labels = BTreeMap::new();
    for forwarder in forwarders {
        let there = place(forwarder);
        let from = &there.0;
        let labels = labels.get(from).unwrap_or(&no_labels);
        let lets_in = |named: &(String, String)| {
            of_topic.get(named).is_some_and(|channel| {
                let allowed = channel.spec.allowed_namespaces.as_ref();
                grants(allowed, &named.0, from, labels)
            })
        };
        let used: BTreeSet<_> = channels_of(forwarder).into_iter().filter(lets_in).collect();
        if !used.is_empty() {
            count("AssetForwarder", &there, *from == own.0 || used.contains(&own));
        }
    }
    users.named.sort();
    users
}

/// Whether two channels are of one topic: of one name, in a Kafka that is the same by its ID or by one of its addresses. A second Kafka
/// behind the same address would be taken for the first one, which leaves a topic rather than deletes it.
fn same_topic(one: &KafkaChannel, other: &KafkaChannel) -> bool {
    let id = |channel: &KafkaChannel| channel.status.as_ref().and_then(|status| status.cluster_id.clone());
    let addresses = |channel: &KafkaChannel| -> BTreeSet<String> {
        let servers = channel.spec.connection.bootstrap_servers.iter();
        servers.map(|server| address(server)).collect()
    };
    one.spec.topic.name == other.spec.topic.name
        && (!addresses(one).is_disjoint(&addresses(other)) || id(one).is_some_and(|id_of| id(other) == Some(id_of)))
}

/// Names of hosts have no case, and may end with the dot of the root.
fn address(server: &str) -> String {
    let server = server.to_ascii_lowercase();
    match server.rsplit_once(':') {
        Some((host, port)) => format!("{}:{port}", host.trim_end_matches('.')),
        None => server,
    }
}

fn place<K: Resource<DynamicType = ()>>(object: &K) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}
