//! One replica reconciles: the one that holds the Lease.
//! Clocks of machines are not compared. A waiting replica measures by its own clock for how long the Lease has not changed. Writes
//! carry the version that was read, so if two replicas take the Lease at once, one fails.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forwarder_service::shutdown::Shutdown;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use tracing::{info, warn};

use crate::error::describe;

/// How long a Lease holds that is not renewed.
const DURATION: Duration = Duration::from_secs(15);
/// Who could not renew for so long stops by itself, well before others may begin.
const RENEW_WITHIN: Duration = Duration::from_secs(8);
/// The time between two tries.
const INTERVAL: Duration = Duration::from_secs(2);
/// A call that takes longer has failed. An API server that thousands of objects keep busy answers after seconds, so there is room for a
/// second one.
const CALL: Duration = Duration::from_secs(4);

/// A candidate, or the holder.
pub struct Candidate {
    api: Api<Lease>,
    lease: String,
    identity: String,
    /// The Lease after our last renewal: the next one is one request for as long as nobody else writes it.
    written: Mutex<Option<Lease>>,
}

/// How holding the Lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We were asked to stop.
    Stopped,
    /// It could not be renewed in time, or another replica has it.
    Lost,
}

/// What the Lease lets a candidate do.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// Ours already.
    Ours,
    /// Free, released, or not renewed for as long as it holds.
    Free,
    /// Somebody else's.
    Taken,
}

/// The version of the Lease that was seen last, and since when.
#[derive(Debug)]
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Candidate {
    /// A candidate. Its client has short timeouts and does not retry: a renewal that comes late is worth nothing.
    ///
    /// # Errors
    /// The client cannot be made.
    pub fn new(mut config: Config, namespace: &str, lease: &str, identity: &str) -> kube::Result<Self> {
        config.default_retry = false;
        config.connect_timeout = Some(CALL);
        config.read_timeout = Some(CALL);
        config.write_timeout = Some(CALL);
        config.reset_reader_on_write = true;
        Ok(Self {
            api: Api::namespaced(Client::try_from(config)?, namespace),
            lease: lease.to_owned(),
            identity: identity.to_owned(),
            written: Mutex::default(),
        })
    }

    /// Waits until the Lease is ours, and yields when the call that took it began: from then on it holds. None: we were asked to stop.
    pub async fn acquire(&self, stop: &mut Shutdown) -> Option<Instant> {
        let mut seen = Seen {
            version: None,
            since: Instant::now(),
        };
        info!(lease = self.lease, identity = self.identity, "waiting for the Lease");
        loop {
            let begin = Instant::now();
            match within(self.try_acquire(&mut seen)).await {
                Ok(true) => return Some(begin),
                Ok(false) => {}
                Err(error) => warn!(error, "failed to acquire the Lease"),
            }
            tokio::select! {
                () = stop.requested() => return None,
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    /// Renews the Lease until it is lost or we are asked to stop. `renewed`: since when it holds.
    pub async fn hold(&self, renewed: &mut Instant, stop: &mut Shutdown) -> End {
        let mut next = Instant::now() + INTERVAL;
        loop {
            tokio::select! {
                () = stop.requested() => return End::Stopped,
                () = tokio::time::sleep_until(next.into()) => {}
            }
            let begin = Instant::now();
            // After a call that took all its time the next one begins at once.
            next = begin + INTERVAL;
            match within(self.try_renew()).await {
                Ok(true) => *renewed = begin,
                Ok(false) => return End::Lost,
                Err(error) => warn!(error, "failed to renew the Lease"),
            }
            if renewed.elapsed() >= RENEW_WITHIN {
                return End::Lost;
            }
        }
    }

    /// Gives the Lease up, so that another replica need not wait for its end.
    pub async fn release(&self) {
        let released = within(async {
            let Some(mut lease) = self.api.get_opt(&self.lease).await? else {
                return Ok(());
            };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() == Some(&self.identity) {
                spec.holder_identity = None;
                spec.renew_time = Some(MicroTime(Timestamp::now()));
                self.api.replace(&self.lease, &PostParams::default(), &lease).await?;
            }
            Ok(())
        });
        match released.await {
            Ok(()) => info!(lease = self.lease, "released the Lease"),
            Err(error) => warn!(error, "failed to release the Lease; it expires by itself"),
        }
    }

    async fn try_acquire(&self, seen: &mut Seen) -> kube::Result<bool> {
        let params = PostParams::default();
        let Some(lease) = self.api.get_opt(&self.lease).await? else {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(self.lease.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.taken(0)),
            };
            return won(self.api.create(&params, &lease).await);
        };
        if seen.version != lease.metadata.resource_version {
            seen.version.clone_from(&lease.metadata.resource_version);
            seen.since = Instant::now();
        }
        match standing(lease.spec.as_ref(), &self.identity, seen.since.elapsed()) {
            Standing::Taken => Ok(false),
            // Ours from before a restart of the process: the pod's name has stayed.
            Standing::Ours | Standing::Free => {
                let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions).unwrap_or(0);
                let lease = Lease {
                    spec: Some(self.taken(transitions.saturating_add(1))),
                    ..lease
                };
                won(self.api.replace(&self.lease, &params, &lease).await)
            }
        }
    }

    /// Whether it is still ours, and renewed.
    async fn try_renew(&self) -> kube::Result<bool> {
        let written = self.written().clone();
        if let Some(lease) = written
            && won(self.renew(lease).await)?
        {
            return Ok(true);
        }
        // Nobody knows what has become of the last write, or somebody else has written it.
        let Some(lease) = self.api.get_opt(&self.lease).await? else {
            return Ok(false);
        };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        if holder != Some(&self.identity) {
            return Ok(false);
        }
        self.renew(lease).await?;
        Ok(true)
    }

    /// Writes the Lease over just this version of it.
    async fn renew(&self, mut lease: Lease) -> kube::Result<Lease> {
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        let renewed = self.api.replace(&self.lease, &PostParams::default(), &lease).await?;
        *self.written() = Some(renewed.clone());
        Ok(renewed)
    }

    fn written(&self) -> MutexGuard<'_, Option<Lease>> {
        // It is whole after every statement, so a panic elsewhere has left nothing half done.
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self, transitions: i32) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: now.clone(),
            renew_time: now,
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// What a Lease lets `identity` do, that has looked the same for `unchanged`.
fn standing(spec: Option<&LeaseSpec>, identity: &str, unchanged: Duration) -> Standing {
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder.is_empty() {
        return Standing::Free;
    }
    if holder == identity {
        return Standing::Ours;
    }
    let holds = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(DURATION, Duration::from_secs);
    if unchanged > holds {
        Standing::Free
    } else {
        Standing::Taken
    }
}

/// Somebody else was quicker: that is no error.
fn won(written: kube::Result<Lease>) -> kube::Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A call's result within its time, errors in words.
async fn within<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(CALL, call).await {
        Ok(result) => result.map_err(|error| describe(&error)),
        Err(_) => Err(format!("the API server has not answered within {CALL:?}")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::fake_api;

    /// An API server with one Lease, and how it was asked.
    #[derive(Default)]
    struct Server {
        version: u64,
        holder: &'static str,
        asked: Vec<Method>,
    }

    impl Server {
        fn answer(&mut self, method: &Method, body: &[u8]) -> (u16, String) {
            self.asked.push(method.clone());
            if method == Method::PUT {
                let body: Value = serde_json::from_slice(body).unwrap();
                if body["metadata"]["resourceVersion"] != json!(self.version.to_string()) {
                    let status = json!({"kind": "Status", "status": "Failure", "reason": "Conflict", "code": 409});
                    return (409, status.to_string());
                }
                self.version += 1;
            }
            let lease = json!({
                "metadata": {"name": "l", "resourceVersion": self.version.to_string()},
                "spec": {"holderIdentity": self.holder},
            });
            (200, lease.to_string())
        }
    }

    #[tokio::test]
    async fn it_is_renewed_by_one_request_until_somebody_else_writes_it() {
        let server = Arc::new(Mutex::new(Server {
            holder: "a",
            ..Server::default()
        }));
        let client = {
            let server = Arc::clone(&server);
            fake_api::client(move |request, body| server.lock().unwrap().answer(&request.method, body))
        };
        let candidate = Candidate {
            api: Api::namespaced(client, "n"),
            lease: "l".to_owned(),
            identity: "a".to_owned(),
            written: Mutex::default(),
        };
        let asked = || std::mem::take(&mut server.lock().unwrap().asked);
        assert!(candidate.try_renew().await.unwrap());
        assert_eq!(asked(), [Method::GET, Method::PUT]);
        assert!(candidate.try_renew().await.unwrap());
        assert_eq!(asked(), [Method::PUT]);
        // Somebody writes an annotation.
        server.lock().unwrap().version += 1;
        assert!(candidate.try_renew().await.unwrap());
        assert_eq!(asked(), [Method::PUT, Method::GET, Method::PUT]);
        // Another replica takes it.
        {
            let mut server = server.lock().unwrap();
            server.version += 1;
            server.holder = "b";
        }
        assert!(!candidate.try_renew().await.unwrap());
        assert_eq!(asked(), [Method::PUT, Method::GET]);
    }

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_it_is_free_or_has_not_been_renewed() {
        let second = Duration::from_secs(1);
        assert_eq!(standing(None, "a", second), Standing::Free);
        assert_eq!(standing(Some(&held_by("")), "a", second), Standing::Free);
        assert_eq!(standing(Some(&held_by("a")), "a", second), Standing::Ours);
        assert_eq!(standing(Some(&held_by("b")), "a", 15 * second), Standing::Taken);
        assert_eq!(standing(Some(&held_by("b")), "a", 16 * second), Standing::Free);
    }

    #[test]
    fn whoever_holds_it_stops_before_others_may_begin() {
        assert!(RENEW_WITHIN + INTERVAL + CALL < DURATION);
        assert!(INTERVAL + CALL < RENEW_WITHIN, "a second try begins");
    }
}
