//! Signatures: checkpoints on the way, and the signed end.
//!
//! Their bytes are described in `FORMAT.md`. What always holds: each signature is bound to its session, its place and its
//! time, and through the chain to every byte before it.

use crate::frame::{Frame, HEAD, Hash, Kind, split};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

/// What the ledger keeps of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Its file, relative to the recordings' directory.
    pub path: String,
    /// How many frames.
    pub frames: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Hash of the last frame, hex.
    pub head: String,
}

/// An Ed25519 key that signs recordings.
pub trait SealKey: signature::Signer<Signature> + Send + Sync {
    /// Its public half, which the preamble names for information.
    fn verifying_key(&self) -> VerifyingKey;
}

impl SealKey for ed25519_dalek::SigningKey {
    fn verifying_key(&self) -> VerifyingKey {
        Self::verifying_key(self)
    }
}

/// Bytes of a signature.
pub(crate) const SIGNATURE: usize = 64;
/// Bytes of an end's figures.
pub(crate) const FIGURES: usize = 32;

/// What an end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Frames, the end included.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes that the streams carried, kept or counted.
    pub stream_bytes: u64,
    /// Streams.
    pub streams: u64,
}

impl Totals {
    pub(crate) fn encode(&self) -> [u8; FIGURES] {
        let mut bytes = [0; FIGURES];
        let figures = [self.frames, self.records, self.stream_bytes, self.streams];
        for (place, byte) in bytes.iter_mut().zip(figures.into_iter().flat_map(u64::to_be_bytes)) {
            *place = byte;
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (frames, rest) = split::<8>(bytes)?;
        let (records, rest) = split::<8>(rest)?;
        let (stream_bytes, rest) = split::<8>(rest)?;
        let (streams, rest) = split::<8>(rest)?;
        rest.is_empty().then_some(Self {
            frames: u64::from_be_bytes(frames),
            records: u64::from_be_bytes(records),
            stream_bytes: u64::from_be_bytes(stream_bytes),
            streams: u64::from_be_bytes(streams),
        })
    }
}

/// What is signed; `None` for frames that are not.
pub(crate) fn message(kind: Kind, session: &str, before: &Hash, head: &[u8; HEAD], figures: &[u8]) -> Option<Vec<u8>> {
    let domain: &[u8] = match kind {
        Kind::Checkpoint => b"tidegate recording checkpoint v1\0",
        Kind::End => b"tidegate recording end v1\0",
        Kind::Main | Kind::Keystrokes => return None,
    };
    let length = u16::try_from(session.len()).ok()?;
    let mut bytes = Vec::with_capacity(domain.len() + 2 + session.len() + before.len() + HEAD + figures.len());
    for part in [domain, &length.to_be_bytes(), session.as_bytes(), before, head, figures] {
        bytes.extend_from_slice(part);
    }
    Some(bytes)
}

/// Whether this checkpoint or end is signed with `key` for this session and place. Strict: no second encoding passes.
pub(crate) fn is_signed(frame: &Frame, session: &str, before: &Hash, key: &VerifyingKey) -> bool {
    let Some((figures, signature)) = frame.payload().split_last_chunk::<SIGNATURE>() else { return false };
    let right = match frame.head.kind {
        Kind::Checkpoint => figures.is_empty(),
        Kind::End => Totals::decode(figures).is_some_and(|totals| totals.frames == frame.head.seq),
        Kind::Main | Kind::Keystrokes => false,
    };
    let Some(message) = message(frame.head.kind, session, before, frame.head_bytes(), figures) else { return false };
    right && key.verify_strict(&message, &Signature::from_bytes(signature)).is_ok()
}
