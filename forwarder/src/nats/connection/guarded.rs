//! The socket, below TLS, with a [`Guard`] before each write to it.
//!
//! It must stand here: who writes waits until the socket takes bytes, and much may have happened when it does. A look at the
//! lease before the wait would prove nothing, and TLS may keep bytes that its caller holds for written.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::lease::Guard;

/// A stream that asks a guard, once it has one, before each write.
#[derive(Debug)]
pub struct Guarded<S> {
    stream: S,
    guard: Option<Guard>,
}

impl<S> Guarded<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, guard: None }
    }

    pub(super) fn set_guard(&mut self, guard: Guard) {
        self.guard = Some(guard);
    }

    fn check(&self) -> io::Result<()> {
        self.guard.as_ref().map_or(Ok(()), Guard::check)
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
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;
    use crate::clock::Clock;
    use crate::lease::{Lease, NotHeld};

    const CAPACITY: usize = 64;

    /// A stream over which records are to go while the lease is held, the lease, and the other end.
    fn guarded() -> (Guarded<DuplexStream>, Lease, DuplexStream) {
        let clock = Clock::start();
        let lease = Lease::new(clock, Duration::from_secs(60));
        lease.renew(clock.micros());
        let guard = Guard::new(lease.clone());
        guard.set_records_wait(true);
        let (near, far) = duplex(CAPACITY);
        let mut near = Guarded::new(near);
        near.set_guard(guard);
        (near, lease, far)
    }

    async fn all_of(mut far: DuplexStream) -> Vec<u8> {
        let mut all = Vec::new();
        far.read_to_end(&mut all).await.unwrap();
        all
    }

    #[tokio::test]
    async fn nothing_passes_once_the_lease_is_over() {
        let (mut near, lease, far) = guarded();
        near.write_all(b"in time").await.unwrap();
        lease.revoke();
        let error = near.write_all(b"late").await.unwrap_err();
        assert!(NotHeld::is_reason(&error), "{error}");
        let error = near.write_vectored(&[IoSlice::new(b"late")]).await.unwrap_err();
        assert!(NotHeld::is_reason(&error), "{error}");
        drop(near);
        assert_eq!(all_of(far).await, b"in time");
    }

    #[tokio::test]
    async fn a_write_that_was_waiting_when_the_lease_ended_passes_nothing() {
        let (mut near, lease, mut far) = guarded();
        near.write_all(&[b'a'; CAPACITY]).await.unwrap();
        let mut write = Box::pin(near.write(b"late"));
        // It has looked at the lease, and waits for room.
        let waits = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_pending())).await;
        assert!(waits);
        lease.revoke();
        let mut taken = [0; CAPACITY];
        far.read_exact(&mut taken).await.unwrap();
        let error = write.await.unwrap_err();
        assert!(NotHeld::is_reason(&error), "{error}");
        drop(near);
        assert_eq!(all_of(far).await, b"");
    }

    #[tokio::test]
    async fn what_carries_no_record_passes_without_a_lease() {
        let (mut near, lease, far) = guarded();
        lease.revoke();
        near.guard.as_ref().unwrap().set_records_wait(false);
        near.write_all(b"PING").await.unwrap();
        drop(near);
        assert_eq!(all_of(far).await, b"PING");
    }
}
