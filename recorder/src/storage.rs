//! Where recordings are: `DIR/2026/11/21/SESSION.tgr`, dated by the session's start in UTC.
//!
//! What always holds: a `.tgr` file has a whole preamble, because it gets its name only after that is on disk (until
//! then it is `SESSION.new`); folders are 0700 and files 0600; a live recording is one whose writer holds `flock` on it,
//! so that a list without a gateway is right too. Whatever else is found is named in a warning, never an error.

use crate::{
    frame::{Frames, HASH, HEAD, read_end},
    preamble::{Opening, Preamble},
    seal::{FIGURES, SIGNATURE},
    verify::ReadError,
};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

const EXTENSION: &str = "tgr";
const UNFINISHED: &str = "new";
/// Of a recording's [`index`](crate::index), and of one that is being made.
pub(crate) const INDEX: &str = "tgi";
pub(crate) const UNFINISHED_INDEX: &str = "tgi-new";
const PROBE: &str = ".probe";

/// Makes the directory, or takes the rights of others on it away.
pub(crate) fn prepare(dir: &Path) -> io::Result<()> {
    make_dirs(dir)?;
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Each missing folder, 0700, and durable.
fn make_dirs(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_dirs(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Writes, syncs and removes a small file.
pub(crate) fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(PROBE);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    let removed = fs::remove_file(&path);
    written.and(removed)
}

/// What a recording is written to. A file, but where a test cuts the power.
pub(crate) trait Disk: Send {
    /// All of it, to the kernel.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// What was written is on disk when this returns.
    fn sync(&mut self) -> io::Result<()>;
}

impl Disk for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data() // the size too, as far as it is needed to read what was written (fdatasync(2))
    }
}

/// A recording's file before it has its name. Removed again unless published.
pub(crate) struct NewFile {
    file: File,
    folder: PathBuf,
    unfinished: PathBuf,
    relative: String,
    published: bool,
}

impl NewFile {
    /// Exclusively, 0600, locked.
    pub(crate) fn create(dir: &Path, session: &str, start: Timestamp) -> io::Result<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if session.is_empty() || session.len() > 128 || !session.chars().all(plain) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the session's id cannot be a file name"));
        }
        let date = start.to_zoned(TimeZone::UTC).date();
        let day = format!("{:04}/{:02}/{:02}", date.year(), date.month(), date.day());
        let folder = dir.join(&day);
        make_dirs(&folder)?;
        let relative = format!("{day}/{session}.{EXTENSION}");
        if dir.join(&relative).try_exists()? {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "this session has a recording already"));
        }
        let unfinished = folder.join(format!("{session}.{UNFINISHED}"));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        let new = Self { file, folder, unfinished, relative, published: false };
        new.file.lock()?;
        Ok(new)
    }

    /// To write to. A clone of it shares the lock.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Syncs it, gives it its name, and syncs that. Its path relative to the directory.
    pub(crate) fn publish(mut self) -> io::Result<String> {
        self.file.sync_all()?;
        fs::rename(&self.unfinished, self.unfinished.with_extension(EXTENSION))?;
        self.published = true;
        sync_dir(&self.folder)?;
        Ok(std::mem::take(&mut self.relative))
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.unfinished); // nothing hangs on it
        }
    }
}

/// One recording, as `recording list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The session's id.
    pub session: String,
    /// Who.
    pub identity: String,
    /// Where to.
    pub target: String,
    /// `ssh` or `postgres`.
    pub protocol: String,
    /// When it began.
    pub start: Timestamp,
    /// The signed end's time; if truncated, the last whole frame's; `None` while live.
    pub end: Option<Timestamp>,
    /// Whether it is whole.
    pub state: State,
    /// Whole frames.
    pub frames: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The directory joined with the file's place in it.
    pub path: PathBuf,
}

/// Whether a recording is whole. What it says is proven only by [`verify`](crate::verify::verify).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Being written.
    Live,
    /// It has an end.
    Complete,
    /// It has none.
    Truncated,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Live => "live",
            Self::Complete => "complete",
            Self::Truncated => "truncated",
        })
    }
}

/// Something in the directory that is no readable recording.
#[derive(Debug, Clone)]
pub struct Warning {
    /// Where.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: String,
}

/// What is in a directory.
#[derive(Debug, Clone, Default)]
pub struct Listing {
    /// Oldest first.
    pub entries: Vec<Entry>,
    /// The rest.
    pub warnings: Vec<Warning>,
}

/// Lists a directory of recordings. A missing directory has none.
pub fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    if !dir.try_exists()? {
        return Ok(listing);
    }
    walk(dir, 0, &mut listing)?;
    listing.entries.sort_by(|a, b| (a.start, &a.session).cmp(&(b.start, &b.session)));
    Ok(listing)
}

/// Year, month, day, file.
fn walk(dir: &Path, depth: usize, listing: &mut Listing) -> io::Result<()> {
    for item in fs::read_dir(dir)? {
        let (path, kind) = match item.and_then(|item| Ok((item.path(), item.file_type()?))) {
            Ok(found) => found,
            Err(error) => {
                listing.warnings.push(Warning { path: dir.to_owned(), fault: error.to_string() });
                continue;
            }
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let fault = match (depth, extension) {
            (0..3, None) if kind.is_dir() => walk(&path, depth + 1, listing).err().map(|error| error.to_string()),
            (0, _) if path.file_name().is_some_and(|name| name == PROBE) => None,
            (3, Some(EXTENSION)) if kind.is_file() => match inspect(&path) {
                Ok(entry) => {
                    listing.entries.push(entry);
                    None
                }
                Err(error) => Some(error.to_string()),
            },
            (3, Some(INDEX | UNFINISHED_INDEX)) if kind.is_file() => None,
            (3, Some(UNFINISHED)) if kind.is_file() => Some("a recording that never began".to_owned()),
            _ => Some("not a recording".to_owned()),
        };
        listing.warnings.extend(fault.map(|fault| Warning { path, fault }));
    }
    Ok(())
}

/// What a directory of recordings takes, in bytes of its files.
pub fn bytes(dir: &Path) -> io::Result<u64> {
    let mut all = 0;
    if !dir.try_exists()? {
        return Ok(all);
    }
    for item in fs::read_dir(dir)? {
        let item = item?;
        match item.metadata() {
            Ok(found) if found.is_dir() => all += bytes(&item.path())?,
            Ok(found) => all += found.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {} // it went meanwhile
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// One file, as a list shows it.
pub fn inspect(path: &Path) -> Result<Entry, ReadError> {
    let file = File::open(path)?;
    let live = is_live(&file)?;
    let bytes = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let opening = Preamble::read(&mut reader)?;
    let frames = opening.frames();
    let Opening { preamble, size, .. } = opening;
    let (complete, last) = match (live, end_of(&mut reader, bytes)?) {
        (false, Some(end)) => (true, Some(end)),
        _ => (false, scan(&mut reader, frames, size, bytes)?),
    };
    let state = match (live, complete) {
        (true, _) => State::Live,
        (_, true) => State::Complete,
        _ => State::Truncated,
    };
    let (frames, wall) = last.map_or((0, None), |(frames, wall)| (frames, Some(wall)));
    let header = preamble.header;
    let start = header.start;
    let end = (state != State::Live).then(|| wall.and_then(timestamp).unwrap_or(start));
    let (session, identity) = (header.session, header.identity);
    let (target, protocol) = (header.target, header.protocol);
    Ok(Entry { session, identity, target, protocol, start, end, state, frames, bytes, path: path.to_owned() })
}

/// Whether its writer still holds the lock.
pub(crate) fn is_live(file: &File) -> io::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => file.unlock().map(|()| false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

pub(crate) fn timestamp(nanoseconds: i64) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds.into()).ok()
}

/// Bytes of an end frame.
const END: u64 = (HEAD + FIGURES + SIGNATURE + HASH) as u64;

/// The end frame's number and time, if one ends the file: a list does not read what lies before it.
fn end_of(reader: &mut BufReader<File>, bytes: u64) -> io::Result<Option<(u64, i64)>> {
    let Some(at) = bytes.checked_sub(END) else { return Ok(None) };
    reader.seek(SeekFrom::Start(at))?;
    let ends = read_end(reader)?.filter(|(_, rest)| HEAD as u64 + rest == END);
    Ok(ends.map(|(head, _)| (head.seq, head.wall)))
}

/// The last whole frame's number and time, from head to head.
fn scan(reader: &mut BufReader<File>, mut frames: Frames, mut at: u64, bytes: u64) -> io::Result<Option<(u64, i64)>> {
    let mut last = None;
    reader.seek(SeekFrom::Start(at))?;
    while let Some((head, begun, rest)) = frames.skip(reader)? {
        at += begun + rest;
        if at > bytes {
            break;
        }
        last = Some((head.seq, head.wall));
        reader.seek_relative(i64::try_from(rest).unwrap_or(i64::MAX))?;
    }
    Ok(last)
}

/// Why there is no one recording of that name.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// Nothing fits.
    #[error("there is no recording {0}")]
    None(String),
    /// More than one fits.
    #[error("several recordings fit {0}: give more digits")]
    Several(String),
    /// The directory cannot be read.
    #[error("the recordings cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// The one recording whose session's id is, begins or ends with `id`; dashes do not count.
pub fn find(dir: &Path, id: &str) -> Result<Entry, FindError> {
    find_among(dir, id, |_| true)
}

/// The same among those that `of` picks: the others are not there.
pub fn find_among(dir: &Path, id: &str, of: impl Fn(&Entry) -> bool) -> Result<Entry, FindError> {
    let simple = |id: &str| id.replace('-', "").to_ascii_lowercase();
    let wanted = simple(id);
    let fits = |entry: &Entry| {
        let session = simple(&entry.session);
        (session.starts_with(&wanted) || session.ends_with(&wanted)) && of(entry)
    };
    if wanted.is_empty() {
        return Err(FindError::None(id.to_owned()));
    }
    let mut fitting = list(dir)?.entries.into_iter().filter(fits);
    match (fitting.next(), fitting.next()) {
        (Some(entry), None) => Ok(entry),
        (Some(_), Some(_)) => Err(FindError::Several(id.to_owned())),
        (None, _) => Err(FindError::None(id.to_owned())),
    }
}
