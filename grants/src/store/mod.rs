//! Where grants, sessions, leases, passwords and the ledger live: one SQLite file, WAL, `synchronous=FULL`.
//!
//! Every change of state goes through one function ([`writer::Tx::change`]) that writes the row and the ledger entry that
//! describes it in one transaction. One thread owns the writing connection; lists are read over a second, read-only one,
//! so that they never wait for an fsync.
//!
//! Why a store that does not verify still opens: what is on targets must go, whatever happened here. So leases can
//! always be written, and only the way to a [`Permit`](crate::Permit) asks [`Store::trusted`].

mod clock;
pub(crate) mod factors;
pub(crate) mod guests;
pub(crate) mod leases;
pub(crate) mod locks;
mod marker;
pub(crate) mod migrations;
mod offline;
mod outside;
pub(crate) mod passwords;
pub(crate) mod requests;
mod reserve;
mod restored;
pub(crate) mod reviews;
mod roots;
pub(crate) mod sessions;
mod strays;
#[cfg(test)]
mod tests;
pub(crate) mod tokens;
#[cfg(test)]
mod upgrade_tests;
pub(crate) mod writer;

pub use leases::LeftOn;
pub(crate) use leases::{parsed, unreadable};
pub use offline::{read, verify};
pub use outside::{Column, Included, StateRow, export, hold_to, prove, state_row};
pub use reserve::reserve_is_held;
pub(crate) use restored::restored_at;
pub use restored::{RESTORED, copy};

use crate::{
    ledger::{Entry, Event},
    name::{IdentityName, SessionId, TargetName},
    reference::Reference,
};
use arc_swap::ArcSwap;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use serde::{Deserialize, Serialize};
use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;
use utoipa::ToSchema;
use writer::{Attempts, Pen, Writer};

/// The database file, inside the state directory.
pub(crate) const FILE: &str = "tidegate.db";
/// How long to wait for somebody else's write lock (an admin with `sqlite3`) before an error.
const PATIENCE: Duration = Duration::from_secs(5);

/// The store could not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("the store failed: {0}")]
    Database(String),
    /// No space left, not even the reserve.
    #[error("the disk is full")]
    Full,
    /// The caller asked for something that must not be: our own fault.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// The file and its ledger disagree: somebody else wrote to it.
    #[error("the store does not agree with its ledger: {0}")]
    Damaged(String),
    /// Its format is newer than this program.
    #[error("the store was written by a newer tidegate (format {found}, this one knows {known})")]
    TooNew {
        /// In the file.
        found: u32,
        /// In this program.
        known: u32,
    },
    /// Another gateway holds it.
    #[error("another tidegate is running on this state directory")]
    Busy,
}

/// A short-lived password for one identity on one target, as its SCRAM verifier only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Password {
    /// Whose.
    pub identity: IdentityName,
    /// Good at this target alone.
    pub target: TargetName,
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` (PostgreSQL chapter 53.17).
    pub verifier: String,
    /// Not at or after.
    pub expires: Timestamp,
    /// The first address that used it; none other may.
    pub source: Option<std::net::IpAddr>,
}

/// One session as lists show it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// Who.
    pub identity: IdentityName,
    /// Where to.
    pub target: TargetName,
    /// As what.
    pub access: String,
    /// Under which grant.
    pub grant: crate::name::GrantId,
    /// From where.
    #[schema(value_type = String)]
    pub source: std::net::IpAddr,
    /// When it opened.
    pub start: Timestamp,
    /// When its receipt was in, or it was given to the reaper.
    pub end: Option<Timestamp>,
    /// How it ended, in a word or two.
    pub outcome: Option<String>,
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

/// The store.
pub struct Store {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    reader: Arc<Mutex<Connection>>,
    config: Arc<ArcSwap<String>>,
    attempts: Attempts,
    roots: roots::Roots,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

impl Drop for Store {
    /// Waits for what was begun: afterwards the lock is free.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Signs ledger heads.
pub type HeadSigner = Arc<dyn signature::Signer<ed25519_dalek::Signature> + Send + Sync>;

impl Store {
    /// Opens or creates `DIR/tidegate.db`, takes the lock, verifies the whole ledger against the state, and brings a
    /// trusted store of an older format to the present one. A store that does not verify opens all the same, for teardown: [`Store::trusted`] is then false for good.
    /// Sessions that a killed gateway left open are closed as `interrupted`. `node` and `config` go into each row.
    pub fn open(
        dir: &Path,
        node: &str,
        config: &str,
        signer: HeadSigner,
        public: [u8; 32],
    ) -> Result<Self, StoreError> {
        Self::open_in(dir, node, config, signer, public, migrations::newest())
    }

    /// The same as a program whose newest format this is.
    pub(crate) fn open_in(
        dir: &Path,
        node: &str,
        config: &str,
        signer: HeadSigner,
        public: [u8; 32],
        format: u32,
    ) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| file_error(dir, &e))?;
        let lock = lock(&dir.join("lock"))?;
        let path = dir.join(FILE);
        make_private(&path)?;
        let mut db = Connection::open(&path).map_err(fail)?;
        set_up(&db).map_err(fail)?;
        migrations::run(&mut db, format)?;
        let config = Arc::new(ArcSwap::from_pointee(config.to_owned()));
        let pen = Pen { node: node.to_owned(), config: config.clone(), signer, public };
        let attempts = Attempts::default();
        let reader = open_to_read(&path).map_err(fail)?;
        let mut writer = Writer::new(db, path, pen, attempts.clone(), lock)?;
        // The old format is trusted as well, and teardown knows it: what fails here keeps nothing from its end.
        if let Err(error) = migrations::upgrade(&mut writer, format, Timestamp::now()) {
            tracing::error!(%error, "the store stays in its old format, which has no tokens");
        }
        restored::void(&mut writer, dir)?;
        if let Err(error) = sessions::close_interrupted(&mut writer) {
            tracing::error!(%error, "sessions of the last run stay open in the list");
        }
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job(&mut writer)))
            .map_err(|e| StoreError::Database(format!("no thread for the store: {e}")))?;
        let reader = Arc::new(Mutex::new(reader));
        Ok(Self { jobs: Some(jobs), thread: Some(thread), reader, config, attempts, roots: roots::Roots::default() })
    }

    /// Ok while store and ledger agree. If anybody but us has written to the file since the last look
    /// (`PRAGMA data_version`), everything is verified again first.
    pub async fn trusted(&self) -> Result<(), StoreError> {
        self.run(Writer::trusted).await?
    }

    /// The hash of the configuration that later rows carry.
    pub fn set_config(&self, config: &str) {
        self.config.store(Arc::new(config.to_owned()));
    }

    /// An entry that changes no other table.
    pub async fn append(&self, event: Event, now: Timestamp) -> Result<(), StoreError> {
        self.run(move |writer| writer.transact(now, |tx| tx.append(event.clone()))).await?
    }

    /// The last `count` entries, oldest first.
    pub async fn tail(&self, count: u64) -> Result<Vec<Entry>, StoreError> {
        self.read(move |db| offline::tail(db, Some(count))).await
    }

    /// Up to so many entries of this node behind this one, oldest first.
    pub async fn after(&self, node: &str, seq: u64, most: u32) -> Result<Vec<Entry>, StoreError> {
        let node = node.to_owned();
        self.read(move |db| offline::after(db, &node, seq, most)).await
    }

    /// When entries of these kinds were written, from then on, oldest first.
    pub async fn moments_of(&self, kinds: &[&str], since: Timestamp) -> Result<Vec<Timestamp>, StoreError> {
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        self.read(move |db| offline::moments_of(db, &kinds, since)).await
    }

    /// What was refused of the visit with this reference, oldest first; empty if the ledger knows of none.
    pub async fn refused(&self, reference: Reference) -> Result<Vec<Entry>, StoreError> {
        self.read(move |db| offline::refused(db, reference)).await
    }

    /// Runs `job` on the thread that writes. It runs to its end even if the caller goes away.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Database("the store's thread has ended".to_owned());
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let _ = reply.send(job(writer)); // the caller may be gone
        });
        self.jobs.as_ref().ok_or_else(ended)?.send(job).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())
    }

    /// Runs `look` over the read-only connection.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || look(&reader.lock().unwrap_or_else(PoisonError::into_inner)))
            .await
            .map_err(|_| StoreError::Database("a read was cut short".to_owned()))?
    }
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| file_error(path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy),
        Err(TryLockError::Error(e)) => Err(file_error(path, &e)),
    }
}

/// The file exists and is ours alone before SQLite opens it; `-wal` and `-shm` inherit its mode.
/// (It must not be opened and closed afterwards: that would drop SQLite's own POSIX locks.)
fn make_private(path: &Path) -> Result<(), StoreError> {
    let made = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
    made.map_err(|e| file_error(path, &e))
}

fn set_up(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(PATIENCE)?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", "ON")?;
    // Small: what is only in the WAL is lost with it.
    db.pragma_update(None, "wal_autocheckpoint", 100)?;
    db.pragma_update(None, "trusted_schema", "OFF")?;
    db.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// A connection that cannot write, and does not disturb the one that does.
fn open_to_read(path: &PathBuf) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(PATIENCE)?;
    db.pragma_update(None, "trusted_schema", "OFF")?;
    Ok(db)
}

/// The directory's entries are on disk.
fn sync(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| file_error(dir, &error))
}

/// SQLite's errors in our words.
pub(crate) fn fail(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        // Some writes report a full disk as an I/O error (SQLITE_IOERR_WRITE, _SHMSIZE).
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::SystemIoFailure) if is_write_failure(&error) => StoreError::Full,
        _ => StoreError::Database(error.to_string()),
    }
}

fn is_write_failure(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE};
    error
        .sqlite_error()
        .is_some_and(|e| [SQLITE_IOERR_WRITE, SQLITE_IOERR_FSYNC, SQLITE_IOERR_SHMSIZE].contains(&e.extended_code))
}

fn file_error(path: &Path, error: &std::io::Error) -> StoreError {
    StoreError::Database(format!("{}: {error}", path.display()))
}
