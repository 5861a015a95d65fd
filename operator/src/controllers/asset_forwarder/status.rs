//! What a reconcile came to, for people and tools. Pure.

mod beacon;
mod leaving;

use crds::AssetForwarderStatus;
use crds::asset_forwarder::RingStatus;
use k8s_openapi::api::apps::v1::Deployment;

use super::beacon::Beacon;
use super::dereference::Existing;
use super::members::{Excluded, PODS_TOO_OLD};
use super::names::Identity;
use super::pods::Observed;
use super::ring::claims::Ignored;
use super::rollout::{self, REPLICAS, Rollout};
use super::upgrade;
use super::validate::Validated;
use crate::reconcile::apply::{MANAGER, owns};
use crate::reconcile::conditions::{Verdict, Words};
use crate::reconcile::reason::Reason;

/// The status without its conditions, and the verdict for them.
#[must_use]
pub fn status(
    old: &AssetForwarderStatus,
    validated: &Validated,
    deployment: Option<&Deployment>,
    existing: &Existing,
) -> (AssetForwarderStatus, Verdict) {
    let pods = Pods::of(validated, existing, deployment);
    let verdict = verdict(validated, deployment, &pods);
    let mut status = counted(old, &validated.identity, deployment);
    let has_one = deployment.filter(|_| validated.config.is_ok());
    status.config_hash = has_one.and_then(|deployment| upgrade::configuration(deployment, &validated.identity));
    status.ring = Some(ring(old.ring.as_ref(), validated, &pods));
    status.beacon = validated.beacon.as_ref().map(Beacon::status);
    (status, verdict)
}

/// The old status, with what the Deployment says of pods: also where nothing could be validated.
#[must_use]
pub fn counted(
    old: &AssetForwarderStatus,
    identity: &Identity,
    deployment: Option<&Deployment>,
) -> AssetForwarderStatus {
    let live = deployment.and_then(|deployment| deployment.status.as_ref());
    AssetForwarderStatus {
        // Another hand's number is put back to ours.
        desired_replicas: deployment
            .filter(|deployment| owns(*deployment, MANAGER, REPLICAS))
            .map(rollout::desired)
            .or(old.desired_replicas.filter(|_| deployment.is_some())),
        replicas: live.and_then(|live| live.replicas).unwrap_or(0),
        ready_replicas: live.and_then(|live| live.ready_replicas).unwrap_or(0),
        updated_replicas: live.and_then(|live| live.updated_replicas).unwrap_or(0),
        selector: Some(identity.selector_text()),
        image: deployment.and_then(rollout::image),
        ..old.clone()
    }
}

/// Clusters that a person should look after: who leaves by somebody's wish is not one.
pub fn of_concern(excluded: &[Excluded]) -> impl Iterator<Item = &Excluded> {
    excluded.iter().filter(|excluded| {
        !matches!(
            excluded.reason,
            Reason::Deleting | Reason::Draining | Reason::NotObserved
        )
    })
}

/// The condition about pods whose claims are ignored.
pub const EPOCH_CLAIM_IGNORED: &str = "EpochClaimIgnored";

/// How many pods a condition names.
const MOST_NAMED: usize = 3;

/// The conditions `ClustersExcluded`, `PodsTooOld`, `BeaconFailing` and `EpochClaimIgnored`, where there is something to say.
#[must_use]
pub fn further(validated: &Validated, existing: &Existing) -> Vec<(&'static str, Words)> {
    let mut further = Vec::new();
    let excluded: Vec<_> = of_concern(&validated.members.excluded).map(sentence).collect();
    if !excluded.is_empty() {
        let words = Words::new(Reason::ClustersExcluded, excluded.join("\n"));
        further.push(("ClustersExcluded", words));
    }
    let withheld = validated.readers.words(&validated.members);
    if let Some(words) = withheld.filter(|words| words.reason == Reason::PodsTooOld) {
        further.push((PODS_TOO_OLD, words));
    }
    if let Some(words) = beacon::words(validated, existing) {
        further.push((beacon::BEACON_FAILING, words));
    }
    if !validated.ignored.is_empty() {
        let words = Words::new(
            Reason::EpochClaimIgnored,
            ignored(&validated.ignored, &validated.identity),
        );
        further.push((EPOCH_CLAIM_IGNORED, words));
    }
    further
}

/// Which pods are not believed, and what a person can do. Without what they claim: that may change all the time.
fn ignored(claims: &[Ignored], identity: &Identity) -> String {
    let mut pods: Vec<&str> = claims.iter().take(MOST_NAMED).map(|claim| claim.pod.as_str()).collect();
    let more = format!("{} more", claims.len().saturating_sub(MOST_NAMED));
    if claims.len() > MOST_NAMED {
        pods.push(&more);
    }
    format!(
        "The operator ignores a ring epoch that these pods claim: {}. It is too far above the last declared one. Delete pods that are not \
         yours. If the claim in their /status is true, write that epoch into the ConfigMap {}.",
        pods.join(", "),
        identity.ring_map()
    )
}

/// What the pods say, in numbers.
struct Pods<'a> {
    /// How many there are to be.
    desired: usize,
    /// How many run the declared ring, with nothing waiting.
    converged: usize,
    /// One that does not come up.
    trouble: Option<&'a (String, String)>,
    /// What keeps one from the declared ring.
    obstacle: Option<String>,
    /// How many do not show the declared credentials.
    behind: usize,
    /// Whether any is there.
    any: bool,
    /// What is leaving the ring, and what keeps it.
    leaving: String,
}

impl<'a> Pods<'a> {
    fn of(validated: &Validated, existing: &'a Existing, deployment: Option<&Deployment>) -> Self {
        let epoch = validated.ring.as_ref().map_or(0, |ring| ring.epoch());
        let has_converged = |pod: &&Observed| !pod.terminating && pod.has_converged(epoch);
        let version = validated.credentials.hash();
        let is_behind = |pod: &&Observed| {
            let shows = pod
                .report
                .as_ref()
                .and_then(|report| report.credentials_version.as_deref());
            shows.is_some_and(|shows| shows != version)
        };
        let staying = || existing.pods.iter().filter(|pod| !pod.terminating);
        let desired = deployment.map_or(0, rollout::desired);
        Self {
            desired: usize::try_from(desired).unwrap_or(0),
            converged: existing.pods.iter().filter(has_converged).count(),
            trouble: staying().find_map(|pod| pod.trouble.as_ref()),
            obstacle: staying().find_map(|pod| obstacle(pod, epoch)),
            behind: staying().filter(is_behind).count(),
            any: !existing.pods.is_empty(),
            leaving: leaving::words(validated, existing, epoch),
        }
    }
}

/// What keeps a pod from the ring of `epoch`.
fn obstacle(pod: &Observed, epoch: u64) -> Option<String> {
    let ring = &pod.report.as_ref()?.ring;
    if ring.epoch == epoch {
        return None;
    }
    if ring.epoch > epoch {
        return Some(format!(
            "pod {} reports a higher ring epoch, which the operator has not declared",
            pod.name
        ));
    }
    if let Some(refused) = &ring.refused {
        return Some(format!("pod {} refuses this ring: {refused}", pod.name));
    }
    if !ring.waits_for.is_empty() {
        return Some(format!("pod {} waits for its credentials", pod.name));
    }
    let fault = ring.api_fault.as_ref()?;
    Some(format!(
        "pod {} gets the ring only from its volume, which is slower: {fault}",
        pod.name
    ))
}

fn verdict(validated: &Validated, deployment: Option<&Deployment>, pods: &Pods<'_>) -> Verdict {
    let Validated {
        spec,
        members,
        ring,
        config,
        channel_not_ready,
        ..
    } = validated;
    if let Err(stalled @ Verdict::Stalled(_)) = config {
        return stalled.clone();
    }
    if let Some(rival) = &validated.rival {
        return rival.verdict();
    }
    let rollout = deployment.map_or(Rollout::Complete, Rollout::of);
    let is_down = !pods.any && pods.desired == 0 && rollout == Rollout::Complete;
    if spec.suspend || spec.replicas == 0 {
        let (reason, message) = if spec.suspend {
            (Reason::Suspended, "spec.suspend is true: no pods run, and offsets stay")
        } else {
            (
                Reason::ScaledToZero,
                "spec.replicas is 0: no pods run, and offsets stay",
            )
        };
        return if is_down {
            Verdict::ready(reason, message)
        } else {
            Verdict::reconciling(
                Reason::ScalingDown,
                "pods are stopping: each first waits for confirmations and commits its offsets",
            )
        };
    }
    if let Err(verdict) = config {
        return verdict.clone();
    }
    let of_secret = members.excluded.iter().find(|excluded| excluded.reason.is_of_secret());
    let of_secret = of_secret.map(|excluded| {
        Verdict::reconciling(
            reason_of(excluded),
            format!("{}; it becomes a member when this is fixed", sentence(excluded)),
        )
    });
    let Some(ring) = ring.as_ref().filter(|ring| !ring.idle) else {
        // While pods still end it is the members that matter.
        return of_secret.filter(|_| is_down).unwrap_or_else(|| no_clusters(validated));
    };
    if let Some(words) = channel_not_ready {
        return Verdict::reconciling(Reason::ChannelNotReady, words);
    }
    if let Some(held) = members.held.first() {
        return Verdict::reconciling(
            reason_of(held),
            format!("{}; it stays a member with its previous settings", sentence(held)),
        );
    }
    if let Some(verdict) = of_secret {
        return verdict;
    }
    if let Some(verdict) = rolling(&rollout, pods) {
        return verdict;
    }
    let epoch = ring.epoch();
    if pods.converged < pods.desired {
        let mut message = format!("{} of {} pods run epoch {epoch}", pods.converged, pods.desired);
        if let Some(obstacle) = &pods.obstacle {
            message = format!("{message}; {obstacle}");
        }
        // They wait for what leaves: whom a person asks about is named from the first moment on.
        if !ring.leaving.is_empty() {
            message = format!("{message}; {}", pods.leaving);
        }
        return Verdict::reconciling(Reason::RingConverging, message);
    }
    if pods.behind > 0 {
        return Verdict::reconciling(
            Reason::CredentialsPropagating,
            "pods do not have the newest credentials yet; the kubelet delivers them within a minute or two",
        );
    }
    if !ring.leaving.is_empty() {
        return Verdict::reconciling(Reason::RingConverging, &pods.leaving);
    }
    if let Some(words) = validated.readers.words(members) {
        return Verdict::Reconciling(words);
    }
    Verdict::ready(
        Reason::Forwarding,
        format!(
            "{} pods run ring epoch {epoch} of {} clusters",
            pods.desired,
            ring.members.len()
        ),
    )
}

fn rolling(rollout: &Rollout, pods: &Pods<'_>) -> Option<Verdict> {
    let Rollout::Progressing {
        updated,
        available,
        desired,
        late,
        refused,
    } = rollout
    else {
        return None;
    };
    if let Some(refused) = refused {
        return Some(Verdict::reconciling(
            Reason::PodsNotCreated,
            format!(
                "Kubernetes cannot create pods of the Deployment; {available} of {desired} are available. It says: {refused}"
            ),
        ));
    }
    if let Some((reason, message)) = pods.trouble {
        return Some(Verdict::reconciling(
            Reason::PodsNotReady,
            format!("{reason}: {message}"),
        ));
    }
    let message = format!("{updated} of {desired} pods have the current configuration; {available} are available");
    Some(if *late {
        Verdict::reconciling(
            Reason::ProgressDeadlineExceeded,
            format!("{message}; see the pods and their logs"),
        )
    } else {
        Verdict::reconciling(Reason::RollingOut, message)
    })
}

fn no_clusters(validated: &Validated) -> Verdict {
    let mut message =
        "no NatsCluster can be a member of the ring: label one so that spec.clusters.selector matches it".to_owned();
    if validated.spec.clusters.namespace_selector.is_some() {
        message
            .push_str("; a NatsCluster in another namespace must allow this namespace in its spec.allowedNamespaces");
    }
    let excluded = &validated.members.excluded;
    if !excluded.is_empty() {
        let excluded: Vec<_> = excluded.iter().map(sentence).collect();
        message = format!("no NatsCluster can be a member of the ring: {}", excluded.join("; "));
    }
    Verdict::reconciling(Reason::NoClusters, message)
}

/// A condition tells Secrets apart, and of nothing else what is wrong with a cluster.
const fn reason_of(excluded: &Excluded) -> Reason {
    if excluded.reason.is_of_secret() {
        excluded.reason
    } else {
        Reason::ClusterInvalid
    }
}

fn sentence(excluded: &Excluded) -> String {
    let Excluded {
        namespace,
        name,
        reason,
        message,
    } = excluded;
    format!("NatsCluster {namespace}/{name}: {reason}: {message}")
}

fn ring(old: Option<&RingStatus>, validated: &Validated, pods: &Pods<'_>) -> RingStatus {
    let mut status = RingStatus {
        excluded: validated.members.excluded.iter().map(Excluded::shown).collect(),
        ..RingStatus::default()
    };
    let Some(ring) = &validated.ring else {
        // The ConfigMap may be gone with the last members: the epoch stays known.
        status.epoch = old.map_or(0, |old| old.epoch);
        return status;
    };
    status.epoch = i64::try_from(ring.epoch()).unwrap_or(i64::MAX);
    status.members = i32::try_from(ring.members.len()).unwrap_or(i32::MAX);
    status.names = ring.members.keys().cloned().collect();
    status.member_refs = ring.members.values().cloned().collect();
    status.member_refs.sort();
    status.leaving = ring.leaving.keys().cloned().collect();
    status.moved_percent.clone_from(&ring.moved_percent);
    status.converged = Some(format!("{}/{}", pods.converged.min(pods.desired), pods.desired));
    status
}
