//! Streams of programs, and what becomes of each of their assets.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::feed::{Effects, Feed, Tap};
use super::link::Life;
use super::{Action, State, Stream, Timer, Waiting};
use crate::error::{SubjectError, SubscribeError};
use crate::event::GapReason;
use crate::merge::{Cluster, Effect, Outcome};
use crate::message::Message;
use crate::queue::Queue;
use crate::request::Begun;
use crate::subject::subject_of;

impl State {
    /// Follows assets. `begun` is told when all pods have proved that they see the interest, or why there is no subscription.
    pub(crate) fn subscribe(
        &mut self,
        stream: u64,
        assets: Vec<String>,
        id: &str,
        queue: Arc<Queue>,
        begun: Begun,
        now: Instant,
    ) {
        if let Err(error) = self.check(&assets, id) {
            return Self::refuse(Some(begun), error);
        }
        let id: Arc<str> = id.into();
        let unique: BTreeSet<String> = assets.into_iter().collect();
        let mut feeds = Vec::with_capacity(unique.len());
        for asset in unique {
            let number = self.number();
            let feed = Feed::new(&asset, Arc::clone(&id), self.roles(&asset), Arc::clone(&queue));
            self.feeds.insert(number, feed);
            self.follow(number, now);
            feeds.push(number);
        }
        self.streams.insert(
            stream,
            Stream {
                queue,
                feeds,
                begun: Some(begun),
            },
        );
        self.set(now + self.setup.limits.ready, Timer::Begin { stream });
        self.begin_if_proved(stream);
    }

    fn check(&mut self, assets: &[String], id: &str) -> Result<(), SubscribeError> {
        if let Some(fatal) = &self.fatal {
            return Err(fatal.clone().into());
        }
        let template = self.template();
        let mut owners: BTreeSet<Cluster> = BTreeSet::new();
        for asset in assets {
            subject_of(&template, asset, id)?;
            owners.extend(self.roles(asset).iter().map(|role| role.cluster));
        }
        for cluster in owners {
            let route = self.route(cluster);
            if route.servers.is_empty() {
                return Err(SubscribeError::HostRefused {
                    cluster: self.name(cluster).to_string(),
                    reason: route.reasons(),
                });
            }
        }
        Ok(())
    }

    /// Ends a stream.
    pub(crate) fn close(&mut self, stream: u64) {
        let Some(Stream { queue, feeds, begun: _ }) = self.streams.remove(&stream) else {
            return;
        };
        queue.close();
        for number in feeds {
            if let Some(feed) = self.feeds.remove(&number) {
                for Tap { key, cluster, .. } in feed.taps {
                    self.untap(number, key, cluster);
                }
            }
        }
    }

    /// Ends all streams: the client ends.
    pub(crate) fn end(&mut self) {
        for stream in self.streams.values_mut() {
            stream.queue.close();
            Self::refuse(stream.begun.take(), SubscribeError::Closed);
        }
    }

    /// Tells the program once all interest is proved.
    pub(super) fn begin_if_proved(&mut self, stream: u64) {
        let Some(state) = self.streams.get(&stream).filter(|stream| stream.begun.is_some()) else {
            return;
        };
        let mut taps = state
            .feeds
            .iter()
            .filter_map(|feed| self.feeds.get(feed))
            .flat_map(|feed| &feed.taps);
        if taps.all(|tap| self.is_proved(tap)) {
            self.begin(stream);
        }
    }

    /// Tells the program, and a gap for each interest that is not proved.
    pub(super) fn begin_anyway(&mut self, stream: u64) {
        let Some(state) = self.streams.get(&stream).filter(|stream| stream.begun.is_some()) else {
            return;
        };
        let mut unproved = Vec::new();
        for number in &state.feeds {
            let taps = self.feeds.get(number).map(|feed| &feed.taps);
            for tap in taps.into_iter().flatten().filter(|tap| !self.is_proved(tap)) {
                unproved.push((*number, tap.cluster));
            }
        }
        for (feed, cluster) in unproved {
            self.tell_unproved(feed, cluster, "not all pods have answered yet");
        }
        self.begin(stream);
    }

    fn begin(&mut self, stream: u64) {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return;
        };
        for number in &stream.feeds {
            if let Some(feed) = self.feeds.get_mut(number) {
                feed.is_begun = true;
            }
        }
        if let Some(begun) = stream.begun.take() {
            // The program may have given up.
            begun.send(Ok(())).ok();
        }
    }

    /// Taps all owners of a feed's asset.
    pub(super) fn follow(&mut self, feed: u64, now: Instant) {
        let Some(state) = self.feeds.get(&feed) else { return };
        for role in self.roles(&state.asset.clone()) {
            let is_tapped = self
                .feeds
                .get(&feed)
                .is_none_or(|feed| feed.tap(role.cluster).is_some());
            if !is_tapped {
                self.tap(feed, role.cluster, now);
            }
        }
    }

    fn tap(&mut self, feed: u64, cluster: Cluster, now: Instant) {
        let key = self.number();
        self.connect(cluster, now);
        if let Some(link) = self.links.get_mut(&cluster) {
            link.taps.insert((feed, key));
        }
        if let Some(state) = self.feeds.get_mut(&feed) {
            state.taps.push(Tap {
                key,
                cluster,
                declared: 0,
            });
        }
        self.taps.insert(key, (feed, cluster));
        self.declare(feed, key);
    }

    fn untap(&mut self, feed: u64, key: u64, cluster: Cluster) {
        self.taps.remove(&key);
        if let Some(link) = self.links.get_mut(&cluster) {
            link.taps.remove(&(feed, key));
        }
        self.actions.push(Action::Unsubscribe { key });
    }

    /// Subscribes anew, under the subject that the forwarder publishes under now.
    pub(super) fn change_subject(&mut self, feed: u64, now: Instant) {
        let template = self.template();
        let Some(state) = self.feeds.get_mut(&feed) else {
            return;
        };
        let asset = Arc::clone(&state.asset);
        let subject: Result<String, SubjectError> = subject_of(&template, &asset, &state.id);
        let detail = subject.as_ref().map_or_else(ToString::to_string, Clone::clone);
        let taps = std::mem::take(&mut state.taps);
        self.setup
            .told
            .gap(GapReason::SubjectChanged, Some(&asset), None, detail);
        for Tap { key, cluster, .. } in taps {
            self.untap(feed, key, cluster);
            self.tap(feed, cluster, now);
        }
    }

    /// Carries out what the merges of an asset decide.
    pub(super) fn perform(&mut self, feed: u64, effects: Effects) {
        let mut effects: VecDeque<(u32, Effect<Message>)> = effects.into();
        while let Some((lane, effect)) = effects.pop_front() {
            match effect {
                Effect::Deliver(records) => {
                    if let Some(state) = self.feeds.get_mut(&feed) {
                        state.deliver(lane, records, self.setup.repeats, &mut self.setup.told);
                    }
                }
                Effect::Fence { cluster, number } => {
                    let waiting = Waiting { feed, lane, number };
                    if !self.fence(cluster, waiting)
                        && let Some(state) = self.feeds.get_mut(&feed)
                    {
                        effects.extend(state.fenced(lane, number, Outcome::Down));
                    }
                }
                Effect::Forget(cluster) => self.forget(feed, cluster),
                Effect::Unfenced { cluster, outcome } => self.tell_unfenced(feed, cluster, outcome),
            }
        }
    }

    pub(super) fn fenced(&mut self, waiting: Waiting, outcome: Outcome) {
        let Waiting { feed, lane, number } = waiting;
        if let Some(state) = self.feeds.get_mut(&feed) {
            let effects = state.fenced(lane, number, outcome);
            self.perform(feed, effects);
        }
    }

    /// Begins a fence. False: there is no connection.
    fn fence(&mut self, cluster: Cluster, waiting: Waiting) -> bool {
        let Some(link) = self.links.get_mut(&cluster).filter(|link| link.life != Life::Down) else {
            return false;
        };
        link.fences.push(waiting);
        self.fences.push((cluster, waiting));
        true
    }

    /// One partition has nothing more to read on a cluster. The last one ends the subscription there.
    fn forget(&mut self, feed: u64, cluster: Cluster) {
        let state = self.feeds.get_mut(&feed).filter(|state| !state.needs(cluster));
        if let Some(Tap { key, .. }) = state.and_then(|state| state.forget(cluster)) {
            self.untap(feed, key, cluster);
        }
    }

    fn tell_unfenced(&mut self, feed: u64, cluster: Cluster, outcome: Outcome) {
        let name = self.name(cluster);
        let is_member = self.known().servers(&name).is_some();
        let (reason, detail) = match outcome {
            Outcome::Overflow => (GapReason::HeldTooMuch, "the old side is not waited for any longer"),
            _ if !is_member => (GapReason::Left, "it was not read to its end"),
            Outcome::TimedOut => (GapReason::NotDrained, "the old side has sent no echo in time"),
            Outcome::Drained | Outcome::Down => (GapReason::NotDrained, "there is no connection to the old side"),
        };
        let asset = self.feeds.get(&feed).map(|feed| &feed.asset);
        self.setup.told.gap(reason, asset, Some(name), detail);
    }
}
