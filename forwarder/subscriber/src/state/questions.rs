//! Questions to forwarders, and what comes below our inbox.

use std::time::{Duration, Instant};

use forwarder_beacon::{Announcement, Body, Request};

use super::link::{Asked, Link};
use super::{Action, State, Timer};
use crate::hosts::Route;
use crate::merge::Cluster;

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
            // Nobody listens yet. It is asked again.
            ("r", true) => {}
            ("r", false) => self.proved(cluster, subject, number, body, now),
            _ => {}
        }
    }

    /// Takes a digest.
    pub(crate) fn digest(&mut self, cluster: Cluster, subject: &str, body: &[u8], now: Instant) {
        let Some(Body::Digest(digest)) = self.open(cluster, subject, body, now) else {
            return;
        };
        let is_known = self.is_known(&digest.hash, now);
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

    /// What a forwarder has said, if it is signed and of our ring.
    pub(super) fn open(&mut self, cluster: Cluster, subject: &str, body: &[u8], now: Instant) -> Option<Body> {
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
}

/// A question that is answered below our inbox.
pub(super) fn question(
    cluster: Cluster,
    link: &Link,
    subject: String,
    kind: char,
    token: u64,
    nonce: &str,
) -> Option<Action> {
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
