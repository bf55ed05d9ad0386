//! The beginning of a file: what a recording says about itself, in clear.
//!
//! | bytes | preamble |
//! | --- | --- |
//! | 8 | `tgrec\r\n\x1a` |
//! | 2 | version, 1 |
//! | 4 | `length` of the JSON, at most 1 MiB |
//! | `length` | a JSON object: the fields of [`Header`], and those of [`Preamble`] |
//!
//! `main_key` and `keystroke_key` are age files (age-encryption.org/v1, binary, in base64), each holding 32 random bytes
//! for all recipients. `signing_key` (Ed25519, hex) is for information: a verifier brings the key it trusts. The
//! SHA-256 of the whole preamble, `H0`, is where the chain starts and is bound into every sealed frame.

use crate::{Header, frame::Hash, verify::ReadError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::io::Read;

const MAGIC: [u8; 8] = *b"tgrec\r\n\x1a";
const VERSION: u16 = 1;
const MAX_JSON: u32 = 1024 * 1024;

/// The JSON object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preamble {
    /// Who, where, when.
    #[serde(flatten)]
    pub header: Header,
    /// Auditors' public keys.
    pub recipients: Vec<String>,
    /// The gateway's signing key, Ed25519, hex; for information.
    pub signing_key: String,
    /// Bytes of content kept of each limited stream.
    pub stream_limit: u64,
    /// Wrapped for the recipients.
    pub main_key: String,
    /// Wrapped for the recipients.
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
        bytes.extend_from_slice(&VERSION.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&json);
        Some(bytes)
    }

    /// Reads it, with `H0` and its size on disk.
    pub(crate) fn read(from: &mut impl Read) -> Result<(Self, Hash, u64), ReadError> {
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
        if version != VERSION {
            return Err(ReadError::Version(version));
        }
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
        Ok((preamble, Sha256::digest(&bytes).into(), size))
    }
}
