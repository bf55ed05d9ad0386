//! A server process that does not outlive the test.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub use rustix::process::Signal;

/// A running server. Killed and waited for when dropped; if the test is failing then, its log is printed.
#[derive(Debug)]
pub struct Daemon {
    what: String,
    child: Child,
    log: PathBuf,
    stop: Signal,
}

/// A command that the kernel ends with `signal` when the thread that started it is gone: not even a killed test leaves
/// a server behind. (`setpriv` of util-linux; the signal survives `exec` and is set after any change of user.)
pub fn mortal(signal: &str, user: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", signal]);
    if let Some(user) = user {
        command.args(["--reuid", user, "--regid", user, "--init-groups"]);
    }
    command.arg("--");
    command
}

impl Daemon {
    /// Starts `command`, its stderr in a file, its stdout there too unless `stdout` is given.
    pub fn spawn(what: &str, mut command: Command, log: &Path, stop: Signal, stdout: Option<Stdio>) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let stdout = stdout.unwrap_or_else(|| file.try_clone().expect("a second handle of the log").into());
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(file).spawn();
        let child = child.unwrap_or_else(|e| panic!("cannot start {what} ({command:?}): {e}"));
        Self { what: what.to_owned(), child, log: log.to_owned(), stop }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The child itself, e.g. for its stdout.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Panics with its log if it has ended.
    pub fn assert_alive(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("{} ended early with {status}:\n{}", self.what, self.log());
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).ok();
    }

    /// Waits for its end, which something else has brought about.
    pub fn wait(mut self) {
        self.child.wait().ok();
    }

    /// Sends a signal and waits for the end.
    pub fn end(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(signal);
            self.child.wait().ok();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.end(self.stop);
        if std::thread::panicking() {
            let log = self.log();
            let skip = log.lines().count().saturating_sub(80);
            let tail: Vec<&str> = log.lines().skip(skip).collect();
            let text = format!("---- {} said:\n{}\n----\n", self.what, tail.join("\n"));
            std::io::stderr().write_all(text.as_bytes()).ok();
        }
    }
}
