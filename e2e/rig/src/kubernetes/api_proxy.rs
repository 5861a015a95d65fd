//! A proxy before the API server that fails as networks and API servers do, or lets an operator be killed right after a write.
//!
//! ```text
//! operator ── HTTP ──▶ proxy ── HTTPS, as an administrator in the operator's name ──▶ API server
//! ```

mod call;
mod fault;
mod gate;

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

pub use self::call::{Call, Verb};
pub use self::fault::{Fault, Rule};
pub use self::gate::Moment;

use self::fault::Rules;
use self::gate::{Gate, Passage};

/// How long an operator is given to write again, before it counts as one that does not.
const MORE: Duration = Duration::from_millis(150);

/// A proxy; it ends when this is dropped.
pub struct ApiProxy {
    address: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    client: Client,
    rules: Mutex<Rules>,
    gate: Gate,
    // Every request that came, and every write that was done.
    requests: Mutex<Vec<Call>>,
    writes: Mutex<Vec<Call>>,
    // What becomes of the watches that there are, at each change.
    watches: watch::Sender<Turn>,
}

/// What the watches that there are do at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// They say nothing more, and their connections stay.
    Silent,
    /// They end.
    Ended,
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

impl ApiProxy {
    /// Starts one before the API server of this client, which must not try again by itself.
    pub async fn start(client: Client) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("failed to listen")?;
        let address = listener.local_addr().context("failed to read an address")?.to_string();
        let shared = Arc::new(Shared {
            client,
            rules: Mutex::default(),
            gate: Gate::default(),
            requests: Mutex::default(),
            writes: Mutex::default(),
            watches: watch::Sender::new(Turn::Ended),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client that goes through it, as an administrator.
    pub fn client(&self) -> Result<Client> {
        let url = self.url().parse().context("the proxy has no URL")?;
        Client::try_from(Config::new(url)).context("failed to make a client of the proxy")
    }

    /// From now on these rules hold, and no others.
    pub fn set(&self, rules: &[Rule]) {
        *lock(&self.shared.rules) = Rules::new(rules);
    }

    /// The watches that there are say nothing more, and their connections stay. New ones are as ever.
    pub fn silence_watches(&self) {
        self.shared.watches.send_replace(Turn::Silent);
    }

    /// The watches that there are end, as they do when an API server is restarted.
    pub fn end_watches(&self) {
        self.shared.watches.send_replace(Turn::Ended);
    }

    /// The next write, Leases and Events aside, is the last one that passes; what it was is told at that moment.
    pub fn arm(&self, moment: Moment) -> oneshot::Receiver<Call> {
        self.shared.gate.arm(moment)
    }

    /// All writes pass again.
    pub fn open(&self) {
        self.shared.gate.open();
    }

    /// Every request since the start or the last call of this.
    pub fn take_requests(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.shared.requests))
    }

    /// Every write that was done since the start or the last call of this, Leases and Events aside.
    pub fn take_writes(&self) -> Vec<Call> {
        std::mem::take(&mut lock(&self.shared.writes))
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The connections end with this.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(connection(stream, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { shared.answer(request).await }
    });
    // Whoever cuts a connection wants it to fail.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

impl Shared {
    /// An error ends the connection without an answer.
    async fn answer(self: &Arc<Self>, request: Request<Incoming>) -> io::Result<Answer> {
        let call = Call::of(request.method(), request.uri());
        let fault = call.as_ref().and_then(|call| {
            lock(&self.requests).push(call.clone());
            lock(&self.rules).befalls(call)
        });
        match fault {
            None | Some(Fault::CutAfter) => {}
            Some(Fault::Refuse(code)) => return Ok(refusal(code)),
            Some(Fault::Expire) => return Ok(expired()),
            Some(Fault::Delay(delay)) => sleep(delay).await,
            Some(Fault::Cut) => return Err(io::ErrorKind::ConnectionReset.into()),
            Some(Fault::Hang) => return never().await,
        }
        let counts = call.filter(|call| call.verb.is_write() && !call.is_aside());
        let watches = is_watch(&request);
        let passage = counts.as_ref().map_or(Passage::Free, |_| self.gate.enter());
        if passage == Passage::Never {
            return never().await;
        }
        let answer = if let Some(call) = counts {
            // A task of its own: who has asked may be dead by now, and what has begun is carried out all the same.
            let carried_out = tokio::spawn(Arc::clone(self).write(request, call, passage));
            match carried_out.await.map_err(io::Error::other)? {
                Some(answer) => answer,
                None => return never().await,
            }
        } else {
            self.pass(request).await
        };
        if fault == Some(Fault::CutAfter) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let (head, body) = answer.map_err(io::Error::other)?.into_parts();
        let body = if watches {
            self.until_turned(body)
        } else {
            body.boxed_unsync()
        };
        let mut answer = Response::from_parts(head, body);
        // They are about the other connection.
        for name in [CONNECTION, TRANSFER_ENCODING] {
            answer.headers_mut().remove(name);
        }
        Ok(answer)
    }

    /// None: whoever asked is not to be told.
    async fn write(
        self: Arc<Self>,
        request: Request<Incoming>,
        call: Call,
        passage: Passage,
    ) -> Option<kube::Result<Response<Body>>> {
        let answer = self.pass(request).await;
        let done = answer.as_ref().is_ok_and(|answer| answer.status().is_success());
        if done {
            lock(&self.writes).push(call.clone());
        }
        if passage == Passage::Last {
            if !self.gate.done(&call, done) {
                return None;
            }
            tokio::spawn(async move {
                sleep(MORE).await;
                self.gate.expire();
            });
        }
        Some(answer)
    }

    async fn pass(&self, request: Request<Incoming>) -> kube::Result<Response<Body>> {
        let (mut head, body) = request.into_parts();
        let body = body.collect().await.map_err(kube::Error::HyperError)?.to_bytes();
        for name in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
            head.headers.remove(name);
        }
        self.client.send(Request::from_parts(head, Body::from(body))).await
    }

    /// The body, until its own end or the turn of all watches.
    fn until_turned(&self, body: Body) -> UnsyncBoxBody<Bytes, kube::Error> {
        let state = (body.into_data_stream(), self.watches.subscribe());
        let frames = stream::unfold(state, |(mut data, mut watches)| async move {
            tokio::select! {
                // The sender lives as long as any connection does.
                Ok(()) = watches.changed() => {
                    if *watches.borrow_and_update() == Turn::Silent {
                        return never().await;
                    }
                    None
                }
                next = data.next() => Some((next?.map(Frame::data), (data, watches))),
            }
        });
        StreamBody::new(frames).boxed_unsync()
    }
}

/// Until the connection ends.
async fn never<T>() -> T {
    std::future::pending().await
}

fn is_watch(request: &Request<Incoming>) -> bool {
    Call::of(request.method(), request.uri()).is_some_and(|call| call.verb == Verb::Watch)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refusal(code: u16) -> Answer {
    let mut answer = answer(code, &status(code).to_string());
    if code == 429 {
        answer.headers_mut().insert(RETRY_AFTER, 1.into());
    }
    answer
}

fn expired() -> Answer {
    answer(200, &format!("{}\n", json!({"type": "ERROR", "object": status(410)})))
}

fn status(code: u16) -> serde_json::Value {
    let reason = match code {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({
        "apiVersion": "v1",
        "kind": "Status",
        "metadata": {},
        "status": "Failure",
        "message": "the proxy of a test says so",
        "reason": reason,
        "code": code,
    })
}

fn answer(code: u16, json: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(json.as_bytes())).map_err(|never: Infallible| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = hyper::StatusCode::from_u16(code).unwrap_or_default();
    answer.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    answer
}
