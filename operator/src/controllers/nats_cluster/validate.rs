//! Whether a cluster's spec can work at all, judged by the forwarder's own rules.

use std::path::Path;

use crds::NatsCluster;
use forwarder_core::document::{Cluster, RingConfig};
use kube::ResourceExt as _;

use crate::reconcile::cluster::{ring_name, spec_field};
use crate::reconcile::credentials::{self, ClusterAccess, Files, NatsCredentials, Secrets, prefix};
use crate::reconcile::invalid_spec::InvalidSpec;

/// A cluster that a forwarder takes as a member of its ring.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// As the ring's document has it.
    pub cluster: Cluster,
    /// The files that it names.
    pub files: Files,
}

/// The cluster as a member of a ring, its files named in `folder`.
///
/// # Errors
/// [`InvalidSpec`]; faults of the spec go before those of Secrets.
pub fn validate(cluster: &NatsCluster, secrets: &Secrets, folder: &Path) -> Result<Validated, InvalidSpec> {
    let access = ClusterAccess::of(cluster);
    let mut member = Cluster {
        name: ring_name(cluster),
        servers: access.servers.clone(),
        weight: cluster.spec.weight,
        auth: None,
        tls: None,
        discover_servers: access.discover_servers,
        jet_stream: access.jet_stream.clone(),
        inbox_prefix: access.inbox_prefix.clone(),
        client_servers: access.client_servers.clone(),
    };
    check(&member)?;
    let prefix = prefix("nats", &cluster.namespace().unwrap_or_default(), &cluster.name_any());
    let NatsCredentials { auth, tls, files } = credentials::nats(&access, secrets, &prefix, folder)?;
    member.auth = auth;
    member.tls = tls;
    Ok(Validated { cluster: member, files })
}

/// The checks of a ring with this one member and otherwise nothing to find fault with.
fn check(member: &Cluster) -> Result<(), InvalidSpec> {
    let ring = RingConfig {
        epoch: 1,
        replicas: 1,
        handover_timeout_ms: 60_000,
        clusters: vec![member.clone()],
        beacon: None,
        mirror: None,
    };
    ring.check().map_err(|errors| {
        let faults = errors.faults().iter().map(|fault| {
            let path = fault.path.strip_prefix("clusters[0].").unwrap_or(&fault.path);
            let remedy = fault.remedy.replace("apiPrefix", "prefix");
            let problem = fault.problem.replace("apiPrefix", "prefix");
            format!("{}: {problem}; {remedy}", spec_field(path))
        });
        InvalidSpec::Spec(faults.collect::<Vec<_>>().join(". "))
    })
}
