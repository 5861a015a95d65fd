//! Names, labels and ports of what a managed cluster consists of.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crds::NatsCluster;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use crate::reconcile::child::{self, pairs};
pub(super) use crate::reconcile::cluster::CLIENT_PORT;
use crate::reconcile::cluster::{client_secret, servers};

/// The label by which an object tells its cluster's name.
pub(crate) const CLUSTER: &str = "fanout.openfactory.io/nats-cluster";
/// On a pod template: a hash of the servers' configuration, the routes left out: scaling restarts nobody.
pub(super) const CONFIGURATION: &str = "fanout.openfactory.io/configuration";
/// On a pod template: a hash of the passwords between servers. Servers that have different ones do not find each other.
pub(super) const PASSWORDS: &str = "fanout.openfactory.io/server-passwords";

/// The volumes' name, and the beginning of their claims' names.
pub(super) const DATA: &str = "data";
/// The servers' container.
pub(super) const CONTAINER: &str = "nats";
/// The user name of clients.
pub(super) const CLIENT_USER: &str = "client";
/// The user name of the operator, in the system account.
pub(super) const SYSTEM_USER: &str = "system";
/// The user name of the operator among clients. Its password is the system's: the clients' may be another one by now than servers have.
pub(super) const OPERATOR_USER: &str = "operator";
/// The user name of servers among themselves.
pub(super) const ROUTE_USER: &str = "route";

/// Other servers.
pub(super) const ROUTE_PORT: u16 = 6222;
/// Health and figures.
pub(super) const MONITOR_PORT: u16 = 8222;

/// Who a managed cluster is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Identity {
    pub(super) namespace: String,
    pub(super) name: String,
    owner: Option<OwnerReference>,
}

impl Identity {
    pub(super) fn of(cluster: &NatsCluster) -> Self {
        Self {
            namespace: cluster.namespace().unwrap_or_default(),
            name: cluster.name_any(),
            owner: cluster.controller_owner_ref(&()).map(|owner| OwnerReference {
                block_owner_deletion: Some(true),
                ..owner
            }),
        }
    }

    /// The StatefulSet, the clients' Service and the disruption budget.
    pub(super) fn servers(&self) -> String {
        servers(&self.name)
    }

    /// A server: its pod, and its name among servers.
    pub(super) fn server(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.servers())
    }

    /// The number of a server by its name.
    pub(super) fn ordinal(&self, server: &str) -> Option<u32> {
        server.strip_prefix(&self.servers())?.strip_prefix('-')?.parse().ok()
    }

    pub(super) fn headless(&self) -> String {
        format!("{}-headless", self.servers())
    }

    pub(super) fn config_map(&self) -> String {
        format!("{}-config", self.servers())
    }

    pub(super) fn client_secret(&self) -> String {
        client_secret(&self.name)
    }

    pub(super) fn server_secret(&self) -> String {
        format!("{}-server", self.servers())
    }

    /// What chooses the pods.
    pub(super) fn selector(&self) -> BTreeMap<String, String> {
        pairs([
            ("app.kubernetes.io/name", "nats"),
            ("app.kubernetes.io/instance", &self.name),
            (CLUSTER, &self.name),
        ])
    }

    /// The labels of every child.
    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.selector();
        labels.extend(pairs([
            ("app.kubernetes.io/managed-by", "fanout-operator"),
            ("app.kubernetes.io/part-of", "fanout"),
        ]));
        labels
    }

    /// The metadata of a child.
    pub(super) fn child(&self, name: String) -> ObjectMeta {
        child::metadata(&self.namespace, name, self.labels(), self.owner.as_ref())
    }
}

/// Where clients connect to one server.
pub(in crate::controllers::nats_cluster) fn url(address: IpAddr) -> String {
    format!("nats://{}", SocketAddr::new(address, CLIENT_PORT))
}
