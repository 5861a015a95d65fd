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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const CAPACITY: usize = 16;

    #[derive(Clone, Debug, Default)]
    struct Gate {
        closed: Arc<AtomicBool>,
    }

    impl WriteGate for Gate {
        fn check(&self) -> io::Result<()> {
            if self.closed.load(Ordering::SeqCst) {
                return Err(io::Error::other("closed"));
            }
            Ok(())
        }
    }

    fn guarded() -> (Guarded<DuplexStream>, Gate, DuplexStream) {
        let (near, far) = duplex(CAPACITY);
        let (mut near, gate) = (Guarded::new(near), Gate::default());
        near.set_gate(gate.clone());
        (near, gate, far)
    }

    async fn all_of(mut far: DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn a_closed_gate_lets_no_byte_pass() {
        let (mut near, gate, far) = guarded();
        near.write_all(b"before").await.unwrap();
        gate.closed.store(true, Ordering::SeqCst);
        near.write_all(b"late").await.unwrap_err();
        near.write_vectored(&[IoSlice::new(b"late")]).await.unwrap_err();
        drop(near);
        assert_eq!(all_of(far).await, b"before");
    }

    #[tokio::test]
    async fn a_gate_that_closes_while_a_write_waits_lets_no_byte_of_it_pass() {
        let (mut near, gate, mut far) = guarded();
        near.write_all(&[b'a'; CAPACITY]).await.unwrap();
        let mut write = Box::pin(near.write(b"late"));
        assert!(poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await);
        gate.closed.store(true, Ordering::SeqCst);
        far.read_exact(&mut [0; CAPACITY]).await.unwrap();
        write.await.unwrap_err();
        drop(near);
        assert_eq!(all_of(far).await, b"");
    }
}
