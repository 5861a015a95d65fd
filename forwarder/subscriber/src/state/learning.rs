//! What an announcement changes.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use forwarder_beacon::{Announcement, Learned};

use super::State;
use crate::error::JetStreamError;
use crate::event::{Event, GapReason, RingState};
use crate::hosts::Route;
use crate::merge::{Cluster, Role};

/// So many hashes of announcements are remembered. Pods may know different things at one moment.
const HASHES: usize = 256;

/// For so long an announcement that is not the last one is not asked for again. What it says of pods may be true once more.
const KNOWN: Duration = Duration::from_secs(30);

impl State {
    /// Whether an announcement need not be asked for.
    pub(super) fn is_known(&self, hash: &str, now: Instant) -> bool {
        let of_hash = self.hashes.iter().rev().enumerate();
        let mut same = of_hash.filter(|(_, (known, _))| *known == *hash);
        same.any(|(age, (_, learned))| age == 0 || now < *learned + KNOWN)
    }

    /// Brings everything to what is known now.
    pub(crate) fn learn(&mut self, told: &Announcement, now: Instant) {
        let before = self.known().rings().next_back().map(|ring| ring.view.epoch);
        let template_before = self.template();
        let learned = {
            let mut known = self.setup.known.write().unwrap_or_else(PoisonError::into_inner);
            known.learn(told)
        };
        let learned = match learned {
            Ok(learned) => learned,
            Err(error) => {
                let get = self.setup.subjects.get();
                return self.setup.told.unbelieved(&get, error.to_string());
            }
        };
        self.hashes.retain(|(hash, _)| *hash != told.hash);
        self.hashes.push_back((told.hash.clone(), now));
        if self.hashes.len() > HASHES {
            self.hashes.pop_front();
        }
        if learned.is_nothing() {
            return;
        }
        self.tell(&learned);
        // With other pods it may be proved now.
        self.note_proofs(now);
        let (oldest, newest) = self.epochs();
        let was_skipped = before.is_some_and(|before| before < told.left && oldest > before + 1 && newest > before);
        if was_skipped {
            let detail = format!("rings between {} and {oldest}", before.unwrap_or_default());
            self.setup.told.gap(GapReason::RingSkipped, None, None, detail);
        }
        let has_other_subject = learned.publishing && before.is_some() && self.template() != template_before;
        let feeds: Vec<u64> = self.feeds.keys().copied().collect();
        for feed in feeds {
            self.miss(feed, &learned);
            if has_other_subject {
                self.change_subject(feed, now);
            }
            let roles = self.feeds.get(&feed).map(|feed| self.roles(&feed.asset.clone()));
            let roles = roles.unwrap_or_default();
            if let Some(state) = self.feeds.get_mut(&feed) {
                let effects = state.owners(roles);
                self.perform(feed, effects);
            }
            self.follow(feed, now);
        }
        self.note_publishing(&learned, before.is_some());
        self.reroute();
        self.note_ready();
    }

    /// The asset's owners under all rings that are not left, ascending by epoch.
    pub(super) fn roles(&self, asset: &str) -> Vec<Role> {
        let known = self.known();
        let role = |ring: &forwarder_beacon::KnownRing| Role {
            epoch: ring.view.epoch,
            cluster: self.number_of(ring.owner(asset)),
        };
        known.rings().map(role).collect()
    }

    /// The number of a cluster that has one.
    fn number_of(&self, name: &str) -> Cluster {
        let at = self.names.names.iter().position(|known| **known == *name);
        at.map_or(Cluster::MAX, |at| at as Cluster)
    }

    fn epochs(&self) -> (u64, u64) {
        let known = self.known();
        let mut epochs = known.rings().map(|ring| ring.view.epoch);
        let oldest = epochs.next().unwrap_or_default();
        (oldest, epochs.next_back().unwrap_or(oldest))
    }

    pub(super) fn template(&self) -> String {
        let known = self.known();
        known
            .publishing()
            .map(|publishing| publishing.subject.clone())
            .unwrap_or_default()
    }

    fn tell(&mut self, learned: &Learned) {
        let Learned {
            new,
            left,
            in_use,
            contradicted,
            publishing: _,
        } = learned;
        // From here on each cluster of a ring has a number.
        let members: Vec<String> = {
            let known = self.known();
            let rings = known.rings().flat_map(|ring| &ring.view.clusters);
            rings.map(|cluster| cluster.name.clone()).collect()
        };
        for name in members {
            self.names.number(&name);
        }
        let states = [
            (new, RingState::Announced),
            (in_use, RingState::InUse),
            (left, RingState::Left),
        ];
        for (epochs, state) in states {
            for epoch in epochs {
                self.setup.told.event(Event::Ring { epoch: *epoch, state });
            }
        }
        if let Some(epoch) = contradicted {
            let reason = format!("the ring of epoch {epoch} was told before with other members");
            let get = self.setup.subjects.get();
            self.setup.told.unbelieved(&get, reason);
        }
    }

    /// Tells a gap where a ring is in use before the interest on its side was proved.
    fn miss(&mut self, feed: u64, learned: &Learned) {
        let Some(state) = self.feeds.get(&feed).filter(|feed| feed.is_begun) else {
            return;
        };
        let mut unproved: Vec<Cluster> = Vec::new();
        for role in self.roles(&state.asset) {
            let is_proved = state.tap(role.cluster).is_some_and(|tap| self.is_proved(tap));
            if learned.in_use.contains(&role.epoch) && !is_proved && !unproved.contains(&role.cluster) {
                unproved.push(role.cluster);
            }
        }
        for cluster in unproved {
            self.tell_unproved(feed, cluster, "the ring is in use already");
        }
    }

    fn note_publishing(&mut self, learned: &Learned, has_begun: bool) {
        if !learned.publishing {
            return;
        }
        let publishing = self.known().publishing().cloned();
        let Some(publishing) = publishing else { return };
        if !publishing.origin {
            self.setup.told.event(Event::AtLeastOnce);
        }
        self.fatal = publishing.stream.map(|stream| JetStreamError { stream });
        if let Some(fatal) = self.fatal.as_ref().filter(|_| has_begun) {
            let detail = fatal.to_string();
            self.setup.told.gap(GapReason::JetStream, None, None, detail);
        }
    }

    /// Tells connections where their clusters are reached now.
    fn reroute(&mut self) {
        let clusters: Vec<Cluster> = self.links.keys().copied().collect();
        for cluster in clusters {
            let is_member = self.known().servers(&self.name(cluster)).is_some();
            if is_member {
                let route: Route = self.route(cluster);
                self.actions.push(super::Action::Connect { cluster, route });
            }
        }
    }
}
