//! Follows the rings of a forwarder, as server-sent events.
//!
//! A watcher is told of the newest state only. Nothing is queued for one that reads slowly: what changed meanwhile is one event for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use forwarder_core::fanout::table::Summary;
use forwarder_service::shutdown::Shutdown;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch as signal};
use tokio::time::Instant;

use super::chosen_key;
use super::clusters::Cluster;
use crate::index::rings::{Key, NoAnswer, Rings, View};
use crate::serve::router::{Chosen, PATIENCE, Refusal, Served};

/// Watchers at once, at most. The rest of the server's connections is for questions.
pub(in crate::serve::router) const MOST_WATCHERS: usize = 128;

/// Bytes of an event, at most. Each watcher may hold one: a hundred clusters take half of it during a change.
const MOST_OF_EVENT: usize = 128 << 10;

/// Silence after which a comment is sent, so that whoever stands in between does not end the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a watch lasts. The server would cut it a little later. Clients ask again with the ID of the last event, and miss nothing.
const LASTS: Duration = Duration::from_secs(PATIENCE.as_secs() - 30);

/// Seconds after which it is worth asking again.
const RETRY_AFTER: u64 = 5;

/// The header by which a client tells which event it has seen last.
const LAST_EVENT_ID: &str = "last-event-id";

/// The ID of the event that there are no members.
const IDLE: &str = "idle";

/// A ring in an event.
#[derive(Serialize)]
struct Ring<'a> {
    epoch: u64,
    /// Virtual nodes of a member of weight 1.
    replicas: u32,
    members: Vec<Weighted<'a>>,
}

#[derive(Serialize)]
struct Weighted<'a> {
    #[serde(flatten)]
    cluster: Cluster<'a>,
    weight: u32,
}

/// The data of an event.
#[derive(Serialize)]
struct Told<'a> {
    /// `namespace/name`.
    forwarder: String,
    /// The UID of the forwarder.
    uid: &'a str,
    phase: &'static str,
    /// As it is written.
    #[serde(flatten)]
    ring: Ring<'a>,
    /// The ring that pods may still use beside it.
    previous: Option<Ring<'a>>,
}

impl<'a> Ring<'a> {
    fn of(summary: &'a Summary) -> Self {
        let members = summary.members().map(|member| Weighted {
            weight: member.weight,
            cluster: Cluster::of(member),
        });
        Self {
            epoch: summary.epoch(),
            replicas: summary.replicas(),
            members: members.collect(),
        }
    }
}

/// `GET /v1/watch`.
pub(super) async fn watch(
    State(served): State<Served>,
    chosen: Result<Query<Chosen>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let key = chosen_key(&served, chosen)?;
    let Ok(permit) = Arc::clone(&served.watchers).try_acquire_owned() else {
        return Err(Refusal::busy(
            format!("there are {MOST_WATCHERS} watchers already; ask again in a moment, or ask another replica"),
            RETRY_AFTER,
        ));
    };
    let watcher = Watcher {
        uid: served.rings.uid(&key)?,
        changes: served.rings.changes(),
        rings: served.rings,
        key,
        seen: headers
            .get(LAST_EVENT_ID)
            .and_then(|id| id.to_str().ok())
            .map(str::to_owned),
        until: Instant::now() + LASTS,
        stop: served.stop,
        _permit: permit,
    };
    // What can be refused is refused before the stream begins.
    match watcher.now() {
        Now::Refused(why) => return Err(why),
        Now::Rings(_, view) => watcher.data(&view).map(|_| ())?,
        Now::Idle | Now::Nothing | Now::Gone => {}
    }
    let events = futures::stream::unfold(Some(watcher), |watcher| async move {
        let (event, watcher) = watcher?.next().await?;
        Some((Ok::<Event, Infallible>(event), watcher))
    });
    Ok(Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

/// One who follows the rings of a forwarder.
#[derive(Debug)]
struct Watcher {
    rings: Arc<Rings>,
    key: Key,
    /// A forwarder made anew is another one.
    uid: String,
    /// The ID of the last event that it has.
    seen: Option<String>,
    changes: signal::Receiver<()>,
    until: Instant,
    stop: Shutdown,
    _permit: OwnedSemaphorePermit,
}

/// What there is to tell at a moment.
enum Now {
    /// Its rings, with the ID of the event.
    Rings(String, View),
    /// It has no members now.
    Idle,
    /// It has no ring yet.
    Nothing,
    /// The forwarder is gone.
    Gone,
    /// It cannot be watched.
    Refused(Refusal),
}

impl Watcher {
    /// The next event, and who waits for the one after it; none: the watch is over.
    async fn next(mut self) -> Option<(Event, Option<Self>)> {
        // Looked at here as well: a ring that changes without a pause must not keep a watch open.
        while !self.stop.is_requested() && Instant::now() < self.until {
            // Before the look, so that no change gets lost between the look and the wait.
            self.changes.mark_unchanged();
            match self.now() {
                Now::Rings(id, view) if self.seen.as_deref() != Some(&*id) => {
                    // Whoever comes again is told why it cannot be watched any more.
                    let data = self.data(&view).ok()?;
                    let event = Event::default().event("ring").id(&id).data(data);
                    self.seen = Some(id);
                    return Some((event, Some(self)));
                }
                Now::Idle if self.seen.as_deref() != Some(IDLE) => {
                    self.seen = Some(IDLE.to_owned());
                    return Some((self.about("idle").id(IDLE), Some(self)));
                }
                Now::Gone => return Some((self.about("gone"), None)),
                Now::Refused(_) => return None,
                Now::Rings(..) | Now::Idle | Now::Nothing => {}
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = self.stop.requested() => {}
                () = tokio::time::sleep_until(self.until) => {}
            }
        }
        None
    }

    fn now(&self) -> Now {
        match self.rings.uid(&self.key) {
            Ok(uid) if uid == self.uid => {}
            Ok(_) | Err(NoAnswer::Unknown(_)) => return Now::Gone,
            Err(why) => return Now::Refused(why.into()),
        }
        match self.rings.view(&self.key) {
            Ok(view) if view.uid != self.uid => Now::Gone,
            Ok(view) => Now::Rings(view.identity(), view),
            Err(NoAnswer::Idle(_)) => Now::Idle,
            Err(NoAnswer::NoRing(_)) => Now::Nothing,
            Err(NoAnswer::Unknown(_)) => Now::Gone,
            Err(why) => Now::Refused(why.into()),
        }
    }

    fn data(&self, view: &View) -> Result<String, Refusal> {
        let told = Told {
            forwarder: self.key.to_string(),
            uid: &self.uid,
            phase: view.phase.name(),
            ring: Ring::of(&view.written),
            previous: view.before.as_deref().map(Ring::of),
        };
        let data = json!(told).to_string();
        if data.len() > MOST_OF_EVENT {
            return Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "the ring of the AssetForwarder {} is too large to be watched: {} bytes, and {MOST_OF_EVENT} is the limit; ask \
                     GET /v1/assets/{{id}} again and again",
                    self.key,
                    data.len()
                ),
            ));
        }
        Ok(data)
    }

    /// An event that names the forwarder alone.
    fn about(&self, event: &str) -> Event {
        let data = json!({"forwarder": self.key.to_string(), "uid": self.uid});
        Event::default().event(event).data(data.to_string())
    }
}
