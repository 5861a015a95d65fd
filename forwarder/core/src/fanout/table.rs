//! Which cluster owns an asset, and where that is: what people and programs are answered who ask.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::document::{RingConfig, server};
use crate::fanout::ring::{LeanRing, RingError};

/// Who owns what, and where it is.
#[derive(Clone, Debug)]
pub struct Table {
    summary: Summary,
    ring: LeanRing,
}

/// What a ring's document says that answers need: without virtual nodes, and without credentials. Cheap to keep.
#[derive(Clone, Debug)]
pub struct Summary {
    epoch: u64,
    /// Of all the rest.
    digest: [u8; Summary::DIGEST],
    shape: Arc<Shape>,
    /// The URLs of each member, one a line, in the order of the members. User and password are gone before anything is answered.
    servers: Box<[Box<str>]>,
    /// The same of where subscribers reach each member; empty: at its servers.
    client_servers: Box<[Box<str>]>,
}

/// All that says who owns what. Documents of one shape have the same owners, whatever their epochs and servers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Shape {
    replicas: u32,
    /// Names and weights.
    members: Box<[(Box<str>, u32)]>,
}

/// A member of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name in the ring.
    pub name: &'a str,
    /// Its share, relative to the other members.
    pub weight: u32,
    /// Its URLs, one a line.
    servers: &'a str,
    /// Where subscribers reach it, one a line; empty: at `servers`.
    client_servers: &'a str,
}

/// The answer; the first three members are the original's, which takes the first URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// The asset that was asked for.
    pub asset_id: String,
    /// The cluster that owns it.
    pub cluster_name: String,
    /// The first server of the cluster.
    pub nats_url: String,
    /// All servers of the cluster, without user and password.
    pub nats_urls: Vec<String>,
    /// The epoch of the ring that says so.
    pub ring_epoch: u64,
}

impl Shape {
    /// How many virtual nodes it makes.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        let nodes = self
            .members
            .iter()
            .map(|(_, weight)| u64::from(*weight) * u64::from(self.replicas));
        nodes.fold(0, u64::saturating_add)
    }

    /// The ring. It takes [`LeanRing::NODE_BYTES`] a virtual node, and up to a second of computing.
    ///
    /// # Errors
    /// Members that make no ring.
    pub fn ring(&self) -> Result<LeanRing, RingError> {
        let members = self.members.iter().map(|(name, weight)| (name.to_string(), *weight));
        LeanRing::new(members, self.replicas)
    }
}

impl<'a> Member<'a> {
    /// The URLs of its servers, without user and password.
    pub fn nats_urls(self) -> impl Iterator<Item = &'a str> {
        self.servers.lines()
    }

    /// Where subscribers reach it, without user and password.
    pub fn client_urls(self) -> impl Iterator<Item = &'a str> {
        let urls = if self.client_servers.is_empty() {
            self.servers
        } else {
            self.client_servers
        };
        urls.lines()
    }
}

impl Summary {
    /// Bytes of a digest: enough that nobody finds two rings with one digest.
    const DIGEST: usize = 32;

    /// Of a ring's document.
    #[must_use]
    pub fn of(config: &RingConfig) -> Self {
        let RingConfig {
            epoch,
            replicas,
            handover_timeout_ms: _,
            clusters,
            beacon: _,
            mirror: _,
        } = config;
        let lines = |urls: &[String]| -> Box<str> {
            let urls: Vec<String> = urls.iter().map(|url| server::without_userinfo(url)).collect();
            urls.join("\n").into()
        };
        let members = clusters
            .iter()
            .map(|cluster| (cluster.name.as_str().into(), cluster.weight));
        let mut summary = Self {
            epoch: *epoch,
            digest: [0; Self::DIGEST],
            shape: Arc::new(Shape {
                replicas: *replicas,
                members: members.collect(),
            }),
            servers: clusters.iter().map(|cluster| lines(&cluster.servers)).collect(),
            client_servers: clusters.iter().map(|cluster| lines(&cluster.client_servers)).collect(),
        };
        summary.digest = summary.digested();
        summary
    }

    fn digested(&self) -> [u8; Self::DIGEST] {
        let mut hash = Sha256::new()
            .chain_update(self.epoch.to_be_bytes())
            .chain_update(self.replicas().to_be_bytes());
        for member in self.members() {
            let Member {
                name,
                weight,
                servers,
                client_servers,
            } = member;
            hash.update(weight.to_be_bytes());
            // With its length, no text passes for the end of another one.
            for text in [name, servers, client_servers] {
                hash.update(text.len().to_be_bytes());
                hash.update(text);
            }
        }
        hash.finalize().into()
    }

    /// The epoch of the ring.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The same for documents that say the same: epoch, virtual nodes and members with their servers.
    #[must_use]
    pub const fn digest(&self) -> &[u8; Self::DIGEST] {
        &self.digest
    }

    /// Virtual nodes of a member of weight 1.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        self.shape.replicas
    }

    /// The members, in the order of the document.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let urls = self.servers.iter().zip(&self.client_servers);
        let members = self.shape.members.iter().zip(urls);
        members.map(|((name, weight), (servers, client_servers))| Member {
            name,
            weight: *weight,
            servers,
            client_servers,
        })
    }

    /// What says who owns what.
    #[must_use]
    pub const fn shape(&self) -> &Arc<Shape> {
        &self.shape
    }

    /// About how many bytes of memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// A name and the servers of a member: three fat pointers, a weight, and what the allocator takes for three texts.
        const MEMBER: usize = 112;
        let names = self.shape.members.iter().map(|(name, _)| name.len());
        let servers = self.servers.iter().chain(&self.client_servers);
        let servers = servers.map(|servers| servers.len());
        names.chain(servers).sum::<usize>() + self.servers.len() * MEMBER + size_of::<Self>() + size_of::<Shape>()
    }

    /// Who owns an asset by `ring`, which is that of its shape; none only where that member has no server, which no checked ring has.
    #[must_use]
    pub fn answer(&self, ring: &LeanRing, asset_id: String) -> Option<Answer> {
        let owner = ring.owner(asset_id.as_bytes());
        let (cluster_name, _) = self.shape.members.get(owner)?;
        let nats_urls: Vec<String> = self.servers.get(owner)?.lines().map(str::to_owned).collect();
        Some(Answer {
            asset_id,
            cluster_name: cluster_name.to_string(),
            nats_url: nats_urls.first()?.clone(),
            nats_urls,
            ring_epoch: self.epoch,
        })
    }
}

impl Table {
    /// The table of a checked ring.
    ///
    /// # Errors
    /// Members that make no ring.
    pub fn new(config: &RingConfig) -> Result<Self, RingError> {
        let summary = Summary::of(config);
        let ring = summary.shape.ring()?;
        Ok(Self { summary, ring })
    }

    /// Who owns an asset; none only where that member has no server, which no checked ring has.
    #[must_use]
    pub fn answer(&self, asset_id: String) -> Option<Answer> {
        self.summary.answer(&self.ring, asset_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: &str = "epoch: 7
replicas: 64
clusters:
- name: A
  weight: 2
  servers: [nats://a:4222, nats://b:4222]
- name: B
  servers: [nats://c:4222]
  clientServers: [wss://c.example:443, nats://c.example:4222]
";

    fn summary(text: &str) -> Summary {
        Summary::of(&RingConfig::from_yaml(text).unwrap())
    }

    #[test]
    fn a_digest_is_the_same_for_all_that_is_answered_and_for_nothing_else() {
        let digest = *summary(RING).digest();
        assert_eq!(&digest, summary(&format!("handoverTimeoutMs: 9\n{RING}")).digest());
        for (part, other) in [
            ("epoch: 7", "epoch: 8"),
            ("replicas: 64", "replicas: 65"),
            ("weight: 2", "weight: 3"),
            ("name: A", "name: C"),
            ("nats://a:4222", "nats://a:4223"),
            ("nats://b:4222]", "nats://b:4222, nats://d:4222]"),
            ("wss://c.example:443", "wss://d.example:443"),
            ("  clientServers: [wss://c.example:443, nats://c.example:4222]\n", ""),
        ] {
            assert!(RING.contains(part), "{part}");
            assert_ne!(&digest, summary(&RING.replace(part, other)).digest(), "{other}");
        }
    }

    #[test]
    fn members_are_those_of_the_document_without_logins() {
        let summary = summary(&RING.replace("nats://a", "nats://user:secret@a"));
        let members: Vec<_> = summary
            .members()
            .map(|member| (member.name, member.weight, member.nats_urls().collect::<Vec<_>>()))
            .collect();
        assert_eq!(
            members,
            [
                ("A", 2, vec!["nats://a:4222", "nats://b:4222"]),
                ("B", 1, vec!["nats://c:4222"])
            ]
        );
        let of_clients: Vec<_> = summary
            .members()
            .map(|member| member.client_urls().collect::<Vec<_>>())
            .collect();
        assert_eq!(
            of_clients,
            [
                vec!["nats://a:4222", "nats://b:4222"],
                vec!["wss://c.example:443", "nats://c.example:4222"]
            ],
            "where none is declared, subscribers reach the servers"
        );
        assert_eq!((summary.epoch(), summary.replicas()), (7, 64));
    }
}
