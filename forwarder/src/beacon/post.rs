//! The beacon's connection to one cluster. It is not the one that publishes records: whatever happens to it, records go on.
//!
//! ```text
//!  BASE.get    ──▶ budget ──▶ answered here
//!  BASE.ready  ──▶ budget ──▶ signed here, and sent through the publisher's connection
//!  BASE.pods   ──▶ opened ──▶ the coordinator
//!  BASE.digest ──▶ ours: an echo; another pod's: opened ──▶ the coordinator
//! ```
//!
//! What anybody in the account can send is bounded in rate before anything is signed or opened. What is over a budget is dropped and
//! counted: who asks asks again, and what a pod says comes again.

mod session;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forwarder_beacon::{Statement, Subjects};
use forwarder_core::document::Cluster;
use forwarder_nats::connection::{self, Connection, Login};
use forwarder_nats::protocol::ProtocolError;
use forwarder_nats::race::Race;
use forwarder_nats::server::{AddressError, ForeignServer, ServerAddress, ServerPool};
use forwarder_service::chain;
use forwarder_service::clock::Clock;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tracing::{info, warn};

use super::voice::Voice;
use crate::budget::Budget;
use crate::metrics::BeaconMetrics;

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The shortest and the longest pause before the next attempt.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// So many requests of each kind are answered in a second.
const ANSWERS_PER_SECOND: u64 = 500;

/// So many bodies are opened in a second. It is more than a hundred pods say, with a digest each.
const OPENED_PER_SECOND: u64 = 500;

/// So many of our last digests are known when they come back.
const OWN_DIGESTS: usize = 8;

/// What is to be published.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    /// A digest, of this epoch.
    Digest(u64, Bytes),
    /// A statement.
    Statement(Bytes),
}

/// What happened at a cluster.
#[derive(Debug)]
pub(super) enum Event {
    /// The server knows our subscriptions.
    Connected,
    /// There is no connection, and why.
    Away(String),
    /// What is wrong there; none: nothing any more.
    Fault(Option<String>),
    /// A pod speaks.
    Statement(Box<Statement>),
    /// Our digest of this epoch has come back.
    Echo(u64),
    /// Another pod's digest was heard.
    Digest,
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the server closed the connection")]
    Closed,
    #[error("failed to read or write")]
    Io(#[from] std::io::Error),
    #[error("the server violated the NATS protocol")]
    Protocol(#[from] ProtocolError),
    #[error("the server said: {0}")]
    Server(String),
    #[error("the server did not answer for {0:?}")]
    Silent(Duration),
    #[error(transparent)]
    Foreign(#[from] ForeignServer),
    #[error("the server is going to shut down and asks its clients to leave")]
    LameDuck,
    #[error("trying again whether the server allows by now what it denied")]
    Again,
}

/// See the module.
pub(super) struct Post {
    cluster: Cluster,
    servers: ServerPool,
    client_name: String,
    subjects: Subjects,
    voice: watch::Receiver<Voice>,
    outgoing: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<(Arc<str>, Event)>,
    metrics: BeaconMetrics,
    clock: Clock,
    gets: Budget,
    readies: Budget,
    opens: Budget,
    own: VecDeque<(u64, Bytes)>,
    /// What the server denied to the last connection, until another one has lasted without that.
    fault: Option<String>,
}

impl Post {
    /// A post at a cluster.
    ///
    /// # Errors
    /// A server's URL that cannot be read.
    #[expect(clippy::too_many_arguments, reason = "called once, by `Posts`")]
    pub(super) fn new(
        cluster: &Cluster,
        client_name: &str,
        subjects: &Subjects,
        voice: watch::Receiver<Voice>,
        outgoing: mpsc::Receiver<Outgoing>,
        events: mpsc::Sender<(Arc<str>, Event)>,
        metrics: BeaconMetrics,
        clock: Clock,
    ) -> Result<Self, AddressError> {
        let now = clock.micros();
        Ok(Self {
            servers: ServerPool::of(cluster)?,
            cluster: cluster.clone(),
            client_name: client_name.to_owned(),
            subjects: subjects.clone(),
            voice,
            outgoing,
            events,
            metrics,
            clock,
            gets: Budget::new(ANSWERS_PER_SECOND, now),
            readies: Budget::new(ANSWERS_PER_SECOND, now),
            opens: Budget::new(OPENED_PER_SECOND, now),
            own: VecDeque::new(),
            fault: None,
        })
    }

    /// Connects again and again, until nobody gives anything to send any more.
    pub(super) async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let reason = match self.connect().await {
                None => return,
                Some(Ok((server, connection))) => {
                    self.servers.used(&server);
                    let began = self.clock.micros();
                    let ended = self.session(connection, &server).await;
                    let Err(ended) = ended else { return };
                    if matches!(ended, Ended::Again) {
                        failures = 0;
                        continue;
                    }
                    let lasted = self.clock.micros().saturating_sub(began);
                    failures = if lasted > 10_000_000 { 0 } else { failures + 1 };
                    chain(&ended)
                }
                Some(Err(reason)) => {
                    failures += 1;
                    reason
                }
            };
            if failures % 10 <= 1 {
                let cluster = &self.cluster.name;
                warn!(
                    cluster,
                    reason, "no connection of the beacon to NATS; trying again. Records are not affected"
                );
            }
            self.tell(Event::Away(reason)).await;
            let (shortest, longest) = PAUSES;
            let pause = shortest.saturating_mul(1 << failures.min(8)).min(longest);
            if self.meanwhile(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Tries each server once. None: nobody gives anything to send any more.
    async fn connect(&mut self) -> Option<Result<(ServerAddress, Connection), String>> {
        let (cluster, client_name) = (self.cluster.clone(), self.client_name.clone());
        let login = Login::of(&cluster, &client_name);
        let mut failure = "no server was tried".to_owned();
        let mut race = Race::new(self.servers.in_turn(), async |server: ServerAddress| {
            let connected = connection::connect(&server, login, CONNECT_TIMEOUT).await;
            (server, connected)
        });
        loop {
            let reached = race.next(|_, error| failure = chain(&error));
            let Some((server, connection)) = self.meanwhile(reached).await? else {
                return Some(Err(failure));
            };
            match self.servers.meet(&server, &connection.info) {
                Ok(()) => {
                    let cluster = &self.cluster.name;
                    info!(cluster, %server, "the beacon is connected to NATS");
                    return Some(Ok((server, connection)));
                }
                Err(foreign) => failure = foreign.to_string(),
            }
        }
    }

    /// Awaits this. What is to be sent meanwhile is dropped: the next connection begins with what is new then.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = std::pin::pin!(future);
        loop {
            tokio::select! {
                value = &mut future => return Some(value),
                outgoing = self.outgoing.recv() => drop(outgoing?),
            }
        }
    }

    async fn tell(&self, event: Event) {
        // Nobody listens any more when the beacon ends.
        self.events
            .send((Arc::from(self.cluster.name.as_str()), event))
            .await
            .ok();
    }

    /// Tells what is said again soon, and may be dropped.
    fn tell_if_there_is_room(&self, event: Event) {
        let told = self.events.try_send((Arc::from(self.cluster.name.as_str()), event));
        if told.is_err() {
            self.metrics.dropped.inc();
        }
    }
}
