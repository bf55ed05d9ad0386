//! Temporary folders, free ports, and locks between the processes of one test run.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Where everything of a test run lies: `TIDEGATE_TEST_TMP`, which `tests/run` makes and removes, else a folder in
/// `/tmp`. Other accounts must be able to walk through it: PostgreSQL does not run as root.
pub fn base() -> PathBuf {
    let base = std::env::var_os("TIDEGATE_TEST_TMP").map_or_else(|| "/tmp/tidegate-tests".into(), PathBuf::from);
    fs::create_dir_all(&base).unwrap_or_else(|e| panic!("cannot make {}: {e}", base.display()));
    fs::set_permissions(&base, Permissions::from_mode(0o755)).ok();
    base
}

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    /// A new one, open for other accounts to walk through.
    #[allow(clippy::new_without_default, reason = "two calls make two folders")]
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("t").tempdir_in(base()).expect("a temporary folder");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("its mode");
        Self(dir)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A new folder in it.
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.path().join(name);
        fs::create_dir_all(&dir).expect("a folder in the temporary folder");
        dir
    }
}

/// Held for as long as the value lives; the kernel releases it if the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock of this name.
    pub fn wait(name: &str) -> Self {
        let file = open(name);
        file.lock().expect("the lock file can be locked");
        Self { _file: file }
    }

    fn try_take(name: &str) -> Option<Self> {
        let file = open(name);
        file.try_lock().ok().map(|()| Self { _file: file })
    }
}

fn open(name: &str) -> File {
    let path = base().join(format!("{name}.lock"));
    OpenOptions::new().create(true).truncate(false).write(true).open(&path).expect("a lock file")
}

/// A loopback port that nobody else in this test run takes while this lives.
///
/// It lies below the range that the kernel gives to outgoing connections, so that none of those can be in the way
/// between the choice and the server's `bind`.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: Lock,
}

impl Port {
    /// Takes a free one.
    pub fn take() -> Self {
        const FIRST: u16 = 20_000;
        const COUNT: u16 = 10_000;
        let start = (std::process::id() as u16).wrapping_mul(37) % COUNT;
        for step in 0..COUNT {
            let number = FIRST + (start + step) % COUNT;
            let Some(lock) = Lock::try_take(&format!("port-{number}")) else { continue };
            if TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no free port on loopback");
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}
