//! Proofs that all pods see an interest, and what follows from them.

use std::collections::BTreeSet;
use std::time::Instant;

use forwarder_beacon::Body;

use super::feed::Tap;
use super::link::{Link, Round};
use super::questions::question;
use super::{State, Timer};
use crate::event::{Event, GapReason};
use crate::merge::Cluster;

impl State {
    /// Asks for proofs, wherever an interest is not proved.
    pub(super) fn prove(&mut self, now: Instant) {
        self.note_proofs(now);
        let is_open = |link: &Link| link.proven < link.declared && !link.taps.is_empty() && link.round.is_none();
        let open: Vec<Cluster> = self
            .links
            .iter()
            .filter(|(_, link)| is_open(link))
            .map(|(cluster, _)| *cluster)
            .collect();
        for cluster in open {
            self.ask_for_proofs(cluster, now);
        }
    }

    /// Ends the questions that all pods have answered, and tells what follows: subscriptions begin, and rings are ready.
    pub(super) fn note_proofs(&mut self, now: Instant) {
        if self.links.values().all(|link| link.round.is_none()) {
            return;
        }
        let pods: BTreeSet<String> = self.known().pods().iter().cloned().collect();
        let mut has_proved = false;
        let mut resumed: Vec<Cluster> = Vec::new();
        for (cluster, link) in &mut self.links {
            let done = link.round.as_ref().filter(|round| round.is_done(&pods));
            if let Some(covers) = done.map(|round| round.covers) {
                link.prove(covers);
                has_proved = true;
                if link.proven == link.declared && std::mem::take(&mut link.is_gapped) {
                    resumed.push(*cluster);
                }
            }
        }
        for cluster in resumed {
            let cluster = self.name(cluster);
            // The gap comes first.
            self.setup.told.flush(now);
            self.setup.told.event(Event::Resumed { cluster });
        }
        if has_proved {
            let streams: Vec<u64> = self.streams.keys().copied().collect();
            for stream in streams {
                self.begin_if_proved(stream);
            }
            self.note_ready();
        }
    }

    fn ask_for_proofs(&mut self, cluster: Cluster, now: Instant) {
        let (token, nonce) = (self.number(), self.nonces.next());
        let ready = self.setup.subjects.ready();
        let Some(link) = self.links.get_mut(&cluster) else {
            return;
        };
        let Some(action) = question(cluster, link, ready, 'r', token, &nonce) else {
            return;
        };
        let at = now + link.pause;
        link.round = Some(Round {
            token,
            nonce,
            covers: link.declared,
            answered: BTreeSet::new(),
        });
        self.actions.push(action);
        self.set(at, Timer::Round { cluster, token });
    }

    pub(super) fn proved(&mut self, cluster: Cluster, subject: &str, token: u64, body: &[u8], now: Instant) {
        let name = self.name(cluster);
        let is_ours = |link: &&mut Link| link.round.as_ref().is_some_and(|round| round.token == token);
        if self.links.get_mut(&cluster).filter(is_ours).is_none() {
            return;
        }
        let Some(Body::Ready(ready)) = self.open(cluster, subject, body, now) else {
            return;
        };
        let round = self.links.get_mut(&cluster).and_then(|link| link.round.as_mut());
        match round {
            Some(round) if round.nonce == ready.nonce && *ready.cluster == *name => {
                round.answered.insert(ready.pod);
            }
            _ => {
                let reason = "it proves something else: its nonce or its cluster is not ours".to_owned();
                self.setup.told.unbelieved(subject, reason);
            }
        }
    }

    /// Asks the same again: not all pods have answered in time. A pod that has just begun may answer now.
    pub(super) fn ask_again(&mut self, cluster: Cluster, token: u64, now: Instant) {
        let ready = self.setup.subjects.ready();
        let longest = self.setup.limits.reconnect;
        let Some(link) = self.links.get_mut(&cluster) else {
            return;
        };
        let Some(round) = link.round.as_ref().filter(|round| round.token == token) else {
            return;
        };
        self.actions
            .extend(question(cluster, link, ready, 'r', token, &round.nonce));
        link.pause = (link.pause * 2).min(longest);
        let at = now + link.pause;
        self.set(at, Timer::Round { cluster, token });
        // The pods may be others by now.
        self.ask(cluster, now);
    }

    /// Says that the interest in everything is proved under the newest ring.
    pub(super) fn note_ready(&mut self) {
        let known = self.known();
        let Some(ring) = known.rings().next_back().filter(|ring| ring.view.epoch > self.ready) else {
            return;
        };
        let is_ready = self.feeds.values().all(|feed| {
            let owner = ring.owner(&feed.asset);
            let tap = feed.taps.iter().find(|tap| *self.names.of(tap.cluster) == *owner);
            tap.is_some_and(|tap| self.is_proved(tap))
        });
        let epoch = ring.view.epoch;
        drop(known);
        if is_ready && !self.feeds.is_empty() {
            self.ready = epoch;
            self.setup.told.event(Event::Ready { ring: epoch });
        }
    }

    pub(super) fn is_proved(&self, tap: &Tap) -> bool {
        self.links
            .get(&tap.cluster)
            .is_some_and(|link| link.has_proved(tap.declared))
    }

    /// Tells that not all pods have proved that they see the interest.
    pub(super) fn tell_unproved(&mut self, feed: u64, cluster: Cluster, detail: &str) {
        let name = self.name(cluster);
        let asset = self.feeds.get(&feed).map(|feed| &feed.asset);
        self.setup.told.gap(GapReason::NotReady, asset, Some(name), detail);
        if let Some(link) = self.links.get_mut(&cluster) {
            link.is_gapped = true;
        }
    }
}
