//! Who owns many assets: one question, and an answer in pieces.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use std::vec::IntoIter;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use forwarder_core::fanout::ring::LeanRing;
use forwarder_core::fanout::table::Summary;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::clusters::Cluster;
use super::{Ring, check, viewed};
use crate::index::rings::{Owners, View};
use crate::serve::router::{Chosen, Refusal, Served};

/// Such questions that are answered at once, at most. Each may hold a few MiB.
pub(in crate::serve::router) const MOST_BULKS: usize = 8;

/// Assets in one question, at most.
const MOST_IDS: usize = 10_000;

/// Bytes of a question, at most.
const MOST_OF_QUESTION: usize = 2 << 20;

/// How long a question may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer, at most. It is reached only where a cluster has very many URLs.
const MOST_OF_ANSWER: usize = 64 << 20;

/// Bytes of a piece of an answer, about.
const PIECE: usize = 32 << 10;

/// Characters of a message about a question, at most.
const MOST_OF_MESSAGE: usize = 500;

/// Seconds after which it is worth asking again.
const RETRY_AFTER: u64 = 1;

/// A question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    ids: Ids,
}

/// The assets that are asked for. It ends at the bound: a body of 2 MiB has room for 700,000 empty texts.
#[derive(Debug)]
struct Ids(Vec<String>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Assets)
    }
}

struct Assets;

impl<'de> Visitor<'de> for Assets {
    type Value = Ids;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of asset ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ids, A::Error> {
        let mut ids = Vec::new();
        while let Some(id) = list.next_element::<String>()? {
            if ids.len() == MOST_IDS {
                return Err(A::Error::custom(format!("at most {MOST_IDS} ids in one question")));
            }
            check(&id).map_err(A::Error::custom)?;
            ids.push(id);
        }
        Ok(Ids(ids))
    }
}

/// `POST /v1/assets`.
pub(super) async fn assets(
    State(served): State<Served>,
    chosen: Result<Query<Chosen>, QueryRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    // Before the body is read, which takes memory.
    let Ok(permit) = Arc::clone(&served.many).try_acquire_owned() else {
        return Err(Refusal::busy(
            format!("the router is answering {MOST_BULKS} questions about many assets; ask again in a moment"),
            RETRY_AFTER,
        ));
    };
    let Asked { ids: Ids(ids) } = asked(request).await?;
    let (key, view) = viewed(&served, chosen)?;
    let owners = served.rings.owners(&key, &view).await?;
    let clusters = Clusters::of(&view);
    let bytes = clusters.most_of_an_asset().saturating_mul(ids.len());
    if bytes > MOST_OF_ANSWER {
        let fits = MOST_OF_ANSWER / clusters.most_of_an_asset();
        return Err(Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!(
                "the answer would be too large, because the clusters have many URLs; ask for at most {fits} assets at once"
            ),
        ));
    }
    let answer = Answer {
        begun: format!("{{\"ring\":{},\"assets\":[", json!(Ring::of(&view))),
        separator: "",
        ids: Some(ids.into_iter()),
        owners,
        clusters,
        _permit: permit,
    };
    let pieces = futures::stream::unfold(answer, |mut answer| async move {
        let piece = answer.piece()?;
        Some((Ok::<Bytes, Infallible>(piece), answer))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// The question in a request.
async fn asked(mut request: Request) -> Result<Asked, Refusal> {
    DefaultBodyLimit::max(MOST_OF_QUESTION).apply(&mut request);
    match timeout(PATIENCE, Json::<Asked>::from_request(request, &())).await {
        Ok(Ok(Json(asked))) => Ok(asked),
        // What is quoted of the question may be long.
        Ok(Err(error)) => {
            let message: String = error.body_text().chars().take(MOST_OF_MESSAGE).collect();
            Err(Refusal::new(error.status(), message))
        }
        Err(_) => Err(Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", PATIENCE.as_secs()),
        )),
    }
}

/// The members of the rings as they are in the answer, in the order of the rings.
#[derive(Debug)]
struct Clusters {
    written: Vec<String>,
    before: Vec<String>,
}

impl Clusters {
    fn of(view: &View) -> Self {
        let members = |summary: &Arc<Summary>| -> Vec<String> {
            let clusters = summary.members().map(Cluster::of);
            clusters.map(|cluster| json!(cluster).to_string()).collect()
        };
        Self {
            written: members(&view.written),
            before: view.before.as_ref().map(members).unwrap_or_default(),
        }
    }

    /// Bytes that one asset may take besides its id.
    fn most_of_an_asset(&self) -> usize {
        /// Names of fields, and marks.
        const REST: usize = 64;
        let longest = |clusters: &[String]| clusters.iter().map(String::len).max().unwrap_or(0);
        longest(&self.written) + longest(&self.before) + REST
    }
}

/// An answer on its way. The next piece is made when the client has taken the ones before.
#[derive(Debug)]
struct Answer {
    /// What comes before the next asset.
    begun: String,
    separator: &'static str,
    /// Those that are left; none: the answer is complete.
    ids: Option<IntoIter<String>>,
    owners: Owners,
    clusters: Clusters,
    _permit: OwnedSemaphorePermit,
}

impl Answer {
    fn piece(&mut self) -> Option<Bytes> {
        let mut ids = self.ids.take()?;
        let mut piece = std::mem::take(&mut self.begun);
        while piece.len() < PIECE {
            let Some(id) = ids.next() else {
                piece.push_str("]}");
                return Some(piece.into());
            };
            let owner = named(&self.clusters.written, &self.owners.written, &id);
            let before = self.owners.before.as_ref();
            let previous = before.map(|ring| named(&self.clusters.before, ring, &id));
            let previous = previous.filter(|previous| *previous != owner).unwrap_or(NONE);
            for part in [
                self.separator,
                "{\"asset_id\":",
                &json!(id).to_string(),
                ",\"owner\":",
                owner,
                ",\"previous\":",
                previous,
                "}",
            ] {
                piece.push_str(part);
            }
            self.separator = ",";
        }
        self.ids = Some(ids);
        Some(piece.into())
    }
}

/// No cluster.
const NONE: &str = "null";

/// The owner of an asset by `ring`, whose members are `clusters`.
fn named<'a>(clusters: &'a [String], ring: &LeanRing, asset: &str) -> &'a str {
    clusters.get(ring.owner(asset.as_bytes())).map_or(NONE, String::as_str)
}
