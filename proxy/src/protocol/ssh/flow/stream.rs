//! The streams beneath russh: each can be cut from outside, and is read only when its rule says so.

use super::{PROBE, queue::Queue};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::task_tracker::TaskTrackerToken,
};

/// When a stream may be read.
pub(in super::super) trait Rule: Unpin {
    /// Ready when it may be read now; else the task is woken when it is worth asking again.
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A stream that can be ended from outside of russh, whatever its loop is waiting for: reads and writes fail from then on.
#[derive(Debug)]
pub(in super::super) struct Cut<S, R> {
    stream: S,
    rule: R,
    token: CancellationToken,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Held until the stream above has been closed: fields are dropped in their order.
    _open: Option<TaskTrackerToken>,
}

impl<S, R> Cut<S, R> {
    /// `token` cuts it.
    pub(in super::super) fn new(stream: S, rule: R, token: CancellationToken) -> Self {
        Self { stream, rule, wait: Box::pin(token.clone().cancelled_owned()), token, _open: None }
    }

    /// The same stream, with a token that is dropped as soon as it has been closed.
    pub(in super::super) fn counted(self, open: TaskTrackerToken) -> Self {
        Self { _open: Some(open), ..self }
    }

    fn check(&self) -> io::Result<()> {
        if self.token.is_cancelled() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Turns a pending read or write into one that the cut wakes. Both halves of a stream live in one task (russh's
    /// session loop), so one waker serves them.
    fn or_wake<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match poll {
            Poll::Pending if self.wait.as_mut().poll(cx).is_ready() => {
                Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
            }
            poll => poll,
        }
    }
}

impl<S: AsyncRead + Unpin, R: Rule> AsyncRead for Cut<S, R> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.check()?;
        let poll = match me.rule.poll_may_read(cx) {
            Poll::Ready(()) => Pin::new(&mut me.stream).poll_read(cx, buf),
            Poll::Pending => Poll::Pending,
        };
        me.or_wake(cx, poll)
    }
}

impl<S: AsyncWrite + Unpin, R: Rule> AsyncWrite for Cut<S, R> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.check()?;
        let poll = Pin::new(&mut me.stream).poll_write(cx, buf);
        me.or_wake(cx, poll)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_flush(cx);
        me.or_wake(cx, poll)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_shutdown(cx);
        me.or_wake(cx, poll)
    }
}

/// The rule for the stream of a target: not read while the channel's queue is full.
#[derive(Debug)]
pub(in super::super) struct Gated<T> {
    queue: Arc<Queue<T>>,
    /// Closed where the queue is stalled, open again at half of that.
    shut: bool,
}

impl<T> Gated<T> {
    pub(in super::super) fn new(queue: Arc<Queue<T>>) -> Self {
        Self { queue, shut: false }
    }

    fn gate(&mut self) {
        let (held, high) = (self.queue.held(), self.queue.high());
        self.shut = held > if self.shut { high / 2 } else { high };
    }
}

impl<T> Rule for Gated<T> {
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.gate();
        if self.shut {
            self.queue.wake_when_drained(cx.waker());
            self.gate(); // it may have drained before the waker was there
        }
        if self.shut { Poll::Pending } else { Poll::Ready(()) }
    }
}

/// Until when a client's stream is not read.
#[derive(Debug, Default)]
pub(in super::super) struct Hold(Mutex<Option<Instant>>);

impl Hold {
    /// From now for one [`PROBE`].
    pub(super) fn set(&self, now: Instant) -> Instant {
        let until = now + PROBE;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        until
    }

    pub(super) fn take_if_over(&self, now: Instant) -> Option<Instant> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some_and(|until| until <= now) {
            *held = None;
        }
        *held
    }
}

/// The rule for the stream of a client: its reads can be held for some milliseconds.
#[derive(Debug)]
pub(in super::super) struct Held {
    hold: Arc<Hold>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Held {
    pub(in super::super) fn new(hold: Arc<Hold>) -> Self {
        Self { hold, sleep: None }
    }
}

impl Rule for Held {
    fn poll_may_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(until) = self.hold.take_if_over(Instant::now()) {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.sleep = None;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{Budget, HIGH, TIGHT},
        *,
    };
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_util::task::TaskTracker;

    #[tokio::test]
    async fn a_gated_stream_is_not_read_until_its_queue_has_drained() {
        let (mut far, near) = tokio::io::duplex(64);
        let queue: Arc<Queue<()>> = Arc::new(Queue::new(&Budget::default()));
        let mut near = Cut::new(near, Gated::new(queue.clone()), CancellationToken::new());
        far.write_all(b"x").await.unwrap();
        queue.push_data(None, &vec![0; HIGH + 1]);
        let mut read = tokio::spawn(async move {
            let mut byte = [0];
            near.read_exact(&mut byte).await.map(|_| byte)
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut read).await.is_err(), "read through a shut gate");
        queue.settle(HIGH / 4);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut read).await.is_err(), "opened above the low mark");
        queue.settle(HIGH / 4 + 1);
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap().unwrap(), *b"x");
    }

    #[tokio::test]
    async fn a_gate_that_shut_early_for_want_of_room_opens_when_its_own_queue_is_empty() {
        let budget = Budget::default();
        let (mut far, near) = tokio::io::duplex(64);
        let others: Vec<Queue<()>> = (0..TIGHT / HIGH).map(|_| Queue::new(&budget)).collect();
        others.iter().for_each(|queue| queue.push_data(None, &vec![0; HIGH]));
        let queue: Arc<Queue<()>> = Arc::new(Queue::new(&budget));
        let mut near = Cut::new(near, Gated::new(queue.clone()), CancellationToken::new());
        far.write_all(b"x").await.unwrap();
        queue.push_data(None, &vec![0; HIGH / 4]);
        let mut read = tokio::spawn(async move { near.read_u8().await });
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut read).await.is_err(), "read through a shut gate");
        queue.settle(HIGH / 4);
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), read).await.unwrap().unwrap().unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_cut_wakes_a_waiting_reader_and_a_waiting_writer_and_says_when_it_is_closed() {
        let (mut far, near) = tokio::io::duplex(1);
        let (cut, open) = (CancellationToken::new(), TaskTracker::new());
        let held = Cut::new(near, Held::new(Arc::default()), cut.clone()).counted(open.token());
        open.close();
        let (mut read, mut write) = tokio::io::split(held);
        let both = tokio::spawn(async move {
            let (r, w) = tokio::join!(async { read.read_u8().await.is_err() }, async {
                write.write_all(&[0; 64]).await.is_err()
            });
            r && w
        });
        tokio::task::yield_now().await;
        assert_eq!(open.len(), 1);
        cut.cancel();
        assert!(tokio::time::timeout(Duration::from_secs(5), both).await.unwrap().unwrap());
        tokio::time::timeout(Duration::from_secs(5), open.wait()).await.unwrap();
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.unwrap(); // returns only because the other end is closed
    }
}
