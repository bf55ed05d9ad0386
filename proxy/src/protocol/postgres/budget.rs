//! A bound on what a target may send over an administrator's connection.
//!
//! The client library collects a message, and we collect the rows, before anybody looks at them: a hostile target could fill
//! our memory within a deadline. So the stream ends after a number of bytes that no answer of our functions needs.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes per use of a connection, TLS included. (The longest answer lists one line per routine of a batch.)
const BYTES: usize = 4 * 1024 * 1024;

/// How much may still be read; or, with a stream, that stream.
#[derive(Debug)]
pub(super) struct Budget<S = ()> {
    left: Arc<AtomicUsize>,
    stream: S,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { left: Arc::new(AtomicUsize::new(BYTES)), stream: () }
    }

    /// The stream, with this budget for what comes in.
    pub(super) fn around<S>(&self, stream: S) -> Budget<S> {
        Budget { left: self.left.clone(), stream }
    }

    /// Full again: a new call begins.
    pub(super) fn renew(&self) {
        self.left.store(BYTES, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Budget<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = buf.filled().len().saturating_sub(before);
        let spent = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(read));
        Poll::Ready(spent.map(drop).map_err(|_| {
            buf.set_filled(before); // an error comes without bytes
            io::Error::other("the target sent more than any answer needs")
        }))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Budget<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn a_target_that_never_stops_talking_is_cut_off() {
        let budget = Budget::new();
        let mut stream = budget.around(tokio::io::repeat(b'x'));
        let mut sink = Vec::new();
        assert!(stream.read_to_end(&mut sink).await.is_err());
        assert!(sink.len() <= BYTES);
        budget.renew();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }
}
