//! How many pods there are to be, by measured lag.
//!
//! ```text
//! lag of all partitions ─▶ enough = lag / lagPerReplica ─▶ more than there are, for a while: up to the partitions
//!                                                         less, for as long as scaleDownDelay: one goes
//! ```
//! Each step moves partitions between pods, and lag cannot be told while it does. So no step is made before the last one has come to rest:
//! the rollout is complete, the ring is the declared one on every pod, and each partition has exactly one pod that says how far it lags.
//! The number of pods is the Deployment's, as long as nobody else has written it; else the status has it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crds::AssetForwarder;
use crds::asset_forwarder::Autoscaling;
use forwarder_core::status::{Phase, Status};

use super::dereference::{Dereferenced, Existing};
use super::pods::Observed;
use super::recorded::Recorded;
use super::rollout::{self, REPLICAS, Rollout};
use crate::reconcile::apply::{MANAGER, owns};

/// What was enough lately, of each forwarder by its UID. A new process knows nothing of it, and waits a whole delay before one pod goes.
#[derive(Debug, Default)]
pub struct Histories(Mutex<HashMap<String, History>>);

/// After so long without a measurement nobody knows what was enough meanwhile: longer than one pod takes to come or to go.
const LONGEST_GAP: Duration = Duration::from_secs(120);

/// For so long there must be too much for the pods before there is another one: a step leaves something behind itself, which is soon gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often the delay is doubled at most, for a number of pods that has proved too small; and the longest that this makes it.
const MOST_DOUBLINGS: u32 = 4;
const LONGEST_DELAY: Duration = Duration::from_secs(86_400);

/// What is doubled at least: without it a delay of none would have pods come and go for ever.
const LEAST_DELAY: Duration = Duration::from_secs(60);

/// What was seen lately.
#[derive(Clone, Debug, Default)]
struct History {
    /// Since when there are measurements without a long gap, and without a step.
    since: Option<Instant>,
    /// When the last one was made.
    last: Option<Instant>,
    /// How many pods were enough at which time: of those within the delay the peaks only, the highest and oldest first, so there are never
    /// more than pods.
    peaks: VecDeque<(Instant, i32)>,
    /// Since when there has been too much for the pods, in measurements one after the other, and how many were enough at least.
    too_much: Option<(Instant, i32)>,
    /// When the last pod was let go.
    last_down: Option<Instant>,
    /// How often a pod had to come back soon after it was let go: lag says only what is too much for the pods that there are, never how
    /// few would do, so a number has to be tried, and should not be tried for ever.
    retreats: u32,
}

/// What lags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lag {
    /// Records that are not committed, of all partitions of all topics.
    records: i64,
    /// Some wait for a cluster that is away or refuses one of them, or are not taken at all: more pods would not help.
    is_held: bool,
}

impl Histories {
    /// How many pods there are to be now; none: the forwarder is not scaled by its lag. What is decided counts as a step only when
    /// [`Self::taken`] says so.
    pub fn decide(&self, found: &Dereferenced, now: Instant) -> Option<i32> {
        let mut histories = self.lock();
        let Some(autoscaling) = found.forwarder.spec.autoscaling.as_ref() else {
            histories.remove(&uid(&found.forwarder));
            return None;
        };
        let partitions = found.partitions();
        let bounds = Bounds::of(autoscaling, pods(found), partitions);
        let Some(pods) = pods(found).map(|pods| bounds.hold(pods)) else {
            return Some(bounds.least);
        };
        let history = histories.entry(uid(&found.forwarder)).or_default();
        history.measure(autoscaling, &bounds, pods, lag(&found.existing, partitions), now);
        Some(bounds.hold(history.decide(delay(autoscaling), pods, now)))
    }

    /// A step was taken: from so many pods to so many.
    pub fn taken(&self, forwarder: &AssetForwarder, from: i32, to: i32, now: Instant) {
        let delay = forwarder.spec.autoscaling.as_ref().map(delay).unwrap_or_default();
        if let Some(history) = self.lock().get_mut(&uid(forwarder)) {
            history.step(delay, from, to, now);
        }
    }

    /// A forwarder is gone.
    pub fn forget(&self, forwarder: &AssetForwarder) {
        self.lock().remove(&uid(forwarder));
    }

    /// Forgets all but those with these UIDs.
    pub fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| is_there(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, History>> {
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn uid(forwarder: &AssetForwarder) -> String {
    forwarder.metadata.uid.clone().unwrap_or_default()
}

fn delay(autoscaling: &Autoscaling) -> Duration {
    Duration::from_secs(u64::from(autoscaling.scale_down_delay_seconds))
}

/// How many pods there were to be so far; none: that was never decided, or they ended for another reason. What a hand makes of the
/// Deployment is put back: then the status says it, which is written a moment later.
#[must_use]
pub fn pods(found: &Dereferenced) -> Option<i32> {
    let live = found.existing.deployment.as_ref();
    let ours = live.filter(|live| owns(*live, MANAGER, REPLICAS));
    let status = found
        .forwarder
        .status
        .as_ref()
        .and_then(|status| status.desired_replicas);
    let pods = ours.map(rollout::desired).or(status).or(live.map(rollout::desired));
    pods.filter(|pods| *pods > 0)
}

/// Within which the number of pods stays.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    least: i32,
    most: i32,
}

impl Bounds {
    fn of(autoscaling: &Autoscaling, pods: Option<i32>, partitions: Option<i32>) -> Self {
        // While nobody knows the partitions, there are no more than before.
        let known = partitions.or(pods).unwrap_or(autoscaling.min_replicas);
        let most = autoscaling.max_replicas.min(known).max(1);
        Self {
            least: autoscaling.min_replicas.min(most),
            most,
        }
    }

    fn hold(&self, pods: i32) -> i32 {
        pods.clamp(self.least, self.most)
    }
}

impl History {
    fn measure(&mut self, autoscaling: &Autoscaling, bounds: &Bounds, pods: i32, lag: Option<Lag>, now: Instant) {
        let Some(Lag { records, is_held }) = lag else {
            // What a rollout or a rebalance has left behind itself is not told from what stays.
            self.too_much = None;
            return;
        };
        let each = autoscaling.lag_per_replica.max(1);
        let enough = records.max(0).saturating_add(each - 1) / each;
        let enough = bounds.hold(i32::try_from(enough).unwrap_or(i32::MAX));
        if self.last.is_none_or(|last| now.duration_since(last) > LONGEST_GAP) {
            self.since = Some(now);
            self.peaks.clear();
            self.too_much = None;
        }
        self.last = Some(now);
        let delay = self.delay(delay(autoscaling));
        while self
            .peaks
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > delay)
        {
            self.peaks.pop_front();
        }
        while self.peaks.back().is_some_and(|(_, peak)| *peak <= enough) {
            self.peaks.pop_back();
        }
        self.peaks.push_back((now, enough));
        self.too_much = match self.too_much {
            _ if enough <= pods || is_held => None,
            Some((since, least)) => Some((since, least.min(enough))),
            None => Some((now, enough)),
        };
    }

    /// How many pods there are to be.
    fn decide(&self, delay: Duration, pods: i32, now: Instant) -> i32 {
        if let Some((since, least)) = self.too_much
            && now.duration_since(since) >= PATIENCE
        {
            return least;
        }
        let is_full = self
            .since
            .is_some_and(|since| now.duration_since(since) >= self.delay(delay));
        match self.peaks.front() {
            Some((_, peak)) if is_full && *peak < pods => pods - 1,
            _ => pods,
        }
    }

    fn step(&mut self, delay: Duration, from: i32, to: i32, now: Instant) {
        if to > from {
            let soon = delay.max(LEAST_DELAY) * 4;
            let is_soon = self.last_down.is_some_and(|down| now.duration_since(down) < soon);
            self.retreats = if is_soon { self.retreats.saturating_add(1) } else { 0 };
        } else {
            self.last_down = Some(now);
        }
        self.since = Some(now);
        self.peaks.clear();
        self.too_much = None;
    }

    /// For how long fewer pods must have been enough.
    fn delay(&self, declared: Duration) -> Duration {
        if self.retreats == 0 {
            return declared;
        }
        let doubled = declared.max(LEAST_DELAY) * (1 << self.retreats.min(MOST_DOUBLINGS));
        doubled.min(LONGEST_DELAY.max(declared))
    }
}

/// What lags; none: it cannot be told now.
fn lag(existing: &Existing, partitions: Option<i32>) -> Option<Lag> {
    let deployment = existing.deployment.as_ref()?;
    if Rollout::of(deployment) != Rollout::Complete {
        return None;
    }
    let declared = Recorded::read(existing.ring.as_ref(), std::iter::empty());
    if !declared.leaving.is_empty() {
        return None;
    }
    let (mut lags, mut is_held) = (BTreeMap::new(), false);
    for pod in &existing.pods {
        let Observed {
            terminating: false,
            report:
                Some(Status {
                    phase,
                    ring,
                    assignment,
                    topics,
                    clusters,
                    ..
                }),
            ..
        } = pod
        else {
            return None;
        };
        let is_at_rest = matches!(phase, Phase::Consuming | Phase::Waiting(_) | Phase::Idle)
            && ring.epoch == declared.epoch()
            && ring.announced.is_none()
            && ring.declared.is_none()
            && ring.waiting_assets == 0;
        if !is_at_rest {
            return None;
        }
        let waits = clusters
            .values()
            .any(|cluster| !cluster.connected || cluster.held_assets > 0);
        is_held |= matches!(phase, Phase::Waiting(_)) || waits;
        // The first topic has no name in a status.
        let of_first = assignment.iter().map(|assigned| (None, assigned));
        let of_further = topics.iter().flat_map(|(name, topic)| {
            let assigned = topic.assignment.iter();
            assigned.map(move |assigned| (Some(name), assigned))
        });
        for (topic, (partition, assignment)) in of_first.chain(of_further) {
            // Two pods that both have it are between two assignments.
            if lags.insert((topic, *partition), assignment.lag?).is_some() {
                return None;
            }
        }
    }
    let all = usize::try_from(partitions?).ok()?;
    (lags.len() == all).then(|| Lag {
        records: lags.values().sum(),
        is_held,
    })
}
