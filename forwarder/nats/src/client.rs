//! A client of async-nats for questions: our credentials, our TLS, one server, one log-in.
//!
//! A question proves nothing about a record, so a client library may ask it. What the library would do by itself afterwards is switched
//! off: it learns no servers and logs in once.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, ConnectOptions, Event, Request, RequestErrorKind, ServerAddr};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use forwarder_core::document::{Cluster, Tls};
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::connection::{ConnectError, Stage};
use crate::credentials::{CredentialsError, Presented, Secrets};
use crate::protocol::ServerError;
use crate::server::ServerAddress;
use crate::tls::{self, TlsError};

/// For one address of the server, up to its answer to our log-in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Our own files or the server's address cannot be used.
    #[error("failed to prepare a connection")]
    Prepare(#[source] Box<ConnectError>),
    /// The login failed.
    #[error("failed to log in to {server}: {problem}")]
    LogIn {
        /// The server, without credentials.
        server: String,
        /// Why; not a source, as its words have their own sources in them.
        problem: async_nats::ConnectError,
    },
    /// The connection was lost between question and answer.
    #[error("the server closed the connection before it answered")]
    Lost,
    /// The server closed the connection and said why.
    #[error("the server ended the connection")]
    Ended(#[source] ServerError),
    /// We may not send the request, or not receive the answer.
    #[error("the server does not allow this request")]
    Denied(#[source] ServerError),
    /// Nothing listens on the request's subject.
    #[error("nothing answers on this subject")]
    NoResponders,
    /// The request could not be sent.
    #[error("failed to send the request: {0}")]
    Request(async_nats::RequestError),
    /// No answer in time.
    #[error("no answer in time")]
    Silent,
}

/// A client that has logged in at one server, for one question at a time. It ends when it is dropped.
pub struct Client {
    client: async_nats::Client,
    /// What the server says out of turn.
    events: mpsc::UnboundedReceiver<Event>,
}

impl Client {
    /// Connects to `server` and logs in as `name`, as the cluster declares it.
    ///
    /// # Errors
    /// [`ClientError`]; at the deadline [`ClientError::Prepare`] with a timeout.
    pub async fn connect(
        cluster: &Cluster,
        server: &ServerAddress,
        name: &str,
        deadline: Instant,
    ) -> Result<Self, ClientError> {
        let prepare = |source| ClientError::Prepare(Box::new(source));
        let (heard, events) = mpsc::unbounded_channel();
        let connecting = async {
            let options = options(cluster, server, name).await.map_err(&prepare)?;
            let options = options.event_callback(move |event| {
                // Who has stopped listening has its answer.
                heard.send(event).ok();
                ready(())
            });
            let address: ServerAddr = server.url.to_string().parse().map_err(|source| {
                prepare(ConnectError::Io {
                    server: server.clone(),
                    stage: Stage::Resolve,
                    source,
                })
            })?;
            options.connect(address).await.map_err(|problem| ClientError::LogIn {
                server: server.to_string(),
                problem,
            })
        };
        let client = timeout_at(deadline, connecting).await.unwrap_or_else(|_| {
            Err(prepare(ConnectError::Timeout {
                server: server.clone(),
                stage: Stage::Login,
            }))
        })?;
        Ok(Self { client, events })
    }

    /// Sends a request, and yields the body of the answer.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Silent`] at the deadline.
    pub async fn request(&mut self, subject: String, body: Bytes, deadline: Instant) -> Result<Bytes, ClientError> {
        timeout_at(deadline, self.exchange(subject, body))
            .await
            .unwrap_or(Err(ClientError::Silent))
    }

    async fn exchange(&mut self, subject: String, body: Bytes) -> Result<Bytes, ClientError> {
        // How long it may take is the caller's to say.
        let request = Request::new().payload(body).timeout(None);
        let answering = self.client.send_request(subject, request);
        let mut answering = std::pin::pin!(answering);
        loop {
            tokio::select! {
                answer = &mut answering => return match answer {
                    // The status 503.
                    Err(error) if error.kind() == RequestErrorKind::NoResponders => Err(ClientError::NoResponders),
                    Err(problem) => Err(ClientError::Request(problem)),
                    Ok(message) => Ok(message.payload),
                },
                // What is denied gets no answer at all.
                event = self.events.recv() => match event {
                    Some(Event::ServerError(error)) => return Err(said(&error)),
                    Some(Event::Disconnected | Event::Closed) | None => return Err(ClientError::Lost),
                    Some(_) => {}
                },
            }
        }
    }
}

fn said(error: &async_nats::ServerError) -> ClientError {
    let text = match error {
        async_nats::ServerError::Other(text) => text.clone(),
        error => error.to_string(),
    };
    let said = ServerError::parse(text.as_bytes());
    if said.closes_connection() {
        ClientError::Ended(said)
    } else {
        ClientError::Denied(said)
    }
}

async fn options(cluster: &Cluster, server: &ServerAddress, name: &str) -> Result<ConnectOptions, ConnectError> {
    let secrets = Secrets::read(cluster.auth.as_ref(), server.url.userinfo.as_ref());
    let secrets = secrets.await.map_err(|source| ConnectError::Credentials {
        server: server.clone(),
        source,
    })?;
    // A lost connection is the client's end: async-nats makes one attempt to mend it, and that one has nothing to log in with.
    let used = AtomicBool::new(false);
    let log_in = move |nonce: Vec<u8>| {
        ready(if used.swap(true, Ordering::Relaxed) {
            Err(AuthError::new("the connection was lost"))
        } else {
            auth(&secrets, &nonce).map_err(AuthError::new)
        })
    };
    let mut options = ConnectOptions::with_auth_callback(log_in)
        .name(name)
        .custom_inbox_prefix(cluster.inbox_prefix())
        .connection_timeout(CONNECT_TIMEOUT)
        .max_reconnects(1)
        .ignore_discovered_servers()
        .require_tls(server.url.tls || cluster.tls.is_some());
    if let Some(name) = &server.certificate_name {
        let failed = |source| ConnectError::TlsFiles {
            server: server.clone(),
            source,
        };
        let name = ServerName::try_from(name.clone()).map_err(|error| ConnectError::Tls {
            server: server.clone(),
            advice: "a certificate cannot contain its name: check the cluster's servers",
            source: std::io::Error::new(std::io::ErrorKind::InvalidInput, error),
        })?;
        let config = tls::client_config_for(cluster.tls.as_ref(), name).await;
        return Ok(options.tls_client_config(config.map_err(failed)?));
    }
    // Not by a configuration of ours here: with one, async-nats wants all of the system's authorities to be readable too.
    tls::name_provider();
    if let Some(Tls {
        ca_file,
        cert_file,
        key_file,
    }) = &cluster.tls
    {
        if let Some(file) = ca_file {
            options = options.add_root_certificates(file.clone());
        }
        options = match (cert_file, key_file) {
            (Some(cert), Some(key)) => options.add_client_certificate(cert.clone(), key.clone()),
            (None, None) => options,
            _ => {
                return Err(ConnectError::TlsFiles {
                    server: server.clone(),
                    source: TlsError::HalfClientCertificate,
                });
            }
        };
    }
    Ok(options)
}

/// What the server is told about who we are.
fn auth(secrets: &Secrets, nonce: &[u8]) -> Result<Auth, CredentialsError> {
    let nonce = std::str::from_utf8(nonce).ok().filter(|nonce| !nonce.is_empty());
    let Presented {
        token,
        user,
        password,
        jwt,
        nkey,
        signature,
    } = secrets.present(nonce)?;
    let mut auth = Auth::new();
    auth.token = token;
    auth.username = user;
    auth.password = password;
    auth.jwt = jwt;
    auth.nkey = nkey;
    auth.signature = signature.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    Ok(auth)
}
