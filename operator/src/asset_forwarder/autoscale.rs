//! How many pods there are to be, by measured lag.
//!
//! ```text
//! lag of all partitions ─▶ enough = lag / lagPerReplica ─▶ more than there are: at once, up to the partitions
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

use forwarder_core::status::Phase;

use super::dereference::{Dereferenced, Existing};
use super::pods::Observed;
use super::rollout::{self, Rollout};

/// What was enough lately, of each forwarder by its UID. A new process knows nothing of it, and waits a whole delay before one pod goes.
#[derive(Debug, Default)]
pub struct Histories(Mutex<HashMap<String, History>>);

/// After so long without a measurement nobody knows what was enough meanwhile: longer than one pod takes to come or to go.
const LONGEST_GAP: Duration = Duration::from_secs(120);

/// What was enough lately.
#[derive(Debug, Default)]
struct History {
    /// How many pods were enough at which time, the oldest first.
    enough: VecDeque<(Instant, i32)>,
    /// Since when there are measurements without a long gap.
    since: Option<Instant>,
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
        let pods = found.existing.deployment.as_ref().map(rollout::desired);
        Some(
            histories
                .entry(uid)
                .or_default()
                .decide(autoscaling, pods, partitions, lag, now),
        )
    }

    /// A forwarder is gone.
    pub fn forget(&self, forwarder: &AssetForwarder) {
        let uid = forwarder.metadata.uid.clone().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
    }
}

impl History {
    fn decide(
        &mut self,
        autoscaling: &Autoscaling,
        pods: Option<i32>,
        partitions: Option<i32>,
        lag: Option<i64>,
        now: Instant,
    ) -> i32 {
        let most = autoscaling.max_replicas.min(partitions.unwrap_or(i32::MAX)).max(1);
        let least = autoscaling.min_replicas.min(most);
        // None yet, or none for a while (suspended, without a member): the least, and then what they measure.
        let pods = pods.filter(|pods| *pods > 0).unwrap_or(least).clamp(least, most);
        let Some(lag) = lag else {
            return pods;
        };
        let each = autoscaling.lag_per_replica.max(1);
        let enough = lag.max(0).saturating_add(each - 1) / each;
        let enough = i32::try_from(enough).unwrap_or(i32::MAX).clamp(least, most);
        let delay = Duration::from_secs(u64::from(autoscaling.scale_down_delay_seconds));
        if self
            .enough
            .back()
            .is_none_or(|(at, _)| now.duration_since(*at) > LONGEST_GAP)
        {
            self.enough.clear();
            self.since = Some(now);
        }
        while self
            .enough
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > delay)
        {
            self.enough.pop_front();
        }
        self.enough.push_back((now, enough));
        let was_enough = self.enough.iter().map(|(_, enough)| *enough).max().unwrap_or(enough);
        let is_known = self.since.is_some_and(|since| now.duration_since(since) >= delay);
        match enough > pods {
            true => enough,
            false if was_enough < pods && is_known => pods - 1,
            false => pods,
        }
    }
}

/// Records that are not committed, of all partitions; none: it cannot be told now.
fn lag(existing: &Existing, partitions: Option<i32>) -> Option<i64> {
    let deployment = existing.deployment.as_ref()?;
    if Rollout::of(deployment) != Rollout::Complete {
        return None;
    }
    let mut lags = BTreeMap::new();
    let mut epochs = Vec::new();
    for pod in &existing.pods {
        let Observed {
            terminating: false,
            report: Some(report),
            ..
        } = pod
        else {
            return None;
        };
        if report.ring.waiting_assets > 0 || !matches!(report.phase, Phase::Consuming | Phase::Waiting(_) | Phase::Idle)
        {
            return None;
        }
        epochs.push(report.ring.epoch);
        for (partition, assignment) in &report.assignment {
            // Two pods that both have it are between two assignments.
            if lags.insert(*partition, assignment.lag?).is_some() {
                return None;
            }
        }
    }
    epochs.dedup();
    let all = usize::try_from(partitions?).ok()?;
    (epochs.len() == 1 && lags.len() == all).then(|| lags.values().sum())
}
