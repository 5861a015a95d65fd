//! Asks a server over HTTP how it is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use forwarder_service::http::client::{self, RequestError};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::decide::State;
use super::jetstream::Jsz;
use super::names::MONITOR_PORT;

/// A server answers from memory; what takes longer is no health.
const TIMEOUT: Duration = Duration::from_secs(3);

/// For what it says about streams: there may be thousands, and who takes long to list them is not ill.
const STREAMS_WITHIN: Duration = Duration::from_secs(5);

/// Thousands of streams and consumers are far below.
const MOST_BYTES: usize = 64 << 20;

/// What `/healthz` says.
#[derive(Deserialize)]
struct Health {
    #[serde(default)]
    status: String,
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct Varz {
    version: String,
}

#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("failed to read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to parse the answer")]
    Json(#[from] serde_json::Error),
}

/// How the server at this address is, and what it says about streams, if it says it.
pub(super) async fn ask(address: IpAddr, jet_stream: bool) -> (State, Option<Jsz>) {
    let state = match tokio::time::timeout(TIMEOUT, health(address)).await {
        Ok(Ok(state)) => state,
        Ok(Err(error)) => return (State::Unhealthy(error.to_string()), None),
        Err(_) => return (State::Unhealthy(format!("no answer within {TIMEOUT:?}")), None),
    };
    if !jet_stream {
        return (state, None);
    }
    let asked = get(address, "/jsz?accounts=true&streams=true&consumers=true&config=true");
    let jsz = tokio::time::timeout(STREAMS_WITHIN, asked).await;
    (state, jsz.ok().and_then(Result::ok))
}

async fn health(address: IpAddr) -> Result<State, AskError> {
    let health: Health = get(address, "/healthz").await?;
    if health.status != "ok" {
        let why = if health.error.is_empty() {
            "it reports that it is not healthy".to_owned()
        } else {
            health.error
        };
        return Ok(State::Unhealthy(why));
    }
    let varz: Varz = get(address, "/varz").await?;
    Ok(State::Healthy(varz.version))
}

async fn get<T: DeserializeOwned>(address: IpAddr, path: &str) -> Result<T, AskError> {
    let address = SocketAddr::new(address, MONITOR_PORT);
    let response = client::get(address, path).await?;
    let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
    Ok(serde_json::from_slice(&body.map_err(AskError::Body)?.to_bytes())?)
}
