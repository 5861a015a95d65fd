//! Reads what there is of a managed cluster: its objects, its pods, and what its servers say.

use std::net::IpAddr;

use crds::NatsCluster;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus, Secret};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

use super::build::{CLIENT_KEY, KEPT_CLIENT_KEY, ROUTE_KEY, SYSTEM_KEY};
use super::decide::{Server, Situation, State};
use super::jetstream::{Jsz, View};
use super::names::{self, Identity};
use super::validate::{Plan, shared_hash};
use super::{ManagedError, random};
use crate::context::Context;
use crate::controllers::nats_cluster::managed::validate::Passwords;
use crate::owner::controller;

/// No cluster is declared with more: a pod of a higher number is not what it seems.
const MOST_SERVERS: u32 = 5;

/// A running server that the kubelet finds unready for so long is not about to become ready.
const LONG_UNREADY: SignedDuration = SignedDuration::from_mins(3);

/// The children upon which is decided, as they are.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    pub(super) servers: Option<StatefulSet>,
    pub(super) client_secret: Option<Secret>,
    pub(super) server_secret: Option<Secret>,
}

/// The children as they are.
pub(super) async fn live(context: &Context, identity: &Identity) -> Result<Live, ManagedError> {
    let api = Api::<StatefulSet>::namespaced(context.client.clone(), &identity.namespace);
    let servers = api.get_opt(&identity.servers()).await;
    let servers = servers.map_err(ManagedError::read("StatefulSet", identity.servers()))?;
    let api = Api::<Secret>::namespaced(context.client.clone(), &identity.namespace);
    let read = async |name: String| {
        let read = api.get_opt(&name).await;
        read.map_err(ManagedError::read("Secret", name))
    };
    Ok(Live {
        servers,
        client_secret: read(identity.client_secret()).await?,
        server_secret: read(identity.server_secret()).await?,
    })
}

/// The passwords that there are; what is missing is made up.
pub(super) fn passwords(live: &Live) -> Result<Passwords, ManagedError> {
    let (client, server) = (live.client_secret.as_ref(), live.server_secret.as_ref());
    let has = |secret: &&Secret| secret.data.as_ref().is_some_and(|data| data.contains_key(CLIENT_KEY));
    Ok(Passwords {
        client: match client.filter(has) {
            Some(client) => known_or_new(Some(client), CLIENT_KEY)?,
            None => known_or_new(server, KEPT_CLIENT_KEY)?,
        },
        system: known_or_new(server, SYSTEM_KEY)?,
        route: known_or_new(server, ROUTE_KEY)?,
    })
}

/// A password stands in the servers' configuration and in URLs: what would have another meaning there is refused.
fn known_or_new(secret: Option<&Secret>, key: &str) -> Result<String, ManagedError> {
    let Some(found) = secret.and_then(|secret| secret.data.as_ref()?.get(key)) else {
        return random::password();
    };
    let is_plain = found.0.len() >= 8
        && found
            .0
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
    match String::from_utf8(found.0.clone()) {
        Ok(text) if is_plain => Ok(text),
        _ => Err(ManagedError::Password {
            secret: secret.map(ResourceExt::name_any).unwrap_or_default(),
            key: key.to_owned(),
        }),
    }
}

/// What is wanted and what is there, and the addresses of servers that are well.
pub(super) async fn situation(
    context: &Context,
    plan: &Plan,
    set: &StatefulSet,
) -> Result<(Situation, Vec<IpAddr>), ManagedError> {
    let mut pods = pods(context, &plan.identity).await?;
    pods.retain(|pod| belongs(pod, set));
    let now = Timestamp::now();
    let status = set.status.clone().unwrap_or_default();
    let revision = status.update_revision.unwrap_or_default();
    let passwords = shared_hash(plan);
    let jet_stream = plan.jet_stream.is_some();
    let asked = futures::stream::iter(pods).map(|pod| {
        let (revision, passwords) = (&revision, &passwords);
        async move {
            let (state, jsz, address) = ask(&pod, jet_stream).await;
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            let server = Server {
                name: pod.name_any(),
                uid: pod.uid().unwrap_or_default(),
                state,
                updated: pod.labels().get("controller-revision-hash") == Some(revision),
                long_unready: long_unready(conditions.into_iter().flatten(), now),
                shares_passwords: pod.annotations().get(names::PASSWORDS) == Some(passwords),
            };
            (server, jsz, address)
        }
    });
    let mut answers: Vec<_> = asked.buffer_unordered(8).collect().await;
    answers.sort_by(|(a, ..), (b, ..)| a.name.cmp(&b.name));
    let (mut servers, mut said, mut addresses) = (Vec::new(), Vec::<(String, Jsz)>::new(), Vec::new());
    for (server, jsz, address) in answers {
        said.extend(jsz.map(|jsz| (server.name.clone(), jsz)));
        addresses.extend(address);
        servers.push(server);
    }
    let situation = Situation {
        identity: plan.identity.clone(),
        wanted: plan.replicas,
        version: plan.version.clone(),
        jet_stream,
        replicas: replicas(set),
        observed: status.observed_generation == set.metadata.generation && !revision.is_empty(),
        servers,
        view: View::of(&said),
    };
    Ok((situation, addresses))
}

/// Servers that a StatefulSet is to have.
pub(super) fn replicas(set: &StatefulSet) -> u32 {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas);
    replicas
        .and_then(|replicas| u32::try_from(replicas).ok())
        .unwrap_or_default()
}

/// How many servers a StatefulSet begins with that is not there (any more): as many as there have been, since a server that is left out is
/// one that has gone, with all that it alone has.
pub(super) async fn first_replicas(context: &Context, cluster: &NatsCluster, plan: &Plan) -> Result<u32, ManagedError> {
    let pods = pods(context, &plan.identity).await?;
    let names: Vec<_> = pods.iter().map(ResourceExt::name_any).collect();
    Ok(most_servers(cluster, plan, &names))
}

/// The most servers that anything tells of.
pub(super) fn most_servers(cluster: &NatsCluster, plan: &Plan, pods: &[String]) -> u32 {
    // It is configured to be alone: a second one beside it would be another cluster.
    if plan.replicas == 1 {
        return 1;
    }
    let status = cluster.status.as_ref().and_then(|status| status.managed.as_ref());
    let told = status.map_or(0, |managed| managed.replicas);
    let ordinals = pods.iter().filter_map(|pod| plan.identity.ordinal(pod));
    let there = ordinals
        .map(|ordinal| ordinal.saturating_add(1))
        .max()
        .unwrap_or_default();
    plan.replicas.max(told).max(there.min(MOST_SERVERS))
}

/// Whether a pod is the StatefulSet's, and not only labelled and named as if it were.
pub(super) fn belongs(pod: &Pod, set: &StatefulSet) -> bool {
    controller(pod).is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

/// Whether the kubelet has said for minutes that a pod is not ready.
pub(super) fn long_unready<'a>(mut conditions: impl Iterator<Item = &'a PodCondition>, now: Timestamp) -> bool {
    conditions.any(|condition| {
        let since = condition.last_transition_time.as_ref();
        condition.type_ == "Ready"
            && condition.status == "False"
            && since.is_some_and(|since| now.duration_since(since.0) >= LONG_UNREADY)
    })
}

async fn pods(context: &Context, identity: &Identity) -> Result<Vec<Pod>, ManagedError> {
    let api = Api::<Pod>::namespaced(context.client.clone(), &identity.namespace);
    let params = ListParams::default().labels(&format!("{}={}", names::CLUSTER, identity.name));
    let listed = api
        .list(&params)
        .await
        .map_err(ManagedError::read("Pods of", identity.servers()))?;
    let pods = listed.items.into_iter();
    Ok(pods.filter(|pod| identity.ordinal(&pod.name_any()).is_some()).collect())
}

async fn ask(pod: &Pod, jet_stream: bool) -> (State, Option<Jsz>, Option<IpAddr>) {
    if pod.metadata.deletion_timestamp.is_some() {
        return (State::Stopping, None, None);
    }
    let status = pod.status.clone().unwrap_or_default();
    if let Some(why) = down(&status) {
        return (State::Down(why), None, None);
    }
    let Some(address) = status.pod_ip.as_ref().and_then(|address| address.parse().ok()) else {
        return (State::Down("it has no address".to_owned()), None, None);
    };
    let (state, jsz) = super::monitor::ask(address, jet_stream).await;
    // Clients find it only when the kubelet says so too.
    if matches!(state, State::Healthy(_)) && !holds(&status, "Ready") {
        return (State::Unhealthy("it is not ready yet".to_owned()), jsz, None);
    }
    let address = matches!(state, State::Healthy(_)).then_some(address);
    (state, jsz, address)
}

/// Why the program does not run. Reasons alone: messages count seconds.
fn down(status: &PodStatus) -> Option<String> {
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let Some(container) = containers.iter().find(|container| container.name == names::CONTAINER) else {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        let scheduled = conditions
            .iter()
            .find(|condition| condition.type_ == "PodScheduled" && condition.status != "True");
        return Some(match scheduled {
            Some(condition) => format!(
                "it is not scheduled to a node: {}",
                condition.message.clone().unwrap_or_default()
            ),
            None => "it is being created".to_owned(),
        });
    };
    let state = container.state.clone().unwrap_or_default();
    if state.running.is_some() {
        return None;
    }
    let waiting = state.waiting.and_then(|waiting| waiting.reason);
    let ended = state.terminated.and_then(|ended| ended.reason);
    Some(waiting.or(ended).unwrap_or_else(|| "it is being created".to_owned()))
}

fn holds(status: &PodStatus, condition: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|found| found.type_ == condition && found.status == "True")
}
