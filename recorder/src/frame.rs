//! Frames and the chain that holds them together. Their bytes are described in `FORMAT.md`.
//!
//! What always holds: parsing never allocates more than a frame's bound, whatever a length claims; the hash, or its beginning,
//! is in each frame, so that the first damaged one can be named without any key; a nonce is the frame's number, so it never
//! comes twice under a key, which serves one recording. What an outsider sees are kinds, sizes and times.
//!
//! Since version 3 small sealed frames are written short (`Head::short`): what follows from the frame before is left out. What is
//! hashed, signed and bound to the payload is the same as if it was there.

use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag, aead::AeadInOut};
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// SHA-256.
pub type Hash = [u8; 32];

/// Bytes of a frame before its payload.
pub(crate) const HEAD: usize = 29;
/// Bytes of a frame's hash.
pub(crate) const HASH: usize = 32;
/// Bytes of its hash that a short frame has.
pub(crate) const CHECK: usize = 4;
/// Begins a short frame: its first two bytes are this, its kind, and the payload's length.
const SHORT: u16 = 0x8000;
const OF_KEYSTROKES: u16 = 0x4000;
/// The most that a short frame's payload can be.
const MOST_SHORT: u16 = 0x3fff;
/// Bytes of a short frame before its payload.
const SHORT_HEAD: usize = 8;
/// Times of short frames are counted in so many nanoseconds.
pub(crate) const TICK: u64 = 1000;
/// Bytes of an AEAD tag.
pub(crate) const TAG: usize = 16;
/// The most that a payload can be.
pub(crate) const MAX_PAYLOAD: usize = 1024 * 1024;
/// `length` of a frame without payload.
const LEAST: usize = HEAD - 4 + HASH;

/// What a frame holds, in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Records under the main key.
    Main,
    /// Records under the keystroke key.
    Keystrokes,
    /// A signature over all that came before.
    Checkpoint,
    /// The signed end.
    End,
}

impl Kind {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Main => 1,
            Self::Keystrokes => 2,
            Self::Checkpoint => 3,
            Self::End => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Main,
            2 => Self::Keystrokes,
            3 => Self::Checkpoint,
            4 => Self::End,
            _ => return None,
        })
    }
}

/// A frame's first 29 bytes, without the length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What it holds.
    pub kind: Kind,
    /// Its number, from 1.
    pub seq: u64,
    /// Nanoseconds since the recording began, on the monotonic clock.
    pub elapsed: u64,
    /// Nanoseconds since the epoch, on the wall clock.
    pub wall: i64,
}

impl Default for Head {
    /// Before the first frame.
    fn default() -> Self {
        Self { kind: Kind::Checkpoint, seq: 0, elapsed: 0, wall: 0 }
    }
}

impl Head {
    /// What a short frame begins with, behind the frame `before`; `None` if it cannot be short.
    pub(crate) fn short(&self, before: &Self, payload: usize) -> Option<[u8; SHORT_HEAD]> {
        let kind = match self.kind {
            Kind::Main => 0,
            Kind::Keystrokes => OF_KEYSTROKES,
            Kind::Checkpoint | Kind::End => return None,
        };
        let length = u16::try_from(payload).ok().filter(|length| *length <= MOST_SHORT)?;
        let apart = self.elapsed.checked_sub(before.elapsed)?;
        let drift = self.wall.checked_sub(before.wall)?.checked_sub_unsigned(apart)?;
        let drift = drift.checked_div(i64::try_from(TICK).ok()?)?;
        let parts: [&[u8]; 3] = [
            &(SHORT | kind | length).to_be_bytes(),
            &u32::try_from(apart / TICK).ok()?.to_be_bytes(),
            &i16::try_from(drift).ok()?.to_be_bytes(),
        ];
        let mut bytes = [0; SHORT_HEAD];
        for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
        }
        // Times that are no whole ticks would come back as others.
        (Self::of_short(&bytes, before) == Some((payload, *self))).then_some(bytes)
    }

    /// The payload's length and the head that a short frame stands for, behind the frame `before`.
    fn of_short(bytes: &[u8; SHORT_HEAD], before: &Self) -> Option<(usize, Self)> {
        let (word, rest) = split::<2>(bytes)?;
        let (apart, rest) = split::<4>(rest)?;
        let (drift, _) = split::<2>(rest)?;
        let word = u16::from_be_bytes(word);
        let apart = u64::from(u32::from_be_bytes(apart)) * TICK;
        let drift = i64::from(i16::from_be_bytes(drift)) * i64::try_from(TICK).ok()?;
        let head = Self {
            kind: if word & OF_KEYSTROKES == 0 { Kind::Main } else { Kind::Keystrokes },
            seq: before.seq.checked_add(1)?,
            elapsed: before.elapsed.checked_add(apart)?,
            wall: before.wall.checked_add_unsigned(apart)?.checked_add(drift)?,
        };
        Some((usize::from(word & MOST_SHORT), head))
    }

    pub(crate) fn encode(&self, payload: usize) -> Option<[u8; HEAD]> {
        let length = u32::try_from(payload.checked_add(LEAST)?).ok()?;
        let mut bytes = [0; HEAD];
        let parts: [&[u8]; 5] = [
            &length.to_be_bytes(),
            &[self.kind.code()],
            &self.seq.to_be_bytes(),
            &self.elapsed.to_be_bytes(),
            &self.wall.to_be_bytes(),
        ];
        for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *byte;
        }
        Some(bytes)
    }

    /// The payload's length and the head, if they can be a frame's.
    fn decode(bytes: &[u8; HEAD]) -> Result<(usize, Self), Malformed> {
        let (length, rest) = split::<4>(bytes).ok_or(Malformed::Length)?;
        let (kind, rest) = split::<1>(rest).ok_or(Malformed::Length)?;
        let (seq, rest) = split::<8>(rest).ok_or(Malformed::Length)?;
        let (elapsed, rest) = split::<8>(rest).ok_or(Malformed::Length)?;
        let (wall, _) = split::<8>(rest).ok_or(Malformed::Length)?;
        let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| Malformed::Length)?;
        let payload = length.checked_sub(LEAST).filter(|n| *n <= MAX_PAYLOAD).ok_or(Malformed::Length)?;
        let kind = Kind::from_code(u8::from_be_bytes(kind)).ok_or(Malformed::Kind)?;
        let (seq, elapsed, wall) = (u64::from_be_bytes(seq), u64::from_be_bytes(elapsed), i64::from_be_bytes(wall));
        Ok((payload, Self { kind, seq, elapsed, wall }))
    }
}

/// As lists, ledger and preamble show hashes and keys.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // a String takes everything
        text
    })
}

/// The first `N` bytes and the rest.
pub(crate) fn split<const N: usize>(bytes: &[u8]) -> Option<([u8; N], &[u8])> {
    bytes.split_first_chunk::<N>().map(|(first, rest)| (*first, rest))
}

/// Bytes that are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Outside the bounds.
    #[error("its length cannot be a frame's")]
    Length,
    /// Not one that there is.
    #[error("its kind is unknown")]
    Kind,
    /// Later than any.
    #[error("its time cannot be one")]
    Time,
}

/// One frame as read.
#[derive(Debug)]
pub struct Frame {
    /// Its head.
    pub head: Head,
    /// As it is hashed, written or not.
    head_bytes: [u8; HEAD],
    payload: Vec<u8>,
    /// Its hash, or the beginning of that.
    carried: Vec<u8>,
}

impl Frame {
    /// Ciphertext and tag, or the clear payload of checkpoint and end.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The 29 bytes that it begins with, or would begin with if it was not short.
    pub fn head_bytes(&self) -> &[u8; HEAD] {
        &self.head_bytes
    }

    /// Its hash, if it follows a frame with this one.
    pub fn follows(&self, before: &Hash) -> Option<Hash> {
        let hash = link(before, &self.head_bytes, &self.payload);
        (!self.carried.is_empty() && hash.starts_with(&self.carried)).then_some(hash)
    }

    /// Opens the sealed payload.
    pub(crate) fn open(&self, cipher: &ChaCha20Poly1305, first: &Hash) -> Option<Vec<u8>> {
        let (text, tag) = self.payload.split_last_chunk::<TAG>()?;
        let mut text = text.to_vec();
        let (nonce, data) = (nonce(self.head.seq), associated(first, &self.head_bytes));
        cipher.decrypt_inout_detached(&nonce, &data, text.as_mut_slice().into(), &Tag::from(*tag)).ok()?;
        Some(text)
    }
}

/// The next hash of the chain.
pub(crate) fn link(before: &Hash, head: &[u8; HEAD], payload: &[u8]) -> Hash {
    Sha256::new().chain_update(before).chain_update(head).chain_update(payload).finalize().into()
}

pub(crate) fn nonce(seq: u64) -> Nonce {
    let mut nonce = [0; 12];
    for (place, byte) in nonce.iter_mut().skip(4).zip(seq.to_be_bytes()) {
        *place = byte;
    }
    nonce.into()
}

fn associated(first: &Hash, head: &[u8; HEAD]) -> [u8; HASH + HEAD] {
    let mut data = [0; HASH + HEAD];
    for (place, byte) in data.iter_mut().zip(first.iter().chain(head)) {
        *place = *byte;
    }
    data
}

/// Encrypts `payload` in place for the frame with this head; the tag is to follow it.
pub(crate) fn seal_payload(
    cipher: &ChaCha20Poly1305,
    first: &Hash,
    head: &[u8; HEAD],
    seq: u64,
    payload: &mut [u8],
) -> Option<[u8; TAG]> {
    let tag = cipher.encrypt_inout_detached(&nonce(seq), &associated(first, head), payload.into()).ok()?;
    Some(tag.into())
}

/// What came next in a file.
#[derive(Debug)]
pub enum Next {
    /// A whole frame; its hash is not checked yet.
    Frame(Frame),
    /// Bytes that are no frame.
    Malformed(Malformed),
    /// The file ends inside a frame, after so many bytes of it.
    Torn(usize),
    /// The file ends between frames.
    Nothing,
}

/// Reads frames, one after the other: a short one says only what does not follow from the one before.
#[derive(Debug, Clone, Default)]
pub(crate) struct Frames {
    /// Whether there are short ones.
    short: bool,
    before: Head,
}

impl Frames {
    /// Of a recording with or without short frames.
    pub(crate) fn new(short: bool) -> Self {
        Self { short, before: Head::default() }
    }

    /// Reads the next frame. Allocates at most one frame's bound, and only as far as bytes really come.
    pub(crate) fn read(&mut self, from: &mut impl Read) -> io::Result<Next> {
        let (head, head_bytes, payload, read, hash) = match self.begin(from)? {
            Begun::Frame { head, payload, read, hash } => {
                let Some(bytes) = head.encode(payload) else { return Ok(Next::Malformed(Malformed::Length)) };
                (head, bytes, payload, read, hash)
            }
            Begun::Other(next) => return Ok(next),
        };
        let mut bytes = Vec::with_capacity(256);
        let came = from.take((payload + hash) as u64).read_to_end(&mut bytes)?;
        if came < payload + hash {
            return Ok(Next::Torn(read + came));
        }
        let carried = bytes.split_off(payload);
        self.before = head;
        Ok(Next::Frame(Frame { head, head_bytes, payload: bytes, carried }))
    }

    /// Reads only a head, for those who skip: the head, its bytes on disk, and the bytes of the frame after it; `None` where
    /// no frame begins.
    pub(crate) fn skip(&mut self, from: &mut impl Read) -> io::Result<Option<(Head, u64, u64)>> {
        Ok(match self.begin(from)? {
            Begun::Frame { head, payload, read, hash } => {
                self.before = head;
                Some((head, read as u64, (payload + hash) as u64))
            }
            Begun::Other(_) => None,
        })
    }

    /// Up to the payload.
    fn begin(&self, from: &mut impl Read) -> io::Result<Begun> {
        let mut bytes = Vec::with_capacity(HEAD);
        from.take(2).read_to_end(&mut bytes)?;
        let word = bytes.first_chunk().map(|word| u16::from_be_bytes(*word)).unwrap_or_default();
        let short = self.short && word & SHORT != 0;
        let (read, hash) = if short { (SHORT_HEAD, CHECK) } else { (HEAD, HASH) };
        from.take(read as u64 - bytes.len() as u64).read_to_end(&mut bytes)?;
        if bytes.len() < read {
            return Ok(Begun::Other(if bytes.is_empty() { Next::Nothing } else { Next::Torn(bytes.len()) }));
        }
        let decoded = if short {
            let head = bytes.first_chunk().and_then(|bytes| Head::of_short(bytes, &self.before));
            head.ok_or(Malformed::Time)
        } else {
            bytes.first_chunk().ok_or(Malformed::Length).and_then(Head::decode)
        };
        Ok(match decoded {
            Ok((payload, head)) => Begun::Frame { head, payload, read, hash },
            Err(malformed) => Begun::Other(Next::Malformed(malformed)),
        })
    }
}

/// A frame up to its payload, or what came in its place.
enum Begun {
    Frame {
        head: Head,
        payload: usize,
        /// Bytes so far.
        read: usize,
        /// Bytes of its hash that it has.
        hash: usize,
    },
    Other(Next),
}

/// An end frame, which is never short, at the beginning of these bytes: its head and the bytes after it.
pub(crate) fn read_end(from: &mut impl Read) -> io::Result<Option<(Head, u64)>> {
    let found = Frames::new(false).skip(from)?;
    Ok(found.filter(|(head, ..)| head.kind == Kind::End).map(|(head, _, rest)| (head, rest)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_short_frame_stands_for_the_same_head(
            seq in 0..u64::MAX, elapsed in 0..1_u64 << 53, apart in any::<u32>(), wall in -(1_i64 << 52)..1 << 52,
            drift in any::<i16>(), keystrokes in any::<bool>(), payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let before = Head { kind: Kind::Main, seq, elapsed: elapsed * TICK, wall: wall * 1000 };
            let kind = if keystrokes { Kind::Keystrokes } else { Kind::Main };
            let (elapsed, later) = (before.elapsed + u64::from(apart) * TICK, i64::from(apart) + i64::from(drift));
            let head = Head { kind, seq: seq + 1, elapsed, wall: before.wall + 1000 * later };
            let mut bytes = head.short(&before, payload.len()).unwrap().to_vec();
            bytes.extend_from_slice(&payload);
            bytes.extend_from_slice(&link(&[7; 32], &head.encode(payload.len()).unwrap(), &payload)[..CHECK]);
            for cut in 1..bytes.len() {
                let mut frames = Frames { short: true, before };
                prop_assert!(matches!(frames.read(&mut &bytes[..cut]).unwrap(), Next::Torn(torn) if torn == cut));
            }
            let Next::Frame(frame) = Frames { short: true, before }.read(&mut bytes.as_slice()).unwrap() else {
                return Err(TestCaseError::fail("no frame"));
            };
            prop_assert_eq!(frame.head, head);
            prop_assert_eq!(frame.payload(), &payload);
            prop_assert!(frame.follows(&[7; 32]).is_some() && frame.follows(&[8; 32]).is_none());
        }

        #[test]
        fn what_a_short_frame_cannot_say_is_written_long(nanos in 0..2_000_u64, far in any::<bool>(), payload in 0..40_000_usize) {
            let before = Head { kind: Kind::Main, seq: 1, elapsed: 0, wall: 0 };
            let jump = if far { 40_000_000 } else { 0 };
            let head = Head { kind: Kind::Main, seq: 2, elapsed: nanos, wall: nanos.cast_signed() + jump };
            let fits = nanos % TICK == 0 && !far && payload <= usize::from(MOST_SHORT);
            prop_assert_eq!(head.short(&before, payload).is_some(), fits);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), short in any::<bool>()) {
            let mut from = bytes.as_slice();
            let mut frames = Frames::new(short);
            while let Next::Frame(_) = frames.read(&mut from).unwrap() {}
        }
    }
}
