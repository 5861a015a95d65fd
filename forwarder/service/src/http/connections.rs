//! The connections of a server: how many, and for how long. A client that sends nothing, or opens thousands of connections, costs
//! no more than these bounds, and whoever asks at once is answered meanwhile.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::Instant;
use tracing::{debug, warn};

/// What a request's head may be, with all its headers. Nobody sends us more, and every connection may hold as much.
const MAX_HEAD: usize = 16 << 10;

/// Pause after the system has refused a connection: it has no descriptor or memory left for now.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// A line per interval about connections that were closed to make room.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The bounds of a server's clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once. One more closes the one that has asked nothing for longest, or is refused where all are being
    /// answered.
    pub connections: usize,
    /// How long a connection may take for a request's head, the next request, or taking its answer.
    pub patience: Duration,
    /// How long answers may take that are under way when the server is to stop.
    pub farewell: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            patience: Duration::from_secs(30),
            farewell: Duration::from_secs(5),
        }
    }
}

/// What a connection did last.
#[derive(Debug)]
struct Activity {
    start: Instant,
    /// Milliseconds from `start` to when the last request came or the last answer was made.
    changed: AtomicU64,
    /// A request is being answered.
    answering: AtomicBool,
}

impl Activity {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            changed: AtomicU64::new(0),
            answering: AtomicBool::new(false),
        }
    }

    fn change(&self, answering: bool) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.changed.store(millis, Ordering::Relaxed);
        self.answering.store(answering, Ordering::Relaxed);
    }

    fn changed_at(&self) -> Instant {
        self.start + Duration::from_millis(self.changed.load(Ordering::Relaxed))
    }

    fn is_answering(&self) -> bool {
        self.answering.load(Ordering::Relaxed)
    }
}

/// Answers until `shutdown` completes, and then what is being asked, within the bound for that.
pub(super) async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(false);
    let mut connections = Connections::new(limits);
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.tasks.join_next_with_id() => connections.forget(ended.map_or_else(|error| error.id(), |(id, ())| id)),
            stream = accept(&listener) => {
                if connections.make_room() {
                    connections.begin(stream, router.clone(), stopping.clone());
                }
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all_ended = async { while connections.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.farewell, all_ended).await.is_err() {
        debug!("some HTTP connections did not end in time; closing them");
    }
}

/// The next connection. What the system has against one is no reason to give up the others.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                warn!(%error, "failed to accept an HTTP connection; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

struct Connections {
    limits: Limits,
    /// Dropped with this, which closes what is left.
    tasks: JoinSet<()>,
    open: HashMap<Id, (AbortHandle, Arc<Activity>)>,
    /// When it was said last that there are too many.
    logged: Option<Instant>,
}

impl Connections {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            tasks: JoinSet::new(),
            open: HashMap::new(),
            logged: None,
        }
    }

    fn begin(&mut self, stream: TcpStream, router: Router, stopping: watch::Receiver<bool>) {
        let activity = Arc::new(Activity::new());
        let handle = self
            .tasks
            .spawn(converse(stream, router, Arc::clone(&activity), self.limits, stopping));
        self.open.insert(handle.id(), (handle, activity));
    }

    fn forget(&mut self, id: Id) {
        self.open.remove(&id);
    }

    /// Whether there is room for one more connection, for which another one may be closed.
    fn make_room(&mut self) -> bool {
        if self.open.len() < self.limits.connections {
            return true;
        }
        let idle = self.open.iter().filter(|(_, (_, activity))| !activity.is_answering());
        let longest = idle.min_by_key(|(_, (_, activity))| activity.changed_at());
        let longest = longest.map(|(id, _)| *id);
        if self.logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            self.logged = Some(Instant::now());
            warn!(
                connections = self.open.len(),
                "too many open HTTP connections; closing those that have been idle the longest"
            );
        }
        let Some((handle, _)) = longest.and_then(|id| self.open.remove(&id)) else {
            return false;
        };
        handle.abort();
        true
    }
}

/// One connection, from its first request to its end.
async fn converse(
    stream: TcpStream,
    router: Router,
    activity: Arc<Activity>,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
) {
    let router = TowerToHyperService::new(router);
    let answering = Arc::clone(&activity);
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let activity = Arc::clone(&answering);
        activity.change(true);
        let answer = router.call(request);
        async move {
            let answer: Result<Response, Infallible> = answer.await;
            // From now on it is the client's turn: to take the answer, and to ask again.
            activity.change(false);
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.patience)
        .max_buf_size(MAX_HEAD);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let mut leaving = false;
    loop {
        let patient_until = activity.changed_at() + limits.patience;
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    debug!(error = crate::chain(&error), "an HTTP connection has ended");
                }
                return;
            }
            () = tokio::time::sleep_until(patient_until) => {
                if activity.changed_at() + limits.patience <= Instant::now() {
                    debug!("an HTTP connection was silent for too long; closing it");
                    return;
                }
            }
            _ = stopping.wait_for(|stop| *stop), if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
