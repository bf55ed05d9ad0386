//! Flow control around russh 0.65.1: everything that is special about it is in this file, and it goes away when russh
//! credits a window when data is *consumed* (its pull request 730) instead of when it arrives.
//!
//! What is wrong with the plain way: russh re-opens the receive window as soon as data arrives, and its session loop
//! awaits a bounded queue per channel. A proxy has two such loops, and they can wait for each other: a plain relay of
//! 300 MiB through `cat` hangs in every run. With longer queues one stalled reader takes gigabytes.
//!
//! What always holds instead:
//!
//! - **No handler awaits.** What arrives goes into a byte-counted [`Queue`] per channel and direction. russh's own
//!   queue is never used: the read half of each channel is dropped at once.
//! - **Out only through the write half** of a channel, which reserves the peer's window first. `Handle::data` and
//!   `Session::data` overrun it, into a buffer that then blocks every channel of the connection.
//! - **Towards the target** `adjust_window` has no effect (russh issue 770). So a connection to the target carries one
//!   channel, and its stream, [`Gated`], does not read while the queue holds more than [`HIGH`] bytes.
//! - **Towards the client** several channels share a connection, so reading cannot stop. [`Windows`] keeps the windows at
//!   [`OPEN`] while nobody is stalled and at [`TRICKLE`] while somebody is. Never at 0: a closed window cannot be opened
//!   again, because russh asks only when data arrives. The trickle is the probe. [`Held`] delays the read
//!   after a trickle by [`PROBE`], or an idle stall would burn a core.
//! - **A hard cap.** A peer that ignores its window loses the channel, with a message. One that keeps to it stays below
//!   [`CAP`]: russh asks for the next window only after it has granted one, so to [`HIGH`] come half of an [`OPEN`] window
//!   that was granted before the stall, and a whole one that was granted in it.
//!
//! Known limits: beside one stalled upload, other uploads of the same connection slow to a trickle; a target whose
//! stream is gated is not heard, so its keep-alives go unanswered until the client reads on.

use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A queue with more bytes than this is stalled.
pub(super) const HIGH: usize = 1 << 20;
/// A gated stream is read again at this.
pub(super) const LOW: usize = HIGH / 2;
/// A queue with more bytes than this ends its channel. (4 MiB ended uploads of OpenSSH's client.)
pub(super) const CAP: usize = 8 << 20;
const _: () = assert!(CAP >= HIGH + OPEN as usize / 2 + OPEN as usize + (1 << 20));
/// The window of every channel while nobody is stalled. (16 MiB made it slower.)
pub(super) const OPEN: u32 = 2 << 20;
/// The window of every channel while somebody is stalled.
pub(super) const TRICKLE: u32 = 2;
/// How long the next read waits after a trickle.
const PROBE: Duration = Duration::from_millis(10);
/// A connection that carried more than a trickle this lately is not held up.
const BUSY: Duration = Duration::from_millis(50);
/// Pieces are joined up to this size, so that a trickle of two-byte packets costs two bytes each.
const PIECE: usize = 32 << 10;
/// What an entry that is no data counts, so that a flood of requests meets the cap too.
const ENTRY: usize = 256;

/// One entry of a [`Queue`].
#[derive(Debug)]
pub(super) enum Item<T> {
    /// Bytes, on the main stream or on an extended one. To be [settled](Queue::settle) when they have been passed on.
    Data {
        /// `None`: the main stream; 1: stderr (RFC 4254 section 5.2).
        extended: Option<u32>,
        /// The bytes.
        bytes: Bytes,
    },
    /// Anything else, in its place between the bytes.
    Event(T),
    /// The peer ignored its window: what was queued is gone, and nothing follows.
    Overrun,
}

#[derive(Debug)]
enum Entry<T> {
    Data(Option<u32>, BytesMut),
    Event(T),
}

#[derive(Debug)]
struct Inner<T> {
    entries: VecDeque<Entry<T>>,
    overrun: bool,
}

/// What has arrived on one channel in one direction and has not been passed on. Pushing never waits.
#[derive(Debug)]
pub(super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    /// Bytes queued or popped and not settled.
    held: AtomicUsize,
    arrived: Notify,
    overran: CancellationToken,
    drained: AtomicWaker,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner { entries: VecDeque::new(), overrun: false }),
            held: AtomicUsize::new(0),
            arrived: Notify::new(),
            overran: CancellationToken::new(),
            drained: AtomicWaker::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes, joining them to the piece before where that costs nothing.
    pub(super) fn push_data(&self, extended: Option<u32>, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let mut inner = self.lock();
        if !self.count(&mut inner, data.len()) {
            return;
        }
        match inner.entries.back_mut() {
            Some(Entry::Data(before, piece))
                if *before == extended
                    && piece.len().saturating_add(data.len()) <= PIECE
                    && (data.len() < 4096 || piece.capacity().saturating_sub(piece.len()) >= data.len()) =>
            {
                piece.extend_from_slice(data);
            }
            _ => inner.entries.push_back(Entry::Data(extended, BytesMut::from(data))),
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// Adds an event behind the bytes.
    pub(super) fn push(&self, event: T) {
        let mut inner = self.lock();
        if self.count(&mut inner, ENTRY) {
            inner.entries.push_back(Entry::Event(event));
            drop(inner);
            self.arrived.notify_one();
        }
    }

    /// False if the queue has been overrun, now or before.
    fn count(&self, inner: &mut Inner<T>, bytes: usize) -> bool {
        if inner.overrun {
            return false;
        }
        let held = self.held.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        if held <= CAP {
            return true;
        }
        inner.overrun = true;
        inner.entries = VecDeque::new();
        self.held.store(0, Ordering::SeqCst);
        self.overran.cancel();
        self.drained.wake();
        self.arrived.notify_one();
        false
    }

    /// The next entry. Cancel safe. One task at a time.
    pub(super) async fn pop(&self) -> Item<T> {
        loop {
            if let Some(item) = self.try_pop() {
                return item;
            }
            self.arrived.notified().await;
        }
    }

    fn try_pop(&self) -> Option<Item<T>> {
        let mut inner = self.lock();
        if inner.overrun {
            return Some(Item::Overrun);
        }
        let entry = inner.entries.pop_front()?;
        drop(inner);
        Some(match entry {
            Entry::Data(extended, piece) => Item::Data { extended, bytes: piece.freeze() },
            Entry::Event(event) => {
                self.settle(ENTRY);
                Item::Event(event)
            }
        })
    }

    /// So many bytes have been passed on.
    pub(super) fn settle(&self, bytes: usize) {
        let before = self
            .held
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |held| Some(held.saturating_sub(bytes)))
            .unwrap_or_default();
        if before > LOW && before.saturating_sub(bytes) <= LOW {
            self.drained.wake();
        }
    }

    /// Waits until the queue is overrun: it may be while its reader waits for somebody else's window.
    pub(super) async fn overrun(&self) {
        self.overran.cancelled().await;
    }

    fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// Whether its reader is so far behind that nothing more should be asked for.
    pub(super) fn stalled(&self) -> bool {
        self.held() >= HIGH
    }
}

/// Ends a connection from outside of russh, whatever its loop is waiting for: reads and writes fail from then on.
#[derive(Debug)]
struct Cut {
    token: CancellationToken,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Cut {
    fn new(token: CancellationToken) -> Self {
        Self { wait: Box::pin(token.clone().cancelled_owned()), token }
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

/// The stream to a target: not read while the channel's queue is full.
#[derive(Debug)]
pub(super) struct Gated<S, T> {
    stream: S,
    queue: Arc<Queue<T>>,
    /// Closed at [`HIGH`], open again at [`LOW`].
    shut: bool,
    cut: Cut,
}

impl<S, T> Gated<S, T> {
    pub(super) fn new(stream: S, queue: Arc<Queue<T>>, cut: CancellationToken) -> Self {
        Self { stream, queue, shut: false, cut: Cut::new(cut) }
    }

    fn gate(&mut self) {
        let held = self.queue.held();
        self.shut = held > if self.shut { LOW } else { HIGH };
    }
}

impl<S: AsyncRead + Unpin, T> AsyncRead for Gated<S, T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.cut.check()?;
        me.gate();
        if me.shut {
            me.queue.drained.register(cx.waker());
            me.gate(); // it may have drained before the waker was there
            if me.shut {
                return me.cut.or_wake(cx, Poll::Pending);
            }
        }
        let poll = Pin::new(&mut me.stream).poll_read(cx, buf);
        me.cut.or_wake(cx, poll)
    }
}

impl<S: AsyncWrite + Unpin, T> AsyncWrite for Gated<S, T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.cut.check()?;
        let poll = Pin::new(&mut me.stream).poll_write(cx, buf);
        me.cut.or_wake(cx, poll)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_flush(cx);
        me.cut.or_wake(cx, poll)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_shutdown(cx);
        me.cut.or_wake(cx, poll)
    }
}

/// Until when a client's stream is not read.
#[derive(Debug, Default)]
pub(super) struct Hold(Mutex<Option<Instant>>);

impl Hold {
    fn set(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
    fn take_if_over(&self, now: Instant) -> Option<Instant> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.is_some_and(|until| until <= now) {
            *held = None;
        }
        *held
    }
}

/// The stream of a client: its reads can be held for some milliseconds.
#[derive(Debug)]
pub(super) struct Held<S> {
    stream: S,
    hold: Arc<Hold>,
    sleep: Option<Pin<Box<Sleep>>>,
    cut: Cut,
}

impl<S> Held<S> {
    pub(super) fn new(stream: S, hold: Arc<Hold>, cut: CancellationToken) -> Self {
        Self { stream, hold, sleep: None, cut: Cut::new(cut) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Held<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        me.cut.check()?;
        if let Some(until) = me.hold.take_if_over(Instant::now()) {
            let sleep = me.sleep.get_or_insert_with(|| Box::pin(sleep_until(until)));
            if sleep.as_mut().poll(cx).is_pending() {
                return me.cut.or_wake(cx, Poll::Pending);
            }
        }
        me.sleep = None;
        let poll = Pin::new(&mut me.stream).poll_read(cx, buf);
        me.cut.or_wake(cx, poll)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Held<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        me.cut.check()?;
        let poll = Pin::new(&mut me.stream).poll_write(cx, buf);
        me.cut.or_wake(cx, poll)
    }
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_flush(cx);
        me.cut.or_wake(cx, poll)
    }
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        let poll = Pin::new(&mut me.stream).poll_shutdown(cx);
        me.cut.or_wake(cx, poll)
    }
}

/// The windows of one client connection.
#[derive(Debug)]
pub(super) struct Windows {
    hold: Arc<Hold>,
    held_until: Option<Instant>,
    busy_until: Option<Instant>,
}

impl Windows {
    pub(super) fn new(hold: Arc<Hold>) -> Self {
        Self { hold, held_until: None, busy_until: None }
    }

    /// So many bytes arrived in one packet.
    pub(super) fn seen(&mut self, bytes: usize, now: Instant) {
        if bytes > 64 {
            self.busy_until = Some(now + BUSY);
        }
    }

    /// The answer to `adjust_window`: the window of the whole connection. `granted` is what the channel that asks just
    /// got; `asker` and `anyone` say who is stalled.
    pub(super) fn next(&mut self, granted: u32, asker: bool, anyone: bool, now: Instant) -> u32 {
        if !anyone {
            return OPEN;
        }
        let free = |until: Option<Instant>| until.is_none_or(|until| until < now);
        if asker && granted <= TRICKLE && free(self.held_until) && free(self.busy_until) {
            self.held_until = Some(now + PROBE);
            self.hold.set(now + PROBE);
        }
        TRICKLE
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn data(item: Item<&'static str>) -> (Option<u32>, Bytes) {
        match item {
            Item::Data { extended, bytes } => (extended, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn bytes_and_events_come_out_in_the_order_they_went_in() {
        let queue = Queue::new();
        queue.push_data(None, b"a");
        queue.push_data(None, b"b");
        queue.push_data(Some(1), b"e");
        queue.push_data(None, b"c");
        queue.push("eof");
        assert_eq!(data(queue.pop().await), (None, Bytes::from_static(b"ab")));
        assert_eq!(data(queue.pop().await), (Some(1), Bytes::from_static(b"e")));
        assert_eq!(data(queue.pop().await), (None, Bytes::from_static(b"c")));
        assert!(matches!(queue.pop().await, Item::Event("eof")));
        queue.settle(4);
        assert_eq!(queue.held(), 0);
    }

    #[tokio::test]
    async fn a_queue_beyond_its_cap_loses_everything_and_says_so() {
        let queue: Queue<&'static str> = Queue::new();
        for _ in 0..=(CAP / PIECE) {
            queue.push_data(None, &[0; PIECE]);
        }
        tokio::time::timeout(Duration::from_secs(5), queue.overrun()).await.unwrap();
        queue.push("more");
        assert!(matches!(queue.pop().await, Item::Overrun));
        assert!(matches!(queue.pop().await, Item::Overrun));
        assert_eq!(queue.held(), 0);
    }

    #[test]
    fn a_flood_of_requests_meets_the_cap() {
        let queue: Queue<u8> = Queue::new();
        for _ in 0..=(CAP / ENTRY) {
            queue.push(0);
        }
        assert!(queue.overran.is_cancelled());
    }

    #[tokio::test]
    async fn a_gated_stream_is_not_read_until_its_queue_has_drained() {
        let (mut far, near) = tokio::io::duplex(64);
        let queue: Arc<Queue<()>> = Arc::new(Queue::new());
        let cut = CancellationToken::new();
        let mut near = Gated::new(near, queue.clone(), cut.clone());
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
    async fn a_cut_wakes_a_waiting_reader_and_a_waiting_writer() {
        let (_far, near) = tokio::io::duplex(1);
        let cut = CancellationToken::new();
        let held = Held::new(near, Arc::default(), cut.clone());
        let (mut read, mut write) = tokio::io::split(held);
        let both = tokio::spawn(async move {
            let (r, w) = tokio::join!(async { read.read_u8().await.is_err() }, async {
                write.write_all(&[0; 64]).await.is_err()
            });
            r && w
        });
        tokio::task::yield_now().await;
        cut.cancel();
        assert!(tokio::time::timeout(Duration::from_secs(5), both).await.unwrap().unwrap());
    }

    #[test]
    fn windows_close_to_a_trickle_while_somebody_is_stalled_and_never_to_nothing() {
        let hold = Arc::new(Hold::default());
        let mut windows = Windows::new(hold.clone());
        let now = Instant::now();
        assert_eq!(windows.next(OPEN, false, false, now), OPEN);
        assert_eq!(windows.next(OPEN, true, true, now), TRICKLE);
        assert!(hold.take_if_over(now).is_none(), "held after a full window");
        assert_eq!(windows.next(TRICKLE, false, true, now), TRICKLE);
        assert!(hold.take_if_over(now).is_none(), "held for one who is not stalled");
        assert_eq!(windows.next(TRICKLE, true, true, now), TRICKLE);
        assert!(hold.take_if_over(now).is_some());
        assert_eq!(windows.next(TRICKLE, false, false, now), OPEN);
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_pushed_less_what_was_settled(sizes in prop::collection::vec(1usize..5000, 0..60)) {
            let queue: Queue<()> = Queue::new();
            for (i, size) in sizes.iter().enumerate() {
                queue.push_data((i % 3 == 0).then_some(1), &vec![7; *size]);
            }
            prop_assert_eq!(queue.held(), sizes.iter().sum::<usize>());
            let mut out = 0;
            while let Some(Item::Data { bytes, .. }) = queue.try_pop() {
                prop_assert!(bytes.len() <= PIECE);
                out += bytes.len();
                queue.settle(bytes.len());
            }
            prop_assert_eq!(out, sizes.iter().sum::<usize>());
            prop_assert_eq!(queue.held(), 0);
        }
    }
}
