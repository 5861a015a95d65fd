//! A client of async-nats for one look at the stream: our credentials, our TLS, one server, one log-in.
//!
//! A look proves nothing about a record, so a client library may make it. What it would do by itself afterwards is switched off:
//! it learns no servers and logs in once.

use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::{Auth, AuthError, Client, ConnectOptions, Event, ServerAddr};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use forwarder_core::document::{Cluster, Tls};
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::StreamError;
use crate::connection::{ConnectError, Stage};
use crate::credentials::{CredentialsError, Presented, Secrets};
use crate::server::ServerAddress;
use crate::tls::{self, TlsError};

/// For one address of the server, up to its answer to our log-in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects and logs in. What the server says out of turn goes to `heard`.
pub(super) async fn connect(
    cluster: &Cluster,
    server: &ServerAddress,
    heard: mpsc::UnboundedSender<Event>,
    deadline: Instant,
) -> Result<Client, StreamError> {
    let unreachable = |source| StreamError::Connect {
        cluster: cluster.name.clone(),
        source: Box::new(source),
    };
    let connecting = async {
        let options = options(cluster, server).await.map_err(&unreachable)?;
        let options = options.event_callback(move |event| {
            // Who has stopped listening has its answer.
            heard.send(event).ok();
            ready(())
        });
        let address: ServerAddr = server.url.to_string().parse().map_err(|source| {
            unreachable(ConnectError::Io {
                server: server.clone(),
                stage: Stage::Resolve,
                source,
            })
        })?;
        options.connect(address).await.map_err(|problem| StreamError::Client {
            cluster: cluster.name.clone(),
            server: server.to_string(),
            problem,
        })
    };
    timeout_at(deadline, connecting).await.unwrap_or_else(|_| {
        Err(unreachable(ConnectError::Timeout {
            server: server.clone(),
            stage: Stage::Login,
        }))
    })
}

async fn options(cluster: &Cluster, server: &ServerAddress) -> Result<ConnectOptions, ConnectError> {
    let secrets = Secrets::read(cluster.auth.as_ref(), server.url.userinfo.as_ref());
    let secrets = secrets.await.map_err(|source| ConnectError::Credentials {
        server: server.clone(),
        source,
    })?;
    // A lost connection is the look's end: async-nats makes one attempt to mend it, and that one has nothing to log in with.
    let used = AtomicBool::new(false);
    let log_in = move |nonce: Vec<u8>| {
        ready(if used.swap(true, Ordering::Relaxed) {
            Err(AuthError::new("the look is over"))
        } else {
            auth(&secrets, &nonce).map_err(AuthError::new)
        })
    };
    let mut options = ConnectOptions::with_auth_callback(log_in)
        .name("fanout-forwarder stream")
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
            advice: "its name is none that a certificate can carry: check the cluster's servers",
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
