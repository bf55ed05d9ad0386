//! Writing: one file per session, append-only, sealed at the end.
//!
//! What always holds: bytes leave [`LiveRecording::record`] only after the kernel has taken the frames that account for
//! them. The first failed write ends the recording: what is on disk up to it stays readable, as truncated.

use crate::{
    Event, RecordError, Seal, frame,
    keys::Recipients,
    preamble::Preamble,
    recent::{Glance, Recent},
    storage::{self, NewFile},
    window::Window,
    writer::{Parts, Writer},
};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Signs checkpoints and ends: `Arc::new(signing_key)` of an [`ed25519_dalek::SigningKey`].
pub type SealSigner = Arc<dyn crate::SealKey>;

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
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Auditors' public keys: `age1…` or `ssh-ed25519 …`.
    pub recipients: Vec<String>,
    /// Of those who may see what was typed; empty: the same.
    pub keystroke_recipients: Vec<String>,
    /// Bytes of content kept per stream under [`Keep::UpToLimit`](crate::Keep::UpToLimit).
    pub stream_limit: u64,
    /// `fsync` after each write (`durability = "disk"`).
    pub fsync: bool,
}

/// Who can open one recording, beside those of the [`Settings`]. Public keys of the same kinds.
#[derive(Debug, Clone, Default)]
pub struct Audience {
    /// Auditors of this recording.
    pub recipients: Vec<String>,
    /// Of those who may see what was typed, where the settings keep that apart.
    pub keystroke_recipients: Vec<String>,
}

/// Starts recordings in one directory.
pub struct Recorder {
    dir: PathBuf,
    how: RwLock<Arc<How>>,
    signer: SealSigner,
    window: Option<Window>,
    /// Recordings have taken all the room that they may.
    full: AtomicBool,
}

/// Settings whose recipients were understood.
struct How {
    recipients: Recipients,
    /// None: the same.
    of_keystrokes: Option<Recipients>,
    settings: Settings,
}

impl How {
    fn new(settings: Settings) -> Result<Self, RecordError> {
        let recipients = Recipients::parse(&settings.recipients)?;
        let other = &settings.keystroke_recipients;
        let of_keystrokes = (!other.is_empty()).then(|| Recipients::parse(other)).transpose()?;
        Ok(Self { recipients, of_keystrokes, settings })
    }

    /// For others, too.
    fn and(&self, others: Audience) -> Result<Self, RecordError> {
        let joined = |some: &[String], more: Vec<String>| {
            let new = more.into_iter().filter(|key| !some.contains(key)).collect::<BTreeSet<_>>();
            some.iter().cloned().chain(new).collect()
        };
        let mut settings = self.settings.clone();
        settings.recipients = joined(&settings.recipients, others.recipients);
        if !settings.keystroke_recipients.is_empty() {
            settings.keystroke_recipients = joined(&settings.keystroke_recipients, others.keystroke_recipients);
        }
        Self::new(settings)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder")
            .field("dir", &self.dir)
            .field("settings", &self.how().settings)
            .finish_non_exhaustive()
    }
}

impl Recorder {
    /// Checks the recipients and makes the directory (0700).
    pub fn open(dir: &Path, settings: Settings, signer: SealSigner) -> Result<Self, RecordError> {
        let how = RwLock::new(Arc::new(How::new(settings)?));
        storage::prepare(dir).map_err(|error| RecordError::Write(format!("{}: {error}", dir.display())))?;
        Ok(Self { dir: dir.to_owned(), how, signer, window: None, full: AtomicBool::new(false) })
    }

    /// Recordings that start from now on are made so.
    ///
    /// # Errors
    /// A recipient that is none: then nothing changes.
    pub fn replace(&self, settings: Settings) -> Result<(), RecordError> {
        let how = Arc::new(How::new(settings)?);
        *self.how.write().unwrap_or_else(PoisonError::into_inner) = how;
        Ok(())
    }

    fn how(&self) -> Arc<How> {
        self.how.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on a key of each recording is kept for this window. Of length zero, it only destroys what was kept.
    pub fn keep_keys(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }

    /// The window, if there is one.
    pub fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    /// Whether recordings have taken all the room that they may: then none begins. Those that have begun go on.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// See [`Recorder::set_full`].
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn verifying_key(&self) -> ed25519_dalek::VerifyingKey {
        self.signer.verifying_key()
    }

    /// Writes, syncs and removes a small file: does the disk still take a recording?
    pub fn probe(&self) -> Result<(), RecordError> {
        storage::probe(&self.dir).map_err(|error| RecordError::Write(error.to_string()))
    }

    /// For those of the settings alone: see [`Recorder::start_for`].
    pub fn start(&self, header: Header) -> Result<LiveRecording, RecordError> {
        self.start_for(header, Audience::default())
    }

    /// Creates the file and writes the preamble, on disk (fsync of file and directory) when this returns.
    pub fn start_for(&self, header: Header, others: Audience) -> Result<LiveRecording, RecordError> {
        if self.is_full() {
            return Err(RecordError::Full);
        }
        let how = match self.how() {
            how if others.recipients.is_empty() && others.keystroke_recipients.is_empty() => how,
            how => Arc::new(how.and(others)?),
        };
        let How { recipients, of_keystrokes, settings } = &*how;
        let (main, main_key) = recipients.fresh_key()?;
        let (keystrokes, keystroke_key) = of_keystrokes.as_ref().unwrap_or(recipients).fresh_key()?;
        let (session, start) = (header.session.clone(), header.start);
        let window = self.window.as_ref().filter(|window| !window.length().is_zero());
        let preamble = Preamble {
            header,
            recipients: recipients.names().to_vec(),
            keystroke_recipients: of_keystrokes.as_ref().map(|those| those.names().to_vec()).unwrap_or_default(),
            signing_key: frame::hex(self.signer.verifying_key().as_bytes()),
            stream_limit: settings.stream_limit,
            main_key,
            keystroke_key,
            replay_window_s: window.map_or(0, |window| window.length().as_secs()),
        };
        let preamble = preamble.encode().ok_or_else(|| RecordError::Write("its header is too long".to_owned()))?;
        let failed = |error: std::io::Error| RecordError::Write(error.to_string());
        let place = NewFile::create(&self.dir, &session, start).map_err(failed)?;
        let parts = Parts {
            file: Box::new(place.file().try_clone().map_err(failed)?),
            preamble,
            session: session.clone(),
            main: main.cipher(),
            keystrokes: keystrokes.cipher(),
            signer: self.signer.clone(),
            stream_limit: settings.stream_limit,
            fsync: settings.fsync,
        };
        let writer = Writer::begin(parts, start)?;
        let path = place.publish().map_err(failed)?;
        if let Some(window) = window {
            window.keep(&session, &path, &main).map_err(failed)?;
        }
        Ok(LiveRecording {
            path,
            writer: Mutex::new(Some(writer)),
            moved: AtomicU64::new(0),
            recent: Recent::default(),
        })
    }
}

/// A recording in progress. Shared by the tasks of one session. Dropped without [`LiveRecording::seal`] it is truncated.
pub struct LiveRecording {
    /// Relative to the recordings' directory.
    path: String,
    /// Gone once it failed or was sealed.
    writer: Mutex<Option<Writer>>,
    /// How often bytes went on.
    moved: AtomicU64,
    /// For who watches.
    pub(crate) recent: Recent,
}

impl fmt::Debug for LiveRecording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveRecording").field("path", &self.path).finish_non_exhaustive()
    }
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
        let accounted = |event: &Event| if let Event::Data { data, .. } = event { data.len() } else { 0 };
        if !forward.is_empty() && events.iter().map(accounted).sum::<usize>() != forward.len() {
            return Err(RecordError::Unaccounted);
        }
        if !crate::RECORDS {
            return Ok(Recorded { bytes: forward });
        }
        self.write(|writer| {
            writer.append(&events, now)?;
            // Within the lock, so that who watches sees things in the order of the recording.
            self.recent.take(events, now, !forward.is_empty());
            Ok(())
        })?;
        if !forward.is_empty() {
            self.moved.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Recorded { bytes: forward })
    }

    /// How often bytes went on, either way: whether it has changed since the last look is whether the session is in use.
    pub fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// How long nothing has moved, and what was done last.
    pub fn glance(&self) -> Glance {
        self.recent.glance()
    }

    /// Who watches sees its end: nothing more is shown.
    pub fn hide(&self) {
        self.recent.end();
    }

    /// Its file, relative to the recordings' directory.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Writes events that release nothing.
    pub fn note(&self, event: Event, now: Timestamp) -> Result<(), RecordError> {
        self.record(vec![event], Bytes::new(), now).map(drop)
    }

    /// How often [`LiveRecording::tick`] is to be called.
    pub const TICK: std::time::Duration = crate::writer::CHECKPOINT_EVERY;

    /// Checkpoint if one is due, so that an idle session's tail is signed too: 5 s after it was written at the latest.
    pub fn tick(&self, now: Timestamp) -> Result<(), RecordError> {
        self.write(|writer| writer.tick(now))
    }

    /// Digests of the limited streams, the signed end, fsync. Afterwards [`LiveRecording::record`] fails.
    pub fn seal(&self, now: Timestamp) -> Result<Seal, RecordError> {
        let sealed = self.write(|writer| {
            writer.end(now)?;
            Ok(writer.figures())
        });
        // The lock on the file goes with the writer: no longer live.
        self.writer.lock().map_err(|_| RecordError::Failed)?.take();
        let (frames, bytes, head) = sealed?;
        Ok(Seal { path: self.path.clone(), frames, bytes, head: frame::hex(&head) })
    }

    /// The first failure is the last word: nothing is written behind a torn frame.
    fn write<T>(&self, write: impl FnOnce(&mut Writer) -> Result<T, RecordError>) -> Result<T, RecordError> {
        let mut held = self.writer.lock().map_err(|_| RecordError::Failed)?;
        let result = write(held.as_mut().ok_or(RecordError::Failed)?);
        if result.is_err() {
            *held = None;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::{Keep, Stream, keys::generate_identity, storage::State};
    use std::fs::File;

    #[test]
    fn failed_write_releases_nothing_and_is_the_last() {
        let dir = tempfile::TempDir::new().unwrap();
        let settings = Settings { recipients: vec![generate_identity().1], ..Settings::default() };
        let signer = Arc::new(ed25519_dalek::SigningKey::from_bytes(&[7; 32]));
        let recorder = Recorder::open(dir.path(), settings, signer).unwrap();
        let (text, start) = (|| "s".to_owned(), Timestamp::UNIX_EPOCH);
        let header = Header {
            session: text(),
            identity: text(),
            target: text(),
            access: text(),
            protocol: text(),
            grant: text(),
            gateway: text(),
            start,
        };
        let live = recorder.start(header).unwrap();
        live.note(Event::Cancelled, start).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        live.writer.lock().unwrap().as_mut().unwrap().move_to(full);
        let data = Bytes::from_static(b"x");
        let event = Event::Data { channel: 1, stream: Stream::Stdout, keep: Keep::Whole, data: data.clone() };
        assert!(matches!(live.record(vec![event.clone()], data.clone(), start), Err(RecordError::Write(_))));
        assert!(matches!(live.record(vec![event], data, start), Err(RecordError::Failed)));
        assert!(matches!(live.tick(start), Err(RecordError::Failed)));
        assert!(matches!(live.seal(start), Err(RecordError::Failed)));
        let entry = storage::find(dir.path(), "s").unwrap();
        assert_eq!((entry.state, entry.frames), (State::Truncated, 2));
    }
}
