//! The socket, below TLS, with a [`WriteGate`] before each write to it.
//!
//! It must stand here. A writer waits until the socket takes bytes, so a check made before the wait is stale when the bytes leave. And TLS may
//! keep bytes that its caller believes to be written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::gate::WriteGate;

/// A stream that asks a gate, once it has one, before each write.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    gate: Option<Box<dyn WriteGate>>,
}

impl<S> Guarded<S> {
    /// A stream without a gate.
    pub fn new(stream: S) -> Self {
        Self { stream, gate: None }
    }

    /// Lets the gate decide about each write from here on.
    pub fn set_gate(&mut self, gate: impl WriteGate) {
        self.gate = Some(Box::new(gate));
    }

    fn check(&self) -> io::Result<()> {
        self.gate.as_ref().map_or(Ok(()), |gate| gate.check())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
