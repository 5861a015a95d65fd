//! The pods as they are: what Kubernetes says of them, and what they say of themselves.

use std::collections::BTreeSet;

use forwarder_core::status::Status;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodSpec};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::names;
use crate::owner;

/// A pod of the forwarder that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Its name.
    pub name: String,
    /// Its address, once it has one.
    pub address: Option<String>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// What its container is doing.
    pub process: Process,
    /// Why it does not come up: the kubelet's or the scheduler's word, and their message.
    pub trouble: Option<(String, String)>,
    /// The version of the credentials that was asked for last.
    pub credentials_asked: Option<String>,
    /// The ConfigMaps that it mounts.
    pub config_maps: BTreeSet<String>,
    /// The forwarder's image, as its spec names it.
    pub image: String,
    /// Whether it watches the ring's ConfigMap; otherwise it has its ring with its configuration.
    pub watches_ring: bool,
    /// Since when it has not been ready, if it is not.
    pub not_ready_since: Option<Timestamp>,
    /// What the process says of itself; none: no answer.
    pub report: Option<Status>,
    /// Why it cannot announce the ring to subscribers, as it tells.
    pub beacon_faults: BTreeSet<BeaconFault>,
    /// It has not been ready for longer than a start takes, and does not answer.
    pub overdue: bool,
}

/// Why a pod cannot announce the ring.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BeaconFault {
    /// On which cluster, by its name in the ring; none: on all of them.
    pub cluster: Option<String>,
    /// What the pod says, cut where it is long.
    pub fault: String,
}

/// Within which a pod that has an address answers, ready or not: a start takes seconds, and an image may have to be pulled.
const START: SignedDuration = SignedDuration::from_secs(60);

/// What a pod's container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// It has never begun, or it has ended in a pod that is being deleted: it publishes nothing.
    Absent,
    /// It runs, or may run: the node may have been cut off, or the kubelet has begun it again and not said so yet, with whatever ring
    /// it found.
    Running,
}

/// Whether a pod may run a forwarder of this name: its labels are not enough. Who controls it does not matter as long as it may be a
/// ReplicaSet of ours: pods go on as orphans, or while their Deployment is being deleted, and publish all the same.
#[must_use]
pub fn may_forward(pod: &Pod, forwarder: &str) -> bool {
    let of_ours = format!("{forwarder}-");
    let is_ours = owner::controller(pod).is_none_or(|owner| {
        owner.kind == "ReplicaSet" && owner.api_version == "apps/v1" && owner.name.starts_with(&of_ours)
    });
    let configs = format!("{forwarder}-config-");
    let Some(spec) = &pod.spec else {
        return false;
    };
    let mut mounted = spec
        .volumes
        .iter()
        .flatten()
        .filter_map(|volume| volume.config_map.as_ref());
    let is_configured = mounted.any(|map| map.name.starts_with(&configs));
    is_ours
        && is_configured
        && spec
            .containers
            .iter()
            .any(|container| container.name == names::CONTAINER)
}

/// Whether a ReplicaSet may make pods of a forwarder of this name: its Deployment's, or one that has been left without it.
#[must_use]
pub fn may_make_pods(set: &ReplicaSet, forwarder: &str) -> bool {
    owner::controller(set)
        .is_none_or(|owner| owner.kind == "Deployment" && owner.api_version == "apps/v1" && owner.name == forwarder)
}

impl Observed {
    /// A pod as the API has it; none if it has ended for good.
    #[must_use]
    pub fn of(pod: &Pod) -> Option<Self> {
        let status = pod.status.clone().unwrap_or_default();
        let phase = status.phase.as_deref().unwrap_or("Pending");
        if matches!(phase, "Succeeded" | "Failed") {
            return None;
        }
        let container = status.container_statuses.as_ref().and_then(|containers| {
            containers
                .iter()
                .find(|container| container.name == names::CONTAINER)
                .cloned()
        });
        let state = container.as_ref().and_then(|container| container.state.clone());
        let terminating = pod.metadata.deletion_timestamp.is_some();
        let has_ended = state.as_ref().is_some_and(|state| state.terminated.is_some());
        let has_begun = container.as_ref().is_some_and(|container| {
            container.restart_count > 0
                || container
                    .last_state
                    .as_ref()
                    .is_some_and(|last| last.terminated.is_some())
        });
        let waits = state.as_ref().is_some_and(|state| state.waiting.is_some());
        let is_absent = if waits || container.is_none() {
            !has_begun && (waits || phase == "Pending")
        } else {
            has_ended && terminating
        };
        let process = if is_absent { Process::Absent } else { Process::Running };
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let config_maps = volumes.filter_map(|volume| Some(volume.config_map.as_ref()?.name.clone()));
        Some(Self {
            name: pod.name_any(),
            address: status.pod_ip.clone().filter(|address| !address.is_empty()),
            terminating,
            process,
            trouble: trouble(pod, container.as_ref()),
            credentials_asked: pod.annotations().get(names::CREDENTIALS_VERSION).cloned(),
            config_maps: config_maps.collect(),
            image: pod
                .spec
                .as_ref()
                .and_then(forwarders_image)
                .unwrap_or_default()
                .to_owned(),
            watches_ring: !pod.annotations().contains_key(names::RING_EPOCH),
            not_ready_since: not_ready_since(pod),
            report: None,
            beacon_faults: BTreeSet::new(),
            overdue: false,
        })
    }

    /// Takes down what was heard from it; none: it did not answer.
    #[must_use]
    pub fn heard(self, report: Option<Status>, now: Timestamp) -> Self {
        let is_late = |since: Timestamp| now.duration_since(since) > START;
        Self {
            overdue: report.is_none() && self.process == Process::Running && self.not_ready_since.is_some_and(is_late),
            report,
            ..self
        }
    }

    /// Whether it will never read anything again.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.terminating && self.process == Process::Absent
    }

    /// The epoch of the ring that it runs.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.report.as_ref().map(|report| report.ring.epoch)
    }

    /// Every epoch that it was told of.
    pub fn epochs_known(&self) -> impl Iterator<Item = u64> + Clone {
        let rings = self.report.iter().map(|report| &report.ring);
        rings.flat_map(|ring| [Some(ring.epoch), ring.announced, ring.declared].into_iter().flatten())
    }

    /// The least epoch that it waits for, if it waits for one.
    #[must_use]
    pub fn awaits(&self) -> Option<u64> {
        self.report.as_ref().and_then(|report| report.ring.awaits)
    }

    /// Whether it runs the ring of `epoch`, with nothing waiting. A higher epoch than the declared one is no proof of anything: it is
    /// another ring, or no true word.
    #[must_use]
    pub fn has_converged(&self, epoch: u64) -> bool {
        let ring = self.report.as_ref().map(|report| &report.ring);
        ring.is_some_and(|ring| ring.epoch == epoch && ring.waiting_assets == 0)
    }

    /// Whether it certainly publishes nothing to a cluster that the ring of `epoch` does not have, now and later.
    #[must_use]
    pub fn has_left(&self, ring_name: &str, epoch: u64) -> bool {
        if self.process == Process::Absent {
            return true;
        }
        let Some(report) = &self.report else {
            return false;
        };
        let is_out = report
            .clusters
            .get(ring_name)
            .is_none_or(|cluster| cluster.pending_records == 0 && cluster.parked_records == 0);
        self.has_converged(epoch) && is_out
    }
}

fn not_ready_since(pod: &Pod) -> Option<Timestamp> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.find(|condition| condition.type_ == "Ready" && condition.status != "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// The first reason for which a pod does not come up.
fn trouble(pod: &Pod, container: Option<&ContainerStatus>) -> Option<(String, String)> {
    if let Some(container) = container {
        let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
        let reason = waiting.and_then(|waiting| waiting.reason.clone());
        let ended = container
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        return match reason.as_deref() {
            Some("CrashLoopBackOff") => {
                // How it ended says more than that it waits, and does not change with the pause.
                let words = ended.map_or_else(String::new, |ended| {
                    let said = ended.message.as_deref().map(str::trim).filter(|said| !said.is_empty());
                    match said {
                        Some(said) => format!("exit code {}: {said}", ended.exit_code),
                        None => format!("exit code {}; see its log", ended.exit_code),
                    }
                });
                Some(("CrashLoopBackOff".to_owned(), words))
            }
            // The kubelet turns between these two; with one word the status stays as it is.
            Some("ErrImagePull" | "ImagePullBackOff") => Some((
                "ImagePullBackOff".to_owned(),
                format!("the image {} cannot be pulled", container.image),
            )),
            Some("ContainerCreating" | "PodInitializing") | None => None,
            Some(reason) => Some((
                reason.to_owned(),
                waiting.and_then(|waiting| waiting.message.clone()).unwrap_or_default(),
            )),
        };
    }
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let unscheduled = conditions
        .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .find_map(|condition| {
            condition
                .reason
                .clone()
                .map(|reason| (reason, condition.message.clone()))
        });
    unscheduled.map(|(reason, message)| (reason, message.unwrap_or_default()))
}

/// The forwarder's image in what a pod consists of.
pub(super) fn forwarders_image(pod: &PodSpec) -> Option<&str> {
    let mut containers = pod.containers.iter();
    let container = containers.find(|container| container.name == names::CONTAINER)?;
    container.image.as_deref()
}
