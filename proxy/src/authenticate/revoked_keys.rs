//! The file of `[ssh] revoked_keys`, read again whenever it has changed.
//!
//! What always holds: each answer is about the file as it is now, and where it cannot be read or understood there is no
//! answer, so nobody comes in by a key or certificate until it can. (sshd does the same with its `RevokedKeys`.)

use rustix::fs::OFlags;
use std::{
    fs::Metadata,
    io::Read as _,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate_ca::Revoked;
use tokio::{task::spawn_blocking, time::timeout};

/// A longer file is no list.
const LARGEST: u64 = 64 << 20;
/// A disk that does not answer denies.
const DEADLINE: Duration = Duration::from_secs(5);

/// A file was this one if all of these are the same.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

/// What was last read.
type Last = Option<(Stamp, Arc<Revoked>)>;

/// The list. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RevokedKeys {
    /// `None`: nothing is configured, so nothing is revoked.
    file: Option<PathBuf>,
    last: Arc<Mutex<Last>>,
    /// One read at a time: a disk that hangs must not take a thread for every login.
    reading: Arc<tokio::sync::Mutex<()>>,
}

/// Why there is no answer; for admins.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{file}: {cause}")]
pub struct Unknown {
    file: String,
    cause: String,
}

impl RevokedKeys {
    /// The list in this file, if any. It is not read yet.
    pub fn new(file: Option<PathBuf>) -> Self {
        Self { file, last: Arc::default(), reading: Arc::default() }
    }

    /// The list as it is now. Blocks.
    ///
    /// # Errors
    /// [`Unknown`]: unreadable, or not a list.
    pub fn read(&self) -> Result<Arc<Revoked>, Unknown> {
        let Some(path) = &self.file else { return Ok(Arc::default()) };
        let unknown = |cause: String| Unknown { file: path.display().to_string(), cause };
        let io = |error: std::io::Error| unknown(error.to_string());
        // A pipe without a writer would be waited for.
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
        let mut file = std::fs::File::options().read(true).custom_flags(flags).open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        let stamp = stamp(&metadata);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, revoked)) = &*last
            && *known == stamp
        {
            return Ok(revoked.clone());
        }
        *last = None;
        if !metadata.is_file() || metadata.len() > LARGEST {
            return Err(unknown("not a file of at most 64 MiB".to_owned()));
        }
        let mut bytes = Vec::new();
        file.by_ref().take(LARGEST).read_to_end(&mut bytes).map_err(io)?;
        let revoked = Arc::new(Revoked::parse(&bytes).map_err(|error| unknown(error.to_string()))?);
        *last = Some((stamp, revoked.clone()));
        Ok(revoked)
    }

    /// The same, without blocking, and with a deadline.
    ///
    /// # Errors
    /// [`Unknown`]: unreadable in time, or not a list.
    pub async fn now(&self) -> Result<Arc<Revoked>, Unknown> {
        let Some(path) = &self.file else { return Ok(Arc::default()) };
        let list = self.clone();
        let late = || Unknown { file: path.display().to_string(), cause: "the disk does not answer".to_owned() };
        let read = async {
            let turn = self.reading.clone().lock_owned().await;
            let reading = spawn_blocking(move || {
                let read = list.read();
                drop(turn); // also if nobody waits for it any more
                read
            });
            reading.await.map_err(|_| late())?
        };
        timeout(DEADLINE, read).await.map_err(|_| late())?
    }
}

fn stamp(of: &Metadata) -> Stamp {
    (of.dev(), of.ino(), of.size(), of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use russh::keys::PublicKey;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";

    #[tokio::test]
    async fn a_changed_list_counts_at_once_and_a_broken_one_is_no_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("revoked");
        let list = RevokedKeys::new(Some(file.clone()));
        let key: PublicKey = KEY.parse().unwrap();
        assert!(list.now().await.is_err(), "a file that is not there");
        std::fs::write(&file, "").unwrap();
        assert!(!list.now().await.unwrap().has_key(key.key_data()));
        std::fs::write(&file, KEY).unwrap();
        assert!(list.now().await.unwrap().has_key(key.key_data()));
        std::fs::write(&file, "garbage").unwrap();
        assert!(list.now().await.unwrap_err().to_string().contains("line 1"));
        std::fs::write(&file, "# none").unwrap();
        assert!(!list.now().await.unwrap().has_key(key.key_data()));
        std::fs::remove_file(&file).unwrap();
        assert!(list.now().await.is_err());
        assert!(!RevokedKeys::new(None).now().await.unwrap().has_key(key.key_data()));
    }

    /// Waiting for its writer, it would take a thread for each login.
    #[tokio::test]
    async fn a_pipe_is_no_list_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let unknown = RevokedKeys::new(Some(pipe)).now().await.unwrap_err();
        assert!(unknown.to_string().contains("not a file"), "{unknown}");
    }
}
