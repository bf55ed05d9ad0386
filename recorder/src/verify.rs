//! Is a recording whole and unchanged? Offline, with the gateway's public key only; nothing is decrypted.
//!
//! What always holds: a verdict of [`Outcome::Complete`] means that every byte of the file is covered by the signed end.
//! Otherwise the verdict names the first frame that is bad, or after which the file breaks off, and up to where
//! signatures still prove it.

use crate::{
    Header,
    frame::{self, Frame, Hash, Kind, Malformed, Next},
    preamble::{Opening, Preamble},
    seal, storage,
};
use ed25519_dalek::VerifyingKey;
use jiff::Timestamp;
use std::{
    fmt,
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

/// What was found. Displayed, it is one line for people.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What the recording says about itself. Believe it if `proven` is not 0.
    pub header: Header,
    /// Whole, cut or changed.
    pub outcome: Outcome,
    /// Good frames, up to the first bad one.
    pub frames: u64,
    /// The last frame that a valid signature covers; 0: none, not even the header.
    pub proven: u64,
    /// When that signature was made.
    pub proven_until: Option<Timestamp>,
    /// Hash of the last good frame, hex: for a complete recording, what the ledger's `recording.sealed` must say.
    pub head: String,
    /// A gateway is still writing it.
    pub live: bool,
}

/// Whole, cut or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every byte is covered by the signed end.
    Complete,
    /// Good as far as it goes, but there is no end.
    Truncated {
        /// The last whole frame.
        after: u64,
        /// Bytes of a frame that was being written.
        torn: usize,
    },
    /// Changed.
    Bad {
        /// The first bad frame.
        frame: u64,
        /// What is wrong with it.
        fault: Fault,
    },
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No frame.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A frame is missing, twice there or out of place.
    #[error("its number is {found}")]
    Sequence {
        /// What it says it is.
        found: u64,
    },
    /// It was changed, or what it was chained to.
    #[error("its hash does not follow from the frame before")]
    Chain,
    /// Not signed with this key, or not for this place.
    #[error("its signature is not by this key, for this session and place")]
    Signature,
    /// The first frame of every recording is one.
    #[error("it is not the checkpoint that a recording begins with")]
    NoCheckpoint,
    /// Something follows the end.
    #[error("it comes after the end")]
    AfterEnd,
}

impl Verdict {
    /// Whole and unchanged, up to its signed end.
    pub fn is_complete(&self) -> bool {
        self.outcome == Outcome::Complete
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Complete => return write!(f, "complete: {} frames, signed end", self.frames),
            Outcome::Truncated { after, .. } if self.live => write!(f, "live: {after} frames so far")?,
            Outcome::Truncated { after, .. } => write!(f, "TRUNCATED after frame {after}")?,
            Outcome::Bad { frame, fault } => write!(f, "BAD frame {frame}: {fault}")?,
        }
        match (self.proven, self.proven_until) {
            (0, _) | (_, None) => write!(f, "; nothing is proven"),
            (frame, Some(at)) => write!(f, "; proven up to frame {frame}, signed at {at}"),
        }
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk said no.
    #[error("the recording cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin like one.
    #[error("this is not a tidegate recording")]
    NotARecording,
    /// A later one.
    #[error("a recording of format version {0}: this program reads versions 1 to 4")]
    Version(u16),
    /// The header cannot be read.
    #[error("the header is damaged: {0}")]
    Header(String),
    /// The auditor is not among the recipients.
    #[error("none of these identities opens this recording")]
    NoKey,
    /// A frame cannot be read.
    #[error("frame {frame}: {fault}")]
    Frame {
        /// Its number.
        frame: u64,
        /// What is wrong with it.
        fault: String,
    },
}

/// Verifies a recording's file.
pub fn verify(path: &Path, key: &VerifyingKey) -> Result<Verdict, ReadError> {
    let file = File::open(path)?;
    let live = storage::is_live(&file)?;
    Ok(Verdict { live, ..verify_from(BufReader::new(file), key)? })
}

/// Verifies a recording's bytes.
pub fn verify_from(mut bytes: impl Read, key: &VerifyingKey) -> Result<Verdict, ReadError> {
    let opening = Preamble::read(&mut bytes)?;
    let mut frames = opening.frames();
    let Opening { preamble, first, .. } = opening;
    let mut chain = Chain::new(first);
    let (mut proven, mut proven_until) = (0, None);
    let outcome = loop {
        let number = chain.frames + 1;
        let frame = match frames.read(&mut bytes)? {
            Next::Frame(frame) => frame,
            Next::Nothing if chain.ended => break Outcome::Complete,
            Next::Nothing => break Outcome::Truncated { after: chain.frames, torn: 0 },
            Next::Torn(_) | Next::Malformed(_) if chain.ended => {
                break Outcome::Bad { frame: number, fault: Fault::AfterEnd };
            }
            Next::Torn(torn) => break Outcome::Truncated { after: chain.frames, torn },
            Next::Malformed(malformed) => break Outcome::Bad { frame: number, fault: malformed.into() },
        };
        let before = chain.head;
        let hash = match chain.check(&frame) {
            Ok(hash) => hash,
            Err(fault) => break Outcome::Bad { frame: number, fault },
        };
        if matches!(frame.head.kind, Kind::Checkpoint | Kind::End) {
            if !seal::is_signed(&frame, &preamble.header.session, &before, key) {
                break Outcome::Bad { frame: number, fault: Fault::Signature };
            }
            (proven, proven_until) = (number, storage::timestamp(frame.head.wall));
        }
        chain.accept(&frame, hash);
    };
    let (frames, head) = (chain.frames, frame::hex(&chain.head));
    Ok(Verdict { header: preamble.header, outcome, frames, proven, proven_until, head, live: false })
}

/// What every reader checks without a key.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) frames: u64,
    pub(crate) head: Hash,
    pub(crate) ended: bool,
}

impl Chain {
    pub(crate) fn new(first: Hash) -> Self {
        Self { frames: 0, head: first, ended: false }
    }

    /// Its hash, if this is the next frame.
    pub(crate) fn check(&self, frame: &Frame) -> Result<Hash, Fault> {
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        let Some(hash) = frame.follows(&self.head) else {
            let found = frame.head.seq;
            return Err(if found == self.frames + 1 { Fault::Chain } else { Fault::Sequence { found } });
        };
        if frame.head.seq != self.frames + 1 {
            return Err(Fault::Sequence { found: frame.head.seq });
        }
        if self.frames == 0 && frame.head.kind != Kind::Checkpoint {
            return Err(Fault::NoCheckpoint);
        }
        Ok(hash)
    }

    pub(crate) fn accept(&mut self, frame: &Frame, hash: Hash) {
        self.frames = frame.head.seq;
        self.head = hash;
        self.ended = frame.head.kind == Kind::End;
    }
}
