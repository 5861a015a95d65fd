//! From no connection to one that may be published to: which server, whether it is of our cluster, and what its stream is like.

use std::ops::ControlFlow;
use std::pin::pin;
use std::time::Duration;

use forwarder_core::document::{Cluster, Publish, PublishMode};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, warn};

use super::Publisher;
use forwarder_nats::connection::{self, Connection, Login};
use forwarder_nats::race::Race;
use forwarder_nats::server::ServerAddress;
use forwarder_nats::stream::{self, StreamError};
use forwarder_service::chain;

/// How long a connection attempt may take, from the name's look-up to the server's first PONG.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause between two rounds of attempts to connect.
const MAX_CONNECT_PAUSE: Duration = Duration::from_secs(5);

/// How long one server is asked about the stream before another one is.
const CHECK_TIMEOUT: Duration = Duration::from_secs(15);

/// How long the first question about the stream waits for its answer; each further one twice as long. Nobody answers, and nobody keeps the
/// question for later, while the cluster chooses a leader.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Between two questions about the stream.
const CHECK_PAUSE: Duration = Duration::from_millis(250);

/// So many servers' failures are shown at most.
const SHOWN: usize = 4;

/// A server, and a connection to it that is ready to publish; or why there is none.
type Attempt = Result<(ServerAddress, Connection), String>;

impl Publisher {
    /// Makes a connection that is ready to publish; takes commands meanwhile. Breaks when there is nobody to give commands.
    pub(super) async fn connect(&mut self) -> ControlFlow<(), Attempt> {
        loop {
            // Each attempt begins with what is declared by now.
            self.moved = false;
            if let Some(result) = self.attempt().await? {
                return ControlFlow::Continue(result);
            }
        }
    }

    /// Tries each server once. None: the cluster was declared otherwise meanwhile, so what came of it is nothing to learn
    /// from, and no record may be written there.
    async fn attempt(&mut self) -> ControlFlow<(), Option<Attempt>> {
        let (publish, cluster, client_name) = (self.publish.clone(), self.cluster.clone(), self.client_name.clone());
        let mut failures = Vec::new();
        let login = Login::of(&cluster, &client_name);
        let mut race = Race::new(self.servers.in_turn(), async |server: ServerAddress| {
            let connected = connection::connect(&server, login, CONNECT_TIMEOUT).await;
            (server, connected)
        });
        loop {
            let reached = race.next(|_, error| failures.push(chain(&error)));
            let Some(reached) = self.meanwhile(reached).await? else {
                return ControlFlow::Continue(None);
            };
            let Some((server, connection)) = reached else {
                return ControlFlow::Continue(Some(Err(summary(&failures))));
            };
            if let Err(foreign) = self.servers.meet(&server, &connection.info) {
                warn!(cluster = cluster.name, "{foreign}");
                failures.push(foreign.to_string());
                continue;
            }
            if publish.mode == PublishMode::JetStream {
                let Some(checked) = self.meanwhile(check_stream(&cluster, &publish, &server)).await? else {
                    return ControlFlow::Continue(None);
                };
                if let Err(error) = &checked {
                    self.stream_at_fault = true;
                    self.counters.stream_faults(error.fault()).inc();
                }
                match checked {
                    Ok(()) => {}
                    // Another server may answer.
                    Err(error) if is_of_the_server(&error) => {
                        failures.push(chain(&error));
                        continue;
                    }
                    Err(error) => {
                        // The next round begins with another server: this one may be the only one that is so.
                        self.servers.used(&server);
                        return ControlFlow::Continue(Some(Err(chain(&error))));
                    }
                }
            }
            return ControlFlow::Continue(Some(Ok((server, connection))));
        }
    }

    /// Waits, and takes commands meanwhile. A cluster that is declared at another address is not waited for.
    pub(super) async fn pause(&mut self, pause: Duration) -> ControlFlow<()> {
        if self.moved {
            return ControlFlow::Continue(());
        }
        self.meanwhile(sleep(pause)).await.map_continue(|_| ())
    }

    /// Awaits this, and takes commands meanwhile. None: the cluster was declared otherwise first.
    async fn meanwhile<T>(&mut self, future: impl Future<Output = T>) -> ControlFlow<(), Option<T>> {
        let mut future = pin!(future);
        loop {
            tokio::select! {
                // A command that is there already comes before a connection that it may make useless.
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.take(command),
                    None => return ControlFlow::Break(()),
                },
                value = &mut future => return ControlFlow::Continue(Some(value)),
            }
            if self.moved {
                return ControlFlow::Continue(None);
            }
        }
    }
}

/// 100 ms, doubling up to [`MAX_CONNECT_PAUSE`]; the index spreads clusters (and, by their order, forwarders) a little.
pub(super) fn connect_pause(failures: u32, index: usize) -> Duration {
    let nominal = Duration::from_millis(100)
        .saturating_mul(1 << failures.min(10))
        .min(MAX_CONNECT_PAUSE);
    let spread = u32::try_from((index * 37 + failures as usize * 13) % 32).unwrap_or(0);
    nominal / 2 + nominal / 64 * spread
}

/// Checks the stream by way of this server. A cluster that has just lost a server may have no leader for some seconds: it is asked again
/// soon, so that records go on as soon as there is one.
async fn check_stream(cluster: &Cluster, publish: &Publish, server: &ServerAddress) -> Result<(), StreamError> {
    let deadline = Instant::now() + CHECK_TIMEOUT;
    let mut patience = FIRST_ANSWER_TIMEOUT;
    loop {
        let bound = patience.min(deadline.saturating_duration_since(Instant::now()));
        let error = match timeout(bound, stream::ensure_stream(cluster, publish, server)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if is_leaderless(&error) => error,
            Ok(Err(error)) => return Err(error),
            Err(_) => stream::silent(cluster, publish),
        };
        debug!(cluster = cluster.name, %server, error = chain(&error), "the stream cannot be checked yet");
        if Instant::now() + CHECK_PAUSE >= deadline {
            return Err(error);
        }
        sleep(CHECK_PAUSE).await;
        patience = patience.saturating_mul(2);
    }
}

/// Whether the cluster has nobody to answer at the moment.
fn is_leaderless(error: &StreamError) -> bool {
    matches!(error, StreamError::Timeout { .. } | StreamError::NoLeader { .. })
}

/// Whether another server of the cluster may answer otherwise.
fn is_of_the_server(error: &StreamError) -> bool {
    match error {
        StreamError::Connect { .. }
        | StreamError::Client { .. }
        | StreamError::Lost { .. }
        | StreamError::Said { .. }
        | StreamError::Request { .. } => true,
        error => is_leaderless(error),
    }
}

/// What happened at the servers that were tried.
fn summary(failures: &[String]) -> String {
    let mut text = failures[..failures.len().min(SHOWN)].join("; ");
    if failures.len() > SHOWN {
        text.push_str(&format!("; and {} more servers", failures.len() - SHOWN));
    }
    text
}
