//! Writes the children, and takes the step that was decided.

use std::net::IpAddr;

use crds::NatsCluster;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Resource as _;

use super::ManagedError;
use super::build::{Resources, build};
use super::decide::Step;
use super::dereference::Live;
use super::evict::{self, Evicted, evict};
use super::request;
use super::validate::Plan;
use crate::context::Context;
use crate::error::describe;
use crate::reconcile::apply::ApplyError;
use crate::reconcile::conditions::{Verdict, Words};
use crate::reconcile::reason::Reason;

/// Writes the children, in the order in which servers come to need them.
///
/// The numbers and passwords that were decided upon what was read are written only over just that: a leader that is late takes nothing back.
pub(super) async fn children(
    context: &Context,
    resources: Resources,
    live: &Live,
) -> Result<(Live, StatefulSet), ApplyError> {
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
pub(super) async fn step(
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
        Step::Scale { to, why } => match children(context, build(plan, *to, live.servers.as_ref()), live).await {
            Ok(_) => (why, Ok(())),
            Err(error @ ApplyError::Changed { .. }) => return Err(ManagedError::Contended(error)),
            Err(error) => (why, Err(describe(&error))),
        },
        Step::Move { stream, from, why } => match server {
            Some(server) => (why, request::move_stream(server, &plan.passwords, stream, from).await),
            None => (why, Err("no server is healthy".to_owned())),
        },
        Step::Forget { server: gone, why } => match server {
            Some(server) => (why, request::forget(server, &plan.passwords, gone).await),
            None => (why, Err("no server is healthy".to_owned())),
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
            format!("{}; this failed, and the operator tries again: {error}", why.message),
        ),
    }))
}
