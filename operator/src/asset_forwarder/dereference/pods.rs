//! What there is of a forwarder, and what its pods say.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forwarder_core::status::Status;
use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tracing::debug;

use super::{DereferenceError, Existing};
use crate::asset_forwarder::names::{self, Identity};
use crate::asset_forwarder::pods::{Observed, Process};
use crate::context::Context;

/// A pod answers from memory; what takes longer is as good as no answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A status of thousands of partitions and hundreds of clusters is far below; a stranger's endless answer is not read to its end.
const MOST_BYTES: usize = 8 << 20;

/// How many pods are asked at once.
const AT_ONCE: usize = 64;

pub(super) async fn existing(context: &Context, identity: &Identity) -> Result<Existing, DereferenceError> {
    let deployment = get::<Deployment>(context, identity, &identity.name).await?;
    // By their labels, whoever owns them: pods whose Deployment is gone drain for a while, or live on as orphans, and publish all the same.
    let replica_sets = list::<ReplicaSet>(context, identity, &identity.selector_text()).await?;
    let pods = list::<Pod>(context, identity, &identity.selector_text()).await?;
    let configs = format!(
        "{}={},{}={}",
        names::FORWARDER,
        identity.name,
        names::COMPONENT,
        names::CONFIG
    );
    let configs = list::<PartialObjectMeta<ConfigMap>>(context, identity, &configs).await?;
    let owner = [identity.uid.clone()];
    Ok(Existing {
        ring: get(context, identity, &identity.ring_map()).await?,
        credentials: get::<Secret>(context, identity, &identity.credentials()).await?,
        deployment,
        replica_sets,
        configs: configs.into_iter().filter(|config| is_owned(config, &owner)).collect(),
        pods: ask(pods.iter().filter_map(Observed::of).collect()).await,
    })
}

/// A child; one of that name that belongs to somebody else is none.
async fn get<K>(context: &Context, identity: &Identity, name: &str) -> Result<Option<K>, DereferenceError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(context.client.clone(), &identity.namespace);
    let found = api
        .get_opt(name)
        .await
        .map_err(DereferenceError::api(format!("the {} {name}", K::kind(&()))))?;
    Ok(found.filter(|found| is_owned(found, std::slice::from_ref(&identity.uid))))
}

async fn list<K>(context: &Context, identity: &Identity, labels: &str) -> Result<Vec<K>, DereferenceError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(context.client.clone(), &identity.namespace);
    let listed = api
        .list(&ListParams::default().labels(labels))
        .await
        .map_err(DereferenceError::api(format!(
            "the {}s of {}",
            K::kind(&()),
            identity.name
        )))?;
    Ok(listed.items)
}

fn is_owned(object: &impl Resource, owners: &[String]) -> bool {
    let mut controllers = object
        .owner_references()
        .iter()
        .filter(|owner| owner.controller == Some(true));
    controllers.any(|owner| owners.contains(&owner.uid))
}

/// Asks all pods that run for their status, at once. Who does not answer has no report.
async fn ask(pods: Vec<Observed>) -> Vec<Observed> {
    let asked = futures::stream::iter(pods).map(|pod| async move {
        let address = pod.address.as_ref().and_then(|address| address.parse::<IpAddr>().ok());
        let mut report = None;
        if let (Process::Running, Some(address)) = (pod.process, address) {
            match tokio::time::timeout(TIMEOUT, status(SocketAddr::new(address, names::PORT))).await {
                Ok(Ok(status)) => report = Some(status),
                Ok(Err(error)) => debug!(pod = pod.name, %error, "does not tell its status"),
                Err(_) => debug!(pod = pod.name, "does not tell its status in time"),
            }
        }
        pod.heard(report, Timestamp::now())
    });
    let mut pods: Vec<Observed> = asked.buffer_unordered(AT_ONCE).collect().await;
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("failed to connect: {0}")]
    Connect(#[from] std::io::Error),
    #[error("failed to ask: {0}")]
    Http(#[from] hyper::Error),
    #[error("failed to make a request: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("failed to read the answer: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to understand the answer: {0}")]
    Json(#[from] serde_json::Error),
}

async fn status(address: SocketAddr) -> Result<Status, AskError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/status")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        Ok(serde_json::from_slice(&body.map_err(AskError::Body)?.to_bytes())?)
    };
    // The connection is driven beside, and ends with the answer.
    tokio::select! {
        answer = answer => answer,
        Err(error) = connection => Err(error.into()),
    }
}
