//! Questions to forwarders, and echoes to ourselves.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use forwarder_beacon::{Announcement, Body, Request};

use super::link::{Asked, Life, Link, Round};
use super::{Action, State, Timer};
use crate::event::{Event, GapReason};
use crate::hosts::Route;
use crate::merge::{Cluster, Outcome};

/// The shortest time between two questions for the announcement: somebody may send old digests again.
const ASK_RHYTHM: Duration = Duration::from_millis(100);

/// The longest rhythm of digests that is believed.
const LONGEST_RHYTHM: Duration = Duration::from_secs(60);

/// The shortest one.
const SHORTEST_RHYTHM: Duration = Duration::from_millis(100);

impl State {
    /// Takes what has come below our inbox. `is_unanswered`: the server says that nobody listens.
    pub(crate) fn inbox(&mut self, cluster: Cluster, subject: &str, body: &[u8], is_unanswered: bool, now: Instant) {
        let token = subject.rsplit('.').next().unwrap_or_default();
        let Some((kind, number)) = token.split_at_checked(1) else {
            return;
        };
        let Ok(number) = number.parse::<u64>() else { return };
        match (kind, is_unanswered) {
            ("e", _) => self.echoed(cluster, number),
            ("g", true) => self.unanswered(cluster, number, now),
            ("g", false) => self.answered(cluster, subject, number, body, now),
            ("r", true) => self.unproved(cluster, number, now),
            ("r", false) => self.proved(cluster, subject, number, body, now),
            _ => {}
        }
    }

    /// Takes a digest.
    pub(crate) fn digest(&mut self, cluster: Cluster, subject: &str, body: &[u8], now: Instant) {
        let Some(Body::Digest(digest)) = self.open(cluster, subject, body, now) else {
            return;
        };
        let is_known = self.hashes.contains(&digest.hash);
        let Some(link) = self.links.get_mut(&cluster) else {
            return;
        };
        link.heard = now;
        link.rhythm = Duration::from_millis(digest.next_ms).clamp(SHORTEST_RHYTHM, LONGEST_RHYTHM);
        match &mut link.asked {
            _ if is_known => {}
            Some(asked) => asked.is_overtaken = true,
            None => self.ask(cluster, now),
        }
        self.await_digests(cluster);
    }

    // The announcement.

    pub(super) fn ask(&mut self, cluster: Cluster, now: Instant) {
        let (token, nonce) = (self.number(), self.nonces.next());
        let get = self.setup.subjects.get();
        let Some(link) = self.links.get_mut(&cluster).filter(|link| link.asked.is_none()) else {
            return;
        };
        let Some(action) = question(cluster, link, get, 'g', token, &nonce) else {
            return;
        };
        link.asked = Some(Asked {
            token,
            nonce,
            is_overtaken: false,
        });
        self.actions.push(action);
        self.set(now + self.setup.limits.answer, Timer::Ask { cluster, token });
    }

    fn answered(&mut self, cluster: Cluster, subject: &str, token: u64, body: &[u8], now: Instant) {
        let is_ours = |link: &&mut Link| link.asked.as_ref().is_some_and(|asked| asked.token == token);
        if self.links.get_mut(&cluster).filter(is_ours).is_none() {
            return;
        }
        let Some(Body::Announcement(told)) = self.open(cluster, subject, body, now) else {
            return;
        };
        let Some(link) = self.links.get_mut(&cluster) else {
            return;
        };
        let Some(asked) = link.asked.take_if(|asked| asked.nonce == told.nonce) else {
            let reason = "it answers another question: its nonce is not ours".to_owned();
            return self.setup.told.unbelieved(subject, reason);
        };
        link.heard = now;
        self.learn(&told, now);
        if asked.is_overtaken {
            self.set(now + ASK_RHYTHM, Timer::AskAgain { cluster });
        }
    }

    pub(super) fn unanswered(&mut self, cluster: Cluster, token: u64, now: Instant) {
        let link = self.links.get_mut(&cluster);
        let asked = link.and_then(|link| link.asked.take_if(|asked| asked.token == token));
        if asked.is_some() {
            self.ask_elsewhere(now);
            self.set(now + self.setup.limits.reconnect, Timer::AskAgain { cluster });
        }
    }

    /// Asks through members to which there is no connection, and through the servers that the program has named.
    pub(super) fn ask_elsewhere(&mut self, now: Instant) {
        if self.is_probing || self.fatal.is_some() {
            return;
        }
        if let Some(at) = self.elsewhere.filter(|at| now < *at) {
            return self.set(at, Timer::Elsewhere);
        }
        self.elsewhere = Some(now + self.setup.limits.reconnect);
        let mut others: Vec<String> = Vec::new();
        for ring in self.known().rings().rev() {
            for cluster in &ring.view.clusters {
                if !others.contains(&cluster.name) {
                    others.push(cluster.name.clone());
                }
            }
        }
        let mut routes: Vec<Route> = Vec::new();
        for name in others {
            let cluster = self.names.number(&name);
            if !self.links.get(&cluster).is_some_and(Link::is_up) {
                routes.push(self.route(cluster));
            }
        }
        routes.push(self.setup.policy.seed_route());
        self.is_probing = true;
        self.actions.push(Action::Probe { routes });
    }

    /// The question elsewhere has ended.
    pub(crate) fn probed(&mut self, told: Option<&Announcement>, now: Instant) {
        self.is_probing = false;
        if let Some(told) = told {
            self.learn(told, now);
        }
        if !self.links.values().any(Link::is_up)
            && let Some(at) = self.elsewhere
        {
            self.set(at, Timer::Elsewhere);
        }
    }

    // Proofs.

    /// Asks for proofs, wherever an interest is not proved.
    pub(super) fn prove(&mut self, now: Instant) {
        let mut has_proved = false;
        let pods: BTreeSet<String> = if self.links.values().any(|link| link.round.is_some()) {
            self.known().pods().iter().cloned().collect()
        } else {
            BTreeSet::new()
        };
        let mut resumed: Vec<Cluster> = Vec::new();
        let mut open: Vec<Cluster> = Vec::new();
        for (cluster, link) in &mut self.links {
            let done = link
                .round
                .as_ref()
                .filter(|round| !pods.is_empty() && round.answered.is_superset(&pods));
            if let Some(covers) = done.map(|round| round.covers) {
                link.prove(covers);
                has_proved = true;
                if link.proven == link.declared && std::mem::take(&mut link.is_gapped) {
                    resumed.push(*cluster);
                }
            }
            let is_open = link.proven < link.declared && !link.taps.is_empty();
            if is_open && link.round.is_none() && !link.pauses {
                open.push(*cluster);
            }
        }
        for cluster in resumed {
            let cluster = self.name(cluster);
            // The gap comes first.
            self.setup.told.flush(now);
            self.setup.told.event(Event::Resumed { cluster });
        }
        for cluster in open {
            self.ask_for_proofs(cluster, now);
        }
        if has_proved {
            self.note_proofs();
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
        link.round = Some(Round {
            token,
            nonce,
            covers: link.declared,
            answered: BTreeSet::new(),
        });
        self.actions.push(action);
        self.set(now + self.setup.limits.answer, Timer::Round { cluster, token });
    }

    fn proved(&mut self, cluster: Cluster, subject: &str, token: u64, body: &[u8], now: Instant) {
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

    /// Not all pods have answered in time.
    pub(super) fn unproved(&mut self, cluster: Cluster, token: u64, now: Instant) {
        let longest = self.setup.limits.reconnect;
        let Some(link) = self.links.get_mut(&cluster) else {
            return;
        };
        if link.round.take_if(|round| round.token == token).is_none() {
            return;
        }
        let pause = link.pause;
        link.pause = (link.pause * 2).min(longest);
        link.pauses = true;
        // The pods may be others by now.
        self.ask(cluster, now);
        self.set(now + pause, Timer::Prove { cluster });
    }

    // Echoes.

    /// Sends echoes for the fences that wait for one. Those of one step share one.
    pub(super) fn echo(&mut self) {
        let waiting: Vec<Cluster> = self
            .links
            .iter()
            .filter(|(_, link)| !link.fences.is_empty() && link.is_up())
            .map(|(cluster, _)| *cluster)
            .collect();
        for cluster in waiting {
            let number = self.number();
            let Some(link) = self.links.get_mut(&cluster) else {
                continue;
            };
            let Some(inbox) = link.inbox() else { continue };
            self.actions.push(Action::Publish {
                cluster,
                generation: link.generation,
                subject: format!("{inbox}.e{number}"),
                reply: None,
                body: Vec::new(),
            });
            let fences = std::mem::take(&mut link.fences);
            link.echoes.insert(number, fences);
        }
    }

    fn echoed(&mut self, cluster: Cluster, number: u64) {
        let link = self.links.get_mut(&cluster);
        let fences = link.and_then(|link| link.echoes.remove(&number));
        for waiting in fences.unwrap_or_default() {
            self.drain(super::Fence {
                waiting,
                cluster,
                is_settled: false,
            });
        }
    }

    /// The channel of a fence's tap is drained.
    pub(crate) fn drained(&mut self, fence: super::Fence, now: Instant) {
        let has_several = self
            .links
            .get(&fence.cluster)
            .is_some_and(|link| matches!(link.life, Life::Up { has_several: true, .. }));
        if has_several && !fence.is_settled {
            // Servers of a cluster pass on messages of two connections in another order than they took them in.
            return self.set(now + self.setup.limits.settle, Timer::Settle(fence));
        }
        self.fenced(fence.waiting, Outcome::Drained);
    }

    pub(super) fn drain(&mut self, fence: super::Fence) {
        let tap = self
            .feeds
            .get(&fence.waiting.feed)
            .and_then(|feed| feed.tap(fence.cluster));
        if let Some(tap) = tap {
            let key = tap.key;
            self.actions.push(Action::Drain { key, fence });
        }
    }

    // What is signed.

    fn open(&mut self, cluster: Cluster, subject: &str, body: &[u8], now: Instant) -> Option<Body> {
        if !self.links.get_mut(&cluster)?.may_open(now) {
            self.setup.told.unbelieved(
                subject,
                "more comes than is read; what a forwarder says comes again".to_owned(),
            );
            return None;
        }
        match self.setup.verifier.open(body) {
            Ok(body) if *body.ring() == *self.ring => Some(body),
            Ok(body) => {
                let reason = format!("it is of the ring {:?}, not of {:?}", body.ring(), self.ring);
                self.setup.told.unbelieved(subject, reason);
                None
            }
            Err(error) => {
                self.setup.told.unbelieved(subject, error.to_string());
                None
            }
        }
    }

    /// Tells what the proofs that have come mean: subscriptions begin, and rings are ready.
    fn note_proofs(&mut self) {
        let streams: Vec<u64> = self.streams.keys().copied().collect();
        for stream in streams {
            self.begin_if_proved(stream);
        }
        self.note_ready();
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

    pub(super) fn is_proved(&self, tap: &super::feed::Tap) -> bool {
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

/// A question that is answered below our inbox.
fn question(cluster: Cluster, link: &Link, subject: String, kind: char, token: u64, nonce: &str) -> Option<Action> {
    let inbox = link.inbox()?;
    let request = Request {
        nonce: nonce.to_owned(),
    };
    Some(Action::Publish {
        cluster,
        generation: link.generation,
        subject,
        reply: Some(format!("{inbox}.{kind}{token}")),
        // A text always makes JSON.
        body: serde_json::to_vec(&request).unwrap_or_default(),
    })
}
