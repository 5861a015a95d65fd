//! A cluster whose servers the operator runs.
//!
//! ```text
//! dereference ─▶ validate ─▶ build ─▶ apply ─▶ situation ─▶ decide ─▶ one step
//! (reads)        (pure)      (pure)   (writes) (asks)       (pure)    (a pod evicted, one server more or fewer, a copy moved)
//! ```
//! The StatefulSet replaces no pod by itself. Each reconcile takes one step at most, and the next one begins with looking again, so a kill
//! in between costs nothing.

mod apply;
mod build;
mod decide;
mod dereference;
mod evict;
mod hashes;
mod jetstream;
mod monitor;
pub(crate) mod names;
mod random;
mod request;
#[cfg(test)]
mod tests;
mod upgrade;
mod validate;

use std::net::IpAddr;

use crds::NatsCluster;
use crds::nats_cluster::Managed;
use crds::nats_cluster::managed::ManagedStatus;

use self::build::build;
use self::decide::{Server, State, Step, confirm, decide};
use self::names::Identity;
use self::validate::Plan;
use crate::context::Context;
use crate::reconcile::apply::ApplyError;
use crate::reconcile::conditions::{Verdict, Words};
use crate::reconcile::reason::Reason;

/// Something could not be read or written; it is tried again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ManagedError {
    #[error("failed to read the {kind} {name}")]
    Read {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("failed to evict the Pod {name}")]
    Evict { name: String, source: Box<kube::Error> },
    #[error(
        "the key {key:?} of the Secret {secret} holds no usable password. Write at least 8 letters, digits, dashes or \
         underscores, or delete the Secret"
    )]
    Password { secret: String, key: String },
    #[error("failed to generate a password: the system has no source of randomness")]
    Random,
    /// What was decided upon is another one by now.
    #[error(transparent)]
    Contended(ApplyError),
}

impl ManagedError {
    fn read(kind: &'static str, name: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let name = name.into();
        move |source| Self::Read {
            kind,
            name,
            source: Box::new(source),
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) status: ManagedStatus,
    /// The servers' version, where all have the same.
    pub(super) version: Option<String>,
    /// Where servers that are well can be reached.
    pub(super) addresses: Vec<IpAddr>,
}

impl Outcome {
    /// Nobody has looked at the servers: what was known of them stays, for they go on.
    fn without_servers(cluster: &NatsCluster, verdict: Verdict) -> Self {
        let known = cluster.status.as_ref().and_then(|status| status.managed.clone());
        Self {
            verdict,
            status: known.unwrap_or_default(),
            version: None,
            addresses: Vec::new(),
        }
    }
}

/// Brings the servers one step on, or finds that there is nothing to do.
pub(super) async fn bring_on(
    context: &Context,
    cluster: &NatsCluster,
    managed: &Managed,
) -> Result<Outcome, ManagedError> {
    let identity = Identity::of(cluster);
    let live = dereference::live(context, &identity).await?;
    let passwords = match dereference::passwords(&live) {
        Ok(passwords) => passwords,
        Err(error @ ManagedError::Password { .. }) => {
            let verdict = Verdict::reconciling(Reason::SecretInvalid, error.to_string());
            return Ok(Outcome::without_servers(cluster, verdict));
        }
        Err(error) => return Err(error),
    };
    let plan = match validate::validate(cluster, managed, passwords, &context.settings.namespace) {
        Ok(plan) => Plan {
            security_ids: context.settings.pod_security_ids,
            ..plan
        },
        Err(unusable) => {
            let verdict = Verdict::stalled(Reason::InvalidSpec, unusable.to_string());
            return Ok(Outcome::without_servers(cluster, verdict));
        }
    };
    let replicas = match &live.servers {
        Some(set) => dereference::replicas(set),
        None => dereference::first_replicas(context, cluster, &plan).await?,
    };
    let (live, set) = match apply::children(context, build(&plan, replicas, live.servers.as_ref()), &live).await {
        Ok(applied) => applied,
        Err(error @ ApplyError::Changed { .. }) => return Err(ManagedError::Contended(error)),
        Err(error) => return Ok(Outcome::without_servers(cluster, error.verdict())),
    };
    let (situation, addresses) = dereference::situation(context, &plan, &set).await?;
    let server = addresses.first().copied();
    let step = match decide(&situation) {
        Step::Forget { server: gone, why } => {
            let streams = match server {
                Some(server) => request::streams(server, &plan.passwords).await,
                None => Err("no server is healthy".to_owned()),
            };
            match streams {
                Ok(streams) => confirm(&situation, &gone, why, &streams),
                Err(error) => Step::Wait(Words::new(
                    why.reason,
                    format!(
                        "{gone} has gone; the operator cannot find out which streams only that server may have: {error}"
                    ),
                )),
            }
        }
        step => step,
    };
    let verdict = apply::step(context, cluster, &plan, &live, &step, server).await?;
    Ok(Outcome {
        verdict,
        status: counted(&situation.servers),
        version: version(&situation.servers),
        addresses,
    })
}

fn counted(servers: &[Server]) -> ManagedStatus {
    let count =
        |such: &dyn Fn(&&Server) -> bool| u32::try_from(servers.iter().filter(such).count()).unwrap_or(u32::MAX);
    let healthy = |server: &&Server| matches!(server.state, State::Healthy(_));
    ManagedStatus {
        replicas: count(&|_| true),
        ready_replicas: count(&healthy),
        updated_replicas: count(&|server| server.updated),
    }
}

fn version(servers: &[Server]) -> Option<String> {
    let mut versions = servers.iter().filter_map(|server| match &server.state {
        State::Healthy(version) => Some(version),
        State::Stopping | State::Down(_) | State::Unhealthy(_) => None,
    });
    let first = versions.next()?;
    versions.all(|version| version == first).then(|| first.clone())
}
