//! How clients reach a cluster, whoever runs it: its servers, and which Secrets tell how to log in.

use crds::NatsCluster;
use crds::nats_cluster::{NatsAuth, NatsAuthSecretRef, NatsAuthType};
use crds::reference::Tls;
use kube::ResourceExt as _;

use super::managed::names;

/// How clients reach a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterAccess {
    /// The servers, as the ring's document has them.
    pub servers: Vec<String>,
    /// How to authenticate.
    pub auth: Option<NatsAuth>,
    /// TLS.
    pub tls: Option<Tls>,
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
                servers: vec![names::client_url(&name, &cluster.namespace().unwrap_or_default())],
                auth: Some(NatsAuth {
                    type_: NatsAuthType::UserPassword,
                    secret_ref: NatsAuthSecretRef {
                        name: names::client_secret(&name),
                        key: None,
                        username_key: None,
                    },
                }),
                tls: None,
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
        }
    }
}
