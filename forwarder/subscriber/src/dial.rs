//! One connection to one server. It never heals: when it is lost, another one is made.
//!
//! async-nats would reconnect by itself. Then nobody could say what was read before the loss and what after it. So each client of
//! async-nats logs in once. It makes one attempt to mend its connection, and that one has nothing to log in with.

use std::future::ready;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, Client, ConnectOptions, Event};
use forwarder_beacon::{Announcement, Body, Request, Subjects, Verifier};
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use crate::hosts::{Route, Server};
use crate::login::Login;
use crate::nonce::Nonces;

/// How often a server is asked whether it lives. Two answers may be missing.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// So many messages of one subscription wait for the client's task.
const SUBSCRIPTION_CAPACITY: usize = 65_536;

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    pub(crate) within: Duration,
    pub(crate) inbox_prefix: String,
    pub(crate) root_certificates: Vec<PathBuf>,
    /// A certificate with its key.
    pub(crate) client_certificate: Option<(PathBuf, PathBuf)>,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) client: Client,
    /// What the server says out of turn.
    pub(crate) events: mpsc::UnboundedReceiver<Event>,
    /// The cluster has several servers, as far as this one says.
    pub(crate) has_several: bool,
}

impl Dialer {
    /// Connects to one of a route's servers, beginning with that of this turn.
    ///
    /// # Errors
    /// Why, server by server.
    pub(crate) async fn dial(&self, route: &Route, turn: usize) -> Result<Dialed, String> {
        let mut reasons = Vec::new();
        for at in 0..route.servers.len() {
            let Some(server) = route.servers.get((turn + at) % route.servers.len()) else {
                break;
            };
            match timeout(self.within, self.dial_one(server, route.login.as_ref())).await {
                Ok(Ok(dialed)) => return Ok(dialed),
                Ok(Err(reason)) => reasons.push(format!("{}: {reason}", server.address.as_url_str())),
                Err(_) => reasons.push(format!("{}: no answer in time", server.address.as_url_str())),
            }
        }
        if reasons.is_empty() {
            reasons.push(match route.refused.is_empty() {
                true => "no server is known".to_owned(),
                false => format!("no server may be used: {}", route.reasons()),
            });
        }
        Err(reasons.join("; "))
    }

    async fn dial_one(&self, server: &Server, login: Option<&Login>) -> Result<Dialed, String> {
        let (heard, events) = mpsc::unbounded_channel();
        let login = login.cloned();
        let is_used = AtomicBool::new(false);
        let log_in = move |nonce: Vec<u8>| {
            ready(if is_used.swap(true, Ordering::Relaxed) {
                Err(AuthError::new("the connection was lost"))
            } else {
                let auth = login
                    .as_ref()
                    .map_or_else(|| Ok(Auth::new()), |login| login.present(&nonce));
                auth.map_err(AuthError::new)
            })
        };
        let mut options = ConnectOptions::with_auth_callback(log_in)
            .name("fanout-client")
            .custom_inbox_prefix(&self.inbox_prefix)
            .connection_timeout(self.within)
            .ping_interval(PING_INTERVAL)
            .subscription_capacity(SUBSCRIPTION_CAPACITY)
            .max_reconnects(1)
            .ignore_discovered_servers()
            .require_tls(server.needs_tls)
            .event_callback(move |event| {
                // The connection may have been given up.
                heard.send(event).ok();
                ready(())
            });
        if server.needs_tls {
            // An error says that the program has named one.
            rustls::crypto::ring::default_provider().install_default().ok();
        }
        for file in &self.root_certificates {
            options = options.add_root_certificates(file.clone());
        }
        if let Some((certificate, key)) = &self.client_certificate {
            options = options.add_client_certificate(certificate.clone(), key.clone());
        }
        let client = options
            .connect(server.address.clone())
            .await
            .map_err(|error| error.to_string())?;
        let info = client.server_info();
        Ok(Dialed {
            has_several: info.cluster.is_some() || info.connect_urls.len() > 1,
            client,
            events,
        })
    }

    /// Asks once for the announcement, through one route after the other.
    ///
    /// # Errors
    /// Why nobody was believed, route by route.
    pub(crate) async fn probe(
        &self,
        routes: Vec<Route>,
        question: Arc<Question>,
        turn: usize,
    ) -> Result<Announcement, String> {
        let mut reasons = Vec::new();
        for route in routes {
            let answer = match self.dial(&route, turn).await {
                Ok(dialed) => question.ask(&dialed.client).await,
                Err(reason) => Err(reason),
            };
            match answer {
                Ok(told) => return Ok(told),
                Err(reason) => {
                    debug!(reason, "nobody has told the ring");
                    reasons.push(reason);
                }
            }
        }
        Err(reasons.join("; "))
    }
}

/// The question for the announcement, and whom to believe.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) ring: String,
    pub(crate) subjects: Subjects,
    pub(crate) verifier: Verifier,
    pub(crate) within: Duration,
}

impl Question {
    async fn ask(&self, client: &Client) -> Result<Announcement, String> {
        let nonce = Nonces::default().next();
        let get = self.subjects.get();
        let request = Request { nonce: nonce.clone() };
        // A text always makes JSON.
        let body = serde_json::to_vec(&request).unwrap_or_default();
        let inbox = client.new_inbox();
        let mut answers = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| error.to_string())?;
        let published = client.publish_with_reply(get.clone(), inbox, body.into()).await;
        published.map_err(|error| error.to_string())?;
        let mut last = format!("no forwarder has answered on {get}");
        let answer = async {
            while let Some(message) = answers.next().await {
                if message.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
                    return Err(format!("no forwarder listens on {get}"));
                }
                match self.verifier.open(&message.payload) {
                    Ok(Body::Announcement(told)) if told.nonce == nonce && told.ring == self.ring => return Ok(told),
                    Ok(body) if *body.ring() != *self.ring => {
                        last = format!("the forwarder is of the ring {:?}, not of {:?}", body.ring(), self.ring);
                    }
                    Ok(_) => "somebody has sent an old answer again".clone_into(&mut last),
                    Err(error) => last = error.to_string(),
                }
            }
            Err("the server has closed the connection".to_owned())
        };
        timeout(self.within, answer).await.unwrap_or_else(|_| Err(last.clone()))
    }
}
