//! One connection: from an address to a socket on which the server has accepted who we are.
//!
//! TCP, INFO, TLS where asked for, CONNECT, two PINGs, their PONGs. There is no reconnect in here: what was written to a connection that
//! died is unconfirmed, and only the caller knows what to write again. TLS before the INFO (`handshake_first`) is not spoken:
//! such a server is silent and ends in a timeout that says so.

mod error;
mod guarded;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use forwarder_core::document::server::ServerUrl;
use forwarder_core::document::{Cluster, NatsAuth, Tls};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::credentials;
use super::protocol::{Connect, Op, Parser, ServerError, ServerInfo, encode_connect, encode_ping, encode_pong};
use super::race::Race;
use super::server::ServerAddress;
use super::tls;
use crate::gate::WriteGate;

pub use error::{ConnectError, Stage};
pub use guarded::Guarded;

/// How to log in to the servers of one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// Credentials.
    pub auth: Option<&'a NatsAuth>,
    /// TLS; `Some` asks for it even where neither URL nor server do.
    pub tls: Option<&'a Tls>,
    /// Our name in the server's monitoring.
    pub name: &'a str,
}

impl<'a> Login<'a> {
    /// From a cluster's configuration.
    #[must_use]
    pub fn of(cluster: &'a Cluster, name: &'a str) -> Self {
        Self {
            auth: cluster.auth.as_ref(),
            tls: cluster.tls.as_ref(),
            name,
        }
    }
}

/// A socket on which the server has accepted us. It never reconnects.
#[derive(Debug)]
pub struct Connection {
    /// The server's last INFO, with the limits of our account. Another may come at any time.
    pub info: ServerInfo,
    /// The socket. It needs a single writer: a PONG between the pieces of a publish breaks the protocol.
    pub io: Io,
    /// What was read beyond the handshake: to be parsed before anything else is read.
    pub leftover: BytesMut,
}

/// A plain or an encrypted socket. `tokio::io::split` makes a reader and a writer of it.
#[derive(Debug)]
pub enum Io {
    /// TCP.
    Plain(Guarded<TcpStream>),
    /// TLS over TCP.
    Tls(Box<TlsStream<Guarded<TcpStream>>>),
}

impl Io {
    /// Lets the gate decide about each write from here on.
    pub fn set_gate(&mut self, gate: impl WriteGate) {
        match self {
            Self::Plain(stream) => stream.set_gate(gate),
            Self::Tls(stream) => stream.get_mut().0.set_gate(gate),
        }
    }
}

/// Connects and logs in, all within `timeout`.
///
/// # Errors
/// [`ConnectError`], each kind with what was going on.
pub async fn connect(server: &ServerAddress, login: Login<'_>, timeout: Duration) -> Result<Connection, ConnectError> {
    let deadline = Instant::now() + timeout;
    let handshake = Handshake { server, deadline };
    let mut stream = handshake.open().await?;
    let (mut parser, mut buffer) = (Parser::default(), BytesMut::with_capacity(4096));
    let info = match handshake
        .read_op(&mut stream, &mut parser, &mut buffer, Stage::Info)
        .await?
    {
        Op::Info(info) => info,
        Op::Error(error) => return Err(handshake.refused(error)),
        _ => return Err(handshake.unsupported(&ServerInfo::default(), "did not start with an INFO")),
    };
    if !info.headers {
        return Err(handshake.unsupported(&info, "has no headers; enable them, or update it to 2.2 or later"));
    }
    if info.proto < 1 {
        return Err(handshake.unsupported(&info, "speaks a protocol that is too old; update it to 2.2 or later"));
    }
    let wants_tls = server.url.tls || login.tls.is_some();
    let mut io = if wants_tls || info.tls_required {
        if !(info.tls_required || info.tls_available) {
            return Err(ConnectError::TlsUnavailable { server: server.clone() });
        }
        if !buffer.is_empty() {
            // Whoever can write into the plain part could otherwise speak in the name of the encrypted one.
            return Err(handshake.unsupported(&info, "sent data between its INFO and the TLS handshake"));
        }
        Io::Tls(Box::new(handshake.encrypt(stream, login.tls).await?))
    } else {
        Io::Plain(stream)
    };
    let info = handshake.log_in(&mut io, &mut parser, &mut buffer, login, info).await?;
    Ok(Connection {
        info: *info,
        io,
        leftover: buffer,
    })
}

struct Handshake<'a> {
    server: &'a ServerAddress,
    /// One for all stages: a server that dribbles gets no time of its own for each byte.
    deadline: Instant,
}

impl Handshake<'_> {
    async fn open(&self) -> Result<Guarded<TcpStream>, ConnectError> {
        let ServerUrl { host, port, .. } = &self.server.url;
        let looked_up = self
            .within(Stage::Resolve, tokio::net::lookup_host((host.as_str(), *port)))
            .await?;
        let resolve = |source| ConnectError::Resolve {
            server: self.server.clone(),
            source,
        };
        let addresses: Vec<SocketAddr> = looked_up.map_err(resolve)?.collect();
        let mut last = resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no addresses"));
        // A name of several servers may still list one that is gone and swallows packets.
        let mut race = Race::new(addresses, |address| async move {
            (address, TcpStream::connect(address).await)
        });
        let connected = self
            .within(
                Stage::Connect,
                race.next(|_, source| last = self.io(Stage::Connect, source)),
            )
            .await?;
        let Some((_, stream)) = connected else {
            return Err(last);
        };
        // We write large pieces ourselves; waiting for more only delays the fence.
        stream
            .set_nodelay(true)
            .map_err(|source| self.io(Stage::Connect, source))?;
        Ok(Guarded::new(stream))
    }

    async fn encrypt(
        &self,
        stream: Guarded<TcpStream>,
        tls: Option<&Tls>,
    ) -> Result<TlsStream<Guarded<TcpStream>>, ConnectError> {
        let failed = |source| ConnectError::tls(self.server.clone(), source);
        let config = self
            .within(Stage::Tls, tls::client_config(tls))
            .await?
            .map_err(|source| ConnectError::TlsFiles {
                server: self.server.clone(),
                source,
            })?;
        let name = ServerName::try_from(self.server.certificate_name().to_owned())
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        self.within(Stage::Tls, TlsConnector::from(Arc::new(config)).connect(name, stream))
            .await?
            .map_err(failed)
    }

    async fn log_in(
        &self,
        io: &mut Io,
        parser: &mut Parser,
        buffer: &mut BytesMut,
        login: Login<'_>,
        mut info: Box<ServerInfo>,
    ) -> Result<Box<ServerInfo>, ConnectError> {
        let Login { auth, tls: _, name } = login;
        let load = credentials::Presented::new(auth, self.server.url.userinfo.as_ref(), info.nonce.as_deref());
        let credentials::Presented {
            token,
            user,
            password,
            jwt,
            nkey,
            signature,
        } = self
            .within(Stage::Login, load)
            .await?
            .map_err(|source| ConnectError::Credentials {
                server: self.server.clone(),
                source,
            })?;
        let connect = Connect {
            verbose: false,
            pedantic: false,
            tls_required: matches!(io, Io::Tls(_)),
            echo: true,
            headers: true,
            no_responders: true,
            protocol: 1,
            name,
            lang: "rust",
            version: env!("CARGO_PKG_VERSION"),
            token: token.as_deref(),
            user: user.as_deref(),
            password: password.as_deref(),
            nkey: nkey.as_deref(),
            jwt: jwt.as_deref(),
            signature: signature.as_deref(),
        };
        let mut out = Vec::with_capacity(1024);
        encode_connect(&mut out, &connect).map_err(|error| self.io(Stage::Login, error.into()))?;
        // The server follows its first PONG with an INFO that holds our account's limits, such as a lower `max_payload`.
        // Only the second PONG is sure to come after it.
        encode_ping(&mut out);
        encode_ping(&mut out);
        let mut awaited = 2;
        // A server that refuses us closes its side, and our write may fail before we have read why: read in any case.
        let written = self.write(io, &out).await;
        loop {
            let op = match (self.read_op(io, parser, buffer, Stage::Login).await, &written) {
                (Ok(op), _) => op,
                (Err(ConnectError::Closed { .. }), Err(_)) => return written.map(|()| info),
                (Err(error), _) => return Err(error),
            };
            match op {
                Op::Pong if awaited > 1 => awaited -= 1,
                Op::Pong => return Ok(info),
                Op::Info(newer) => info = newer,
                Op::Ok => {}
                Op::Ping => {
                    out.clear();
                    encode_pong(&mut out);
                    self.write(io, &out).await?;
                }
                Op::Error(error) => return Err(self.refused(error)),
                Op::Message(_) => return Err(self.unsupported(&info, "sent a message that nobody asked for")),
            }
        }
    }

    async fn write(&self, io: &mut Io, bytes: &[u8]) -> Result<(), ConnectError> {
        let all = async {
            io.write_all(bytes).await?;
            io.flush().await
        };
        self.within(Stage::Login, all)
            .await?
            .map_err(|source| self.io(Stage::Login, source))
    }

    async fn read_op<S: AsyncRead + Unpin>(
        &self,
        stream: &mut S,
        parser: &mut Parser,
        buffer: &mut BytesMut,
        stage: Stage,
    ) -> Result<Op, ConnectError> {
        loop {
            let parsed = parser.next_op(buffer);
            if let Some(op) = parsed.map_err(|source| ConnectError::Protocol {
                server: self.server.clone(),
                source,
            })? {
                return Ok(op);
            }
            let read = self.within(stage, stream.read_buf(buffer)).await?;
            if read.map_err(|source| self.io(stage, source))? == 0 {
                return Err(ConnectError::Closed {
                    server: self.server.clone(),
                    stage,
                });
            }
        }
    }

    async fn within<T>(&self, stage: Stage, future: impl Future<Output = T>) -> Result<T, ConnectError> {
        timeout_at(self.deadline, future)
            .await
            .map_err(|_| self.timed_out(stage))
    }

    fn timed_out(&self, stage: Stage) -> ConnectError {
        ConnectError::Timeout {
            server: self.server.clone(),
            stage,
        }
    }

    fn io(&self, stage: Stage, source: io::Error) -> ConnectError {
        let server = self.server.clone();
        // With TLS 1.3 a server refuses our certificate only after we are done with the handshake.
        match source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
            true => ConnectError::tls(server, source),
            false => ConnectError::Io { server, stage, source },
        }
    }

    fn refused(&self, error: ServerError) -> ConnectError {
        let server = self.server.clone();
        match error {
            ServerError::Authorization { text } => ConnectError::Authorization { server, text },
            source => ConnectError::Refused { server, source },
        }
    }

    fn unsupported(&self, info: &ServerInfo, problem: &'static str) -> ConnectError {
        ConnectError::Unsupported {
            server: self.server.clone(),
            version: info.version.clone(),
            problem,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;
