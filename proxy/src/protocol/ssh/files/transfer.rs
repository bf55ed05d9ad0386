//! The account of one file's content going one way: how much, which parts, and the digest of the whole.
//!
//! What always holds: there is a digest only if each byte from 0 to the file's size was moved exactly once, and all of it
//! arrived. In order or not: pieces that come early wait, up to a bound. Whatever is not surely so is told without a
//! digest. Memory is bounded, whatever is moved: what waits, and ranges past the first, are taken from one [`Allowance`] of all
//! files of a connection.

use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tidegate_recorder::FileEvent;

/// Bytes that all files of a connection may take: past this there is no digest.
const ALLOWANCE: usize = 2 << 20;
/// What a piece that waits takes beside its bytes.
const PIECE: usize = 96;
/// What a range takes.
const RANGE: usize = 32;
/// Separate ranges: past this they are not told, and there is no digest.
const MOST_RANGES: usize = 64;

/// What is left of the memory of one connection.
#[derive(Debug, Clone)]
pub(super) struct Allowance(Arc<AtomicUsize>);

impl Allowance {
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicUsize::new(ALLOWANCE)))
    }
}

/// What was taken of it. Given back when dropped.
#[derive(Debug)]
struct Held {
    of: Allowance,
    bytes: usize,
}

impl Held {
    fn nothing(of: &Allowance) -> Self {
        Self { of: of.clone(), bytes: 0 }
    }

    /// False if there is not so much left.
    fn take(&mut self, bytes: usize) -> bool {
        let left = |left: usize| left.checked_sub(bytes);
        let taken = self.of.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok();
        self.bytes += if taken { bytes } else { 0 };
        taken
    }

    fn give(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.of.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.give(self.bytes);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Transfer {
    /// `None`: there will be none.
    digest: Option<Growing>,
    /// Sorted, apart from each other. `None`: too many, or they mean nothing.
    ranges: Option<Vec<(u64, u64)>>,
    /// For the ranges past the first.
    held: Held,
    /// Of content that arrived.
    bytes: u64,
    /// Pieces that have not been confirmed.
    open: u64,
    /// Something was asked to be moved.
    pub(super) begun: bool,
    /// The first thing that went wrong.
    fault: Option<String>,
}

#[derive(Debug)]
struct Growing {
    sha: Sha256,
    /// Bytes before this are in it.
    next: u64,
    early: BTreeMap<u64, Box<[u8]>>,
    held: Held,
}

impl Transfer {
    pub(super) fn new(of: &Allowance) -> Self {
        let digest = Growing { sha: Sha256::new(), next: 0, early: BTreeMap::new(), held: Held::nothing(of) };
        let (ranges, held) = (Some(Vec::new()), Held::nothing(of));
        Self { digest: Some(digest), ranges, held, bytes: 0, open: 0, begun: false, fault: None }
    }

    /// Its bytes go where the offsets do not say (`SSH_FXF_APPEND`), or come from elsewhere too.
    pub(super) fn scatter(&mut self) {
        self.digest = None;
        self.forget_ranges();
    }

    fn forget_ranges(&mut self) {
        self.ranges = None;
        self.held.give(usize::MAX);
    }

    /// A piece that has arrived.
    pub(super) fn arrived(&mut self, offset: u64, data: &[u8]) {
        self.sent(offset, data);
        self.confirmed(data.len() as u64);
    }

    /// A piece that is on its way: [`Transfer::confirmed`] or [`Transfer::failed`] follows.
    pub(super) fn sent(&mut self, offset: u64, data: &[u8]) {
        self.begun = true;
        self.open = self.open.saturating_add(1);
        if data.is_empty() {
            return;
        }
        let Some(end) = offset.checked_add(data.len() as u64) else { return self.scatter() };
        if !self.covers(offset, end) {
            self.digest = None;
        }
        let Some(growing) = &mut self.digest else { return };
        if !growing.take(offset, data) {
            self.digest = None;
        }
    }

    /// So many bytes of a piece arrived.
    pub(super) fn confirmed(&mut self, bytes: u64) {
        self.open = self.open.saturating_sub(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A piece did not arrive.
    pub(super) fn failed(&mut self, why: &str) {
        self.open = self.open.saturating_sub(1);
        self.scatter();
        self.spoiled(why);
    }

    /// It did not end well.
    pub(super) fn spoiled(&mut self, why: &str) {
        self.fault.get_or_insert_with(|| why.to_owned());
    }

    /// The file was cut, or made longer, to this size.
    pub(super) fn resized(&mut self, size: u64) {
        if self.ranges.as_ref().is_none_or(|ranges| ranges.last().is_some_and(|(_, end)| *end > size)) {
            self.scatter();
        }
    }

    /// Whether the byte before this one was moved, and none behind it.
    pub(super) fn reaches(&self, end: u64) -> bool {
        self.ranges.as_ref().is_some_and(|ranges| ranges.last().map_or(0, |(_, last)| *last) == end)
    }

    /// Where the bytes end that were moved without a gap from the beginning, if there are no others.
    fn contiguous(&self) -> Option<u64> {
        self.digest.as_ref().filter(|growing| growing.early.is_empty()).map(|growing| growing.next)
    }

    /// Adds a range; false if it overlaps what was moved before, or is one too many.
    fn covers(&mut self, start: u64, end: u64) -> bool {
        let Some(ranges) = &mut self.ranges else { return false };
        let at = ranges.partition_point(|(_, before)| *before < start);
        let mut range = (start, end);
        let mut apart = true;
        let touching = ranges.get(at..).unwrap_or_default().iter().take_while(|(from, _)| *from <= end).count();
        for (from, to) in ranges.drain(at..at + touching) {
            apart &= to == start || from == end;
            range = (range.0.min(from), range.1.max(to));
        }
        ranges.insert(at, range);
        let takes = ranges.len().saturating_sub(1) * RANGE;
        let spare = self.held.bytes.saturating_sub(takes);
        self.held.give(spare);
        let more = takes.saturating_sub(self.held.bytes);
        if ranges.len() > MOST_RANGES || !self.held.take(more) {
            self.forget_ranges();
            return false;
        }
        apart
    }

    /// What there is to tell of it, given the file's size as far as it is known.
    pub(super) fn tell(self, size: Option<u64>, event: FileEvent) -> FileEvent {
        let whole = size.is_some() && self.contiguous() == size && self.open == 0 && self.fault.is_none();
        let sha256 = self.digest.filter(|_| whole).map(|growing| hex(&growing.sha.finalize()));
        let ranges = self.ranges.filter(|ranges| sha256.is_none() && !ranges.is_empty() && self.open == 0);
        let unanswered = (self.open > 0).then(|| "unanswered: not all of it was confirmed".to_owned());
        FileEvent { bytes: Some(self.bytes), size, ranges, sha256, fault: self.fault.or(unanswered), ..event }
    }
}

impl Growing {
    /// False if it has to be given up.
    fn take(&mut self, offset: u64, data: &[u8]) -> bool {
        if offset != self.next {
            let waits = offset > self.next && self.held.take(data.len().saturating_add(PIECE));
            if waits {
                self.early.insert(offset, data.into());
            }
            return waits;
        }
        self.feed(data);
        while let Some(early) = self.early.first_entry().filter(|early| *early.key() == self.next) {
            let data = early.remove();
            self.held.give(data.len().saturating_add(PIECE));
            self.feed(&data);
        }
        true
    }

    fn feed(&mut self, data: &[u8]) {
        self.sha.update(data);
        self.next = self.next.saturating_add(data.len() as u64);
    }
}

/// In lower case, as `sha256sum` prints it.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn told(transfer: Transfer, size: Option<u64>) -> FileEvent {
        transfer.tell(size, FileEvent::default())
    }

    #[test]
    fn a_gap_an_overlap_a_failure_and_an_unknown_size_leave_no_digest() {
        let moved = |pieces: &[(u64, &[u8])]| {
            let mut transfer = Transfer::new(&Allowance::new());
            pieces.iter().for_each(|(offset, data)| transfer.arrived(*offset, data));
            transfer
        };
        assert_eq!(told(moved(&[(0, b"ab"), (2, b"c")]), Some(3)).sha256.unwrap(), hex(&Sha256::digest(b"abc")));
        assert_eq!(told(moved(&[]), Some(0)).sha256.unwrap(), hex(&Sha256::digest(b"")));
        assert_eq!(told(moved(&[(0, b"ab"), (3, b"c")]), Some(4)).ranges.unwrap(), [(0, 2), (3, 4)]);
        assert_eq!(told(moved(&[(0, b"abc"), (1, b"b")]), Some(3)).sha256, None);
        assert_eq!(told(moved(&[(0, b"abc"), (0, b"abc")]), Some(3)).sha256, None);
        assert_eq!(told(moved(&[(0, b"abc")]), None).sha256, None);
        assert_eq!(told(moved(&[(0, b"abc")]), Some(4)).sha256, None);
        assert_eq!(told(moved(&[(u64::MAX, b"abc")]), Some(4)).sha256, None);
        let mut failed = moved(&[(0, b"abc")]);
        failed.sent(3, b"d");
        failed.failed("failed: no space");
        let failed = told(failed, Some(3));
        assert_eq!((failed.sha256, failed.bytes, failed.fault.as_deref()), (None, Some(3), Some("failed: no space")));
        let mut open = moved(&[(0, b"abc")]);
        open.sent(3, b"d");
        assert!(told(open, Some(4)).fault.unwrap().starts_with("unanswered"));
        let mut cut = moved(&[(0, b"abc")]);
        cut.resized(2);
        assert_eq!(told(cut, Some(2)).sha256, None);
    }

    #[test]
    fn scattered_pieces_cost_no_memory_and_get_no_digest() {
        let mut transfer = Transfer::new(&Allowance::new());
        for piece in 1..100_000_u64 {
            transfer.arrived(piece * 100, &[7; 64]);
        }
        assert!(transfer.digest.is_none() && transfer.ranges.is_none());
        assert_eq!(told(transfer, Some(64)).bytes, Some(99_999 * 64));
    }

    #[test]
    fn all_files_of_a_connection_share_what_may_wait() {
        let allowance = Allowance::new();
        let left = || allowance.0.load(Ordering::Relaxed);
        let mut files: Vec<Transfer> = (0..4096).map(|_| Transfer::new(&allowance)).collect();
        for file in &mut files {
            for piece in 1..32_u64 {
                file.arrived(piece * 100_000, &[7; 16 << 10]);
            }
        }
        let waiting = |file: &Transfer| file.digest.as_ref().map_or(0, |growing| growing.early.len() * (16 << 10));
        assert!(files.iter().map(waiting).sum::<usize>() <= ALLOWANCE);
        let ranges = |file: &Transfer| file.ranges.as_ref().map_or(0, |ranges| ranges.len().saturating_sub(1) * RANGE);
        assert!(files.iter().map(ranges).sum::<usize>() <= ALLOWANCE);
        // Pieces of a byte cost more than a byte.
        drop(files);
        assert_eq!(left(), ALLOWANCE);
        let mut small: Vec<Transfer> = (0..4096).map(|_| Transfer::new(&allowance)).collect();
        small.iter_mut().for_each(|file| (1..40_u64).for_each(|piece| file.arrived(piece * 2, b"x")));
        let waiting = |file: &Transfer| file.digest.as_ref().map_or(0, |growing| growing.early.len());
        assert!(small.iter().map(waiting).sum::<usize>() <= ALLOWANCE / PIECE);
        // One that got what it needed before keeps it, and a file that is sent in order needs nothing.
        let mut ordered = Transfer::new(&allowance);
        (0..100_u64).for_each(|piece| ordered.arrived(piece, b"x"));
        assert_eq!(told(ordered, Some(100)).sha256.unwrap(), hex(&Sha256::digest([b'x'; 100])));
        drop(small);
        assert_eq!(left(), ALLOWANCE);
    }

    proptest! {
        #[test]
        fn pieces_in_any_order_give_the_digest_of_the_whole(
            content in proptest::collection::vec(any::<u8>(), 0..400),
            cuts in proptest::collection::vec(0..400usize, 0..12),
            order in any::<u64>(),
            again in proptest::option::of(0..12usize),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(content.len())).collect();
            cuts.extend([0, content.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            let mut pieces: Vec<(u64, &[u8])> =
                cuts.windows(2).map(|pair| (pair[0] as u64, &content[pair[0]..pair[1]])).collect();
            pieces.sort_by_key(|(offset, _)| offset.wrapping_add(order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let twice = again.and_then(|n| pieces.get(n).copied());
            let mut transfer = Transfer::new(&Allowance::new());
            pieces.iter().chain(twice.iter()).for_each(|(offset, data)| transfer.arrived(*offset, data));
            let whole = hex(&Sha256::digest(&content));
            let said = transfer.tell(Some(content.len() as u64), FileEvent::default()).sha256;
            prop_assert_eq!(said, twice.is_none().then_some(whole));
        }
    }
}
