//! The signed end of a recording.

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
