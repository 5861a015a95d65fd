//! Who owns an asset: a consistent hash ring over the members' names.
//!
//! Virtual node `r` of member `n` sits at SHA-256 of the text `{n}::{r}`, read as a 256-bit big-endian integer. A
//! key belongs to the first virtual node strictly after its own SHA-256, wrapping around. Nothing else takes part:
//! not the order in which members are listed, not their health.

mod cache;
mod lean;
mod shift;

use sha2::{Digest as _, Sha256};

pub use cache::OwnerCache;
pub use lean::LeanRing;
pub use shift::{Nodes, Shift, moved};

use crate::document::MAX_RING_NODES;
pub use crate::program::Place;

pub(crate) type Digest = [u8; 32];

/// Why members make no ring.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Nobody could own anything.
    #[error("the ring has no members")]
    NoMembers,
    /// A name decides where a member's virtual nodes are, so it may not be empty.
    #[error("member {0} of the ring has an empty name")]
    EmptyName(usize),
    /// Two members of one name would sit on the same virtual nodes.
    #[error("the ring has more than one member named {0:?}")]
    DuplicateName(String),
    /// A member without virtual nodes would own nothing.
    #[error("member {0:?} of the ring has weight 0")]
    ZeroWeight(String),
    /// The same for all of them.
    #[error("the ring has 0 replicas")]
    ZeroReplicas,
    /// More than [`MAX_RING_NODES`].
    #[error("the ring has {0} virtual nodes, more than {MAX_RING_NODES}")]
    TooManyNodes(u64),
}

/// An immutable ring. Members are known by their index in the list that it was made from.
#[derive(Clone, Debug)]
pub struct Ring {
    names: Vec<String>,
    /// The leading 64 bits of each position, ascending: what a lookup touches first, eight to a cache line.
    heads: Vec<u64>,
    positions: Vec<Digest>,
    owners: Vec<u32>,
    /// For each value of a hash's top bits, the first node that is not before all hashes of that value.
    index: Vec<u32>,
    /// How far a head is shifted to give its entry in `index`.
    shift: u32,
}

impl Nodes for Ring {
    fn head(&self, node: usize) -> Option<u64> {
        self.heads.get(node).copied()
    }

    fn owner_of(&self, node: usize) -> &str {
        let owner = self.owners.get(node).or_else(|| self.owners.first());
        owner.map_or("", |owner| self.name(*owner as usize))
    }
}

impl Ring {
    /// A ring of `members`, each a name and a weight; a member has `replicas` × weight virtual nodes.
    pub fn new(members: impl IntoIterator<Item = (String, u32)>, replicas: u32) -> Result<Self, RingError> {
        let members: Vec<_> = members.into_iter().collect();
        check(&members, replicas)?;

        let mut nodes = Vec::new();
        for (owner, (name, weight)) in (0u32..).zip(&members) {
            let prefix = Sha256::new().chain_update(name).chain_update("::");
            for replica in 0..u64::from(replicas) * u64::from(*weight) {
                let position: Digest = prefix.clone().chain_update(replica.to_string()).finalize().into();
                nodes.push((position, owner));
            }
        }
        // Two nodes at one position would be a SHA-256 collision; by name, even that would not depend on the listing.
        nodes.sort_unstable_by(|a, b| {
            a.0.cmp(&b.0)
                .then_with(|| members[a.1 as usize].0.cmp(&members[b.1 as usize].0))
        });

        let heads: Vec<u64> = nodes.iter().map(|(position, _)| head(position)).collect();
        let (index, shift) = index(&heads);
        Ok(Self {
            names: members.into_iter().map(|(name, _)| name).collect(),
            heads,
            positions: nodes.iter().map(|(position, _)| *position).collect(),
            owners: nodes.iter().map(|(_, owner)| *owner).collect(),
            index,
            shift,
        })
    }

    /// Index of the member that owns `key`.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> usize {
        self.place(key).owner
    }

    /// Owner and lane of `key`, from one hash.
    #[must_use]
    pub fn place(&self, key: &[u8]) -> Place {
        let digest: Digest = Sha256::digest(key).into();
        Place {
            owner: self.owner_at(&digest),
            lane: head(&digest),
        }
    }

    /// Index of the member that owns the keys of a lane, for whoever has the lane alone.
    ///
    /// The same as [`Ring::place`] says, except for a key whose hash has the leading 64 bits of a virtual node: one in
    /// 2⁶⁴ for each node.
    #[must_use]
    pub fn owner_of_lane(&self, lane: u64) -> usize {
        let mut digest = [u8::MAX; 32];
        digest[..8].copy_from_slice(&lane.to_be_bytes());
        self.owner_at(&digest)
    }

    /// Two rings have the same one if every key has the same owner's name in both: a hash over what makes the ring.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hash = Sha256::new();
        for (position, owner) in self.positions.iter().zip(&self.owners) {
            hash.update(position);
            hash.update(self.name(*owner as usize));
            hash.update([0]);
        }
        head(&hash.finalize().into())
    }

    /// Name of member `index`; empty if there is none.
    #[must_use]
    pub fn name(&self, index: usize) -> &str {
        self.names.get(index).map_or("", String::as_str)
    }

    /// The members' names, by index.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// How many members there are: never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no ring is empty")]
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Where the virtual nodes are, ascending.
    pub(crate) fn positions(&self) -> &[Digest] {
        &self.positions
    }

    /// Index of the member that owns the keys of this hash.
    pub(crate) fn owner_at(&self, digest: &Digest) -> usize {
        let first = head(digest);
        let mut node = self.index[(first >> self.shift) as usize] as usize;
        // The index has at least two entries per node: this loop ends at once more often than not.
        while node < self.heads.len()
            && (self.heads[node] < first || (self.heads[node] == first && self.positions[node] <= *digest))
        {
            node += 1;
        }
        self.owners[if node == self.owners.len() { 0 } else { node }] as usize
    }
}

/// How many virtual nodes the members make.
fn check(members: &[(String, u32)], replicas: u32) -> Result<u64, RingError> {
    if members.is_empty() {
        return Err(RingError::NoMembers);
    }
    if replicas == 0 {
        return Err(RingError::ZeroReplicas);
    }
    let mut nodes = 0u64;
    for (number, (name, weight)) in members.iter().enumerate() {
        if name.is_empty() {
            return Err(RingError::EmptyName(number));
        }
        if *weight == 0 {
            return Err(RingError::ZeroWeight(name.clone()));
        }
        nodes = nodes.saturating_add(u64::from(replicas) * u64::from(*weight));
    }
    let mut names: Vec<_> = members.iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(RingError::DuplicateName(pair[0].clone()));
    }
    if nodes > MAX_RING_NODES {
        return Err(RingError::TooManyNodes(nodes));
    }
    Ok(nodes)
}

fn index(heads: &[u64]) -> (Vec<u32>, u32) {
    let entries = (heads.len() * 2).next_power_of_two();
    let shift = u64::BITS - entries.trailing_zeros();
    let mut node = 0;
    let index = (0..entries as u64)
        .map(|entry| {
            while heads.get(node).is_some_and(|head| head >> shift < entry) {
                node += 1;
            }
            // At most MAX_RING_NODES, which fits.
            node as u32
        })
        .collect();
    (index, shift)
}

fn words(digest: &Digest) -> [u64; 4] {
    let (words, _) = digest.as_chunks::<8>();
    let mut out = [0; 4];
    for (out, word) in out.iter_mut().zip(words) {
        *out = u64::from_be_bytes(*word);
    }
    out
}

fn head(digest: &Digest) -> u64 {
    words(digest)[0]
}

#[cfg(test)]
mod tests;
