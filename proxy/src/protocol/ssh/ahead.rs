//! Reading ahead: what is there is taken at once, since russh asks for a packet's length and its rest apart.
//!
//! What always holds: while nothing is there to be read, no buffer is held. Most connections are idle, and there are thousands of them.

use bytes::{Buf as _, BytesMut};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

/// Bytes that are taken at once: two packets of the largest size.
const ROOM: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Ahead<S> {
    inner: S,
    read: BytesMut,
}

impl<S> Ahead<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, read: BytesMut::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Ahead<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { inner, read } = self.get_mut();
        if read.is_empty() {
            read.reserve(ROOM); // takes the same memory again where it can
            let polled = poll_read_buf(Pin::new(inner), context, read);
            if polled.is_pending() {
                *read = BytesMut::new();
            }
            ready!(polled)?;
        }
        let count = read.len().min(out.remaining());
        out.put_slice(read.get(..count).unwrap_or_default());
        read.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Ahead<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn all_comes_in_order_and_nothing_is_held_while_nothing_comes() {
        let (mut peer, stream) = tokio::io::duplex(1 << 20);
        let mut ahead = Ahead::new(stream);
        let sent: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[1]).collect();
        peer.write_all(&sent).await.unwrap();
        let mut came = vec![0; sent.len() - 1];
        let (length, rest) = came.split_at_mut(4);
        ahead.read_exact(length).await.unwrap();
        assert_eq!(ahead.read.len(), ROOM - 4, "the rest was taken with it");
        ahead.read_exact(rest).await.unwrap();
        assert!(ahead.read.capacity() > 0);
        assert_eq!(came, sent.get(..came.len()).unwrap());
        let mut last = [0; 2];
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(1), ahead.read_exact(&mut last)).await;
        assert!(waiting.is_err());
        assert_eq!((last[0], ahead.read.capacity()), (*sent.last().unwrap(), 0));
        drop(peer);
        assert_eq!(ahead.read(&mut last).await.unwrap(), 0);
    }
}
