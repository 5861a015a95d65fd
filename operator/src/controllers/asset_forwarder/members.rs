//! Who is a member of the ring: decided from what is declared, never from anybody's health.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use crds::NatsCluster;
use crds::asset_forwarder::ExcludedCluster;
use forwarder_core::document::{Beacon, Cluster, MirrorConfig, RingConfig};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::candidates::{Access, Candidate, reference};
use super::recorded::Recorded;
use crate::reconcile::cluster::{DRAIN, ring_name, spec_field};
use crate::reconcile::credentials::{ClusterAccess, CredentialsError, Files, NatsCredentials, Room};
use crate::reconcile::reason::Reason;

/// The condition while pods that are too old keep what is declared out of the ring.
pub const PODS_TOO_OLD: &str = "PodsTooOld";

/// A member.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// `namespace/name`.
    pub reference: String,
    /// What the ring's document says of it.
    pub cluster: Cluster,
    /// The files that it names.
    pub files: Files,
}

/// Who is a member, and who is not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Members {
    /// The members, sorted by their names in the ring.
    pub members: Vec<Member>,
    /// Who is chosen by the selector, lets our namespace in and is no member, sorted.
    pub excluded: Vec<Excluded>,
    /// Members that go on as they were before, since what they say now cannot be used.
    pub held: Vec<Excluded>,
    /// Fields that are declared and that pods are too old for.
    pub withheld: Vec<Withheld>,
    /// Whether a beacon is declared that pods are too old for.
    pub without_beacon: bool,
    /// Whether copies for subscribers that stay are declared that pods are too old for.
    pub without_mirror: bool,
    /// The version of the ring's document that all that is declared asks for.
    pub declares: u32,
}

/// A cluster that the selector chooses and that is no member as declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excluded {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why, in a word.
    pub reason: Reason,
    /// Why, and what to do.
    pub message: String,
}

impl Excluded {
    /// As a status shows it.
    #[must_use]
    pub fn shown(&self) -> ExcludedCluster {
        let Self {
            namespace,
            name,
            reason,
            message,
        } = self.clone();
        ExcludedCluster {
            namespace,
            name,
            reason: reason.to_string(),
            message,
        }
    }
}

/// Fields of a cluster that are not in the ring, since not all pods would read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withheld {
    /// `namespace/name`.
    pub reference: String,
    /// The fields, as the cluster's spec has them.
    pub fields: Vec<String>,
    /// Whether it is a member all the same, in a form that they read. Otherwise it becomes one when they read all of it.
    pub is_member: bool,
}

/// The field of a cluster, as the ring's document has it, that only subscribers make use of: records go the same way without it.
const FOR_SUBSCRIBERS: &str = "clientServers";

/// Chooses the members. `room` is that of the credentials that were projected before, and `version` that of the document which all pods
/// read.
///
/// A member's newer fields are left out, as the first versions did without them. A newcomer waits: without such a field its records might
/// go to another place than the declared one. What is for subscribers alone keeps nobody waiting.
///
/// Who was a member stays one while its Secret is missing or its spec cannot be used: what moves with its assets costs more than
/// a cluster that is not to be had for a while. So it goes on with its old credentials where the new ones have no room, and a newcomer
/// without room is left out.
#[must_use]
pub fn choose(candidates: &[Candidate], recorded: &Recorded, room: Room<'_>, version: u32) -> Members {
    let stored = room.stored();
    let mut members = Members::default();
    let mut winners = Vec::new();
    let mut named = BTreeMap::<String, Vec<(Member, Option<Timestamp>)>>::new();
    for candidate in candidates {
        // Of a cluster that does not let our namespace in nothing is told, not even that it is there.
        let Access::Granted(credentials) = &candidate.access else {
            continue;
        };
        let created = candidate.cluster.creation_timestamp().map(|time| time.0);
        let member = judge(&candidate.cluster, credentials, recorded).or_else(|excluded| {
            match held(&excluded, recorded, stored) {
                Some(member) => {
                    members.held.push(excluded);
                    Ok(member)
                }
                None => Err(excluded),
            }
        });
        let member = member.and_then(|member| members.fit(member, recorded, version));
        match member {
            Ok(member) => named
                .entry(member.cluster.name.clone())
                .or_default()
                .push((member, created)),
            Err(excluded) => members.excluded.push(excluded),
        }
    }
    for (name, mut rivals) in named {
        rivals.sort_by(|(a, made_a), (b, made_b)| (made_a, &a.reference).cmp(&(made_b, &b.reference)));
        let holder = holder(&name, &rivals, recorded);
        for (index, (member, made)) in rivals.into_iter().enumerate() {
            match &holder {
                Ok(chosen) if *chosen == index => winners.push((member, made)),
                Ok(_) | Err(_) => {
                    let by = match &holder {
                        Ok(_) => "another member has it; set another spec.ringName in one of them".to_owned(),
                        Err(leaving) => format!("{leaving} has it until it has left the ring"),
                    };
                    let message = format!("the ring name {name:?} is taken: {by}");
                    members
                        .excluded
                        .push(exclude(&member.reference, Reason::DuplicateRingName, message));
                }
            }
        }
    }
    members.find_room(winners, recorded, room);
    // Who has lost a name to another one is no member that is held.
    let references: BTreeSet<_> = members.members.iter().map(|member| member.reference.clone()).collect();
    members.held.retain(|held| references.contains(&reference_of(held)));
    let counts = |withheld: &Withheld| !withheld.is_member || references.contains(&withheld.reference);
    members.withheld.retain(counts);
    members.withheld.sort_by(|a, b| a.reference.cmp(&b.reference));
    members
        .excluded
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    members
}

impl Members {
    /// The beacon, if readers of `version` know it. Otherwise the ring goes on without it.
    pub fn fit_beacon(&mut self, beacon: &Beacon, version: u32) -> Option<Beacon> {
        let since = beacon.document_version();
        self.declares = self.declares.max(since);
        let is_read = since <= version;
        // Of no ring nothing is left out.
        self.without_beacon = !is_read && !self.members.is_empty();
        is_read.then(|| beacon.clone())
    }

    /// For how long copies are made, in milliseconds, if readers of `version` know of copies. Otherwise the ring goes on without them.
    pub fn fit_mirror(&mut self, moved_ms: u64, version: u32) -> Option<u64> {
        let since = MirrorConfig {
            moved_ms,
            previous: None,
        }
        .document_version();
        self.declares = self.declares.max(since);
        let is_read = since <= version;
        self.without_mirror = !is_read && !self.members.is_empty();
        is_read.then_some(moved_ms)
    }

    /// Takes in whose credentials have room: who was a member first, then the oldest.
    fn find_room(&mut self, mut chosen: Vec<(Member, Option<Timestamp>)>, recorded: &Recorded, mut room: Room<'_>) {
        let known: BTreeSet<&String> = recorded.members.values().chain(recorded.leaving.keys()).collect();
        let is_known = |member: &Member| known.contains(&member.reference);
        chosen.sort_by(|(a, made_a), (b, made_b)| {
            (!is_known(a), made_a, &a.reference).cmp(&(!is_known(b), made_b, &b.reference))
        });
        for (member, _) in chosen {
            let found = if is_known(&member) {
                room.renew(&member.files)
            } else {
                room.take_in(&member.files)
            };
            let Err(error) = found else {
                self.members.push(member);
                continue;
            };
            let excluded = exclude(&member.reference, error.reason(), error.to_string());
            // Its old files are counted already.
            match held(&excluded, recorded, room.stored()) {
                Some(member) => {
                    self.held.push(excluded);
                    self.members.push(member);
                }
                None => self.excluded.push(excluded),
            }
        }
        self.members.sort_by(|a, b| a.cluster.name.cmp(&b.cluster.name));
    }

    /// The member in a form that readers of `version` take.
    fn fit(&mut self, member: Member, recorded: &Recorded, version: u32) -> Result<Member, Excluded> {
        self.declares = self.declares.max(member.cluster.document_version());
        let newer: Vec<&str> = member.cluster.newer_than(version).collect();
        if newer.is_empty() {
            return Ok(member);
        }
        let concerns_records = newer.iter().any(|field| *field != FOR_SUBSCRIBERS);
        let fields: Vec<String> = newer.into_iter().map(spec_field).collect();
        let Member {
            reference,
            cluster,
            files,
        } = member;
        // Of a ring that somebody has deleted, only that it was a member is known, and that it may be leaving.
        let is_member = !concerns_records
            || recorded.members.values().any(|known| *known == reference)
            || recorded.leaving.contains_key(&reference);
        let message = format!(
            "its {} needs newer pods; the cluster becomes a member when all pods support it",
            fields.join(" and ")
        );
        self.withheld.push(Withheld {
            reference: reference.clone(),
            fields,
            is_member,
        });
        if !is_member {
            return Err(exclude(&reference, Reason::PodsTooOld, message));
        }
        Ok(Member {
            cluster: cluster.as_read_by(version),
            reference,
            files,
        })
    }
}

/// Which of the clusters of one name is the member: the present one, else the oldest. There is none while another cluster of that
/// name is leaving, because assets would not wait for that one.
fn holder(name: &str, rivals: &[(Member, Option<Timestamp>)], recorded: &Recorded) -> Result<usize, String> {
    let is = |reference: &String| rivals.iter().position(|(member, _)| member.reference == *reference);
    if let Some(index) = recorded.members.get(name).and_then(is) {
        return Ok(index);
    }
    let mut leaving = recorded.leaving.iter().filter(|(_, ring_name)| *ring_name == name);
    let Some((first, _)) = leaving.next() else {
        // A member that the selector no longer chooses leaves with this change.
        return match recorded.members.get(name) {
            Some(reference) => Err(reference.clone()),
            None => Ok(0),
        };
    };
    // Who was leaving and is chosen again just stays.
    is(first).ok_or_else(|| first.clone())
}

fn judge(
    cluster: &NatsCluster,
    credentials: &Result<NatsCredentials, CredentialsError>,
    recorded: &Recorded,
) -> Result<Member, Excluded> {
    let reference = reference(cluster);
    let exclude = |reason: Reason, message: &str| exclude(&reference, reason, message.to_owned());
    if cluster.metadata.deletion_timestamp.is_some() {
        return Err(exclude(Reason::Deleting, "it is being deleted"));
    }
    if cluster.spec.drain {
        return Err(exclude(Reason::Draining, "its spec.drain is true"));
    }
    // Without it a cluster could be gone while pods still publish to it.
    let is_held_up = cluster.finalizers().iter().any(|finalizer| finalizer == DRAIN);
    if !is_held_up && !recorded.members.values().any(|member| *member == reference) {
        return Err(exclude(Reason::NotObserved, "the operator has not reconciled it yet"));
    }
    let credentials = credentials.clone();
    let NatsCredentials { auth, tls, files } =
        credentials.map_err(|error| exclude(error.reason(), &error.to_string()))?;
    let declared = ClusterAccess::of(cluster);
    let member = Cluster {
        name: ring_name(cluster),
        servers: declared.servers,
        weight: cluster.spec.weight,
        auth,
        tls,
        discover_servers: declared.discover_servers,
        jet_stream: declared.jet_stream,
        inbox_prefix: declared.inbox_prefix,
        client_servers: declared.client_servers,
    };
    let alone = RingConfig {
        epoch: 1,
        replicas: 1,
        handover_timeout_ms: 60_000,
        clusters: vec![member.clone()],
        beacon: None,
        mirror: None,
    };
    if let Err(faults) = alone.check() {
        let faults = faults.faults().iter().map(|fault| {
            let path = fault.path.strip_prefix("clusters[0].").unwrap_or(&fault.path);
            format!("{}: {}", spec_field(path), fault.problem)
        });
        return Err(exclude(Reason::InvalidSpec, &faults.collect::<Vec<_>>().join("; ")));
    }
    Ok(Member {
        reference,
        cluster: member,
        files,
    })
}

/// The member as it was before, if it was one and if that is no wish of anybody's to change.
fn held(excluded: &Excluded, recorded: &Recorded, stored: &Files) -> Option<Member> {
    if matches!(excluded.reason, Reason::Deleting | Reason::Draining) {
        return None;
    }
    let reference = reference_of(excluded);
    let (name, _) = recorded.members.iter().find(|(_, known)| **known == reference)?;
    let clusters = &recorded.document.as_ref()?.clusters;
    let cluster = clusters.iter().find(|cluster| cluster.name == *name)?.clone();
    let names: BTreeSet<PathBuf> = cluster
        .files()
        .filter_map(|path| path.file_name())
        .map(PathBuf::from)
        .collect();
    let mut files = stored.clone();
    files.retain(|name| names.contains(&PathBuf::from(name)));
    Some(Member {
        reference,
        cluster,
        files,
    })
}

fn reference_of(excluded: &Excluded) -> String {
    format!("{}/{}", excluded.namespace, excluded.name)
}

fn exclude(reference: &str, reason: Reason, message: String) -> Excluded {
    let (namespace, name) = reference.split_once('/').unwrap_or(("", reference));
    Excluded {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        reason,
        message,
    }
}
