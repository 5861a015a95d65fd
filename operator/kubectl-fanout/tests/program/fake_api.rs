//! An API server of one forwarder, with an operator that does what is declared at once.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures::{SinkExt as _, StreamExt as _};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

const PODS: [&str; 2] = ["assets-5-a", "assets-5-b"];
const FANOUT: &str = "/apis/fanout.openfactory.io/v1alpha1/namespaces/plant/";
const CORE: &str = "/api/v1/namespaces/plant/";

/// What there is.
pub(crate) struct State {
    /// Resources that the user may not touch.
    pub(crate) forbidden: Vec<&'static str>,
    /// The epoch that each pod uses.
    pub(crate) epochs: [u64; 2],
    /// A pod that never answers.
    pub(crate) mute: Option<&'static str>,
    /// Whether somebody does what is declared.
    pub(crate) operator_works: bool,
    forwarder: Value,
    clusters: Vec<Value>,
}

/// The API server. It ends when this is dropped.
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    config: NamedTempFile,
    task: JoinHandle<()>,
}

impl FakeApi {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = NamedTempFile::new().unwrap();
        let text = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        });
        std::fs::write(config.path(), text.to_string()).unwrap();
        let state = Arc::new(Mutex::new(State::new()));
        let served = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = Arc::clone(&served);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Self { state, config, task }
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        self.config.path()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    pub(crate) fn forwarder(&self) -> Value {
        self.state.lock().unwrap().forwarder.clone()
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn ready(reason: &str) -> Value {
    json!([{
        "type": "Ready", "status": "True", "reason": reason, "message": "as declared",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }])
}

impl State {
    fn new() -> Self {
        let cluster = |number: u32, weight: u32, member_of: &[&str]| {
            json!({
                "apiVersion": "fanout.openfactory.io/v1alpha1",
                "kind": "NatsCluster",
                "metadata": {"name": format!("c{number}"), "namespace": "plant", "generation": 1},
                "spec": {
                    "ringName": format!("C{number}"),
                    "weight": weight,
                    "external": {"servers": [format!("nats://C{number}:4222")]},
                },
                "status": {"observedGeneration": 1, "conditions": ready("Connected"), "memberOf": member_of},
            })
        };
        Self {
            forbidden: Vec::new(),
            epochs: [7, 7],
            mute: None,
            operator_works: true,
            forwarder: json!({
                "apiVersion": "fanout.openfactory.io/v1alpha1",
                "kind": "AssetForwarder",
                "metadata": {"name": "assets", "namespace": "plant", "uid": "a-uid", "generation": 1},
                "spec": {
                    "sources": [{"channelRef": {"name": "assets"}, "group": "g"}],
                    "clusters": {"selector": {}},
                },
                "status": {
                    "observedGeneration": 1,
                    "replicas": 2,
                    "conditions": ready("Forwarding"),
                    "ring": {"epoch": 7, "members": 2, "names": ["C1", "C2"], "converged": "2/2"},
                },
            }),
            clusters: vec![
                cluster(1, 1, &["plant/assets"]),
                cluster(2, 1, &["plant/assets"]),
                cluster(3, 2, &[]),
            ],
        }
    }

    fn is_suspended(&self) -> bool {
        self.operator_works && self.forwarder["spec"]["suspend"] == true
    }

    fn ring_map() -> Value {
        let members = json!({"C1": "plant/c1", "C2": "plant/c2"});
        let ring = json!({
            "epoch": 7,
            "clusters": [
                {"name": "C1", "servers": ["nats://C1:4222"]},
                {"name": "C2", "servers": ["nats://C2:4222"]},
            ],
        });
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "assets-ring",
                "namespace": "plant",
                "annotations": {
                    "fanout.openfactory.io/members": members.to_string(),
                    "fanout.openfactory.io/leaving": "{}",
                },
                "ownerReferences": [{
                    "apiVersion": "fanout.openfactory.io/v1alpha1", "kind": "AssetForwarder", "name": "assets",
                    "uid": "a-uid", "controller": true,
                }],
            },
            "data": {"ring.yaml": ring.to_string()},
        })
    }

    /// A page of the pods: each has one.
    fn pods(&self, is_second: bool) -> Value {
        let names = match (self.is_suspended(), is_second) {
            (true, _) => &[][..],
            (false, false) => &PODS[..1],
            (false, true) => &PODS[1..],
        };
        let next = if names.is_empty() || is_second { "" } else { "second" };
        let pods = names.iter().map(|name| {
            json!({
                "metadata": {
                    "name": name,
                    "namespace": "plant",
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "assets-5", "uid": "r", "controller": true,
                    }],
                },
                "spec": {
                    "containers": [{"name": "forwarder"}],
                    "volumes": [{"name": "config", "configMap": {"name": "assets-config-a1"}}],
                },
                "status": {
                    "phase": "Running",
                    "containerStatuses": [{
                        "name": "forwarder", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                        "state": {"running": {}},
                    }],
                },
            })
        });
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"continue": next}, "items": pods.collect::<Vec<_>>()})
    }

    /// Changes an object, and does what it declares.
    fn patch(&mut self, resource: &str, name: &str, patch: &Value) -> Option<Value> {
        let works = self.operator_works;
        let object = match resource {
            "assetforwarders" if name == "assets" => &mut self.forwarder,
            "natsclusters" => self
                .clusters
                .iter_mut()
                .find(|cluster| cluster["metadata"]["name"] == name)?,
            _ => return None,
        };
        for (field, value) in patch["spec"].as_object()? {
            if object["spec"][field] != *value {
                object["spec"][field] = value.clone();
                object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64()? + 1);
            }
        }
        let written = object.clone();
        if works {
            object["status"]["observedGeneration"] = object["metadata"]["generation"].clone();
            if object["spec"]["drain"] == true {
                object["status"]["conditions"] = ready("Drained");
                object["status"]["memberOf"] = json!([]);
            }
            if resource == "assetforwarders" {
                let replicas = if object["spec"]["suspend"] == true { 0 } else { 2 };
                object["status"]["replicas"] = json!(replicas);
            }
        }
        Some(written)
    }

    fn get(&self, resource: &str, name: Option<&str>, is_second: bool) -> Option<Value> {
        let list = |items: Vec<Value>| json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": items});
        match (resource, name) {
            ("assetforwarders", None) => Some(list(vec![self.forwarder.clone()])),
            ("assetforwarders", Some("assets")) => Some(self.forwarder.clone()),
            ("natsclusters", None) => Some(list(self.clusters.clone())),
            ("natsclusters", Some(name)) => {
                let mut clusters = self.clusters.iter();
                clusters.find(|cluster| cluster["metadata"]["name"] == name).cloned()
            }
            ("configmaps", Some("assets-ring")) => Some(Self::ring_map()),
            ("pods", None) => Some(self.pods(is_second)),
            _ => None,
        }
    }
}

type Answer = Response<Full<Bytes>>;

fn said(code: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Full::from(body.to_string()));
    *answer.status_mut() = code;
    answer
}

fn refused(code: StatusCode, message: &str, name: &str) -> Answer {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code.as_u16(),
        "details": {"name": name},
    });
    said(code, &status)
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let rest = path
        .strip_prefix(FANOUT)
        .or_else(|| path.strip_prefix(CORE))
        .unwrap_or_default();
    let parts: Vec<String> = rest.split('/').map(str::to_owned).collect();
    let resource = parts.get(2).or_else(|| parts.first()).cloned().unwrap_or_default();
    let name = parts.get(1).cloned();
    if state.lock().unwrap().forbidden.contains(&resource.as_str()) {
        let message = format!("{resource} is forbidden: User \"u\" cannot get resource \"{resource}\"");
        return Ok(refused(StatusCode::FORBIDDEN, &message, ""));
    }
    if resource == "portforward" {
        return Ok(forward(&state, request, &name.unwrap_or_default()));
    }
    let found = if request.method() == Method::PATCH {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let patch = serde_json::from_slice(&body).unwrap();
        state
            .lock()
            .unwrap()
            .patch(&resource, name.as_deref().unwrap_or_default(), &patch)
    } else {
        let is_second = request
            .uri()
            .query()
            .is_some_and(|query| query.contains("continue=second"));
        state.lock().unwrap().get(&resource, name.as_deref(), is_second)
    };
    Ok(match found {
        Some(found) => said(StatusCode::OK, &found),
        None => refused(StatusCode::NOT_FOUND, "not found", name.as_deref().unwrap_or_default()),
    })
}

/// Switches to a WebSocket, behind which a pod answers.
fn forward(state: &Arc<Mutex<State>>, request: Request<Incoming>, pod: &str) -> Answer {
    let number = PODS.iter().position(|name| *name == pod).unwrap();
    let (epoch, is_mute) = {
        let state = state.lock().unwrap();
        (state.epochs[number], state.mute == Some(pod))
    };
    let key = derive_accept_key(request.headers()[SEC_WEBSOCKET_KEY].as_bytes());
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(request).await.unwrap();
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        serve_pod(socket, epoch, is_mute).await;
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, key)
        .header(SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io")
        .body(Full::default())
        .unwrap()
}

/// Plays a forwarder's port: data is on channel 0, and each channel begins with the port.
async fn serve_pod<S>(mut socket: WebSocketStream<S>, epoch: u64, is_mute: bool)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    static COUNTED: AtomicU64 = AtomicU64::new(0);
    for channel in [0, 1] {
        let [low, high] = 4000_u16.to_le_bytes();
        socket
            .send(Message::Binary(vec![channel, low, high].into()))
            .await
            .unwrap();
    }
    let mut text = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(data) = message else {
            continue;
        };
        if is_mute || data.first() != Some(&0) {
            continue;
        }
        text.extend_from_slice(&data[1..]);
        if !text.ends_with(b"\r\n\r\n") {
            continue;
        }
        let body = if text.starts_with(b"GET /status ") {
            let cluster = json!({"connected": true, "pendingRecords": 3, "parkedRecords": 1});
            json!({
                "phase": "consuming",
                "ring": {"epoch": epoch},
                "assignment": {"0": {"state": "active", "lag": 12}},
                "clusters": {"C1": cluster, "C2": cluster},
            })
            .to_string()
        } else {
            let count = COUNTED.fetch_add(10, Ordering::Relaxed);
            let line =
                |cluster| format!("asset_forwarder_nats_messages_published_total{{cluster=\"{cluster}\"}} {count}\n");
            [line("C1"), line("C2")].concat()
        };
        text.clear();
        let answer = format!("\0HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        if socket.send(Message::Binary(answer.into_bytes().into())).await.is_err() {
            return;
        }
    }
}
