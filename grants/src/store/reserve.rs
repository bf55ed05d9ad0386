//! Disk space set aside, so that ledger and leases can still be written when the disk is full.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const NAME: &str = "reserve";
/// How much: some ten thousand ledger entries.
const SIZE: u64 = 16 * 1024 * 1024;
/// It is made anew only when this much is free, so that it does not itself fill the disk again.
const ENOUGH: u64 = 4 * SIZE;
/// How often that is tried.
const PAUSE: Duration = Duration::from_secs(30);

/// `DIR/reserve`.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
    tried: Instant,
}

impl Reserve {
    /// Takes the reserve if there is room for it; without room the store opens all the same.
    pub(crate) fn open(dir: &Path) -> Self {
        let path = dir.join(NAME);
        let held = reserve_is_held(dir) || allocate(&path).is_ok();
        if !held {
            tracing::warn!(path = %path.display(), "no room to set aside for the ledger");
        }
        Self { path, held, tried: Instant::now() }
    }

    /// Gives the space back to the disk. True if there was some: worth another try.
    pub(crate) fn release(&mut self) -> bool {
        let released = self.held && fs::remove_file(&self.path).is_ok();
        if released {
            tracing::error!("the disk is full: the ledger lives on its reserve");
        }
        self.held = false;
        self.tried = Instant::now();
        released
    }

    /// Sets the space aside again once there is plenty.
    pub(crate) fn renew(&mut self) {
        if self.held || self.tried.elapsed() < PAUSE {
            return;
        }
        self.tried = Instant::now();
        let dir = self.path.parent().unwrap_or(Path::new("."));
        let free = statvfs(dir).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
        if free >= ENOUGH {
            self.held = allocate(&self.path).is_ok();
        }
    }
}

/// Whether the space of the store in `dir` is set aside now: while it is not, nobody else may fill the disk.
pub fn reserve_is_held(dir: &Path) -> bool {
    fs::metadata(dir.join(NAME)).is_ok_and(|m| m.len() >= SIZE)
}

/// Blocks, not a sparse file: by fallocate, or by writing where the file system does not know that.
fn allocate(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let done = match fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_through(&file),
        other => other.map_err(io::Error::from),
    };
    if done.is_err() {
        drop(file);
        fs::remove_file(path)?;
    }
    done
}

fn write_through(mut file: &File) -> io::Result<()> {
    let block = [0x5a; 64 * 1024];
    for _ in 0..SIZE / 65536 {
        file.write_all(&block)?;
    }
    file.sync_all()
}
