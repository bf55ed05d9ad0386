//! Writing: one file per session, append-only, sealed at the end.

use crate::{Event, RecordError, Seal};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{path::Path, sync::Arc};

/// Signs checkpoints and ends.
pub type SealSigner = Arc<dyn signature::Signer<ed25519_dalek::Signature> + Send + Sync>;

/// What a recording says about itself, in clear.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The session's id.
    pub session: String,
    /// Who.
    pub identity: String,
    /// Where to.
    pub target: String,
    /// Login or database.
    pub access: String,
    /// `ssh` or `postgres`.
    pub protocol: String,
    /// The grant's id.
    pub grant: String,
    /// The gateway's name.
    pub gateway: String,
    /// When.
    pub start: Timestamp,
}

/// How recordings are made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Auditors' public keys: `age1…` or `ssh-ed25519 …`.
    pub recipients: Vec<String>,
    /// Bytes of content kept per stream under [`Keep::UpToLimit`](crate::Keep::UpToLimit).
    pub stream_limit: u64,
    /// `fsync` after each write (`durability = "disk"`).
    pub fsync: bool,
}

/// Starts recordings in one directory.
#[derive(Debug)]
pub struct Recorder {
    // directory, recipients, signer
}

impl Recorder {
    /// Checks the recipients and makes the directory (0700).
    pub fn open(dir: &Path, settings: Settings, signer: SealSigner) -> Result<Self, RecordError> {
        let _ = (dir, settings, signer);
        todo!()
    }

    /// Writes, syncs and removes a small file: does the disk still take a recording?
    pub fn probe(&self) -> Result<(), RecordError> {
        todo!()
    }

    /// Creates the file and writes the header, on disk (fsync of file and directory) when this returns.
    pub fn start(&self, header: Header) -> Result<LiveRecording, RecordError> {
        let _ = header;
        todo!()
    }
}

/// A recording in progress. Shared by the tasks of one session.
#[derive(Debug)]
pub struct LiveRecording {
    // Mutex<Writer>
}

/// Bytes that have been accounted for, and so may go on. Not `Clone`, made only by [`LiveRecording::record`].
#[derive(Debug)]
#[must_use = "recorded bytes are to be forwarded"]
pub struct Recorded {
    bytes: Bytes,
}

impl Recorded {
    /// The bytes, for the one who writes them to the socket.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }
}

impl LiveRecording {
    /// Writes the frames of `events` with one `write(2)`, then releases `forward`.
    ///
    /// The caller's events account for `forward`: as [`Event::Data`] of the same bytes, or of them as
    /// [`Stream::FromClient`](crate::Stream::FromClient) beside events that say what they mean.
    pub fn record(&self, events: Vec<Event>, forward: Bytes, now: Timestamp) -> Result<Recorded, RecordError> {
        let _ = (events, now);
        let _ = forward;
        todo!()
    }

    /// Writes events that release nothing.
    pub fn note(&self, event: Event, now: Timestamp) -> Result<(), RecordError> {
        self.record(vec![event], Bytes::new(), now).map(|_| ())
    }

    /// Checkpoint if one is due (5 s or 64 KiB since the last); called on a timer so that an idle session's tail is
    /// signed too.
    pub fn tick(&self, now: Timestamp) -> Result<(), RecordError> {
        let _ = now;
        todo!()
    }

    /// Digests of the limited streams, the signed end, fsync. Afterwards [`LiveRecording::record`] fails.
    pub fn seal(&self, now: Timestamp) -> Result<Seal, RecordError> {
        let _ = now;
        todo!()
    }
}
