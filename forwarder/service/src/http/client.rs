//! The HTTP client: a connection for each request. What is asked is asked every few seconds at most, so a kept connection would save
//! less than finding out whether it still lives.

use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use rustls::ClientConfig;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The request has no valid URL.
    #[error("failed to build the request")]
    Url(#[from] hyper::http::Error),
    /// The connection or its TLS handshake failed.
    #[error("failed to connect")]
    Connect(#[source] legacy::Error),
    /// The peer does not answer in HTTP.
    #[error("failed to get an HTTP response")]
    Http(#[source] legacy::Error),
}

/// Asks the server at `address` for a path, over plain HTTP. The caller bounds the time and the body.
///
/// # Errors
/// [`RequestError`].
pub async fn get(address: SocketAddr, path: &str) -> Result<Response<Incoming>, RequestError> {
    let url = Uri::builder()
        .scheme("http")
        .authority(address.to_string())
        .path_and_query(path)
        .build()?;
    let request = Request::get(url).body(Full::default())?;
    send(request, None).await
}

/// Sends a request to where its URL says: over TLS by this configuration, or over plain HTTP. The caller bounds the time and the body.
///
/// # Errors
/// [`RequestError`].
pub async fn send(
    request: Request<Full<Bytes>>,
    tls: Option<ClientConfig>,
) -> Result<Response<Incoming>, RequestError> {
    let Some(tls) = tls else {
        return send_by(HttpConnector::new(), request).await;
    };
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .build();
    send_by(connector, request).await
}

async fn send_by<C>(connector: C, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, RequestError>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let client = legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    client.request(request).await.map_err(|error| {
        if error.is_connect() {
            RequestError::Connect(error)
        } else {
            RequestError::Http(error)
        }
    })
}
