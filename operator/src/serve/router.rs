//! Answers over HTTP which cluster owns an asset, for each forwarder.
//!
//! Every replica answers, the leader or not, from memory: also while the API server is away. The paths of `v1` tell more than the first
//! ones, which stay as they are for the clients that know them.

mod refusal;
#[cfg(test)]
mod tests;
mod v1;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRef, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use forwarder_core::fanout::table::Answer;
use forwarder_service::http::{Limits, Server};
use forwarder_service::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use self::refusal::Refusal;
use crate::index::rings::{Key, Rings};

/// How long a client may take for its answer. The server counts from the answer's head, so it is the longest time of a watch as well.
const PATIENCE: Duration = Duration::from_secs(300);

/// What all answers are made from.
#[derive(Clone, Debug)]
struct Served {
    rings: Arc<Rings>,
    /// Permits of questions about many assets.
    many: Arc<Semaphore>,
    /// Permits of watchers.
    watchers: Arc<Semaphore>,
    stop: Shutdown,
}

impl FromRef<Served> for Arc<Rings> {
    fn from_ref(served: &Served) -> Self {
        Self::clone(&served.rings)
    }
}

/// Answers from `rings` until `stop`.
pub async fn serve(server: Server, rings: Arc<Rings>, mut stop: Shutdown) {
    let limits = Limits {
        patience: PATIENCE,
        ..Limits::default()
    };
    let routes = routes(rings, stop.clone());
    let server = server.with_limits(limits);
    server.serve(routes, false, async move { stop.requested().await }).await;
}

/// What is answered, from `rings`; watches end at `stop`.
pub fn routes(rings: Arc<Rings>, stop: Shutdown) -> Router {
    let served = Served {
        rings,
        many: Arc::new(Semaphore::new(v1::MOST_BULKS)),
        watchers: Arc::new(Semaphore::new(v1::MOST_WATCHERS)),
        stop,
    };
    let with = |router: Router<Served>, (path, methods): (&str, _)| router.route(path, methods);
    let first = first_paths().into_iter().fold(Router::new(), with);
    let v1 = v1::paths().into_iter().fold(Router::new(), with);
    first
        .merge(v1.method_not_allowed_fallback(v1::not_allowed))
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "there is no such path; use GET /asset/{id}, /forwarders or /forwarders/{namespace}/{name}/asset/{id}",
            )
        })
        .with_state(served)
}

/// The paths that were first.
fn first_paths() -> Vec<(&'static str, MethodRouter<Served>)> {
    vec![
        ("/asset/{id}", get(asset)),
        ("/forwarders", get(forwarders)),
        ("/forwarders/{namespace}/{name}/asset/{id}", get(asset_of)),
        ("/healthz", get(async || "ok\n")),
        ("/openapi.json", get(open_api)),
    ]
}

/// What is answered at each path, in the form of OpenAPI 3.1. A test compares it with the paths that there are.
const OPEN_API: &str = include_str!("router/openapi.json");

async fn open_api() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPEN_API).into_response()
}

/// Which forwarder's ring is meant, where there are several.
#[derive(Deserialize)]
struct Chosen {
    /// `namespace/name`.
    forwarder: Option<String>,
}

impl Chosen {
    /// The forwarder that is meant. Where none is named, there must be one only.
    fn key(self, rings: &Rings) -> Result<Key, Refusal> {
        let Some(forwarder) = self.forwarder else {
            return Ok(rings.only()?);
        };
        Key::parse(&forwarder).ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "the parameter forwarder must have the form namespace/name",
            )
        })
    }
}

async fn asset(
    State(rings): State<Arc<Rings>>,
    Path(id): Path<String>,
    Query(chosen): Query<Chosen>,
) -> Result<Json<Answer>, Refusal> {
    let key = chosen.key(&rings)?;
    Ok(Json(rings.answer(&key, id).await?))
}

async fn asset_of(
    State(rings): State<Arc<Rings>>,
    Path((namespace, name, id)): Path<(String, String, String)>,
) -> Result<Json<Answer>, Refusal> {
    Ok(Json(rings.answer(&Key { namespace, name }, id).await?))
}

/// A forwarder in the list of all.
#[derive(Serialize)]
struct Listed {
    namespace: String,
    name: String,
    /// The epoch of its ring in use; none: it has none now.
    ring_epoch: Option<u64>,
}

async fn forwarders(State(rings): State<Arc<Rings>>) -> Result<Response, Refusal> {
    let listed: Vec<Listed> = rings
        .list()?
        .into_iter()
        .map(|(Key { namespace, name }, ring_epoch)| Listed {
            namespace,
            name,
            ring_epoch,
        })
        .collect();
    Ok(Json(serde_json::json!({ "forwarders": listed })).into_response())
}
