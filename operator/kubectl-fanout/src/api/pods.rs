//! Asks pods what they do, through the API server. Users choose the image of a forwarder, so any process may answer. So answers are
//! bounded in time and size.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use forwarder_core::status::Status;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::Portforwarder;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::{Place, explain};
use crate::fault::{Fault, Right};
use crate::view::live::published;
use crate::view::pods::{Heard, PodSeen, can_be_asked};

/// The port of a forwarder's status and metrics.
const PORT: u16 = 4000;

/// How long a pod has for its answers. It answers from memory.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Pods that are asked at once: each one costs the API server a connection to a node.
const AT_ONCE: usize = 8;

/// A status of thousands of partitions and hundreds of clusters is below; a stranger's endless answer is not read to its end.
const MOST_BYTES: usize = 2 << 20;

/// How long all pods have together. Those that were not asked by then are not waited for.
const TOGETHER: Duration = Duration::from_secs(30);

/// Partitions and clusters in all answers together, at most: some 20 MB. A hundred pods may have nine hundred clusters each.
const MOST_ENTRIES: usize = 100_000;

/// What pods are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Their status.
    Status,
    /// Their counters too.
    Counters,
}

/// Asks all pods of a forwarder. A right that is missing is told once, and not for each pod.
pub(super) async fn ask(place: &Place, pods: &[Pod], forwarder: &str, asked: Asked) -> (Vec<PodSeen>, Vec<Fault>) {
    let api = place.api::<Pod>();
    let deadline = Instant::now() + TOGETHER;
    let seen = pods.iter().filter_map(|pod| PodSeen::of(pod, forwarder));
    let answers = futures::stream::iter(seen).map(|pod| {
        let api = &api;
        async move {
            if !can_be_asked(&pod) {
                return (pod, None);
            }
            if Instant::now() >= deadline {
                let heard = Heard::Silent("it was not asked: the other pods took too long".to_owned());
                return (PodSeen { heard, ..pod }, None);
            }
            let heard = tokio::time::timeout(TIMEOUT, one(api, &pod.name, asked)).await;
            heard_of(pod, heard.ok(), &place.namespace)
        }
    });
    let mut answers = pin!(answers.buffer_unordered(AT_ONCE));
    let mut pods = Vec::new();
    let mut faults = Vec::new();
    let mut entries = 0;
    while let Some((pod, fault)) = answers.next().await {
        pods.push(fit(pod, &mut entries));
        if faults.is_empty() {
            faults.extend(fault);
        }
    }
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    (pods, faults)
}

/// The pod with its answer, if there is room for that beside others that have `entries` already.
fn fit(pod: PodSeen, entries: &mut usize) -> PodSeen {
    let Some(status) = pod.status() else {
        return pod;
    };
    let of_further: usize = status.topics.values().map(|topic| 1 + topic.assignment.len()).sum();
    let published = pod.published.as_ref().map_or(0, BTreeMap::len);
    let more = status.assignment.len() + of_further + status.clusters.len() + status.ring.waits_for.len() + published;
    if *entries + more > MOST_ENTRIES {
        return PodSeen {
            heard: Heard::Silent("the pods tell of too many partitions and clusters together".to_owned()),
            published: None,
            ..pod
        };
    }
    *entries += more;
    pod
}

/// What came of asking a pod; none: it did not answer in time. A fault is one of rights.
fn heard_of(mut pod: PodSeen, heard: Option<Result<Answer, AskError>>, namespace: &str) -> (PodSeen, Option<Fault>) {
    let error = match heard {
        Some(Ok(answer)) => {
            pod.heard = Heard::Status(Box::new(answer.status));
            pod.published = answer.published;
            return (pod, None);
        }
        Some(Err(error)) => error,
        None => {
            pod.heard = Heard::Silent(format!("no answer within {} s", TIMEOUT.as_secs()));
            return (pod, None);
        }
    };
    if let AskError::Forward(error) = &error {
        let right = Right {
            verbs: "get and create",
            resource: "pods/portforward",
            namespace: namespace.to_owned(),
        };
        let fault = explain("ask the pods what they do".to_owned(), right, error);
        if matches!(fault, Fault::Forbidden { .. } | Fault::Unauthorized { .. }) {
            pod.heard = Heard::Silent("you may not ask it".to_owned());
            return (pod, Some(fault));
        }
    }
    pod.heard = Heard::Silent(error.to_string());
    (pod, None)
}

/// What a pod has told.
struct Answer {
    status: Status,
    published: Option<BTreeMap<String, f64>>,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("failed to reach it: {0}")]
    Forward(#[source] kube::Error),
    #[error("failed to reach it: the API server gives no stream")]
    NoStream,
    #[error("failed to get an answer: {0}")]
    Http(#[from] hyper::Error),
    #[error("failed to build the request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("its answer has the code {0}")]
    Refused(u16),
    #[error("its answer has more than {MOST_BYTES} bytes")]
    TooLong,
    #[error("its answer is no status of a forwarder: {0}")]
    Json(#[from] serde_json::Error),
}

/// A way to a pod. It ends when this is dropped.
struct Way {
    forwarder: Portforwarder,
    connection: JoinHandle<hyper::Result<()>>,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.connection.abort();
        self.forwarder.abort();
    }
}

/// Asks a pod. The caller bounds the time.
async fn one(api: &Api<Pod>, name: &str, asked: Asked) -> Result<Answer, AskError> {
    let mut forwarder = api.portforward(name, &[PORT]).await.map_err(AskError::Forward)?;
    let stream = forwarder.take_stream(PORT).ok_or(AskError::NoStream)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _way = Way {
        forwarder,
        connection: tokio::spawn(connection),
    };
    let text = get(&mut sender, "/status").await?;
    let status = serde_json::from_slice(&text)?;
    let published = match asked {
        Asked::Status => None,
        // Without counters there is no rate, and all else is known.
        Asked::Counters => match get(&mut sender, "/metrics").await {
            Ok(text) => Some(published(&String::from_utf8_lossy(&text))),
            Err(_) => None,
        },
    };
    Ok(Answer { status, published })
}

async fn get(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> Result<Vec<u8>, AskError> {
    sender.ready().await?;
    let request = Request::get(path)
        .header(hyper::header::HOST, "localhost")
        .body(Empty::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(AskError::Refused(response.status().as_u16()));
    }
    read(response.into_body()).await
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, AskError> {
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if text.len() + data.len() > MOST_BYTES {
            return Err(AskError::TooLong);
        }
        text.extend_from_slice(&data);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::view::samples::{pod, silent};

    fn refused(code: u16, message: &str) -> (PodSeen, Option<Fault>) {
        let status = serde_json::from_value(json!({"code": code, "message": message})).unwrap();
        let error = AskError::Forward(kube::Error::Api(Box::new(status)));
        heard_of(silent("a"), Some(Err(error)), "plant")
    }

    #[test]
    fn who_may_not_ask_pods_is_told_which_right_is_missing() {
        let (pod, fault) = refused(
            403,
            r#"pods "a" is forbidden: User "u" cannot get resource "pods/portforward""#,
        );
        assert_eq!(pod.heard, Heard::Silent("you may not ask it".to_owned()));
        let told = fault.unwrap().to_string();
        assert!(
            told.contains("get and create on pods/portforward in the namespace plant"),
            "{told}"
        );
    }

    #[test]
    fn a_pod_that_cannot_be_reached_is_silent_with_the_reason() {
        let (pod, fault) = refused(500, "the node is away");
        assert!(fault.is_none());
        let PodSeen { heard, .. } = pod;
        assert!(
            matches!(&heard, Heard::Silent(why) if why.contains("the node is away")),
            "{heard:?}"
        );
        let (pod, _) = heard_of(silent("a"), None, "plant");
        assert_eq!(pod.heard, Heard::Silent("no answer within 3 s".to_owned()));
    }
    #[test]
    fn answers_that_are_too_large_together_are_not_kept() {
        // A partition and two clusters.
        let mut entries = MOST_ENTRIES - 3;
        assert!(fit(pod("a", 7, 0), &mut entries).status().is_some());
        let seen = fit(pod("b", 7, 0), &mut entries);
        assert!(
            matches!(&seen.heard, Heard::Silent(why) if why.contains("too many")),
            "{seen:?}"
        );
        assert_eq!(entries, MOST_ENTRIES);
    }
}
