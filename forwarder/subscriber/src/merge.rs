//! Puts the records of one asset and one partition from several clusters into one order. Pure: no socket, no clock.
//!
//! One cluster leads: its records are delivered at once. Those of clusters that follow under a newer ring are held. The first one
//! that is held asks for a fence on the leader: an echo of the client to itself over the leader's connection. A forwarder publishes
//! on the new side once the old side has accepted all that came before. So what the leader accepted comes before the echo. When the
//! leader's channel is drained up to it, the next cluster leads.
//!
//! Nothing depends on which ring is in use: each partition moves at a moment of its own, and only ever to a newer ring. So a record
//! of a cluster that the leader has come after is delivered at once. Whether it is late is for others to say.

use std::collections::{BTreeMap, VecDeque};

/// A cluster, by a number that the client gave it.
pub(crate) type Cluster = u32;

/// Who owns the asset under the ring of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) epoch: u64,
    pub(crate) cluster: Cluster,
}

/// How a fence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The echo has returned, and all that came before it was taken.
    Drained,
    /// The echo did not return in time.
    TimedOut,
    /// There is no connection to the cluster.
    Down,
    /// More was held than the limit allows, so the fence was not awaited.
    Overflow,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect<T> {
    /// Hand these out, in this order.
    Deliver(Vec<T>),
    /// Send an echo over the cluster's connection, and tell [`Merge::fenced`] of its end with the number.
    Fence {
        /// Whose connection.
        cluster: Cluster,
        /// Which fence.
        number: u64,
    },
    /// The cluster has nothing more to say: its subscription can go.
    Forget(Cluster),
    /// Another cluster leads without a fence. What this one still has may come late or never.
    Unfenced {
        /// Who has led.
        cluster: Cluster,
        /// Why.
        outcome: Outcome,
    },
}

/// How much is held of one asset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Merge<T> {
    /// Ascending by epoch. A ring that has left stays until the leader has come past it.
    roles: Vec<Role>,
    /// Owners under rings that are not left.
    owners: Vec<Cluster>,
    leader: Role,
    /// All rings of lower epochs are left.
    oldest: u64,
    held: BTreeMap<Cluster, VecDeque<(T, usize)>>,
    count: usize,
    bytes: usize,
    /// The number of the fence on the leader.
    fence: Option<u64>,
    /// Clusters that have left and do not lead, each with the fence after which it is forgotten.
    retiring: Vec<(u64, Cluster)>,
    number: u64,
}

impl<T> Merge<T> {
    /// Begins with the asset's owners under all rings that are not left, ascending by epoch.
    pub(crate) fn new(roles: Vec<Role>) -> Self {
        let leader = roles.first().copied().unwrap_or(Role {
            epoch: 0,
            cluster: Cluster::MAX,
        });
        Self {
            owners: roles.iter().map(|role| role.cluster).collect(),
            roles,
            leader,
            oldest: leader.epoch,
            held: BTreeMap::new(),
            count: 0,
            bytes: 0,
            fence: None,
            retiring: Vec::new(),
            number: 0,
        }
    }

    /// Whether a record of the cluster is delivered at once, without [`Self::message`].
    pub(crate) fn passes(&self, cluster: Cluster) -> bool {
        cluster == self.leader.cluster
    }

    /// Whether anything may come from a cluster.
    pub(crate) fn needs(&self, cluster: Cluster) -> bool {
        self.passes(cluster)
            || self.owners.contains(&cluster)
            || self.is_retiring(cluster)
            || self.roles.iter().any(|role| role.cluster == cluster)
    }

    /// Whether a fence is awaited.
    pub(crate) fn awaits(&self, number: u64) -> bool {
        self.fence == Some(number) || self.retiring.iter().any(|(fence, _)| *fence == number)
    }

    /// Whether nothing is held, and no fence awaited.
    pub(crate) fn is_idle(&self) -> bool {
        self.count == 0 && self.fence.is_none() && self.retiring.is_empty()
    }

    /// Takes note of the asset's owners under all rings that are not left, ascending by epoch.
    pub(crate) fn owners(&mut self, told: Vec<Role>) -> Vec<Effect<T>> {
        let before = std::mem::replace(&mut self.owners, told.iter().map(|role| role.cluster).collect());
        self.oldest = told.first().map_or(self.oldest, |role| role.epoch);
        // A ring may have left before the leader has come to it. It keeps its place.
        self.roles
            .retain(|role| role.epoch > self.leader.epoch && role.epoch < self.oldest);
        self.roles.extend(told);
        self.extend_lead();
        // Who comes back is not forgotten, whatever becomes of its fence.
        self.retiring.retain(|(_, cluster)| !self.owners.contains(cluster));
        let mut effects = Vec::new();
        for cluster in before {
            let has_gone = !self.owners.contains(&cluster) && cluster != self.leader.cluster;
            if has_gone && !self.is_retiring(cluster) {
                let number = self.next_number();
                self.retiring.push((number, cluster));
                effects.push(Effect::Fence { cluster, number });
            }
        }
        self.need_fence(&mut effects);
        effects
    }

    /// Takes a record of a cluster that does not lead, with its size in bytes.
    pub(crate) fn message(&mut self, cluster: Cluster, item: T, size: usize, limit: Hold) -> Vec<Effect<T>> {
        let follows = |role: &Role| role.cluster == cluster && role.epoch > self.leader.epoch;
        if self.passes(cluster) || !self.roles.iter().any(follows) {
            return vec![Effect::Deliver(vec![item])];
        }
        self.held.entry(cluster).or_default().push_back((item, size));
        self.count += 1;
        self.bytes += size;
        let mut effects = Vec::new();
        if self.count > limit.records || self.bytes > limit.bytes {
            // Each step comes to another place in the order of rings, so it ends.
            while self.count > 0 {
                let cluster = self.leader.cluster;
                effects.push(Effect::Unfenced {
                    cluster,
                    outcome: Outcome::Overflow,
                });
                self.advance(&mut effects);
            }
        }
        self.need_fence(&mut effects);
        effects
    }

    /// Takes note of how a fence has ended. An old one changes nothing.
    pub(crate) fn fenced(&mut self, number: u64, outcome: Outcome) -> Vec<Effect<T>> {
        let mut effects = Vec::new();
        if let Some(at) = self.retiring.iter().position(|(fence, _)| *fence == number) {
            self.retire(at, outcome, &mut effects);
            self.need_fence(&mut effects);
        } else if self.fence == Some(number) {
            if outcome != Outcome::Drained {
                let cluster = self.leader.cluster;
                effects.push(Effect::Unfenced { cluster, outcome });
            }
            self.advance(&mut effects);
            self.need_fence(&mut effects);
        }
        effects
    }

    fn retire(&mut self, at: usize, outcome: Outcome, effects: &mut Vec<Effect<T>>) {
        let (_, cluster) = self.retiring[at];
        if self.held.contains_key(&cluster) {
            // It leads once more before it goes.
            return;
        }
        self.retiring.remove(at);
        if cluster == self.leader.cluster {
            return;
        }
        self.roles.retain(|role| role.cluster != cluster);
        self.extend_lead();
        if outcome != Outcome::Drained {
            effects.push(Effect::Unfenced { cluster, outcome });
        }
        effects.push(Effect::Forget(cluster));
    }

    /// Lets the next cluster lead.
    fn advance(&mut self, effects: &mut Vec<Effect<T>>) {
        self.fence = None;
        let old = self.leader.cluster;
        self.leader = self.next();
        self.extend_lead();
        let new = self.leader.cluster;
        if new == old {
            return;
        }
        let leads_again = |role: &Role| role.cluster == old && role.epoch > self.leader.epoch;
        if !self.owners.contains(&old) && !self.roles.iter().any(leads_again) {
            self.roles.retain(|role| role.cluster != old);
            self.retiring.retain(|(_, cluster)| *cluster != old);
            effects.push(Effect::Forget(old));
        }
        if let Some(held) = self.held.remove(&new) {
            self.count -= held.len();
            self.bytes -= held.iter().map(|(_, size)| size).sum::<usize>();
            effects.push(Effect::Deliver(held.into_iter().map(|(item, _)| item).collect()));
        }
    }

    /// Who leads goes on to lead under the rings that follow, up to the next move.
    fn extend_lead(&mut self) {
        let ahead = self.roles.iter().filter(|role| role.epoch > self.leader.epoch);
        let same = ahead.take_while(|role| role.cluster == self.leader.cluster);
        if let Some(leader) = same.last().copied() {
            self.leader = leader;
            // What it accepts under these rings may come after an echo that was asked for before.
            self.fence = None;
        }
    }

    fn next(&self) -> Role {
        let further = |role: &&Role| role.epoch > self.leader.epoch && role.cluster != self.leader.cluster;
        if let Some(role) = self.roles.iter().find(further) {
            return *role;
        }
        // What is held has a newer ring. Should it ever have none, it is delivered nevertheless.
        if let Some((cluster, _)) = self.held.first_key_value() {
            return Role {
                cluster: *cluster,
                ..self.leader
            };
        }
        let is_owner = self.owners.contains(&self.leader.cluster);
        let newest = self.roles.last().filter(|_| !is_owner);
        newest.copied().unwrap_or(self.leader)
    }

    fn need_fence(&mut self, effects: &mut Vec<Effect<T>>) {
        let cluster = self.leader.cluster;
        // It may own the asset again under a newer ring. What it has of before comes before what others have.
        let has_left = self.leader.epoch < self.oldest && self.next() != self.leader;
        let is_needed = self.count > 0 || has_left || !self.owners.contains(&cluster);
        if self.fence.is_none() && is_needed {
            let number = self.next_number();
            self.fence = Some(number);
            effects.push(Effect::Fence { cluster, number });
        }
    }

    fn is_retiring(&self, cluster: Cluster) -> bool {
        self.retiring.iter().any(|(_, retiring)| *retiring == cluster)
    }

    fn next_number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }
}

#[cfg(test)]
mod tests;
