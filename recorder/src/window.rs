//! The replay window: for so long after a session the gateway itself can show what was seen in it, and then no more.
//!
//! Beside the copy of a recording's main key that is wrapped for the auditors, the gateway keeps one of its own, in a small
//! file for each session, and destroys it when the window is over. What always holds: keystrokes are sealed under a
//! second key that is never kept, so no window shows them; a recording says in its header how long its window is, and a
//! later configuration can only make it shorter; without one nothing is kept; a key whose time has come is not used,
//! whether it is destroyed already or not; and the time counts from the recording's own end, so that a gateway that was
//! down destroys at its next start what was due meanwhile.
//!
//! What destroying means here: the file is overwritten in place and synced before it is removed, so its blocks hold zeros
//! as far as this file system goes. A copy-on-write file system, a snapshot, a backup or the spare blocks of an SSD may
//! have the old bytes still. Where that matters, the directory belongs on an encrypted volume or in memory.

use crate::{
    Recorder,
    keys::DataKey,
    preamble::{Opening, Preamble},
    replay::{self, Replay},
    storage::{self, State},
    verify::{Outcome, ReadError, Verdict, verify},
};
use jiff::{SignedDuration, Timestamp};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use zeroize::Zeroizing;

const EXTENSION: &str = "key";
/// A key's file is the key, then the recording's place.
const LONGEST: usize = 1024;

/// The keys that the gateway keeps for itself, and for how long.
pub struct Window {
    dir: PathBuf,
    recordings: PathBuf,
    length: Duration,
    kept: Mutex<BTreeMap<String, Kept>>,
}

/// A key's file, by its session.
#[derive(Debug, Clone)]
struct Kept {
    /// The recording's file, relative to the recordings' directory.
    place: String,
    /// The end of its window, once the recording has an end.
    until: Option<Timestamp>,
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Window").field("dir", &self.dir).field("length", &self.length).finish_non_exhaustive()
    }
}

/// Why a recording is not replayed by the gateway.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// No key is kept for it: there was no window, or it is over.
    #[error("the gateway has no key for this recording")]
    NoKey,
    /// It is still being written.
    #[error("the session is still live")]
    Live,
    /// It is not what was recorded.
    #[error("the recording does not verify: {0}")]
    Changed(String),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl Window {
    /// With the keys that are in `dir` already (made if the window is not zero). `recordings`: the recordings' directory.
    pub fn open(dir: &Path, recordings: &Path, length: Duration) -> io::Result<Self> {
        if !length.is_zero() {
            storage::prepare(dir)?;
        }
        let window = Self { dir: dir.to_owned(), recordings: recordings.to_owned(), length, kept: Mutex::default() };
        let mut kept = BTreeMap::new();
        for session in window.on_disk()? {
            let place = window.read(&session).map(|(_, place)| place).unwrap_or_default();
            kept.insert(session, Kept { place, until: None });
        }
        *window.lock() = kept;
        Ok(window)
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        self.length
    }

    fn on_disk(&self) -> io::Result<Vec<String>> {
        let mut sessions = Vec::new();
        if !self.dir.try_exists()? {
            return Ok(sessions);
        }
        for item in fs::read_dir(&self.dir)? {
            let path = item?.path();
            let is_key = path.extension().is_some_and(|extension| extension == EXTENSION);
            sessions.extend(path.file_stem().and_then(|stem| stem.to_str()).filter(|_| is_key).map(str::to_owned));
        }
        Ok(sessions)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, session: &str) -> PathBuf {
        self.dir.join(format!("{session}.{EXTENSION}"))
    }

    /// On disk when this returns, for a recording that is live at this place.
    pub(crate) fn keep(&self, session: &str, place: &str, key: &DataKey) -> io::Result<()> {
        let path = self.file(session);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.lock().insert(session.to_owned(), Kept { place: place.to_owned(), until: None });
        file.write_all(key.bytes()).and_then(|()| file.write_all(place.as_bytes()))?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    fn read(&self, session: &str) -> io::Result<(DataKey, String)> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
        File::open(self.file(session))?.take(LONGEST as u64).read_to_end(&mut bytes)?;
        let torn = || io::Error::new(io::ErrorKind::InvalidData, "not a key that was kept whole");
        let (key, place) = bytes.split_first_chunk::<32>().ok_or_else(torn)?;
        let place = std::str::from_utf8(place).map_err(|_| torn())?;
        Ok((DataKey::from(key), place.to_owned()))
    }

    /// When the key of this recording is due; `None` while the session is live. One that is gone is due at once.
    fn until(&self, kept: &Kept) -> Option<Timestamp> {
        if kept.until.is_some() {
            return kept.until;
        }
        let path = self.recordings.join(&kept.place);
        // Asked often, and a long one takes its time to be looked through.
        if File::open(&path).and_then(|file| storage::is_live(&file)).is_ok_and(|live| live) {
            return None;
        }
        let found = storage::inspect(&path).and_then(|entry| Ok((entry, self.promised(&path)?)));
        match found {
            Ok((entry, _)) if entry.state == State::Live => None,
            Ok((entry, length)) => {
                Some(entry.end.unwrap_or(entry.start).saturating_add(length).unwrap_or(Timestamp::MAX))
            }
            Err(_) => Some(Timestamp::MIN),
        }
    }

    /// What the recording's own header says, or less if the window has become shorter since.
    fn promised(&self, recording: &Path) -> Result<SignedDuration, ReadError> {
        let Opening { preamble, .. } = Preamble::read(&mut BufReader::new(File::open(recording)?))?;
        let length = self.length.min(Duration::from_secs(preamble.replay_window_s));
        Ok(SignedDuration::try_from(length).unwrap_or(SignedDuration::MAX))
    }

    /// Destroys the keys whose time has come. Returns their sessions, and those whose destruction failed with the reason:
    /// they are tried again the next time.
    pub fn sweep(&self, now: Timestamp) -> Vec<(String, io::Result<()>)> {
        let all: Vec<(String, Kept)> = self.lock().iter().map(|(name, kept)| (name.clone(), kept.clone())).collect();
        let mut done = Vec::new();
        for (session, kept) in all {
            let until = self.until(&kept);
            if let Some(known) = self.lock().get_mut(&session) {
                known.until = until;
            }
            if until.is_some_and(|until| until <= now) {
                let destroyed = destroy(&self.file(&session)).and_then(|()| File::open(&self.dir)?.sync_all());
                if destroyed.is_ok() {
                    self.lock().remove(&session);
                }
                done.push((session, destroyed));
            }
        }
        done
    }
}

/// Overwrites a file in place, syncs it, and removes it. Gone already is as good.
fn destroy(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(LONGEST).min(LONGEST);
    file.write_all(&vec![0; length])?;
    file.sync_all()?;
    fs::remove_file(path)
}

impl Recorder {
    /// Opens the recording of a session with the key that is kept for it, if its window is not over, once it verified.
    pub fn replay(&self, session: &str, now: Timestamp) -> Result<(Replay, Verdict), ReplayError> {
        let window = self.window().ok_or(ReplayError::NoKey)?;
        let kept = window.lock().get(session).cloned().ok_or(ReplayError::NoKey)?;
        match window.until(&kept) {
            None => return Err(ReplayError::Live),
            Some(until) if until <= now => return Err(ReplayError::NoKey),
            Some(_) => {}
        }
        let path = window.recordings.join(&kept.place);
        let verdict = verify(&path, &self.verifying_key())?;
        if matches!(verdict.outcome, Outcome::Bad { .. }) || verdict.header.session != session {
            return Err(ReplayError::Changed(verdict.to_string()));
        }
        let (key, _) = window.read(session).map_err(ReadError::Io)?;
        Ok((replay::open_with(&path, &key)?, verdict))
    }
}
