//! What a forwarder says of itself: what its `/status` shows, and what an operator reads there.
//!
//! Reading takes what an older forwarder does not say as absent, and passes over what a newer one says on top.

mod beacon;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use self::beacon::{BeaconClusterStatus, BeaconRing, BeaconStatus};
use crate::document::FIRST_RING_DOCUMENT_VERSION;
use crate::fanout::dispatch;

/// Where the process is in its life.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", content = "reason", rename_all = "camelCase")]
pub enum Phase {
    /// Not yet a member of the group.
    #[default]
    Starting,
    /// There is no ring yet, with the reason: nothing is asked of Kafka before there is one.
    WithoutRing(String),
    /// A stable member that takes records of its partitions.
    Consuming,
    /// A stable member with partitions of which it takes none, with the reason.
    Waiting(String),
    /// A stable member without a partition: there are more members than partitions.
    Idle,
    /// Between two assignments.
    Rebalancing,
    /// No stable member, with the reason.
    Outside(String),
    /// Stopping: what is in flight is waited for.
    Draining,
}

impl Phase {
    /// Of a stable member whose ring is of the epoch `ring`, by what each of its partitions is doing.
    #[must_use]
    pub fn of_member(ring: u64, partitions: impl Iterator<Item = dispatch::Phase>) -> Self {
        let mut waiting = BTreeMap::<String, usize>::new();
        for phase in partitions {
            match phase {
                dispatch::Phase::Active | dispatch::Phase::Draining | dispatch::Phase::Examined => {
                    return Self::Consuming;
                }
                dispatch::Phase::Stopped
                | dispatch::Phase::Damaged(_)
                | dispatch::Phase::Behind(_)
                | dispatch::Phase::Announcing
                | dispatch::Phase::Grace
                | dispatch::Phase::Contested
                | dispatch::Phase::Sought => {
                    *waiting.entry(phase.to_string()).or_default() += 1;
                }
            }
        }
        if waiting.is_empty() {
            return Self::Idle;
        }
        let reasons: Vec<String> = waiting
            .iter()
            .map(|(words, count)| format!("{count} × \"{words}\""))
            .collect();
        Self::Waiting(format!(
            "this member takes no records of its partitions: {}; its ring has epoch {ring}",
            reasons.join(", ")
        ))
    }

    /// Why the process is not ready, if it is not. A rebalance is part of a member's life and is ready.
    #[must_use]
    pub fn not_ready(&self) -> Option<String> {
        match self {
            Self::Consuming | Self::Idle | Self::Rebalancing => None,
            Self::Starting => Some("not yet a member of the group".to_owned()),
            Self::WithoutRing(reason) => Some(format!("there is no ring yet: {reason}")),
            Self::Waiting(reason) => Some(reason.clone()),
            Self::Outside(reason) => Some(format!("not a stable member of the consumer group: {reason}")),
            Self::Draining => Some("stopping".to_owned()),
        }
    }
}

/// What the engine says of itself, as `/status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    /// Where the process is in its life.
    #[serde(flatten)]
    pub phase: Phase,
    /// The epoch of the ring in use.
    pub ring_epoch: u64,
    /// The ring.
    pub ring: RingStatus,
    /// The partitions of the first topic that are assigned, by number.
    pub assignment: BTreeMap<i32, Assignment>,
    /// The further topics, by name; absent: there is none. They are not in `assignment`, because readers of older releases refuse keys that
    /// are no numbers.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub topics: BTreeMap<String, TopicStatus>,
    /// The clusters, by name.
    pub clusters: BTreeMap<String, ClusterStatus>,
    /// Whether a commit has proved lately that the process is a member of the group. Nothing is published while none has.
    pub membership_proven: bool,
    /// When the last commit was answered, in milliseconds since 1970; absent: not yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_commit_millis: Option<i64>,
    /// What `admin.credentialsVersionFile` holds: which version of the credentials is mounted. Absent: no such file is declared,
    /// or it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials_version: Option<String>,
    /// The newest version of the ring's document that this process reads: see [`RING_DOCUMENT_VERSION`]. Absent: the first.
    ///
    /// [`RING_DOCUMENT_VERSION`]: crate::document::RING_DOCUMENT_VERSION
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document_version: Option<u32>,
    /// How subscribers learn of the ring. Absent: no beacon is declared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beacon: Option<BeaconStatus>,
}

impl Status {
    /// The newest version of the ring's document that the process reads. Releases that did not say it yet read the first.
    #[must_use]
    pub fn reads_documents(&self) -> u32 {
        self.document_version.unwrap_or(FIRST_RING_DOCUMENT_VERSION)
    }

    /// Records that are not committed, of all assigned partitions of all topics together; none while it is not known of one of them.
    #[must_use]
    pub fn lag(&self) -> Option<i64> {
        let further = self.topics.values().flat_map(|topic| topic.assignment.values());
        let lags = self.assignment.values().chain(further).map(|assignment| assignment.lag);
        lags.sum()
    }
}

/// The ring in use, and how far its last change has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RingStatus {
    /// The epoch of the ring in use.
    pub epoch: u64,
    /// The epoch of a ring that is declared, and announced to Kafka before it is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub announced: Option<u64>,
    /// The epoch of a newer ring that is declared and that the engine has not begun to announce.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub declared: Option<u64>,
    /// Credential files that the declared ring names and that are not there yet, or are empty: it waits for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<PathBuf>,
    /// The least epoch that partitions wait for which others have delivered under a newer ring, or under another one of this epoch:
    /// none of their records is taken before a ring of it is declared. Absent: there are no such partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaits: Option<u64>,
    /// The share of the hash space that the last change moved, from 0 to 1.
    pub moved_share: f64,
    /// Assets that wait until their old owner has confirmed their earlier records.
    pub waiting_assets: usize,
    /// Why what is declared now cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Why the Kubernetes API does not tell the ring now. The mounted copy goes on telling it, later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_fault: Option<String>,
}

impl RingStatus {
    /// What [`Self::awaits`] is for a ring of the epoch `ring` and partitions in these phases.
    #[must_use]
    pub fn awaited(ring: u64, partitions: impl Iterator<Item = dispatch::Phase>) -> Option<u64> {
        partitions.filter_map(|phase| phase.awaits(ring)).max()
    }
}

/// A topic after the first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopicStatus {
    /// Its partitions that are assigned, by number.
    pub assignment: BTreeMap<i32, Assignment>,
}

/// An assigned partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Assignment {
    /// What it is doing, for people: see [`dispatch::Phase`].
    pub state: String,
    /// The committed offset; absent: not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub committed: Option<i64>,
    /// Records that are not committed; absent: not known yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Whether nothing is read of it: it waits for room, a person, a newer ring or Kafka.
    pub paused: bool,
    /// What was found wrong with its log or its committed offset since it was assigned: it was counted, and may have cost records.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// A cluster of the ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    /// Whether it is connected.
    pub connected: bool,
    /// The server it is connected to, without user and password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why there is no connection, why the last one ended, or what the server refused last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Records that wait for a confirmation.
    pub pending_records: u64,
    /// Bytes that wait for a confirmation.
    pub pending_bytes: u64,
    /// Records that are to be read from Kafka again when the cluster has room, as far as this process has seen them.
    pub parked_records: u64,
    /// For how many seconds there have been some.
    pub parked_seconds: u64,
    /// Assets whose records wait behind one that the cluster refuses.
    pub held_assets: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_member_that_takes_none_of_its_partitions_waits_and_says_why() {
        use dispatch::Phase::{Active, Announcing, Behind, Draining, Stopped};
        let phase = |partitions: &[dispatch::Phase]| Phase::of_member(8, partitions.iter().copied());
        assert_eq!(phase(&[]), Phase::Idle);
        for taken in [Active, Draining] {
            assert_eq!(phase(&[Stopped, taken, Behind(9)]), Phase::Consuming);
        }
        for (partitions, why) in [
            (&[Stopped][..], "1 × \"stopped: the committed offset is gone\""),
            (
                &[Announcing, Announcing],
                "2 × \"waits for the commit that announces its ring\"",
            ),
            (
                &[Behind(9), Stopped, Behind(9)],
                "1 × \"stopped: the committed offset is gone\", 2 × \"waits for ring epoch 9\"",
            ),
        ] {
            let said = format!("this member takes no records of its partitions: {why}; its ring has epoch 8");
            assert_eq!(phase(partitions).not_ready(), Some(said));
        }
    }

    #[test]
    fn the_ring_that_all_partitions_can_be_served_under_is_awaited() {
        use dispatch::Phase::{Active, Behind, Contested, Stopped};
        for (partitions, awaits) in [
            (&[][..], None),
            (&[Active, Stopped], None),
            (&[Active, Contested], Some(9)),
            (&[Behind(10), Contested, Behind(12)], Some(12)),
        ] {
            assert_eq!(
                RingStatus::awaited(8, partitions.iter().copied()),
                awaits,
                "{partitions:?}"
            );
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        let phases = [
            Phase::Starting,
            Phase::WithoutRing("why".to_owned()),
            Phase::Consuming,
            Phase::Waiting("why".to_owned()),
            Phase::Idle,
            Phase::Rebalancing,
            Phase::Outside("why".to_owned()),
            Phase::Draining,
        ];
        for phase in phases {
            let status = Status {
                phase,
                ring_epoch: 8,
                ring: RingStatus {
                    epoch: 8,
                    announced: Some(9),
                    declared: Some(10),
                    waits_for: vec!["/credentials/c4".into()],
                    awaits: Some(11),
                    moved_share: 0.25,
                    waiting_assets: 3,
                    refused: Some("a reason".to_owned()),
                    api_fault: Some("another".to_owned()),
                },
                assignment: BTreeMap::from([(
                    7,
                    Assignment {
                        state: dispatch::Phase::Behind(9).to_string(),
                        committed: Some(17),
                        lag: Some(4),
                        paused: true,
                        fault: Some("a reason".to_owned()),
                    },
                )]),
                topics: BTreeMap::from([(
                    "b".to_owned(),
                    TopicStatus {
                        assignment: BTreeMap::from([(0, Assignment::default())]),
                    },
                )]),
                clusters: BTreeMap::from([("C1".to_owned(), ClusterStatus::default())]),
                membership_proven: true,
                last_commit_millis: Some(5),
                credentials_version: Some("a1b2".to_owned()),
                document_version: Some(2),
                beacon: Some(BeaconStatus {
                    public_key: Some("U".to_owned()),
                    heard: Some(9),
                    rings: vec![BeaconRing::default()],
                    clusters: BTreeMap::from([("C1".to_owned(), BeaconClusterStatus::default())]),
                    ..BeaconStatus::default()
                }),
            };
            let text = serde_json::to_string(&status).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status, "{text}");
        }
    }

    #[test]
    fn what_another_version_says_can_be_read() {
        let status: Status = serde_json::from_value(json!({
            "phase": "consuming",
            "ring": {"epoch": 3, "new": 1},
            "assignment": {"0": {"state": "active", "lag": 2}, "1": {"state": "active", "lag": 5}},
            "new": {"x": []},
        }))
        .unwrap();
        assert_eq!((status.phase.clone(), status.ring.epoch), (Phase::Consuming, 3));
        assert_eq!(status.reads_documents(), 1, "who does not say reads the first");
        assert_eq!(status.lag(), Some(7));
        assert!(
            !serde_json::to_string(&status).unwrap().contains("topics"),
            "there is one"
        );
        let unknown: Status =
            serde_json::from_value(json!({"phase": "idle", "assignment": {"0": {"lag": 2}, "1": {}}})).unwrap();
        assert_eq!(unknown.lag(), None, "a sum without a part of it would be too low");
        let of_two = |lag: serde_json::Value| {
            let status = json!({
                "phase": "idle",
                "assignment": {"0": {"lag": 2}},
                "topics": {"b": {"assignment": {"0": lag}}, "c": {}},
            });
            serde_json::from_value::<Status>(status).unwrap().lag()
        };
        assert_eq!(of_two(json!({"lag": 5})), Some(7));
        assert_eq!(of_two(json!({})), None);
    }
}
