//! Events in, a sealed recording out; verification, replay and export. Knows no protocol, no grants, no sockets.
//!
//! What always holds: a [`Recorded`] exists only after `write(2)` took the frame that accounts for its bytes, and it is
//! the only thing that the forwarding side accepts. So no byte goes on unrecorded.

mod entered;
pub mod event;
pub mod export;
pub mod film;
pub mod frame;
pub mod index;
mod inert;
pub mod keys;
pub mod outline;
mod packed;
pub mod picture;
pub mod play;
#[cfg(test)]
mod power_tests;
pub mod preamble;
mod recent;
pub mod recording;
pub mod records;
pub mod replay;
mod screen;
pub mod seal;
pub mod search;
mod sent;
mod sentence;
mod shown;
mod sieve;
pub mod stage;
pub mod storage;
pub mod verify;
pub mod watch;
pub mod window;
mod writer;

pub use event::{Event, FileEvent, Keep, Stream};
pub use recent::Glance;
pub use recording::{Audience, Header, LiveRecording, Recorded, Recorder, Settings};
pub use seal::{Seal, SealKey};
pub use window::Window;

/// Whether sessions are recorded. Nothing but a Cargo feature for a benchmark says no, and `tidegate` does not compile with it.
pub const RECORDS: bool = !cfg!(feature = "unrecorded");

/// A recording could not be made. It ends the session.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RecordError {
    /// The disk said no.
    #[error("the recording cannot be written: {0}")]
    Write(String),
    /// An auditor's public key is not one that we can wrap for.
    #[error("recipient {0:?} is neither an age X25519 nor an ssh-ed25519 public key")]
    Recipient(String),
    /// The events given do not account for the bytes that would go on.
    #[error("bytes would go on that the recording does not account for")]
    Unaccounted,
    /// Recordings have taken all the room that they may.
    #[error("recordings have taken all the room that they may")]
    Full,
    /// An earlier write failed; nothing can be added any more.
    #[error("the recording has already failed")]
    Failed,
}
