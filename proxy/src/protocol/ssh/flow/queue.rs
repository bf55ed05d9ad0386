//! What has arrived on a channel and waits to be passed on; and what all queues of a client connection hold together.

use bytes::{Bytes, BytesMut};
use futures::task::AtomicWaker;
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::Waker,
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{BUDGET, CAP, HIGH, SMALL, TIGHT};

/// Pieces are joined up to this size, so that a trickle of two-byte packets costs two bytes each.
const PIECE: usize = 32 << 10;
/// What an entry that is no data counts, so that a flood of requests meets the cap too.
const ENTRY: usize = 256;

/// What the queues of one client connection hold together, in bytes. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Budget(Arc<AtomicUsize>);

impl Budget {
    /// The new sum.
    fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes)
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::SeqCst); // each byte that was added is given back once
    }

    /// Whether there is so little left that each queue gets only a [`SMALL`] share.
    fn tight(&self) -> bool {
        self.0.load(Ordering::SeqCst) >= TIGHT
    }
}

/// One entry of a [`Queue`].
#[derive(Debug)]
pub(in super::super) enum Item<T> {
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
pub(in super::super) struct Queue<T> {
    inner: Mutex<Inner<T>>,
    /// Bytes queued or popped and not settled.
    held: AtomicUsize,
    budget: Budget,
    arrived: Notify,
    overran: CancellationToken,
    drained: AtomicWaker,
}

impl<T> Queue<T> {
    pub(in super::super) fn new(budget: &Budget) -> Self {
        Self {
            inner: Mutex::new(Inner { entries: VecDeque::new(), overrun: false }),
            held: AtomicUsize::new(0),
            budget: budget.clone(),
            arrived: Notify::new(),
            overran: CancellationToken::new(),
            drained: AtomicWaker::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes, joining them to the piece before where that costs nothing.
    pub(in super::super) fn push_data(&self, extended: Option<u32>, data: &[u8]) {
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
    pub(in super::super) fn push(&self, event: T) {
        let mut inner = self.lock();
        if self.count(&mut inner, ENTRY) {
            inner.entries.push_back(Entry::Event(event));
            drop(inner);
            self.arrived.notify_one();
        }
    }

    /// Puts events back that were taken out, before everything else, in their order.
    pub(in super::super) fn restore(&self, events: Vec<T>) {
        let mut inner = self.lock();
        for event in events.into_iter().rev() {
            if self.count(&mut inner, ENTRY) {
                inner.entries.push_front(Entry::Event(event));
            }
        }
        drop(inner);
        self.arrived.notify_one();
    }

    /// False if the queue has been overrun, now or before.
    fn count(&self, inner: &mut Inner<T>, bytes: usize) -> bool {
        if inner.overrun {
            return false;
        }
        let held = self.held.fetch_add(bytes, Ordering::SeqCst).saturating_add(bytes);
        if self.budget.add(bytes) <= BUDGET && held <= CAP {
            return true;
        }
        inner.overrun = true;
        inner.entries = VecDeque::new();
        self.forgive();
        self.overran.cancel();
        self.drained.wake();
        self.arrived.notify_one();
        false
    }

    /// Nothing is held any more.
    fn forgive(&self) {
        self.budget.give_back(self.held.swap(0, Ordering::SeqCst));
    }

    /// The next entry. Cancel safe. One task at a time.
    pub(in super::super) async fn pop(&self) -> Item<T> {
        loop {
            if let Some(item) = self.try_pop() {
                return item;
            }
            self.arrived.notified().await;
        }
    }

    pub(super) fn try_pop(&self) -> Option<Item<T>> {
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
    pub(in super::super) fn settle(&self, bytes: usize) {
        let less = |held: usize| Some(held.saturating_sub(bytes));
        let before = self.held.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).unwrap_or_default();
        self.budget.give_back(before.min(bytes));
        if before.saturating_sub(bytes) <= HIGH / 2 {
            self.drained.wake();
        }
    }

    /// Forgets what is queued, and what was taken out of it and not settled: whoever it was for has gone.
    pub(in super::super) fn discard(&self) {
        let mut inner = self.lock();
        if !inner.overrun {
            inner.entries = VecDeque::new();
            self.forgive();
        }
        drop(inner);
        self.drained.wake();
    }

    /// Waits until the queue is overrun: it may be while its reader waits for somebody else's window.
    pub(in super::super) async fn overrun(&self) {
        self.overran.cancelled().await;
    }

    /// Bytes that have arrived and have not been passed on.
    pub(in super::super) fn held(&self) -> usize {
        self.held.load(Ordering::SeqCst)
    }

    /// From how many held bytes on nothing more should be asked for.
    pub(super) fn high(&self) -> usize {
        if self.budget.tight() { SMALL } else { HIGH }
    }

    /// Whether its reader is so far behind that nothing more should be asked for.
    pub(in super::super) fn stalled(&self) -> bool {
        self.held() >= self.high()
    }

    /// Wakes this task when the queue has drained to half of [`HIGH`], and at every step below.
    pub(super) fn wake_when_drained(&self, waker: &Waker) {
        self.drained.register(waker);
    }
}

impl<T> Drop for Queue<T> {
    fn drop(&mut self) {
        self.forgive();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn data(item: Item<&'static str>) -> (Option<u32>, Bytes) {
        match item {
            Item::Data { extended, bytes } => (extended, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn bytes_and_events_come_out_in_the_order_they_went_in() {
        let queue = Queue::new(&Budget::default());
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
        let queue: Queue<&'static str> = Queue::new(&Budget::default());
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
        let queue: Queue<u8> = Queue::new(&Budget::default());
        for _ in 0..=(CAP / ENTRY) {
            queue.push(0);
        }
        assert!(queue.overran.is_cancelled());
    }

    #[test]
    fn queues_that_each_keep_to_their_cap_meet_the_budget_together() {
        let budget = Budget::default();
        let queues: Vec<Queue<()>> = (0..64).map(|_| Queue::new(&budget)).collect();
        for _ in 0..(CAP / PIECE) {
            queues.iter().for_each(|queue| queue.push_data(None, &[0; PIECE]));
            assert!(budget.0.load(Ordering::SeqCst) <= BUDGET);
        }
        let lost = queues.iter().filter(|queue| queue.overran.is_cancelled()).count();
        assert!(lost > 0 && lost < 64, "{lost} of 64 were lost");
        drop(queues);
        assert_eq!(budget.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn where_much_is_held_already_each_queue_stalls_early() {
        let budget = Budget::default();
        let queues: Vec<Queue<()>> = (0..64).map(|_| Queue::new(&budget)).collect();
        let mut all = 0;
        for queue in queues.iter().cycle() {
            if queues.iter().all(Queue::stalled) {
                break;
            }
            if !queue.stalled() {
                queue.push_data(None, &[0; 4096]);
                all += 4096;
            }
        }
        assert!(all <= TIGHT + 64 * SMALL, "{all} bytes until all were stalled");
    }

    proptest! {
        #[test]
        fn what_is_held_is_what_was_pushed_less_what_was_settled(sizes in prop::collection::vec(1usize..5000, 0..60)) {
            let budget = Budget::default();
            let queue: Queue<()> = Queue::new(&budget);
            for (i, size) in sizes.iter().enumerate() {
                queue.push_data((i % 3 == 0).then_some(1), &vec![7; *size]);
            }
            prop_assert_eq!(queue.held(), sizes.iter().sum::<usize>());
            prop_assert_eq!(budget.0.load(Ordering::SeqCst), queue.held());
            let mut out = 0;
            while let Some(Item::Data { bytes, .. }) = queue.try_pop() {
                prop_assert!(bytes.len() <= PIECE);
                out += bytes.len();
                queue.settle(bytes.len());
            }
            prop_assert_eq!(out, sizes.iter().sum::<usize>());
            prop_assert_eq!(queue.held(), 0);
            prop_assert_eq!(budget.0.load(Ordering::SeqCst), 0);
        }
    }
}
