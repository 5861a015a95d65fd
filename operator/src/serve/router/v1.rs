//! The answers of version 1. They tell both owners of an asset during a move, and clients may follow a ring.
//!
//! Anybody may ask, and anybody may declare a ring of 1 MiB. So each answer, and how many of the large ones there are at once, has a bound.

mod cached;
mod clusters;
mod many;
mod watch;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use serde::Serialize;

use self::cached::Cached;
use self::clusters::Cluster;
pub(super) use self::many::MOST_BULKS;
pub(super) use self::watch::MOST_WATCHERS;
use super::{Chosen, Refusal, Served};
use crate::index::rings::{Key, View};

/// Characters of an asset's name, at most. With escapes it has room in the head of a request.
const MOST_OF_ID: usize = 512;

/// The paths of version 1.
pub(super) fn paths() -> Vec<(&'static str, MethodRouter<Served>)> {
    vec![
        ("/v1/assets", post(many::assets)),
        ("/v1/assets/{id}", get(asset)),
        ("/v1/watch", get(watch::watch)),
    ]
}

/// The answer to a method that a path does not have. The header `Allow` names those that it has.
pub(super) async fn not_allowed() -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "the path has no such method; the header Allow names those that it has",
    )
}

/// Which ring an answer is from.
#[derive(Serialize)]
struct Ring {
    /// Of the ring as it is written.
    epoch: u64,
    /// How far that ring is.
    phase: &'static str,
}

impl Ring {
    fn of(view: &View) -> Self {
        Self {
            epoch: view.written.epoch(),
            phase: view.phase.name(),
        }
    }
}

/// Who owns an asset.
#[derive(Serialize)]
struct Owned<'a> {
    asset_id: &'a str,
    /// By the ring as it is written.
    owner: Cluster<'a>,
    /// By the ring before it, where that is another cluster or has other servers.
    previous: Option<Cluster<'a>>,
    ring: Ring,
}

async fn asset(
    State(served): State<Served>,
    id: Result<Path<String>, PathRejection>,
    chosen: Result<Query<Chosen>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let Path(id) = id.map_err(|error| Refusal::new(error.status(), error.body_text()))?;
    check(&id).map_err(|message| Refusal::new(StatusCode::BAD_REQUEST, message))?;
    let (key, view) = viewed(&served, chosen)?;
    let cached = Cached::of(&view);
    if cached.is_known(&headers) {
        return Ok(cached.not_modified());
    }
    let owners = served.rings.owners(&key, &view).await?;
    let by = |summary, ring| Cluster::owner(summary, ring, &id).ok_or_else(no_owner);
    let owner = by(&*view.written, &*owners.written)?;
    let previous = match view.before.as_ref().zip(owners.before.as_ref()) {
        Some((summary, ring)) => Some(by(summary, ring)?),
        None => None,
    };
    let owned = Owned {
        asset_id: &id,
        previous: previous.filter(|previous| *previous != owner),
        owner,
        ring: Ring::of(&view),
    };
    Ok((cached.headers(), Json(owned)).into_response())
}

/// The forwarder that is meant, and its rings.
fn viewed(served: &Served, chosen: Result<Query<Chosen>, QueryRejection>) -> Result<(Key, View), Refusal> {
    let key = chosen_key(served, chosen)?;
    let view = served.rings.view(&key)?;
    Ok((key, view))
}

fn chosen_key(served: &Served, chosen: Result<Query<Chosen>, QueryRejection>) -> Result<Key, Refusal> {
    let Query(chosen) = chosen.map_err(|error| Refusal::new(error.status(), error.body_text()))?;
    chosen.key(&served.rings)
}

/// What is wrong with an asset's name.
fn check(id: &str) -> Result<(), String> {
    match id.chars().nth(MOST_OF_ID) {
        _ if id.is_empty() => Err("an asset's id must not be empty".to_owned()),
        Some(_) => Err(format!("an asset's id must have at most {MOST_OF_ID} characters")),
        None => Ok(()),
    }
}

/// No checked ring is so.
fn no_owner() -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "the ring names no server of the cluster that owns the asset",
    )
}
