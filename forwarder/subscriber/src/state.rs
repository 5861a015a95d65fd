//! All that a client decides. Pure: no socket, no clock.
//!
//! ```text
//!  requests of the program ─┐                      ┌─▶ actions: connect, subscribe, publish, drain
//!  connections up and down ─┼─▶ State ─── merge ───┼─▶ streams of records
//!  records, answers, time  ─┘          per asset   └─▶ events
//! ```
//!
//! Each call is a step. [`State::step`] ends it, and yields what is to be done.

mod connections;
mod echoes;
mod feed;
mod learning;
mod link;
mod proofs;
mod questions;
mod subscriptions;
pub(crate) mod told;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Instant;

use forwarder_beacon::{Known, Subjects, Verifier};
use hashbrown::HashMap;

use crate::error::{JetStreamError, SubscribeError};
use crate::hosts::{Policy, Route};
use crate::limits::{Limits, Repeats};
use crate::merge::{Cluster, Hold};
use crate::message::Message;
use crate::nonce::Nonces;
use crate::origin::{Origins, is_copy};
use crate::request::Begun;
use feed::Feed;
use link::Link;
use told::Told;

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// Keep a connection to a cluster, at these servers.
    Connect { cluster: Cluster, route: Route },
    /// The connection is not needed any more.
    Disconnect { cluster: Cluster },
    /// Subscribe, on this connection only.
    Subscribe {
        cluster: Cluster,
        generation: u64,
        key: u64,
        subject: String,
    },
    /// End a subscription.
    Unsubscribe { key: u64 },
    /// Publish, on this connection only.
    Publish {
        cluster: Cluster,
        generation: u64,
        subject: String,
        reply: Option<String>,
        body: Vec<u8>,
    },
    /// Take all that has arrived for a tap, and then tell [`State::drained`].
    Drain { key: u64, fence: Fence },
    /// Ask once for the announcement, through one of these.
    Probe { routes: Vec<Route> },
}

/// What waits for a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    feed: u64,
    /// The partition.
    lane: u32,
    /// The number that the partition's merge has given the fence.
    number: u64,
}

/// Whom to tell that a channel is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    waiting: Waiting,
    cluster: Cluster,
    /// The cluster's servers have had their time to settle.
    is_settled: bool,
}

#[derive(Clone, Debug)]
enum Timer {
    /// The fence has waited long enough, unless more has come through its connection than it had.
    Fence {
        waiting: Waiting,
        cluster: Cluster,
        had: u64,
        turn: u32,
    },
    /// The cluster's servers have had their time to settle.
    Settle(Fence),
    /// The question for the announcement has waited long enough.
    Ask { cluster: Cluster, token: u64 },
    /// It is time to ask again.
    AskAgain { cluster: Cluster },
    /// It is time to ask for proofs again.
    Round { cluster: Cluster, token: u64 },
    /// Three digests should have come.
    Digests { cluster: Cluster },
    /// The program has waited long enough for its subscription.
    Begin { stream: u64 },
    /// It is time to ask elsewhere again.
    Elsewhere,
    /// It is time to try another member.
    Turn,
    /// There is more to tell.
    Tell,
}

/// A stream of a program.
#[derive(Debug)]
struct Stream {
    queue: Arc<crate::queue::Queue>,
    feeds: Vec<u64>,
    /// Its program waits for the proofs.
    begun: Option<Begun>,
}

/// The names of clusters, each with a number.
#[derive(Debug, Default)]
struct Names {
    names: Vec<Arc<str>>,
}

impl Names {
    fn number(&mut self, name: &str) -> Cluster {
        let known = self.names.iter().position(|known| **known == *name);
        let at = known.unwrap_or_else(|| {
            self.names.push(name.into());
            self.names.len() - 1
        });
        at as Cluster
    }

    fn of(&self, cluster: Cluster) -> Arc<str> {
        self.names.get(cluster as usize).cloned().unwrap_or_else(|| "".into())
    }
}

/// What a client needs to begin.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) verifier: Verifier,
    pub(crate) subjects: Subjects,
    pub(crate) policy: Policy,
    pub(crate) limits: Limits,
    pub(crate) repeats: Repeats,
    pub(crate) known: Arc<RwLock<Known>>,
    pub(crate) told: Told,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    setup: Setup,
    ring: String,
    names: Names,
    links: BTreeMap<Cluster, Link>,
    feeds: HashMap<u64, Feed>,
    /// Of each tap its feed and its cluster.
    taps: HashMap<u64, (u64, Cluster)>,
    streams: BTreeMap<u64, Stream>,
    /// Hashes of announcements that were learned, each with when. The last one is the last.
    hashes: VecDeque<(String, Instant)>,
    origins: Origins,
    nonces: Nonces,
    timers: BTreeMap<(Instant, u64), Timer>,
    actions: Vec<Action>,
    /// What has begun to wait for a fence in this step.
    fences: Vec<(Cluster, Waiting)>,
    next: u64,
    /// The newest ring whose interest is proved.
    ready: u64,
    /// Servers of which it was told that they are refused.
    refused: HashMap<(Cluster, String), ()>,
    is_probing: bool,
    /// No question elsewhere before.
    elsewhere: Option<Instant>,
    fatal: Option<JetStreamError>,
    /// There is a timer for what is told in a rhythm.
    is_telling: bool,
    /// Which member is tried next while nothing is read.
    next_member: usize,
    /// There is a timer to try another one.
    is_turning: bool,
}

impl State {
    pub(crate) fn new(setup: Setup) -> Self {
        let ring = setup
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .ring()
            .to_owned();
        Self {
            setup,
            ring,
            names: Names::default(),
            links: BTreeMap::new(),
            feeds: HashMap::new(),
            taps: HashMap::new(),
            streams: BTreeMap::new(),
            hashes: VecDeque::new(),
            origins: Origins::default(),
            nonces: Nonces::default(),
            timers: BTreeMap::new(),
            actions: Vec::new(),
            fences: Vec::new(),
            next: 0,
            ready: 0,
            refused: HashMap::new(),
            is_probing: false,
            elsewhere: None,
            fatal: None,
            is_telling: false,
            next_member: 0,
            is_turning: false,
        }
    }

    /// The name of a cluster.
    pub(crate) fn name(&self, cluster: Cluster) -> Arc<str> {
        self.names.of(cluster)
    }

    /// Whether a tap is still wanted.
    pub(crate) fn has_tap(&self, key: u64) -> bool {
        self.taps.contains_key(&key)
    }

    /// When time has something to say.
    pub(crate) fn next_time(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes a record that has come for a tap.
    pub(crate) fn record(&mut self, key: u64, message: async_nats::Message) {
        let Some((feed_id, cluster)) = self.taps.get(&key).copied() else {
            return;
        };
        if let Some(link) = self.links.get_mut(&cluster) {
            link.records += 1;
        }
        let Some(feed) = self.feeds.get_mut(&feed_id) else {
            return;
        };
        if is_copy(message.headers.as_ref()) {
            // The owner has the record itself.
            return;
        }
        let message = Message {
            asset: Arc::clone(&feed.asset),
            cluster: self.names.of(cluster),
            subject: message.subject,
            payload: message.payload,
            origin: self.origins.of(message.headers.as_ref()),
            headers: message.headers,
            is_repeat: false,
        };
        let hold = Hold {
            records: self.setup.limits.held,
            bytes: self.setup.limits.held_bytes,
        };
        let effects = feed.take(cluster, message, hold, self.setup.repeats, &mut self.setup.told);
        if !effects.is_empty() {
            self.perform(feed_id, effects);
        }
    }

    /// Ends a step: time goes on to `now`. Yields what is to be done.
    pub(crate) fn step(&mut self, now: Instant) -> Vec<Action> {
        while let Some(entry) = self.timers.first_entry().filter(|entry| entry.key().0 <= now) {
            let timer = entry.remove();
            self.time_out(timer, now);
        }
        self.tidy(now);
        self.echo();
        self.prove(now);
        for (cluster, waiting) in std::mem::take(&mut self.fences) {
            self.await_fence(cluster, waiting, 0, now);
        }
        if let Some(at) = self.setup.told.flush(now)
            && !std::mem::replace(&mut self.is_telling, true)
        {
            self.set(at, Timer::Tell);
        }
        std::mem::take(&mut self.actions)
    }

    fn time_out(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Fence {
                waiting,
                cluster,
                had,
                turn,
            } => self.fence_timed_out(cluster, waiting, had, turn, now),
            Timer::Settle(fence) => self.drain(Fence {
                is_settled: true,
                ..fence
            }),
            Timer::Ask { cluster, token } => self.unanswered(cluster, token, now),
            Timer::AskAgain { cluster } => self.ask(cluster, now),
            Timer::Round { cluster, token } => self.ask_again(cluster, token, now),
            Timer::Digests { cluster } => self.watch_digests(cluster, now),
            Timer::Begin { stream } => self.begin_anyway(stream),
            Timer::Elsewhere => self.ask_elsewhere(now),
            Timer::Turn => self.turn(),
            Timer::Tell => self.is_telling = false,
        }
    }

    fn set(&mut self, at: Instant, timer: Timer) {
        let number = self.number();
        self.timers.insert((at, number), timer);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn known(&self) -> RwLockReadGuard<'_, Known> {
        self.setup.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(begun: Option<Begun>, error: SubscribeError) {
        if let Some(begun) = begun {
            // The program may have given up.
            begun.send(Err(error)).ok();
        }
    }
}

#[cfg(test)]
mod tests;
