//! Which version of the ring's document has which fields, and so what forwarders of older releases can read.
//!
//! | version | what it brought |
//! |---|---|
//! | 1 | all that is in no other line; forwarders that do not tell their version read this one |
//! | 2 | `clusters[].discoverServers`, `clusters[].jetStream`, `clusters[].inboxPrefix` |
//! | 3 | `beacon`, `clusters[].clientServers` |
//! | 4 | `mirror` |
//!
//! These are versions of the ring's document, which running pods take up. The process's own document has none. An operator writes it with
//! the pods' template, so whoever reads it has the template's image. There a later field, such as `source.furtherTopics`, needs an image
//! that reads it: an older one refuses the document with that field's name. The rollout stops at its first pod, and the pods that were there
//! go on with their document. So that field too is optional, and is written only where somebody declares it.
//!
//! A forwarder refuses a document with a field that it does not know, because that one could change who owns what. So whoever writes a
//! document for others asks which version they read (`documentVersion` in `/status`), and leaves newer fields out until they do. A new
//! field is optional, is written only where somebody declares it, and gets the number of the next release's version: in the table, in
//! [`RING_DOCUMENT_VERSION`] and in `Cluster::later_fields`, which does not compile without it.

use super::{Beacon, Cluster, JetStreamApi, MirrorConfig, NatsAuth, PreviousCluster, PreviousRing, RingConfig, Tls};

/// The newest version of the ring's document that this code reads; see the table in the module.
pub const RING_DOCUMENT_VERSION: u32 = 4;

/// The version that every forwarder reads.
pub const FIRST_RING_DOCUMENT_VERSION: u32 = 1;

/// The version that brought `beacon`.
const BEACON_SINCE: u32 = 3;

/// The version that brought `mirror`.
const MIRROR_SINCE: u32 = 4;

impl RingConfig {
    /// The same ring in the form that readers of `version` accept: without the fields that came later.
    #[must_use]
    pub fn as_read_by(&self, version: u32) -> Self {
        let Self {
            epoch,
            replicas,
            handover_timeout_ms,
            clusters,
            beacon,
            mirror,
        } = self;
        Self {
            epoch: *epoch,
            replicas: *replicas,
            handover_timeout_ms: *handover_timeout_ms,
            clusters: clusters.iter().map(|cluster| cluster.as_read_by(version)).collect(),
            beacon: beacon.clone().filter(|beacon| beacon.document_version() <= version),
            mirror: mirror.clone().filter(|mirror| mirror.document_version() <= version),
        }
    }

    /// The lowest version whose readers accept this document.
    #[must_use]
    pub fn document_version(&self) -> u32 {
        let Self {
            epoch: _,
            replicas: _,
            handover_timeout_ms: _,
            clusters,
            beacon,
            mirror,
        } = self;
        let beacon = beacon.as_ref().map(Beacon::document_version);
        let mirror = mirror.as_ref().map(MirrorConfig::document_version);
        let versions = clusters
            .iter()
            .map(Cluster::document_version)
            .chain(beacon)
            .chain(mirror);
        versions.max().unwrap_or(FIRST_RING_DOCUMENT_VERSION)
    }
}

impl Beacon {
    /// The lowest version whose readers accept a ring with this beacon. It is taken apart, so that a new field does not compile before it
    /// has its version here.
    #[must_use]
    pub const fn document_version(&self) -> u32 {
        let Self {
            subject: _,
            ring: _,
            key_file: _,
            grace_ms: _,
        } = self;
        BEACON_SINCE
    }
}

impl MirrorConfig {
    /// The lowest version whose readers accept a ring with these copies. It is taken apart as a beacon is.
    #[must_use]
    pub fn document_version(&self) -> u32 {
        let Self { moved_ms: _, previous } = self;
        let members = previous
            .iter()
            .flat_map(|PreviousRing { replicas: _, clusters }| clusters);
        let versions = members.map(|PreviousCluster { name: _, weight: _ }| MIRROR_SINCE);
        versions.max().unwrap_or(MIRROR_SINCE)
    }
}

impl Cluster {
    /// The lowest version whose readers accept this cluster.
    #[must_use]
    pub fn document_version(&self) -> u32 {
        let versions = self.later_fields().map(|(_, since)| since);
        versions.max().unwrap_or(FIRST_RING_DOCUMENT_VERSION)
    }

    /// The fields that are declared here and that readers of `version` do not know, by their names in the document.
    pub fn newer_than(&self, version: u32) -> impl Iterator<Item = &'static str> {
        let later = self.later_fields();
        later.filter_map(move |(field, since)| (since > version).then_some(field))
    }

    /// The same cluster in the form that readers of `version` accept: without the fields that came later.
    #[must_use]
    pub fn as_read_by(&self, version: u32) -> Self {
        let Self {
            name,
            servers,
            weight,
            auth,
            tls,
            discover_servers,
            jet_stream,
            inbox_prefix,
            client_servers,
        } = self.clone();
        let is_read = |since: u32| since <= version;
        Self {
            name,
            servers,
            weight,
            auth,
            tls,
            discover_servers: discover_servers.filter(|_| is_read(2)),
            jet_stream: jet_stream.filter(|_| is_read(2)),
            inbox_prefix: inbox_prefix.filter(|_| is_read(2)),
            client_servers: if is_read(3) { client_servers } else { Vec::new() },
        }
    }

    /// The fields that are declared and did not come with the first version, each with the version that brought it.
    ///
    /// All is taken apart down to its last field, so that a new one does not compile before it has its version here.
    fn later_fields(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let Self {
            name: _,
            servers: _,
            weight: _,
            auth,
            tls,
            discover_servers,
            jet_stream,
            inbox_prefix,
            client_servers,
        } = self;
        match auth {
            None
            | Some(
                NatsAuth::Creds { file: _ }
                | NatsAuth::NKey { seed_file: _ }
                | NatsAuth::Token { file: _ }
                | NatsAuth::UserPassword {
                    username: _,
                    password_file: _,
                },
            ) => {}
        }
        match tls {
            None
            | Some(Tls {
                ca_file: _,
                cert_file: _,
                key_file: _,
            }) => {}
        }
        match jet_stream {
            None
            | Some(JetStreamApi {
                domain: _,
                api_prefix: _,
            }) => {}
        }
        let fields = [
            ("discoverServers", 2, discover_servers.is_some()),
            ("jetStream", 2, jet_stream.is_some()),
            ("inboxPrefix", 2, inbox_prefix.is_some()),
            ("clientServers", 3, !client_servers.is_empty()),
        ];
        let declared = fields.into_iter().filter(|(_, _, is_declared)| *is_declared);
        declared.map(|(field, since, _)| (field, since))
    }
}

#[cfg(test)]
mod tests;
