//! Answers over HTTP which cluster owns an asset, for each forwarder.
//!
//! Every replica answers, the leader or not, from memory: also while the API server is away.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use forwarder_core::fanout::table::Answer;
use forwarder_service::http::Server;
use forwarder_service::shutdown::Shutdown;
use serde::{Deserialize, Serialize};

use crate::index::rings::tables::NoTable;
use crate::index::rings::{Key, NoAnswer, Rings};

/// Answers from `rings` until `stop`.
pub async fn serve(server: Server, rings: Arc<Rings>, mut stop: Shutdown) {
    server
        .serve(routes(rings), false, async move { stop.requested().await })
        .await;
}

/// What is answered, from `rings`.
pub fn routes(rings: Arc<Rings>) -> Router {
    Router::new()
        .route("/asset/{id}", get(asset))
        .route("/forwarders", get(forwarders))
        .route("/forwarders/{namespace}/{name}/asset/{id}", get(asset_of))
        .route("/healthz", get(async || "ok\n"))
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "there is no such path; use GET /asset/{id}, /forwarders or /forwarders/{namespace}/{name}/asset/{id}",
            )
        })
        .with_state(rings)
}

/// Which forwarder's ring is meant, where there are several.
#[derive(Deserialize)]
struct Chosen {
    /// `namespace/name`.
    forwarder: Option<String>,
}

async fn asset(
    State(rings): State<Arc<Rings>>,
    Path(id): Path<String>,
    Query(chosen): Query<Chosen>,
) -> Result<Json<Answer>, Refusal> {
    let answer = match chosen.forwarder {
        None => rings.answer_of_only(id).await,
        Some(forwarder) => {
            let key = Key::parse(&forwarder).ok_or_else(|| {
                Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "the parameter forwarder must have the form namespace/name",
                )
            })?;
            rings.answer(&key, id).await
        }
    };
    Ok(Json(answer?))
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
    /// The epoch of its ring; none: it has none now.
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

/// An answer that is none, as JSON with a message.
struct Refusal {
    status: StatusCode,
    message: String,
    /// Those to choose from.
    forwarders: Vec<String>,
    /// In how many seconds it is worth asking again, where that is known.
    retry_after: Option<u64>,
}

/// Seconds after which a table is asked for again that could not be begun: about as long as the largest ones in front of it take.
const RETRY_AFTER: u64 = 2;

impl Refusal {
    fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            forwarders: Vec::new(),
            retry_after: None,
        }
    }
}

impl From<NoAnswer> for Refusal {
    fn from(why: NoAnswer) -> Self {
        let status = match &why {
            NoAnswer::NotRead
            | NoAnswer::NoRing(_)
            | NoAnswer::Idle(_)
            | NoAnswer::NoRoom(_)
            | NoAnswer::NoTable(..) => StatusCode::SERVICE_UNAVAILABLE,
            NoAnswer::Unknown(_) | NoAnswer::None => StatusCode::NOT_FOUND,
            NoAnswer::Several(_) => StatusCode::CONFLICT,
        };
        let mut refusal = Self::new(status, why.to_string());
        match why {
            NoAnswer::Several(forwarders) => {
                refusal.forwarders = forwarders.iter().map(ToString::to_string).collect();
            }
            NoAnswer::NoTable(_, NoTable::Busy { .. }) => refusal.retry_after = Some(RETRY_AFTER),
            _ => {}
        }
        refusal
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self {
            status,
            message,
            forwarders,
            retry_after,
        } = self;
        let mut body = serde_json::json!({ "error": message });
        if !forwarders.is_empty() {
            body["forwarders"] = forwarders.into();
        }
        let retry_after = retry_after.map(|seconds| [(header::RETRY_AFTER, seconds.to_string())]);
        (status, retry_after, Json(body)).into_response()
    }
}
