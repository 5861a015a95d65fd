//! What may be done to a managed cluster now, or why nothing may. Pure: the one place where servers are chosen to be touched.
//!
//! At most one server is away by our doing, and only while all others are healthy and every group has its leader and all its copies.

use std::collections::BTreeSet;

use super::jetstream::{Group, View};
use super::names::Identity;
use crate::reconcile::conditions::Words;
use crate::reconcile::reason::Reason;

/// What is wanted and what is there.
#[derive(Clone, Debug)]
pub(super) struct Situation {
    pub(super) identity: Identity,
    /// Servers that are declared.
    pub(super) wanted: u32,
    /// The declared version, if it is known which one an image has.
    pub(super) version: Option<String>,
    /// Whether the servers have JetStream.
    pub(super) jet_stream: bool,
    /// Servers that the StatefulSet is to have.
    pub(super) replicas: u32,
    /// Whether the StatefulSet's controller has seen its current form. Before that, the operator cannot tell which servers run as
    /// declared.
    pub(super) observed: bool,
    /// The servers' pods.
    pub(super) servers: Vec<Server>,
    /// What the servers say.
    pub(super) view: View,
}

/// A server's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) state: State,
    /// Whether it runs as declared now.
    pub(super) updated: bool,
    /// Whether it has the passwords that other servers have.
    pub(super) shares_passwords: bool,
    /// Whether the kubelet, which is beside it, has found it unready for minutes: what we fail to ask may be our own fault.
    pub(super) long_unready: bool,
}

/// How a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It is being stopped.
    Stopping,
    /// Its program does not run, for this reason.
    Down(String),
    /// It runs and is not well, for this reason.
    Unhealthy(String),
    /// It says that it is well, and its version.
    Healthy(String),
}

/// The one next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: all is as declared.
    Settled,
    /// Nothing until something comes right by itself.
    Wait(Words),
    /// Nothing until a person does something.
    Hold(Words),
    /// Evict this pod: it comes back as declared.
    Restart { name: String, uid: String, why: Words },
    /// Have so many servers.
    Scale { to: u32, why: Words },
    /// Give a stream's copy on that server to another server.
    Move { stream: String, from: String, why: Words },
    /// Tell the servers that one of them will not come back.
    Forget { server: String, why: Words },
}

/// The next step.
pub(super) fn decide(situation: &Situation) -> Step {
    let present = |name: &str| situation.servers.iter().any(|server| server.name == name);
    if !situation.observed {
        return wait(Reason::ServersStarting, "the StatefulSet is new or has changed");
    }
    if situation.servers.iter().any(|server| !server.shares_passwords) {
        return Step::Hold(Words::new(
            Reason::ServerPasswordsLost,
            format!(
                "the Secret {} was recreated, and running servers have other passwords. Delete all pods of the StatefulSet {} at \
                 once, so that they use the new ones. Clients wait meanwhile, and the data on volumes stays",
                situation.identity.server_secret(),
                situation.identity.servers()
            ),
        ));
    }
    if let Some(step) = restore(situation) {
        return step;
    }
    if let Some(step) = revive(situation) {
        return step;
    }
    for ordinal in 0..situation.replicas {
        let name = situation.identity.server(ordinal);
        if !present(&name) {
            return wait(Reason::ServerStarting, format!("{name} has no pod yet"));
        }
    }
    for server in &situation.servers {
        match &server.state {
            State::Stopping => return wait(Reason::ServerStopping, format!("{} is stopping", server.name)),
            State::Down(why) => return wait(Reason::ServerStarting, format!("{} does not run: {why}", server.name)),
            State::Unhealthy(why) => return wait(Reason::ServerUnhealthy, format!("{}: {why}", server.name)),
            State::Healthy(_) => {}
        }
    }
    if let Some(extra) = situation
        .servers
        .iter()
        .find(|server| !is_wanted(situation, &server.name))
    {
        return wait(Reason::ServerStopping, format!("{} has not stopped yet", extra.name));
    }
    let mute = |server: &&Server| !situation.view.answered.contains(&server.name);
    if situation.jet_stream
        && let Some(server) = situation.servers.iter().find(mute)
    {
        return wait(
            Reason::StreamsUnknown,
            format!("{} is healthy, but has not reported its streams in time", server.name),
        );
    }
    if situation.jet_stream
        && let Some(step) = incomplete(situation)
    {
        return step;
    }
    // First those that run otherwise than declared: one that is held from going would keep an old client password for as long.
    if let Some(step) = restart(situation) {
        return step;
    }
    if situation.wanted < situation.replicas {
        return shrink(situation);
    }
    if situation.wanted > situation.replicas {
        let to = situation.replicas + 1;
        let why = Words::new(
            Reason::ScalingUp,
            format!("{} joins", situation.identity.server(situation.replicas)),
        );
        return Step::Scale { to, why };
    }
    for server in &situation.servers {
        if let (Some(wanted), State::Healthy(found)) = (&situation.version, &server.state)
            && !is_version(wanted, found)
        {
            let message = format!(
                "{} reports version {found}, not {wanted}: the image does not match its tag",
                server.name
            );
            return Step::Hold(Words::new(Reason::VersionDiffers, message));
        }
    }
    Step::Settled
}

/// Whether a server may be forgotten, given the streams that the servers report. If a stream has too few replicas left, it would be
/// recreated empty elsewhere, while the volume of the removed server still has it. So that server comes back.
pub(super) fn confirm(situation: &Situation, gone: &str, why: Words, streams: &BTreeSet<String>) -> Step {
    let groups = || situation.view.groups.iter().filter(|group| group.consumer.is_none());
    let unseen = streams
        .iter()
        .find(|&name| !groups().any(|group| group.stream == *name));
    let cut_off = groups().find(|group| group.led.is_none() && group.servers.len() * 2 <= group.replicas);
    match unseen.or_else(|| cut_off.map(|group| &group.stream)) {
        Some(stream) => back(situation, format!("the stream {stream} needs it")),
        None => Step::Forget {
            server: gone.to_owned(),
            why,
        },
    }
}

/// The server of the next number comes back.
fn back(situation: &Situation, because: impl std::fmt::Display) -> Step {
    let server = situation.identity.server(situation.replicas);
    Step::Scale {
        to: situation.replicas + 1,
        why: Words::new(Reason::ServerComesBack, format!("{server} comes back: {because}")),
    }
}

/// Undoes a foreign change of the replicas that the servers could not recover from.
/// If one server is declared, further servers know nothing of each other, and a client of the Service would reach any of them. They
/// are removed at once, and their volumes stay. Removed servers come back at once if they are in the others' list, or if no
/// majority is left without them. The others may not become healthy without them, and adding a server loses nothing.
fn restore(situation: &Situation) -> Option<Step> {
    let Situation { wanted, replicas, .. } = *situation;
    let is_taken_away = || match &situation.view.meta {
        Some(meta) => meta.peers.iter().any(|peer| {
            let ordinal = situation.identity.ordinal(&peer.name);
            ordinal.is_some_and(|ordinal| (replicas..wanted).contains(&ordinal))
        }),
        None => replicas * 2 <= wanted,
    };
    let is_another = (wanted == 1 && replicas > 1) || (replicas < wanted && is_taken_away());
    (situation.jet_stream && is_another).then(|| Step::Scale {
        to: wanted,
        why: Words::new(
            Reason::ServersRestored,
            format!(
                "something other than the operator gave the StatefulSet {} {replicas} replicas; the operator restores the \
                 declared {wanted}",
                situation.identity.servers()
            ),
        ),
    })
}

/// Whether a server of that version is what a tag names: `2.12.1-alpine` is an image of 2.12.1.
fn is_version(tag: &str, found: &str) -> bool {
    tag.strip_prefix(found)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Restarts a server that is unhealthy and does not run as declared, because the declared form may repair it. Without this a
/// mistyped image would stay for ever. A server whose program does not run loses nothing. A running server must have been unready
/// for long, as the kubelet says, and other servers must have what it keeps in memory.
fn revive(situation: &Situation) -> Option<Step> {
    let outdated = |server: &&Server| !server.updated;
    let down = |server: &&Server| matches!(server.state, State::Down(_));
    let others_healthy = |one: &Server| {
        let mut others = situation.servers.iter().filter(|server| server.name != one.name);
        others.all(|server| matches!(server.state, State::Healthy(_)))
    };
    let keeps_alone = |server: &Server| {
        let unknown = !situation.view.answered.contains(&server.name);
        situation.jet_stream && (unknown || lost_by_restart(situation, &server.name).is_some())
    };
    let unhealthy = |server: &&Server| {
        matches!(server.state, State::Unhealthy(_))
            && server.long_unready
            && situation.servers.len() > 1
            && others_healthy(server)
            && !keeps_alone(server)
    };
    let mut candidates = situation.servers.iter().filter(outdated);
    let server = candidates.clone().find(down).or_else(|| candidates.find(unhealthy))?;
    Some(Step::Restart {
        name: server.name.clone(),
        uid: server.uid.clone(),
        why: Words::new(
            Reason::RollingOut,
            format!("{} is not healthy, and restarts as declared", server.name),
        ),
    })
}

/// Whether a server's number is below the StatefulSet's replicas.
fn is_wanted(situation: &Situation, server: &str) -> bool {
    situation
        .identity
        .ordinal(server)
        .is_some_and(|ordinal| ordinal < situation.replicas)
}

/// What a group lacks; none: all have their leaders and copies.
fn incomplete(situation: &Situation) -> Option<Step> {
    // One server alone has no group that places streams.
    if situation.replicas > 1 {
        let Some(meta) = &situation.view.meta else {
            return Some(wait(
                Reason::NoMetaLeader,
                "the servers have not elected the JetStream meta leader, which places streams",
            ));
        };
        let gone = meta.peers.iter().find(|peer| {
            situation
                .identity
                .ordinal(&peer.name)
                .is_some_and(|ordinal| ordinal >= situation.replicas)
        });
        if let Some(gone) = gone {
            let ordinal = situation.identity.ordinal(&gone.name);
            if ordinal.is_some_and(|ordinal| ordinal < situation.wanted) {
                return Some(back(
                    situation,
                    "it is declared, but something other than the operator has removed it",
                ));
            }
            let why = Words::new(
                Reason::ScalingDown,
                format!("{} is removed from the servers' own list", gone.name),
            );
            return Some(Step::Forget {
                server: gone.name.clone(),
                why,
            });
        }
        if let Some(behind) = meta.behind() {
            return Some(wait(
                Reason::ServerCatchingUp,
                format!("{behind} does not know all streams yet"),
            ));
        }
        if meta.peers.len() + 1 < situation.replicas as usize {
            return Some(wait(Reason::ServerJoining, "a server has not joined the others yet"));
        }
    }
    situation.view.groups.iter().find_map(lacks)
}

fn lacks(group: &Group) -> Option<Step> {
    let Some(led) = &group.led else {
        return Some(wait(Reason::NoStreamLeader, format!("{} has no leader", group.name())));
    };
    if let Some(behind) = led.behind() {
        return Some(wait(
            Reason::StreamCatchingUp,
            format!("{} is not complete on {behind}", group.name()),
        ));
    }
    (led.peers.len() + 1 < group.replicas)
        .then(|| wait(Reason::StreamCatchingUp, format!("{} lacks a replica", group.name())))
}

/// The next server that does not run as declared: the highest number first, who leads the placing of streams last.
fn restart(situation: &Situation) -> Option<Step> {
    let leader = situation.view.meta.as_ref().map(|meta| meta.leader.as_str());
    let outdated = situation.servers.iter().filter(|server| !server.updated);
    let next = outdated.max_by_key(|server| {
        (
            leader != Some(server.name.as_str()),
            situation.identity.ordinal(&server.name),
        )
    })?;
    Some(match lost_by_restart(situation, &next.name) {
        Some(stream) => Step::Hold(Words::new(
            Reason::StreamWouldBeLost,
            format!(
                "a restart of {} would lose {}, which only this server has, in memory: give it more replicas, or delete it",
                next.name,
                stream.name()
            ),
        )),
        None => Step::Restart {
            name: next.name.clone(),
            uid: next.uid.clone(),
            why: Words::new(Reason::RollingOut, format!("{} restarts as declared", next.name)),
        },
    })
}

/// A stream that this server alone has, in memory.
fn lost_by_restart<'a>(situation: &'a Situation, server: &str) -> Option<&'a Group> {
    let mut groups = situation.view.groups.iter();
    groups.find(|group| group.in_memory && group.replicas <= 1 && group.servers.contains(server))
}

/// The server of the highest number goes, once it has nothing that others do not have.
fn shrink(situation: &Situation) -> Step {
    let left = situation.replicas - 1;
    let leaving = situation.identity.server(left);
    let mut streams = situation.view.groups.iter().filter(|group| group.consumer.is_none());
    let too_many = streams
        .clone()
        .find(|stream| stream.replicas > situation.wanted as usize);
    if let Some(stream) = too_many {
        let message = format!(
            "{} has {} replicas, but only {} servers are declared: lower its replicas, or declare more servers",
            stream.name(),
            stream.replicas,
            situation.wanted
        );
        return Step::Hold(Words::new(Reason::StreamReplicas, message));
    }
    match streams.find(|stream| stream.servers.contains(&leaving)) {
        Some(stream) if stream.replicas <= 1 => Step::Hold(Words::new(
            Reason::StreamNotReplicated,
            format!(
                "{} has its only replica on {leaving}, which is to be removed: give it 3 replicas, at least for a while, or \
                 delete it",
                stream.name()
            ),
        )),
        Some(stream) => Step::Move {
            stream: stream.stream.clone(),
            from: leaving.clone(),
            why: Words::new(
                Reason::ScalingDown,
                format!("{} moves from {leaving}, which is to be removed", stream.name()),
            ),
        },
        None => Step::Scale {
            to: left,
            why: Words::new(
                Reason::ScalingDown,
                format!("{leaving} is removed: it holds no replica of a stream any more"),
            ),
        },
    }
}

fn wait(reason: Reason, message: impl Into<String>) -> Step {
    Step::Wait(Words::new(reason, message))
}
