//! A client program in flight: what it is told, what it says, how it ends.

use crate::wait::wait_until;
use std::{
    io::{Read, Write},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

/// What a program said, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// Exit status; `None` if a signal killed it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: Vec<u8>,
    /// All of its stderr.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Its stdout as text, without the last newline.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end_matches('\n').to_owned()
    }

    /// Its stderr as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The same, if it exited with 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exited(0)
    }

    /// The same, if it exited with this.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(
            self.code,
            Some(code),
            "{} ended otherwise\nstdout: {}\nstderr: {}",
            self.command,
            clip(&self.stdout),
            clip(&self.stderr)
        );
        self
    }

    /// The same, if its stdout has this text.
    #[track_caller]
    pub fn shows(self, text: &str) -> Self {
        assert!(self.out().contains(text), "{} does not show {text:?} but:\n{}", self.command, clip(&self.stdout));
        self
    }

    /// The same, if its stderr has this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err().contains(text), "{} does not say {text:?} but:\n{}", self.command, clip(&self.stderr));
        self
    }
}

fn clip(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= 4000 {
        return text.into_owned();
    }
    let head: String = text.chars().take(2000).collect();
    format!("{head} … ({} bytes)", bytes.len())
}

type Heard = Arc<Mutex<Vec<u8>>>;

/// A program that has been started. Killed when dropped.
#[derive(Debug)]
pub struct Running {
    command: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Heard,
    stderr: Heard,
    listeners: Vec<JoinHandle<()>>,
}

fn listen(from: Option<impl Read + Send + 'static>) -> (Heard, Option<JoinHandle<()>>) {
    let heard = Heard::default();
    let into = heard.clone();
    let listener = from.map(|mut from| {
        thread::spawn(move || {
            let mut piece = vec![0; 65536];
            while let Ok(count @ 1..) = from.read(&mut piece) {
                into.lock().unwrap().extend_from_slice(&piece[..count]);
            }
        })
    });
    (heard, listener)
}

impl Running {
    /// Starts it with all three streams on pipes, unless the command already has others.
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::start_as_is(command)
    }

    /// Starts it with the streams that the command has.
    pub fn start_as_is(mut command: Command) -> Self {
        let line = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {line}: {e}"));
        let (stdout, a) = listen(child.stdout.take());
        let (stderr, b) = listen(child.stderr.take());
        let stdin = child.stdin.take();
        Self { command: line, child, stdin, stdout, stderr, listeners: a.into_iter().chain(b).collect() }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: crate::daemon::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).expect("a signal is sent");
    }

    /// Writes to its stdin.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(bytes.as_ref()).and_then(|()| stdin.flush()).expect("it reads its stdin");
    }

    /// Takes its stdin, for a thread that writes.
    pub fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin is open")
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// What it has said on stdout so far.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout.lock().unwrap()).into_owned()
    }

    /// What it has said on stderr so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.lock().unwrap()).into_owned()
    }

    /// How much it has said on stdout so far.
    pub fn stdout_len(&self) -> usize {
        self.stdout.lock().unwrap().len()
    }

    /// Waits until its stdout has this text.
    pub fn until_stdout(&self, text: &str, deadline: Duration) {
        let what = format!("{} prints {text:?}", self.command);
        self.until(&what, deadline, || self.stdout().contains(text));
    }

    /// Waits until its stderr has this text.
    pub fn until_stderr(&self, text: &str, deadline: Duration) {
        let what = format!("{} says {text:?}", self.command);
        self.until(&what, deadline, || self.stderr().contains(text));
    }

    fn until(&self, what: &str, deadline: Duration, look: impl Fn() -> bool) {
        let end = std::time::Instant::now() + deadline;
        while !look() {
            assert!(
                std::time::Instant::now() < end,
                "waited {deadline:?} in vain until {what}\nstdout: {}\nstderr: {}",
                self.stdout(),
                self.stderr()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// Closes its stdin, waits for its end and for the last of what it says.
    pub fn finish(mut self, deadline: Duration) -> Output {
        self.close_stdin();
        self.end(deadline)
    }

    /// Waits for its end, its stdin as it is.
    pub fn end(mut self, deadline: Duration) -> Output {
        let line = self.command.clone();
        let said = (self.stdout.clone(), self.stderr.clone());
        let end = std::time::Instant::now() + deadline;
        let status = loop {
            if let Some(status) = self.ended() {
                break status;
            }
            assert!(
                std::time::Instant::now() < end,
                "{line} has not ended after {deadline:?}\nstdout: {}\nstderr: {}",
                clip(&said.0.lock().unwrap()),
                clip(&said.1.lock().unwrap())
            );
            thread::sleep(Duration::from_millis(10));
        };
        for listener in self.listeners.drain(..) {
            wait_until(deadline, &format!("the streams of {line} close"), || listener.is_finished().then_some(()));
        }
        let stdout = self.stdout.lock().unwrap().clone();
        let stderr = self.stderr.lock().unwrap().clone();
        Output { command: line, code: status.code(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

/// Runs a command to its end, with nothing on its stdin.
pub fn run(command: Command, deadline: Duration) -> Output {
    Running::start(command).finish(deadline)
}
