//! The pods of a forwarder: what Kubernetes says of them, and what they say of themselves.

use std::collections::BTreeMap;

use forwarder_core::status::{Phase, Status};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;
use serde::Serialize;

/// The forwarder's container.
const CONTAINER: &str = "forwarder";

/// The labels by which the pods of a forwarder are found.
pub(crate) fn selector(forwarder: &str) -> String {
    format!("app.kubernetes.io/name=asset-forwarder,app.kubernetes.io/instance={forwarder}")
}

/// What is known of a pod's process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    /// It has not begun, or it has ended for good: it holds no records.
    NoProcess,
    /// What it says of itself.
    Status(Box<Status>),
    /// It did not answer, with the reason.
    Silent(String),
}

/// A pod of a forwarder.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodSeen {
    /// Its name.
    pub(crate) name: String,
    /// Whether it is being deleted.
    pub(crate) ending: bool,
    /// What its process says.
    pub(crate) heard: Heard,
    /// How many records each cluster has confirmed to this process; none: not asked for, or not told.
    pub(crate) published: Option<BTreeMap<String, f64>>,
}

impl PodSeen {
    /// A pod that may run a forwarder of this name; none: it does not, or it has ended. Its labels are not enough.
    pub(crate) fn of(pod: &Pod, forwarder: &str) -> Option<Self> {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if !may_forward(pod, forwarder) || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let ending = pod.metadata.deletion_timestamp.is_some();
        let mut containers = pod
            .status
            .iter()
            .flat_map(|status| status.container_statuses.iter().flatten());
        let container = containers.find(|container| container.name == CONTAINER);
        let heard = match container {
            None if phase.is_none_or(|phase| phase == "Pending") => Heard::NoProcess,
            None => Heard::Silent("Kubernetes does not say whether it runs".to_owned()),
            Some(container) => process(container, ending),
        };
        Some(Self {
            name: pod.name_any(),
            ending,
            heard,
            published: None,
        })
    }

    /// What it says of itself.
    pub(crate) fn status(&self) -> Option<&Status> {
        match &self.heard {
            Heard::Status(status) => Some(status),
            Heard::NoProcess | Heard::Silent(_) => None,
        }
    }

    /// Whether its process may be there.
    pub(crate) fn has_process(&self) -> bool {
        self.heard != Heard::NoProcess
    }
}

/// How many of these pods may still do something for a forwarder of this name, now or later.
pub(crate) fn remaining(pods: &[Pod], forwarder: &str) -> usize {
    let seen = pods.iter().filter_map(|pod| PodSeen::of(pod, forwarder));
    seen.filter(|pod| pod.has_process() || !pod.ending).count()
}

/// What a container's state says before its process is asked. One that is to be asked is silent so far.
fn process(container: &ContainerStatus, ending: bool) -> Heard {
    let state = container.state.as_ref();
    let waits = state.and_then(|state| state.waiting.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    if (waits.is_some() && container.restart_count == 0) || (ended.is_some() && ending) {
        return Heard::NoProcess;
    }
    let reason = match (waits, ended) {
        (Some(waits), _) => waits.reason.clone(),
        (None, Some(ended)) => ended.reason.clone(),
        (None, None) => return Heard::Silent(NOT_ASKED.to_owned()),
    };
    Heard::Silent(format!(
        "it does not run: {}",
        reason.unwrap_or_else(|| "no reason is told".to_owned())
    ))
}

/// The reason of a pod that has not been asked.
const NOT_ASKED: &str = "it was not asked";

/// Whether a pod runs and can be asked.
pub(crate) fn can_be_asked(pod: &PodSeen) -> bool {
    pod.heard == Heard::Silent(NOT_ASKED.to_owned())
}

/// Whether a pod may run a forwarder of this name: a ReplicaSet of its Deployment made it, or nobody controls it any more, and it mounts a
/// configuration of the forwarder.
fn may_forward(pod: &Pod, forwarder: &str) -> bool {
    let controller = pod
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    let is_ours = controller.is_none_or(|owner| {
        owner.kind == "ReplicaSet" && owner.api_version == "apps/v1" && owner.name.starts_with(&format!("{forwarder}-"))
    });
    let Some(spec) = &pod.spec else {
        return false;
    };
    let configs = format!("{forwarder}-config-");
    let mut maps = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.config_map.as_ref());
    let has_container = spec.containers.iter().any(|container| container.name == CONTAINER);
    is_ours && has_container && maps.any(|map| map.name.starts_with(&configs))
}

/// A pod, as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodView {
    /// Its name.
    pub(crate) name: String,
    /// What it does: its phase in small letters, `starting`, `not known`.
    pub(crate) state: String,
    /// The epoch of the ring that it uses.
    pub(crate) epoch: Option<u64>,
    /// Records that are not committed, of its partitions.
    pub(crate) lag: Option<i64>,
    /// Assets that wait for their old owner.
    pub(crate) waiting_assets: Option<u64>,
    /// What is wrong, or why it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl From<&PodSeen> for PodView {
    fn from(pod: &PodSeen) -> Self {
        let (state, problem) = match &pod.heard {
            Heard::NoProcess if pod.ending => ("ended", None),
            Heard::NoProcess => ("starting", None),
            Heard::Silent(why) => ("not known", Some(why.clone())),
            Heard::Status(status) => {
                let faults = [&status.ring.refused, &status.ring.api_fault];
                let fault = faults.into_iter().find_map(Clone::clone);
                (word(&status.phase), status.phase.not_ready().or(fault))
            }
        };
        let status = pod.status();
        Self {
            name: pod.name.clone(),
            state: state.to_owned(),
            epoch: status.map(|status| status.ring.epoch),
            lag: status.and_then(Status::lag),
            waiting_assets: status.map(|status| status.ring.waiting_assets as u64),
            problem,
        }
    }
}

const fn word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting",
        Phase::WithoutRing(_) => "without ring",
        Phase::Consuming => "consuming",
        Phase::Waiting(_) => "waiting",
        Phase::Idle => "idle",
        Phase::Rebalancing => "rebalancing",
        Phase::Outside(_) => "outside",
        Phase::Draining => "draining",
    }
}

/// All pods of a forwarder together. Each number is known only if all processes have told theirs: a sum without a part of it would be too
/// low.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Totals {
    /// How many processes use the ring of each epoch, as far as they have told.
    pub(crate) pods_by_epoch: BTreeMap<u64, usize>,
    /// Processes that have not told; none: nobody knows how many pods there are.
    pub(crate) silent_pods: Option<usize>,
    /// Assets that wait for their old owner.
    pub(crate) waiting_assets: Option<u64>,
    /// Records that are to be read again when their cluster has room.
    pub(crate) parked_records: Option<u64>,
    /// Records that wait for a confirmation.
    pub(crate) pending_records: Option<u64>,
    /// Records that are not committed.
    pub(crate) lag: Option<i64>,
}

impl Totals {
    /// Of these pods; none: they could not be listed.
    pub(crate) fn of(pods: Option<&[PodSeen]>) -> Self {
        let Some(pods) = pods else {
            return Self::default();
        };
        let mut pods_by_epoch = BTreeMap::new();
        for status in pods.iter().filter_map(PodSeen::status) {
            *pods_by_epoch.entry(status.ring.epoch).or_default() += 1;
        }
        let of_clusters = |records: fn(&forwarder_core::status::ClusterStatus) -> u64| {
            sum(pods, |status| Some(status.clusters.values().map(records).sum()))
        };
        Self {
            pods_by_epoch,
            silent_pods: Some(pods.iter().filter(|pod| matches!(pod.heard, Heard::Silent(_))).count()),
            waiting_assets: sum(pods, |status| Some(status.ring.waiting_assets as u64)),
            parked_records: of_clusters(|cluster| cluster.parked_records),
            pending_records: of_clusters(|cluster| cluster.pending_records),
            lag: sum(pods, Status::lag),
        }
    }

    /// Whether all processes use the ring of this epoch and no asset waits; none: that is not known.
    pub(crate) fn has_converged(&self, epoch: u64) -> Option<bool> {
        if self.pods_by_epoch.keys().any(|used| *used != epoch) {
            return Some(false);
        }
        match (self.silent_pods, self.waiting_assets) {
            (Some(0), Some(waiting)) => Some(waiting == 0),
            _ => None,
        }
    }
}

/// The sum over all processes; none: one of them has not told.
pub(crate) fn sum<N: std::iter::Sum>(pods: &[PodSeen], of: impl Fn(&Status) -> Option<N>) -> Option<N> {
    let processes = pods.iter().filter(|pod| pod.has_process());
    processes.map(|pod| pod.status().and_then(&of)).sum()
}

#[cfg(test)]
mod tests;
