//! What a `NatsCluster` is to others, whoever runs it: its name in rings, its servers, which Secrets tell how to log in, and when it may go.

use crds::NatsCluster;
use crds::nats_cluster::{NatsAuth, NatsAuthSecretRef, NatsAuthType};
use forwarder_core::document::JetStreamApi;
use kube::ResourceExt as _;

use super::credentials::ClusterAccess;

/// The finalizer on every cluster, before it joins a ring: it must not go while pods publish to it.
pub const DRAIN: &str = "fanout.openfactory.io/drain";

/// The port of clients on a managed server.
pub const CLIENT_PORT: u16 = 4222;

/// The name of a cluster in rings.
#[must_use]
pub fn ring_name(cluster: &NatsCluster) -> String {
    cluster.spec.ring_name.clone().unwrap_or_else(|| cluster.name_any())
}

/// The name of a managed cluster's StatefulSet and of its clients' Service.
#[must_use]
pub fn servers(name: &str) -> String {
    format!("{name}-nats")
}

/// Where clients connect to a managed cluster.
fn client_url(name: &str, namespace: &str) -> String {
    format!("nats://{}.{namespace}.svc:{CLIENT_PORT}", servers(name))
}

/// The Secret with the user and password of a managed cluster's clients.
#[must_use]
pub fn client_secret(name: &str) -> String {
    format!("{}-client", servers(name))
}

impl ClusterAccess {
    /// Of a cluster as it is declared. A managed one's servers are one address, its Service's: a list of pods would be another one at
    /// each scaling, and each change of a ring's servers is an epoch. A server that ends leaves the Service before it closes its connections.
    #[must_use]
    pub fn of(cluster: &NatsCluster) -> Self {
        let spec = &cluster.spec;
        if spec.managed.is_some() {
            let name = cluster.name_any();
            return Self {
                servers: vec![client_url(&name, &cluster.namespace().unwrap_or_default())],
                auth: Some(NatsAuth {
                    type_: NatsAuthType::UserPassword,
                    secret_ref: NatsAuthSecretRef {
                        name: client_secret(&name),
                        key: None,
                        username_key: None,
                    },
                }),
                tls: None,
                discover_servers: spec.discover_servers,
                jet_stream: None,
                inbox_prefix: spec.inbox_prefix.clone(),
                client_servers: spec.client_servers.clone(),
            };
        }
        Self {
            servers: spec
                .external
                .iter()
                .flat_map(|external| external.servers.clone())
                .collect(),
            auth: spec.auth.clone(),
            tls: spec.tls.clone(),
            discover_servers: spec.discover_servers,
            jet_stream: spec.jet_stream_api.as_ref().map(|api| JetStreamApi {
                domain: api.domain.clone(),
                api_prefix: api.prefix.clone(),
            }),
            inbox_prefix: spec.inbox_prefix.clone(),
            client_servers: spec.client_servers.clone(),
        }
    }
}

/// The field of a `NatsCluster`'s spec that says what `field` of a cluster says in the ring's document, with all that follows it.
#[must_use]
pub fn spec_field(field: &str) -> String {
    let renamed = |from: &str, to: &str| {
        let rest = field.strip_prefix(from)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("spec.{to}{rest}"))
    };
    renamed("name", "ringName (by default metadata.name)")
        .or_else(|| renamed("servers", "external.servers"))
        .or_else(|| renamed("jetStream.apiPrefix", "jetStreamApi.prefix"))
        .or_else(|| renamed("jetStream", "jetStreamApi"))
        .unwrap_or_else(|| format!("spec.{field}"))
}
