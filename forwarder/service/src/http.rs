//! What the HTTP servers share: a listener that says why it cannot listen, bounds for its clients, and a log line per request. And
//! the client.

pub mod client;
mod connections;
mod listen;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::TcpListener;
use tracing::info;

pub use self::connections::Limits;

/// Why a server could not begin.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not an IP address.
    #[error("{0:?} is not an IP address to listen on")]
    Address(String),
    /// Another process listens there.
    #[error("port {} of {} is in use by another process; choose another port or end that process", .0.port(), .0.ip())]
    InUse(SocketAddr),
    /// The system refuses the address or port.
    #[error("failed to listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// A server that listens but does not answer yet, so that a port in use is reported early.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    limits: Limits,
}

impl Server {
    /// Listens on `address:port`; port 0 is any free one. The address `::` is every address of the machine, IPv6 and IPv4, and
    /// every IPv4 address where the machine has no IPv6.
    ///
    /// # Errors
    /// What is no address, in use, or not allowed.
    pub async fn bind(address: &str, port: u16) -> Result<Self, HttpError> {
        let ip = address.parse().map_err(|_| HttpError::Address(address.to_owned()))?;
        let wanted = SocketAddr::new(ip, port);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => HttpError::InUse(wanted),
            _ => HttpError::Listen {
                address: wanted,
                source,
            },
        };
        let listener = listen::listen(wanted).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self {
            listener,
            address,
            limits: Limits::default(),
        })
    }

    /// The same server with other bounds for its clients.
    #[must_use]
    pub const fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `shutdown` completes; then it finishes the requests in progress, for a moment. `log_requests` writes a line per request.
    pub async fn serve(self, router: Router, log_requests: bool, shutdown: impl Future<Output = ()> + Send + 'static) {
        let router = if log_requests {
            router.layer(middleware::from_fn(log_request))
        } else {
            router
        };
        connections::serve(self.listener, router, self.limits, shutdown).await;
    }
}

async fn log_request(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
    info!(%method, path, status = response.status().as_u16(), micros, "answered a request");
    response
}
