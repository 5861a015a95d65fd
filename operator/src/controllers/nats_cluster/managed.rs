//! A cluster whose servers the operator runs.
//!
//! ```text
//! observe ─▶ plan ─▶ build ─▶ apply ─▶ situation ─▶ decide ─▶ one step
//! (reads)    (pure)  (pure)   (writes)  (asks)       (pure)    (a pod evicted, one server more or fewer, a copy moved)
//! ```
//! The StatefulSet replaces no pod by itself. Each reconcile takes one step at most, and the next one begins with looking again, so a kill
//! in between costs nothing.

mod build;
mod decide;
mod evict;
mod hashes;
mod jetstream;
mod monitor;
pub(crate) mod names;
mod observe;
mod plan;
mod random;
mod request;
#[cfg(test)]
mod tests;
mod upgrade;

use std::net::IpAddr;

use crds::NatsCluster;
use crds::nats_cluster::Managed;
use crds::nats_cluster::managed::ManagedStatus;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Resource as _;

use self::build::{Resources, build};
use self::decide::{Server, State, Step, confirm, decide};
use self::evict::{Evicted, evict};
use self::names::Identity;
use self::observe::Live;
use self::plan::Plan;
use crate::context::Context;
use crate::error::describe;
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
        "the key {key:?} of the Secret {secret} holds no password of at least 8 letters, digits, dashes or underscores: write one, or delete the Secret"
    )]
    Password { secret: String, key: String },
    #[error("failed to make up a password: the system has no randomness")]
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
    let live = observe::live(context, &identity).await?;
    let passwords = match observe::passwords(&live) {
        Ok(passwords) => passwords,
        Err(error @ ManagedError::Password { .. }) => {
            let verdict = Verdict::reconciling(Reason::SecretInvalid, error.to_string());
            return Ok(Outcome::without_servers(cluster, verdict));
        }
        Err(error) => return Err(error),
    };
    let plan = match plan::plan(cluster, managed, passwords, &context.settings.namespace) {
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
        Some(set) => observe::replicas(set),
        None => observe::first_replicas(context, cluster, &plan).await?,
    };
    let (live, set) = match apply(context, build(&plan, replicas, live.servers.as_ref()), &live).await {
        Ok(applied) => applied,
        Err(error @ ApplyError::Changed { .. }) => return Err(ManagedError::Contended(error)),
        Err(error) => return Ok(Outcome::without_servers(cluster, error.verdict())),
    };
    let (situation, addresses) = observe::situation(context, &plan, &set).await?;
    let server = addresses.first().copied();
    let step = match decide(&situation) {
        Step::Forget { server: gone, why } => {
            let streams = match server {
                Some(server) => request::streams(server, &plan.passwords).await,
                None => Err("no server is well".to_owned()),
            };
            match streams {
                Ok(streams) => confirm(&situation, &gone, why, &streams),
                Err(error) => Step::Wait(Words::new(
                    why.reason,
                    format!("{gone} has gone; which streams it may have alone cannot be told: {error}"),
                )),
            }
        }
        step => step,
    };
    let verdict = take(context, cluster, &plan, &live, &step, server).await?;
    Ok(Outcome {
        verdict,
        status: counted(&situation.servers),
        version: version(&situation.servers),
        addresses,
    })
}

/// Writes the children, in the order in which servers come to need them.
///
/// The numbers and passwords that were decided upon what was read are written only over just that: a leader that is late takes nothing back.
async fn apply(context: &Context, resources: Resources, live: &Live) -> Result<(Live, StatefulSet), ApplyError> {
    let Resources {
        config,
        client_secret,
        server_secret,
        headless,
        service,
        network_policy,
        disruption_budget,
        servers,
    } = resources;
    let applier = &context.applier;
    // The servers' first: the clients' is made from it again, not the other way round.
    let server_secret = applier.apply_over(server_secret, live.server_secret.as_ref()).await?.0;
    let client_secret = applier.apply_over(client_secret, live.client_secret.as_ref()).await?.0;
    applier.apply(config).await?;
    applier.apply(headless).await?;
    applier.apply(service).await?;
    applier.apply(network_policy).await?;
    applier.apply(disruption_budget).await?;
    let (set, _) = applier.apply_over(servers, live.servers.as_ref()).await?;
    let live = Live {
        servers: Some(set.clone()),
        client_secret: Some(client_secret),
        server_secret: Some(server_secret),
    };
    Ok((live, set))
}

/// Takes the step, and says how it stands.
async fn take(
    context: &Context,
    cluster: &NatsCluster,
    plan: &Plan,
    live: &Live,
    step: &Step,
    server: Option<IpAddr>,
) -> Result<Verdict, ManagedError> {
    let about = cluster.object_ref(&());
    let done = match step {
        Step::Settled => {
            let message = format!("all {} servers are healthy, as declared, and complete", plan.replicas);
            return Ok(Verdict::ready(Reason::ServersReady, message));
        }
        Step::Wait(words) => return Ok(Verdict::Reconciling(words.clone())),
        Step::Hold(words) => return Ok(Verdict::Stalled(words.clone())),
        Step::Restart { name, uid, why } => {
            context.metrics.api_write("Pod", "evict");
            match evict(&context.unretried, &plan.identity, name, uid).await? {
                Evicted::Gone => (why, Ok(())),
                Evicted::Refused(said) => {
                    return Ok(Verdict::Reconciling(evict::refused(why, &plan.identity, &said)));
                }
            }
        }
        Step::Scale { to, why } => match apply(context, build(plan, *to, live.servers.as_ref()), live).await {
            Ok(_) => (why, Ok(())),
            Err(error @ ApplyError::Changed { .. }) => return Err(ManagedError::Contended(error)),
            Err(error) => (why, Err(describe(&error))),
        },
        Step::Move { stream, from, why } => match server {
            Some(server) => (why, request::move_stream(server, &plan.passwords, stream, from).await),
            None => (why, Err("no server is well".to_owned())),
        },
        Step::Forget { server: gone, why } => match server {
            Some(server) => (why, request::forget(server, &plan.passwords, gone).await),
            None => (why, Err("no server is well".to_owned())),
        },
    };
    let (why, result) = done;
    Ok(Verdict::Reconciling(match result {
        Ok(()) => {
            context.events.normal(&about, why.reason, why.message.clone()).await;
            why.clone()
        }
        Err(error) => Words::new(
            why.reason,
            format!("{}; it failed, and is tried again: {error}", why.message),
        ),
    }))
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
