//! The same ring in less memory, for processes that know many rings and are asked seldom.

use std::cmp::Ordering;

use sha2::{Digest as _, Sha256};

use super::{Digest, Nodes, RingError, check, head};

/// A ring that takes [`LeanRing::NODE_BYTES`] a virtual node, also while it is made. It says the same as [`super::Ring`], and needs
/// several times as long for it.
#[derive(Clone, Debug)]
pub struct LeanRing {
    names: Vec<String>,
    /// Ascending by their whole position.
    nodes: Vec<Node>,
}

/// A virtual node. Its position is computed anew where the head alone does not tell.
#[derive(Clone, Copy, Debug)]
struct Node {
    head: u64,
    owner: u32,
    replica: u32,
}

impl LeanRing {
    /// What a virtual node takes in memory.
    pub const NODE_BYTES: usize = size_of::<Node>();

    /// A ring of `members`, each a name and a weight; a member has `replicas` × weight virtual nodes.
    ///
    /// # Errors
    /// [`RingError`]: the members make no ring.
    pub fn new(members: impl IntoIterator<Item = (String, u32)>, replicas: u32) -> Result<Self, RingError> {
        let members: Vec<_> = members.into_iter().collect();
        // At most MAX_RING_NODES, which fits.
        let mut nodes = Vec::with_capacity(check(&members, replicas)? as usize);
        for (owner, (name, weight)) in (0u32..).zip(&members) {
            let prefix = Sha256::new().chain_update(name).chain_update("::");
            for replica in 0..replicas * weight {
                let position: Digest = prefix.clone().chain_update(replica.to_string()).finalize().into();
                nodes.push(Node {
                    head: head(&position),
                    owner,
                    replica,
                });
            }
        }
        let names: Vec<String> = members.into_iter().map(|(name, _)| name).collect();
        nodes.sort_unstable_by(|a, b| match a.head.cmp(&b.head) {
            Ordering::Equal => {
                (position(&names, a), &names[a.owner as usize]).cmp(&(position(&names, b), &names[b.owner as usize]))
            }
            order => order,
        });
        Ok(Self { names, nodes })
    }

    /// Index of the member that owns `key`: see [`super::Ring::owner`].
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> usize {
        let digest: Digest = Sha256::digest(key).into();
        let first = head(&digest);
        let node = self.nodes.partition_point(|node| match node.head.cmp(&first) {
            Ordering::Equal => position(&self.names, node) <= digest,
            order => order == Ordering::Less,
        });
        self.nodes[if node == self.nodes.len() { 0 } else { node }].owner as usize
    }
}

fn position(names: &[String], node: &Node) -> Digest {
    let name = &names[node.owner as usize];
    Sha256::digest(format!("{name}::{}", node.replica)).into()
}

impl Nodes for LeanRing {
    fn head(&self, node: usize) -> Option<u64> {
        self.nodes.get(node).map(|node| node.head)
    }

    fn owner_of(&self, node: usize) -> &str {
        let node = self.nodes.get(node).or_else(|| self.nodes.first());
        node.map_or("", |node| &self.names[node.owner as usize])
    }
}
