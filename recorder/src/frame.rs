//! Frames and the chain that holds them together. Their bytes are described in `FORMAT.md`.
//!
//! What always holds: parsing never allocates more than a frame's bound, whatever a length claims; the hash is in each
//! frame, so that the first damaged one can be named without any key; a nonce is the frame's number, so it never comes
//! twice under a key, which serves one recording. What an outsider sees are kinds, sizes and times.

use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag, aead::AeadInOut};
use sha2::{Digest, Sha256};
use std::io::{self, Read};

/// SHA-256.
pub type Hash = [u8; 32];

/// Bytes of a frame before its payload.
pub(crate) const HEAD: usize = 29;
/// Bytes of a frame's hash.
pub(crate) const HASH: usize = 32;
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

impl Head {
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
}

/// One frame as read: its bytes, and what they say.
#[derive(Debug)]
pub struct Frame {
    /// Its head.
    pub head: Head,
    bytes: Vec<u8>,
}

impl Frame {
    /// Ciphertext and tag, or the clear payload of checkpoint and end.
    pub fn payload(&self) -> &[u8] {
        self.bytes.get(HEAD..self.bytes.len().saturating_sub(HASH)).unwrap_or_default()
    }

    /// The first 29 bytes.
    pub fn head_bytes(&self) -> &[u8] {
        self.bytes.get(..HEAD).unwrap_or_default()
    }

    /// The hash that it carries.
    pub fn hash(&self) -> Hash {
        self.bytes.last_chunk().copied().unwrap_or_default()
    }

    /// Bytes on disk.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it follows a frame with this hash.
    pub fn follows(&self, before: &Hash) -> bool {
        let end = self.bytes.len().saturating_sub(HASH);
        link(before, self.bytes.get(..end).unwrap_or_default()) == self.hash()
    }

    /// Opens the sealed payload.
    pub(crate) fn open(&self, cipher: &ChaCha20Poly1305, first: &Hash) -> Option<Vec<u8>> {
        let (text, tag) = self.payload().split_last_chunk::<TAG>()?;
        let mut text = text.to_vec();
        let head: &[u8; HEAD] = self.bytes.first_chunk()?;
        let (nonce, data) = (nonce(self.head.seq), associated(first, head));
        cipher.decrypt_inout_detached(&nonce, &data, text.as_mut_slice().into(), &Tag::from(*tag)).ok()?;
        Some(text)
    }
}

/// The next hash of the chain.
pub(crate) fn link(before: &Hash, frame: &[u8]) -> Hash {
    Sha256::new().chain_update(before).chain_update(frame).finalize().into()
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

/// Reads the next frame. Allocates at most one frame's bound, and only as far as bytes really come.
pub fn read(from: &mut impl Read) -> io::Result<Next> {
    let mut bytes = Vec::with_capacity(256);
    from.take(HEAD as u64).read_to_end(&mut bytes)?;
    let Some(head) = bytes.first_chunk::<HEAD>() else {
        return Ok(if bytes.is_empty() { Next::Nothing } else { Next::Torn(bytes.len()) });
    };
    let (payload, head) = match Head::decode(head) {
        Ok(decoded) => decoded,
        Err(malformed) => return Ok(Next::Malformed(malformed)),
    };
    let rest = payload + HASH;
    let read = from.take(rest as u64).read_to_end(&mut bytes)?;
    Ok(if read < rest { Next::Torn(bytes.len()) } else { Next::Frame(Frame { head, bytes }) })
}

/// Reads only a head, for those who skip: the head and the bytes of the frame after it; `None` where no frame begins.
pub(crate) fn read_head(from: &mut impl Read) -> io::Result<Option<(Head, u64)>> {
    let mut bytes = Vec::with_capacity(HEAD);
    from.take(HEAD as u64).read_to_end(&mut bytes)?;
    let decoded = bytes.first_chunk::<HEAD>().and_then(|head| Head::decode(head).ok());
    Ok(decoded.map(|(payload, head)| (head, (payload + HASH) as u64)))
}
