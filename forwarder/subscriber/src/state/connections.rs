//! Which connections there are, and what their ups and downs mean.

use std::sync::Arc;
use std::time::Instant;

use super::link::{Life, Link};
use super::{Action, State, Timer};
use crate::event::{Event, GapReason};
use crate::hosts::Route;
use crate::merge::{Cluster, Outcome};

/// So many digests may be missed.
const MISSED_DIGESTS: u32 = 3;

impl State {
    /// There is a connection. Answers come below `inbox`.
    pub(crate) fn up(&mut self, cluster: Cluster, generation: u64, inbox: String, has_several: bool, now: Instant) {
        let Some(link) = self.links.get_mut(&cluster) else {
            return;
        };
        link.life = Life::Up { inbox, has_several };
        link.generation = generation;
        link.heard = now;
        let taps: Vec<(u64, u64)> = link.taps.iter().copied().collect();
        for (feed, key) in taps {
            self.declare(feed, key);
        }
        self.ask(cluster, now);
        self.await_digests(cluster);
    }

    /// The connection has ended. What had arrived before was taken.
    pub(crate) fn down(&mut self, cluster: Cluster, generation: u64, reason: &str) {
        let name = self.name(cluster);
        let Some(link) = self
            .links
            .get_mut(&cluster)
            .filter(|link| link.generation == generation)
        else {
            return;
        };
        let fences = link.end();
        let taps: Vec<(u64, u64)> = link.taps.iter().copied().collect();
        for (feed, key) in &taps {
            let feed = self.feeds.get_mut(feed);
            if let Some(tap) = feed.and_then(|feed| feed.taps.iter_mut().find(|tap| tap.key == *key)) {
                tap.declared = 0;
            }
        }
        if !taps.is_empty() {
            link.is_gapped = true;
            let is_slow = reason.to_lowercase().contains("slow consumer");
            let kind = if is_slow {
                GapReason::SlowConsumer
            } else {
                GapReason::Disconnected
            };
            self.setup.told.gap(kind, None, Some(name), reason);
        }
        for waiting in fences {
            self.fenced(waiting, Outcome::Down);
        }
    }

    /// An attempt to connect has failed.
    pub(crate) fn failed(&mut self, cluster: Cluster, reason: String, now: Instant) {
        let name = self.name(cluster);
        let Some(link) = self.links.get_mut(&cluster) else {
            return;
        };
        if link.life == Life::Connecting {
            for waiting in link.end() {
                self.fenced(waiting, Outcome::Down);
            }
        }
        self.setup.told.unreachable(name, reason);
        if !self.is_turning {
            self.is_turning = true;
            self.set(now + self.setup.limits.reconnect, Timer::Turn);
        }
        if !self.links.values().any(Link::is_up) {
            self.ask_elsewhere(now);
        }
    }

    /// The client was too slow for a connection, and something of it was dropped.
    pub(crate) fn slow(&mut self, cluster: Cluster) {
        let name = self.name(cluster);
        self.setup.told.slow(
            GapReason::SlowConsumer,
            None,
            name,
            "a queue of the connection was full",
        );
    }

    /// The server denies something.
    pub(crate) fn denied(&mut self, cluster: Cluster, reason: String) {
        let name = self.name(cluster);
        if reason.to_lowercase().contains("subscription") {
            // Pods prove that they see the connection, and not that the server lets records through.
            self.setup
                .told
                .slow(GapReason::Denied, None, Arc::clone(&name), &reason);
        }
        self.setup.told.denied(name, reason);
    }

    /// Makes the connection to a cluster, where there is none.
    pub(super) fn connect(&mut self, cluster: Cluster, now: Instant) {
        if self.links.contains_key(&cluster) {
            return;
        }
        let link = Link::new(now, self.setup.limits.digest);
        self.links.insert(cluster, link);
        let route = self.route(cluster);
        self.actions.push(Action::Connect { cluster, route });
    }

    fn disconnect(&mut self, cluster: Cluster) {
        self.links.remove(&cluster);
        self.actions.push(Action::Disconnect { cluster });
    }

    /// Where a cluster is reached. Servers that are refused are told once.
    pub(super) fn route(&mut self, cluster: Cluster) -> Route {
        let name = self.name(cluster);
        let servers = self.known().servers(&name).unwrap_or_default().to_vec();
        let route = self.setup.policy.route(&name, &servers);
        for (server, reason) in &route.refused {
            if self.refused.insert((cluster, server.clone()), ()).is_none() {
                self.setup.told.event(Event::Refused {
                    cluster: Arc::clone(&name),
                    server: server.clone(),
                    reason: reason.clone(),
                });
            }
        }
        let is_refused = route.servers.is_empty() && !route.refused.is_empty();
        if is_refused && self.refused.insert((cluster, String::new()), ()).is_none() {
            let reasons = route.reasons();
            self.setup.told.gap(GapReason::HostRefused, None, Some(name), reasons);
        }
        route
    }

    /// Declares an interest on the present connection.
    pub(super) fn declare(&mut self, feed: u64, key: u64) {
        let template = self.template();
        let Some(feed) = self.feeds.get_mut(&feed) else {
            return;
        };
        let Some(tap) = feed.taps.iter_mut().find(|tap| tap.key == key) else {
            return;
        };
        let Some(link) = self.links.get_mut(&tap.cluster).filter(|link| link.is_up()) else {
            return;
        };
        // It was made once, so it can be made again.
        let Ok(subject) = crate::subject::subject_of(&template, &feed.asset, &feed.id) else {
            return;
        };
        link.declared += 1;
        tap.declared = link.declared;
        self.actions.push(Action::Subscribe {
            cluster: tap.cluster,
            generation: link.generation,
            key,
            subject,
        });
    }

    /// Ends connections through which nothing is read. One stays, for the beacon.
    pub(super) fn tidy(&mut self, now: Instant) {
        let is_idle = |link: &Link| link.taps.is_empty();
        let idle: Vec<Cluster> = self
            .links
            .iter()
            .filter(|(_, link)| is_idle(link))
            .map(|(cluster, _)| *cluster)
            .collect();
        for cluster in idle {
            let are_others = self.links.iter().any(|(other, link)| *other != cluster && link.is_up());
            if are_others {
                self.disconnect(cluster);
            }
        }
        if self.links.is_empty() && self.fatal.is_none() {
            self.next_member += 1;
            if let Some(name) = self.member(self.next_member) {
                let cluster = self.names.number(&name);
                self.connect(cluster, now);
            }
        }
    }

    /// Gives up a connection that nobody needs and that does not come about: another member will do as well.
    pub(super) fn turn(&mut self) {
        self.is_turning = false;
        let is_vain = |link: &Link| link.taps.is_empty() && !link.is_up();
        let vain = self
            .links
            .iter()
            .find(|(_, link)| is_vain(link))
            .map(|(cluster, _)| *cluster);
        if let Some(cluster) = vain {
            self.disconnect(cluster);
        }
    }

    /// A member of the newest ring, in turn.
    fn member(&self, turn: usize) -> Option<String> {
        let known = self.known();
        let clusters = &known.rings().next_back()?.view.clusters;
        let at = turn.checked_rem(clusters.len())?;
        clusters.get(at).map(|cluster| cluster.name.clone())
    }

    /// Looks after digests, once three should have come.
    pub(super) fn await_digests(&mut self, cluster: Cluster) {
        let Some(link) = self.links.get_mut(&cluster).filter(|link| link.is_up()) else {
            return;
        };
        let at = link.heard + link.rhythm * MISSED_DIGESTS;
        if link.watched.is_none_or(|watched| at < watched) {
            link.watched = Some(at);
            self.set(at, Timer::Digests { cluster });
        }
    }

    /// Asks here and elsewhere where digests are missed.
    pub(super) fn watch_digests(&mut self, cluster: Cluster, now: Instant) {
        let Some(link) = self.links.get_mut(&cluster).filter(|link| link.is_up()) else {
            return;
        };
        // Another look is due later.
        if link.watched.take_if(|watched| *watched <= now).is_none() {
            return;
        }
        if now >= link.heard + link.rhythm * MISSED_DIGESTS {
            link.heard = now;
            self.ask(cluster, now);
            self.ask_elsewhere(now);
        }
        self.await_digests(cluster);
    }
}
