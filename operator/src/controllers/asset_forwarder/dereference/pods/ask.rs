//! Asks pods for their status. Users choose the image of a forwarder, so any process may answer. So answers are bounded, each and
//! together.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forwarder_core::status::Status;
use forwarder_service::http::client::{self, RequestError};
use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::controllers::asset_forwarder::names;
use crate::controllers::asset_forwarder::pods::{BeaconFault, Observed, Process};
use crate::error::describe;

/// A pod answers from memory; what takes longer is as good as no answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A status of thousands of partitions and hundreds of clusters is below; a stranger's endless answer is not read to its end.
const MOST_BYTES: usize = 2 << 20;

/// What an answer may have without waiting for others: more than most forwarders ever say.
const SMALL_BYTES: usize = 64 << 10;

/// How many larger answers are read at once in this process.
static LARGE: Semaphore = Semaphore::const_new(8);

/// How many pods of a forwarder are asked at once.
const AT_ONCE: usize = 64;

/// Partitions and clusters in all answers of a forwarder's pods together, at most: some 20 MB. A hundred pods may have nine hundred
/// clusters each.
const MOST_ENTRIES: usize = 100_000;

/// What a pod says of itself.
#[derive(Debug, Default, PartialEq)]
struct Answer {
    status: Status,
    /// Why it cannot announce the ring.
    beacon_faults: BTreeSet<BeaconFault>,
}

/// Asks all pods that run for their status, at once. Who does not answer has no report.
pub(super) async fn ask(pods: Vec<Observed>) -> Vec<Observed> {
    let asked = futures::stream::iter(pods).map(|pod| async move {
        let address = pod.address.as_ref().and_then(|address| address.parse::<IpAddr>().ok());
        let mut answer = None;
        if let (Process::Running, Some(address)) = (pod.process, address.filter(may_be_a_pods)) {
            match tokio::time::timeout(TIMEOUT, status(SocketAddr::new(address, names::PORT))).await {
                Ok(Ok(said)) => answer = Some(said),
                Ok(Err(error)) => debug!(
                    pod = pod.name,
                    error = describe(&error),
                    "failed to read the status of a pod"
                ),
                Err(_) => debug!(pod = pod.name, "a pod did not answer with its status in time"),
            }
        }
        (pod, answer)
    });
    let mut asked = asked.buffer_unordered(AT_ONCE);
    let mut entries = 0;
    let mut pods = Vec::new();
    while let Some((pod, answer)) = asked.next().await {
        let (report, beacon_faults) = fit(answer, &mut entries)
            .map(|answer| (answer.status, answer.beacon_faults))
            .unzip();
        pods.push(Observed {
            beacon_faults: beacon_faults.unwrap_or_default(),
            ..pod.heard(report, Timestamp::now())
        });
    }
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

/// The answer, if there is room for it beside others that have `entries` already.
fn fit(answer: Option<Answer>, entries: &mut usize) -> Option<Answer> {
    let answer = answer?;
    let Answer {
        status: report,
        beacon_faults,
    } = &answer;
    let of_further: usize = report.topics.values().map(|topic| 1 + topic.assignment.len()).sum();
    let of_clusters = report.clusters.len() + beacon_faults.len();
    let more = report.assignment.len() + of_further + of_clusters + report.ring.waits_for.len();
    if *entries + more > MOST_ENTRIES {
        debug!(
            more,
            "ignored the status of a pod: the pods report too many partitions and clusters together"
        );
        return None;
    }
    *entries += more;
    Some(answer)
}

/// Whether a pod may have the address. Others are this machine's own, or those of clouds' metadata.
fn may_be_a_pods(address: &IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    !(is_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("failed to read the answer")]
    Body(#[from] hyper::Error),
    #[error("the answer has more than {MOST_BYTES} bytes")]
    TooLong,
    #[error("failed to parse the answer")]
    Json(#[from] serde_json::Error),
    #[error("the operator is stopping")]
    Ending(#[from] tokio::sync::AcquireError),
}

async fn status(address: SocketAddr) -> Result<Answer, AskError> {
    parse(client::get(address, "/status").await?.into_body()).await
}

async fn parse(mut body: Incoming) -> Result<Answer, AskError> {
    let mut text = Vec::new();
    let mut large = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if text.len() + data.len() > MOST_BYTES {
            return Err(AskError::TooLong);
        }
        if text.len() + data.len() > SMALL_BYTES && large.is_none() {
            large = Some(LARGE.acquire().await?);
        }
        text.extend_from_slice(&data);
    }
    let mut status = serde_json::from_slice(&text)?;
    Ok(Answer {
        beacon_faults: beacon_faults(&mut status),
        status,
    })
}

/// Most characters of a fault: it comes to stand in a condition.
const MOST_OF_A_FAULT: usize = 300;

/// Takes out of a status what it says of the beacon, and keeps the faults. The rest grows with the square of the number of pods, because each
/// pod lists all of them.
fn beacon_faults(status: &mut Status) -> BTreeSet<BeaconFault> {
    let Some(beacon) = status.beacon.take() else {
        return BTreeSet::new();
    };
    let of_clusters = beacon.clusters.into_iter();
    let of_clusters = of_clusters.filter_map(|(name, cluster)| Some((Some(name), cluster.fault?)));
    let of_all = beacon.fault.map(|fault| (None, fault));
    let faults = of_all.into_iter().chain(of_clusters);
    faults
        .map(|(cluster, fault)| BeaconFault {
            cluster,
            fault: fault.chars().take(MOST_OF_A_FAULT).collect(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use forwarder_core::status::{Assignment, ClusterStatus, TopicStatus};
    use serde_json::json;

    use super::*;

    #[test]
    fn all_answers_together_are_bounded() {
        let of = |clusters: usize| {
            let clusters = (0..clusters).map(|number| (number.to_string(), ClusterStatus::default()));
            let status = Status {
                clusters: clusters.collect(),
                ..Status::default()
            };
            Some(Answer {
                status,
                ..Answer::default()
            })
        };
        let mut entries = 0;
        assert!(fit(of(MOST_ENTRIES - 10), &mut entries).is_some());
        assert!(fit(of(11), &mut entries).is_none());
        assert!(
            fit(of(10), &mut entries).is_some(),
            "one that is left out takes no room"
        );
        assert!(fit(None, &mut entries).is_none());
        let topic = || TopicStatus {
            assignment: [(0, Assignment::default())].into(),
        };
        let of_topics = || Answer {
            status: Status {
                topics: (0..6).map(|number| (number.to_string(), topic())).collect(),
                ..Status::default()
            },
            beacon_faults: [BeaconFault {
                cluster: None,
                fault: "fault".to_owned(),
            }]
            .into(),
        };
        let mut entries = MOST_ENTRIES - 12;
        assert!(
            fit(Some(of_topics()), &mut entries).is_none(),
            "further topics and faults count"
        );
        entries = MOST_ENTRIES - 13;
        assert!(fit(Some(of_topics()), &mut entries).is_some());
    }

    #[test]
    fn only_faults_are_kept_of_what_a_pod_says_of_its_beacon() {
        let long = "x".repeat(MOST_OF_A_FAULT + 1);
        let said = json!({
            "phase": "consuming",
            "beacon": {
                "fault": "no key",
                "pods": ["a", "b"],
                "clusters": {"C1": {"connected": true}, "C2": {"connected": false, "fault": "why"}, "C3": {"fault": long}},
            },
        });
        let mut status: Status = serde_json::from_value(said).unwrap();
        let faults = beacon_faults(&mut status);
        let faults: Vec<_> = faults
            .iter()
            .map(|fault| (fault.cluster.as_deref(), fault.fault.len()))
            .collect();
        assert_eq!(faults, [(None, 6), (Some("C2"), 3), (Some("C3"), MOST_OF_A_FAULT)]);
        assert_eq!(status.beacon, None, "each pod lists all pods");
        assert_eq!(beacon_faults(&mut status), [].into());
    }

    #[test]
    fn only_addresses_that_pods_have_are_asked() {
        for (address, may) in [
            ("10.0.0.1", true),
            ("192.168.1.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("fe80::1", false),
            ("::ffff:127.0.0.1", false),
        ] {
            assert_eq!(may_be_a_pods(&address.parse().unwrap()), may, "{address}");
        }
    }
}
