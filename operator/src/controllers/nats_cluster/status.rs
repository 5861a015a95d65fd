//! From what was found to the status.

use std::time::Duration;

use crds::{NatsCluster, NatsClusterStatus};
use jiff::Timestamp;
use kube::Resource as _;

use super::SKIP_DRAIN;
use super::managed::Outcome;
use super::membership::SHOWN;
use super::probe::{Failure, JetStream, Seen};
use crate::reconcile::cluster::ring_name;
use crate::reconcile::conditions::{Verdict, are_ready, conditions, ready};
use crate::reconcile::credentials::ClusterAccess;
use crate::reconcile::invalid_spec::InvalidSpec;
use crate::reconcile::reason::Reason;

/// Between two looks at a cluster that is well, and the most for one that is not.
const INTERVAL: Duration = Duration::from_secs(60);

/// The least for one that is not: many outages are short.
const SOON: Duration = Duration::from_secs(2);

/// While it drains, the forwarders' statuses tell; this is for what no change tells, such as a bound.
const DRAINING: Duration = Duration::from_secs(5);

/// Between two looks at servers of ours that are well: what a stream lacks, no object's change tells.
const SERVERS: Duration = Duration::from_secs(15);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Facts {
    /// The spec or a Secret cannot be used.
    Refused(InvalidSpec),
    /// It is being drained or deleted: whether it answers does not matter any more.
    Leaving,
    /// It is being deleted, and who may still publish to it could not be read, for this reason.
    Unread(String),
    /// No server let us in.
    Failed(Failure),
    /// A server let us in.
    Connected(Seen),
    /// Its servers are ours.
    Managed(Served),
}

impl Facts {
    /// Whether a server let us in, and JetStream has not answered.
    fn is_silent(&self) -> bool {
        matches!(
            self,
            Self::Connected(Seen {
                jet_stream: JetStream::Silent,
                ..
            })
        )
    }
}

/// How servers of ours are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    /// What came of looking after them.
    pub(super) outcome: Outcome,
    /// Whether they accept a client; none: they are not all healthy, so the operator did not check.
    pub(super) seen: Option<Result<Seen, Failure>>,
}

/// `until`: how long a cluster that is being deleted waits for the forwarders `member_of`, at most.
pub(super) fn status(
    cluster: &NatsCluster,
    member_of: &[String],
    until: Option<Timestamp>,
    facts: &Facts,
    now: Timestamp,
) -> NatsClusterStatus {
    let generation = cluster.meta().generation;
    let old = cluster.status.clone().unwrap_or_default();
    let verdict = verdict(cluster, member_of, until, facts);
    let mut status = NatsClusterStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, generation, &verdict, &[], now),
        ring_name: Some(ring_name(cluster)),
        member_of: member_of.iter().take(SHOWN).cloned().collect(),
        member_of_count: (member_of.len() > SHOWN).then(|| i32::try_from(member_of.len()).unwrap_or(i32::MAX)),
        ..NatsClusterStatus::default()
    };
    if let Facts::Unread(_) = facts {
        status.member_of = old.member_of;
        status.member_of_count = old.member_of_count;
    }
    match facts {
        Facts::Connected(Seen {
            version,
            cluster_name,
            jet_stream,
            servers,
        }) => {
            status.server_version = Some(version.clone());
            status.cluster_name.clone_from(cluster_name);
            let known = old.observed_generation == generation;
            status.jet_stream = jet_stream.or(old.jet_stream.filter(|_| known));
            status.servers.clone_from(servers);
        }
        Facts::Managed(Served { outcome, seen }) => {
            status.managed = Some(outcome.status.clone());
            status.server_version.clone_from(&outcome.version);
            status.servers = ClusterAccess::of(cluster).servers;
            let seen = seen.as_ref().and_then(|seen| seen.as_ref().ok());
            let known = old.observed_generation == generation;
            status.cluster_name = seen
                .and_then(|seen| seen.cluster_name.clone())
                .or(old.cluster_name.filter(|_| known));
            let before = old.jet_stream.filter(|_| known);
            status.jet_stream = seen.and_then(|seen| seen.jet_stream.or(before)).or(before);
        }
        // What was seen last stays, for as long as it is about the same spec.
        Facts::Refused(_) | Facts::Leaving | Facts::Unread(_) | Facts::Failed(_)
            if old.observed_generation == generation =>
        {
            status.server_version = old.server_version;
            status.cluster_name = old.cluster_name;
            status.jet_stream = old.jet_stream;
            status.servers = old.servers;
            status.managed = old.managed;
        }
        Facts::Refused(_) | Facts::Leaving | Facts::Unread(_) | Facts::Failed(_) => {}
    }
    status
}

fn verdict(cluster: &NatsCluster, member_of: &[String], until: Option<Timestamp>, facts: &Facts) -> Verdict {
    let deleted = cluster.meta().deletion_timestamp.is_some();
    if (deleted || cluster.spec.drain) && !member_of.is_empty() {
        let forwarders = member_of.join(", ");
        return draining(
            format!("its assets go to other clusters; these forwarders may still publish to it: {forwarders}"),
            until,
        );
    }
    match facts {
        Facts::Refused(invalid) => invalid.verdict(),
        Facts::Leaving if deleted => Verdict::reconciling(Reason::Draining, "no forwarder publishes to it any more"),
        Facts::Leaving => drained(),
        Facts::Unread(why) => draining(
            format!("the operator cannot read which forwarders may still publish to it: {why}"),
            until,
        ),
        Facts::Failed(Failure { kind, message }) => Verdict::reconciling(kind.reason(), message.clone()),
        Facts::Managed(Served { outcome, seen }) => match seen {
            Some(Err(Failure { kind, message })) => Verdict::reconciling(kind.reason(), message.clone()),
            Some(Ok(_)) if cluster.spec.drain => drained(),
            Some(Ok(_)) => outcome.verdict.clone(),
            None if outcome.verdict.is_ready() => Verdict::reconciling(
                Reason::NotConnected,
                "the operator has not checked yet whether clients can log in",
            ),
            None => outcome.verdict.clone(),
        },
        Facts::Connected(Seen { version, .. }) => Verdict::ready(
            Reason::Connected,
            format!("the operator has logged in to a server of version {version}"),
        ),
    }
}

/// Of one that waits for forwarders. `until`: how long at most, if it is being deleted.
fn draining(mut message: String, until: Option<Timestamp>) -> Verdict {
    if let Some(until) = until {
        // Whole seconds: it is for people.
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ");
        message = format!(
            "{message}. The cluster waits for them until {until} at most; the annotation {SKIP_DRAIN}: \"true\" lets it be \
             removed at once"
        );
    }
    Verdict::reconciling(Reason::Draining, message)
}

fn drained() -> Verdict {
    Verdict::ready(
        Reason::Drained,
        "the cluster is in no ring, and stays out while spec.drain is true",
    )
}

/// When to look again. The pause of an outage grows with its age, which the condition tells: no counter is needed, and a
/// restart changes nothing. So does the pause of one whose JetStream has not answered since it is ready.
pub(super) fn again_after(
    cluster: &NatsCluster,
    status: &NatsClusterStatus,
    facts: &Facts,
    now: Timestamp,
) -> Duration {
    if cluster.meta().deletion_timestamp.is_some() || (cluster.spec.drain && !status.member_of.is_empty()) {
        return DRAINING;
    }
    if cluster.spec.managed.is_some() {
        return if are_ready(&status.conditions) { SERVERS } else { SOON };
    }
    match ready(&status.conditions) {
        Some(ready) if ready.status != "True" || facts.is_silent() => {
            let age = now.duration_since(ready.last_transition_time.0);
            let half = Duration::try_from(age).unwrap_or_default() / 2;
            half.clamp(SOON, INTERVAL)
        }
        _ => INTERVAL,
    }
}
