//! The beginning of a file: what a recording says about itself, in clear. Its bytes are described in `FORMAT.md`.
//!
//! What always holds: the SHA-256 of the whole preamble, `H0`, is where the chain starts and is bound into every sealed
//! frame, so no part of it, the version included, can be exchanged.

use crate::{
    Header,
    frame::{Frames, Hash},
    verify::ReadError,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;

const MAGIC: [u8; 8] = *b"tgrec\r\n\x1a";
const MAX_JSON: u32 = 1024 * 1024;

/// The versions that this program reads. It writes the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    /// Records as they are.
    One,
    /// Main records compressed; a checkpoint in each minute of silence.
    Two,
    /// Small frames are short.
    Three,
    /// The compressed stream may begin anew with any frame.
    Four,
}

impl Version {
    const NEWEST: Self = Self::Four;

    fn code(self) -> u16 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
        }
    }

    fn from_code(code: u16) -> Option<Self> {
        [Self::One, Self::Two, Self::Three, Self::Four].into_iter().find(|version| version.code() == code)
    }
}

impl Opening {
    /// Reads the frames behind it.
    pub(crate) fn frames(&self) -> Frames {
        Frames::new(self.version >= Version::Three)
    }
}

/// A preamble as read, with what it is to the frames after it.
pub(crate) struct Opening {
    pub(crate) preamble: Preamble,
    pub(crate) version: Version,
    /// `H0`.
    pub(crate) first: Hash,
    /// Bytes on disk.
    pub(crate) size: u64,
}

/// The JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preamble {
    /// Who, where, when.
    #[serde(flatten)]
    pub header: Header,
    /// Auditors' public keys.
    pub recipients: Vec<String>,
    /// Of those who may see what was typed; empty: the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keystroke_recipients: Vec<String>,
    /// The gateway's signing key, Ed25519, hex; for information.
    pub signing_key: String,
    /// Bytes of content kept of each limited stream.
    pub stream_limit: u64,
    /// Wrapped for the recipients.
    pub main_key: String,
    /// Wrapped for those of keystrokes.
    pub keystroke_key: String,
    /// For so many seconds after its end the gateway itself can open it, all but the keystrokes; 0: never.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replay_window_s: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(seconds: &u64) -> bool {
    *seconds == 0
}

impl Preamble {
    /// The bytes on disk; `None` if they would be more than a reader takes.
    pub(crate) fn encode(&self) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(self).ok()?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_JSON)?;
        let mut bytes = Vec::with_capacity(14 + json.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&Version::NEWEST.code().to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&json);
        Some(bytes)
    }

    /// Reads it.
    pub(crate) fn read(from: &mut impl Read) -> Result<Opening, ReadError> {
        let mut bytes = Vec::with_capacity(2048);
        from.take(14).read_to_end(&mut bytes)?;
        let fixed = bytes.first_chunk::<14>().ok_or(ReadError::NotARecording)?;
        let (magic, rest) = crate::frame::split::<8>(fixed).ok_or(ReadError::NotARecording)?;
        let (version, rest) = crate::frame::split::<2>(rest).ok_or(ReadError::NotARecording)?;
        let (length, _) = crate::frame::split::<4>(rest).ok_or(ReadError::NotARecording)?;
        if magic != MAGIC {
            return Err(ReadError::NotARecording);
        }
        let (version, length) = (u16::from_be_bytes(version), u32::from_be_bytes(length));
        let version = Version::from_code(version).ok_or(ReadError::Version(version))?;
        if length > MAX_JSON {
            return Err(ReadError::Header("it claims to be longer than any".to_owned()));
        }
        let read = from.take(length.into()).read_to_end(&mut bytes)?;
        if u32::try_from(read).ok() != Some(length) {
            return Err(ReadError::Header("the file ends inside it".to_owned()));
        }
        let json = bytes.get(14..).unwrap_or_default();
        let preamble: Self = serde_json::from_slice(json).map_err(|e| ReadError::Header(e.to_string()))?;
        let size = 14 + u64::from(length);
        Ok(Opening { preamble, version, first: Sha256::digest(&bytes).into(), size })
    }
}
