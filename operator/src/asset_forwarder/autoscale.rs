//! How many pods there are to be, by measured lag.
//!
//! ```text
//! lag of all partitions ─▶ enough = lag / lagPerReplica ─▶ more than there are, for a while: up to the partitions
//!                                                         less, for as long as scaleDownDelay: one goes
//! ```
//! Each step moves partitions between pods, and lag cannot be told while it does. So no step is made before the last one has come to rest:
//! the rollout is complete, the ring is the declared one on every pod, and each partition has exactly one pod that says how far it lags.
//! The number of pods itself is kept nowhere but in the Deployment.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::AssetForwarder;
use crds::asset_forwarder::Autoscaling;

use forwarder_core::status::{Phase, Status};

use super::dereference::{Dereferenced, Existing};
use super::pods::Observed;
use super::recorded::Recorded;
use super::rollout::{self, Rollout};

/// What was enough lately, of each forwarder by its UID. A new process knows nothing of it, and waits a whole delay before one pod goes.
#[derive(Debug, Default)]
pub struct Histories(Mutex<HashMap<String, History>>);

/// After so long without a measurement nobody knows what was enough meanwhile: longer than one pod takes to come or to go.
const LONGEST_GAP: Duration = Duration::from_secs(120);

/// For so long there must be too much for the pods before there is another one: a step leaves something behind itself, which is soon gone.
const PATIENCE: Duration = Duration::from_secs(15);

/// How often the delay is doubled at most, for a number of pods that has proved too small.
const MOST_DOUBLINGS: u32 = 4;

/// What was seen lately.
#[derive(Debug, Default)]
struct History {
    /// How many pods were enough at which time, since the last step; the oldest first.
    enough: VecDeque<(Instant, i32)>,
    /// When the last pod was let go.
    last_down: Option<Instant>,
    /// How often a pod had to come back soon after it was let go: lag says only what is too much for the pods that there are, never how
    /// few would do, so a number has to be tried, and should not be tried for ever.
    retreats: u32,
}

/// What lags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lag {
    /// Records that are not committed, of all partitions.
    records: i64,
    /// Some wait for a cluster that is away, or are not taken at all: more pods would not help.
    is_held: bool,
}

impl Histories {
    /// How many pods there are to be now; none: the forwarder is not scaled by its lag.
    pub fn decide(&self, found: &Dereferenced, now: Instant) -> Option<i32> {
        let uid = found.forwarder.metadata.uid.clone().unwrap_or_default();
        // The map is whole after every statement, so a panic elsewhere has left nothing half done.
        let mut histories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(autoscaling) = found.forwarder.spec.autoscaling.as_ref() else {
            histories.remove(&uid);
            return None;
        };
        let partitions = found.source.channel().and_then(|channel| channel.partitions);
        let lag = lag(&found.existing, partitions);
        let history = histories.entry(uid).or_default();
        Some(history.decide(autoscaling, pods(found), partitions, lag, now))
    }

    /// A forwarder is gone.
    pub fn forget(&self, forwarder: &AssetForwarder) {
        let uid = forwarder.metadata.uid.clone().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}

/// How many pods there were to be so far; none: that was never decided, or they ended for another reason. What a hand makes of the
/// Deployment is put back.
pub(super) fn pods(found: &Dereferenced) -> Option<i32> {
    let status = found
        .forwarder
        .status
        .as_ref()
        .and_then(|status| status.desired_replicas);
    let live = found.existing.deployment.as_ref().map(rollout::desired);
    status.or(live).filter(|pods| *pods > 0)
}

impl History {
    fn decide(
        &mut self,
        autoscaling: &Autoscaling,
        pods: Option<i32>,
        partitions: Option<i32>,
        lag: Option<Lag>,
        now: Instant,
    ) -> i32 {
        // While nobody knows the partitions, there are no more than before.
        let known = partitions.or(pods).unwrap_or(autoscaling.min_replicas);
        let most = autoscaling.max_replicas.min(known).max(1);
        let least = autoscaling.min_replicas.min(most);
        let Some(pods) = pods.map(|pods| pods.clamp(least, most)) else {
            return least;
        };
        let Some(Lag { records, is_held }) = lag else {
            return pods;
        };
        let each = autoscaling.lag_per_replica.max(1);
        let enough = records.max(0).saturating_add(each - 1) / each;
        let enough = i32::try_from(enough).unwrap_or(i32::MAX).clamp(least, most);
        let last = self.enough.back().map(|(at, _)| *at);
        if last.is_some_and(|last| now.duration_since(last) > LONGEST_GAP) {
            self.enough.clear();
        }
        self.enough.push_back((now, enough));
        let delay = Duration::from_secs(u64::from(autoscaling.scale_down_delay_seconds));

        // The least of a while is what certainly was too much.
        let wanted = self.over(PATIENCE, now).map_or(0, |(least, _)| least);
        if wanted > pods && !is_held {
            let is_soon = self.last_down.is_some_and(|down| now.duration_since(down) < delay * 4);
            self.retreats = if is_soon { self.retreats.saturating_add(1) } else { 0 };
            self.enough.clear();
            return wanted;
        }
        let delay = delay * (1 << self.retreats.min(MOST_DOUBLINGS));
        let wanted = self.over(delay, now).map_or(pods, |(_, most)| most);
        if wanted < pods {
            self.last_down = Some(now);
            self.enough.clear();
            return pods - 1;
        }
        let longest = delay.max(PATIENCE);
        // One measurement stays that is older, so that the time is seen to be full.
        while self
            .enough
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= longest)
        {
            self.enough.pop_front();
        }
        pods
    }

    /// The least and the most that was enough within `time` before `now`; none: that time has not been seen in full.
    fn over(&self, time: Duration, now: Instant) -> Option<(i32, i32)> {
        self.enough.front().filter(|(at, _)| now.duration_since(*at) >= time)?;
        let within = self.enough.iter().filter(|(at, _)| now.duration_since(*at) <= time);
        let within = within.map(|(_, enough)| *enough);
        Some(within.fold((i32::MAX, 0), |(least, most), enough| {
            (least.min(enough), most.max(enough))
        }))
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
        is_held |= matches!(phase, Phase::Waiting(_)) || clusters.values().any(|cluster| cluster.parked_records > 0);
        for (partition, assignment) in assignment {
            // Two pods that both have it are between two assignments.
            if lags.insert(*partition, assignment.lag?).is_some() {
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
