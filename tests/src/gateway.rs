//! The gateway under test: the real binary, from its configuration to its `ready` line, and its command line.

use crate::{
    config::{Config, PUBLIC_NAME},
    daemon::{Daemon, Signal, mortal},
    evidence::Ledger,
    postgres::PostgresTrust,
    running::{Output, Running, run},
    sshd::SshTrust,
    wait::{secs, wait_until},
};
use serde_json::Value;
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// A gateway in its folder, serving or not.
#[derive(Debug)]
pub struct Gateway {
    dir: PathBuf,
    binary: PathBuf,
    daemon: Option<Daemon>,
    starts: u32,
    addresses: Addresses,
    /// Replaced by a test that wants another environment or namespace for `serve`.
    pub how: Serve,
}

/// How `serve` is started.
#[derive(Debug, Clone, Default)]
pub struct Serve {
    /// More environment.
    pub env: Vec<(String, String)>,
    /// A shell script that runs first, in a mount namespace of the gateway's own; `$1` is its folder.
    pub mounts: Option<String>,
}

/// Where it listens, by its `ready` line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// SSH.
    pub ssh: Option<SocketAddr>,
    /// PostgreSQL.
    pub postgres: Option<SocketAddr>,
    /// Metrics.
    pub metrics: Option<SocketAddr>,
    /// The API over HTTPS.
    pub api: Option<SocketAddr>,
}

/// A program that cargo built beside this test, or where the environment says that it is.
fn program(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("the test's own path");
    let path = test.parent().and_then(Path::parent).expect("target/debug").join(name);
    assert!(path.exists(), "{} is not built: ./tests/run builds it", path.display());
    path
}

impl Gateway {
    /// The real `tidegate`, in a folder that `tidegate init` has set up.
    pub fn init(dir: &Path) -> Self {
        Self::of(program("tidegate", "TIDEGATE_BIN"), dir)
    }

    fn of(binary: PathBuf, dir: &Path) -> Self {
        let mut command = Command::new(&binary);
        command.arg("init").arg(dir);
        run(command, secs(30)).ok();
        let how = Serve::default();
        Self { dir: dir.to_owned(), binary, daemon: None, starts: 0, addresses: Addresses::default(), how }
    }

    /// From the next start on, the same program with pause points, to stop at this one.
    pub fn pause_at(&mut self, point: &str) {
        self.binary = program("tidegate-paused", "TIDEGATE_PAUSED_BIN");
        let file = self.paused_file().display().to_string();
        fs::remove_file(&file).ok();
        self.how.env = vec![("TIDEGATE_PAUSE_AT".into(), point.into()), ("TIDEGATE_PAUSED".into(), file)];
    }

    /// From the next start on, the same program with a clock that [`Gateway::shift_clock`] sets.
    pub fn own_clock(&mut self) {
        self.binary = program("tidegate-paused", "TIDEGATE_PAUSED_BIN");
        self.how.env = vec![("TIDEGATE_CLOCK_OFFSET".into(), self.dir.join("clock").display().to_string())];
    }

    /// From the next start on, the same program, asking for new keys of SSH after so many bytes.
    pub fn new_keys_after(&mut self, bytes: usize) {
        self.binary = program("tidegate-paused", "TIDEGATE_PAUSED_BIN");
        self.how.env = vec![("TIDEGATE_NEW_KEYS_AFTER".into(), bytes.to_string())];
    }

    /// From now on it is so many seconds later there; earlier if below zero.
    pub fn shift_clock(&self, seconds: i64) {
        let draft = self.dir.join("clock.new");
        fs::write(&draft, seconds.to_string())
            .and_then(|()| fs::rename(&draft, self.dir.join("clock")))
            .expect("a clock");
    }

    /// From the next start on, the real program again.
    pub fn pause_nowhere(&mut self) {
        self.binary = program("tidegate", "TIDEGATE_BIN");
        self.how.env.clear();
    }

    fn paused_file(&self) -> PathBuf {
        self.dir.join("paused")
    }

    /// Waits until it stands at its pause point.
    pub fn until_paused(&self) {
        let file = self.paused_file();
        wait_until(secs(60), "the gateway comes to its pause point", || file.exists().then_some(()));
    }

    /// The `recipients` line of the configuration, with the auditor's key that `init` made.
    pub fn recipients(&self) -> String {
        let text = fs::read_to_string(self.dir.join("tidegate.toml")).expect("what init wrote");
        let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
        let key = words.find(|word| word.starts_with("age1") && word.len() > 50).expect("init names the auditor's key");
        format!("recipients = [\"{key}\"]")
    }

    /// The auditor's age identity that `init` wrote.
    pub fn identity(&self) -> PathBuf {
        let secret = |path: &PathBuf| fs::read_to_string(path).is_ok_and(|text| text.contains("AGE-SECRET-KEY-1"));
        files(&self.dir).into_iter().find(secret).expect("init wrote an auditor's identity")
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Writes the configuration.
    pub fn configure(&self, config: &Config) {
        config.write(&self.dir);
    }

    /// Starts `serve`, and waits for its `ready` line.
    pub fn start(&mut self) {
        self.starts += 1;
        let ready = self.dir.join(format!("ready-{}", self.starts));
        let mut command = mortal("KILL", None);
        if let Some(mounts) = &self.how.mounts {
            let script = format!("{mounts}\nshift; exec \"$@\"");
            command.args(["unshare", "--mount", "sh", "-euc", &script, "gateway"]).arg(&self.dir);
        }
        command.arg(&self.binary).arg("serve").arg("--config").arg(self.dir.join("tidegate.toml"));
        command.envs(self.how.env.iter().cloned()).current_dir("/");
        let stdout = Stdio::from(fs::File::create(&ready).expect("a file for its stdout"));
        let log = self.dir.join("gateway.log");
        let mut daemon = Daemon::spawn("tidegate serve", command, &log, Signal::KILL, Some(stdout));
        let line = wait_until(secs(30), "the gateway is ready", || {
            daemon.assert_alive();
            let text = fs::read_to_string(&ready).ok()?;
            text.lines().find(|line| line.starts_with("ready")).map(str::to_owned)
        });
        self.daemon = Some(daemon);
        let address = |name: &str| {
            line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
        };
        self.addresses = Addresses {
            ssh: address("ssh"),
            postgres: address("postgres"),
            metrics: address("metrics"),
            api: address("api"),
        };
    }

    /// Sends SIGKILL, as a power cut would.
    pub fn kill9(&mut self) {
        self.daemon.as_mut().expect("it serves").end(Signal::KILL);
        self.daemon = None;
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.daemon.as_ref().expect("it serves").signal(signal);
    }

    /// Asks it to stop, and waits until it has.
    pub fn terminate(&mut self) {
        self.daemon.as_mut().expect("it serves").end(Signal::TERM);
        self.daemon = None;
    }

    /// Whether it serves; panics with its log if it has ended by itself.
    pub fn assert_alive(&mut self) {
        self.daemon.as_mut().expect("it serves").assert_alive();
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it serves").pid()
    }

    /// What it logged so far, over all its starts.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("gateway.log")).unwrap_or_default()).into_owned()
    }

    /// Its peak resident memory so far, in KiB.
    pub fn vm_hwm(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The same without the pages of the program itself, in KiB: a debug build alone has some 45 MiB of them, and they are not what
    /// sessions cost.
    pub fn peak_of_its_own(&self) -> u64 {
        self.status("VmHWM:").saturating_sub(self.status("RssFile:"))
    }

    /// Its resident memory now, in KiB.
    pub fn vm_rss(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Its threads.
    pub fn threads(&self) -> u64 {
        self.status("Threads:")
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it is alive").count()
    }

    /// A number of `/proc/PID/status` (proc_pid_status(5)).
    fn status(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it is alive");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
        line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
    }

    /// Where the API listens for HTTPS.
    pub fn api(&self) -> SocketAddr {
        self.addresses.api.expect("it listens for HTTPS")
    }

    /// Where SSH listens.
    pub fn ssh(&self) -> SocketAddr {
        self.addresses.ssh.expect("it listens for SSH")
    }

    /// Where metrics are served.
    pub fn metrics(&self) -> SocketAddr {
        self.addresses.metrics.expect("it serves metrics")
    }

    /// Waits until it has ended by itself; its exit status.
    pub fn ended(&mut self, deadline: Duration) -> Option<i32> {
        let daemon = self.daemon.as_mut().expect("it serves");
        let status = wait_until(deadline, "the gateway ends", || daemon.child().try_wait().expect("a child"));
        self.daemon = None;
        status.code()
    }

    /// Where PostgreSQL listens.
    pub fn postgres(&self) -> SocketAddr {
        self.addresses.postgres.expect("it listens for PostgreSQL")
    }

    /// `tidegate ARGS`, not yet run. In the gateway's own mount namespace if it has one.
    pub fn command(&self, args: &[&str]) -> Command {
        let binary = program("tidegate", "TIDEGATE_BIN");
        let mut command = match (&self.how.mounts, &self.daemon) {
            (Some(_), Some(daemon)) => {
                let mut enter = Command::new("nsenter");
                enter.args(["--mount", "--target", &daemon.pid().to_string(), "--"]).arg(binary);
                enter
            }
            _ => Command::new(binary),
        };
        command.args(args).env("TIDEGATE_CONFIG", self.dir.join("tidegate.toml")).current_dir("/");
        command
    }

    /// `tidegate ARGS`, run to its end.
    pub fn cli(&self, args: &[&str]) -> Output {
        run(self.command(args), secs(60))
    }

    /// `tidegate ARGS` with this on its stdin.
    pub fn cli_with(&self, args: &[&str], stdin: &str) -> Output {
        let mut running = Running::start(self.command(args));
        running.send(stdin);
        running.finish(secs(60))
    }

    /// `tidegate ARGS --json`, parsed.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let output = self.cli(&args).ok();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{}: {e} in {}", output.command, output.out()))
    }

    /// The same, as the array that it is.
    pub fn list(&self, args: &[&str]) -> Vec<Value> {
        self.json(args).as_array().expect("a list").clone()
    }

    /// Issues a grant; its id.
    pub fn grant(&self, user: &str, target: &str, entitlement: &str, duration: &str) -> String {
        let args = ["grant", "issue", "--user", user, "--target", target, "--entitlement", entitlement];
        let args: Vec<&str> = args.into_iter().chain(["--for", duration, "--reason", "a test"]).collect();
        self.cli(&args).ok().out()
    }

    /// Revokes a grant.
    pub fn revoke(&self, grant: &str) {
        self.cli(&["grant", "revoke", grant, "--reason", "enough"]).ok();
    }

    /// The whole ledger.
    pub fn ledger(&self) -> Ledger {
        let text = self.cli(&["ledger", "export"]).ok().out();
        let entry = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
        // The last lines are signed heads.
        Ledger { entries: text.lines().map(entry).filter(|entry: &Value| entry.get("head").is_none()).collect() }
    }

    /// Waits until the ledger has this many entries of a kind.
    pub fn until_ledger(&self, kind: &str, count: usize, deadline: Duration) -> Ledger {
        wait_until(deadline, &format!("the ledger has {count} of {kind}"), || {
            let ledger = self.ledger();
            (ledger.count(kind) >= count).then_some(ledger)
        })
    }

    /// `ledger verify`.
    pub fn verify_ledger(&self) -> Output {
        self.cli(&["ledger", "verify"])
    }

    /// Leases that are not closed.
    pub fn leases(&self) -> Vec<Value> {
        self.list(&["lease", "list"])
    }

    /// Waits until no lease is open.
    pub fn until_no_lease(&self, deadline: Duration) {
        wait_until(deadline, "no lease is open", || self.leases().is_empty().then_some(()));
    }

    /// Recordings, as listed.
    pub fn recordings(&self) -> Vec<Value> {
        self.list(&["recording", "list"])
    }

    /// A recording as lines of JSON, decrypted.
    pub fn events(&self, recording: &str) -> Vec<Value> {
        let text = self.export_with(recording, "jsonl", &["--keystrokes"]);
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"))).collect()
    }

    /// A recording in another format, decrypted.
    pub fn export(&self, recording: &str, format: &str) -> String {
        self.export_with(recording, format, &[])
    }

    fn export_with(&self, recording: &str, format: &str, more: &[&str]) -> String {
        let identity = self.identity();
        let identity = identity.to_str().expect("a path in UTF-8");
        let args = ["recording", "export", "--format", format, "--identity", identity, recording];
        self.cli(&[&args, more].concat()).ok().out()
    }

    /// What to install on an SSH target.
    pub fn ssh_trust(&self, target: &str) -> SshTrust {
        let part = |part: &str| self.trust(target, part);
        let penalties = part("penalties");
        let principals = self.cli(&["target", "trust", target, "--part", "principals"]);
        let principals = if principals.code == Some(0) { principals.out() + "\n" } else { String::new() };
        SshTrust { ca: part("ca"), sshd_config: part("sshd_config"), principals, penalties }
    }

    /// What to install on a PostgreSQL target. Parts that it does not have are empty.
    pub fn postgres_trust(&self, target: &str) -> PostgresTrust {
        let part = |part: &str| self.trust(target, part);
        let has = |part: &str| {
            let output = self.cli(&["target", "trust", target, "--part", part]);
            if output.code == Some(0) { output.out() + "\n" } else { String::new() }
        };
        PostgresTrust {
            ca: has("ca"),
            postgresql_conf: part("postgresql_conf"),
            pg_hba: part("pg_hba"),
            sql: part("sql"),
            sql_managed: has("sql_managed"),
        }
    }

    fn trust(&self, target: &str, part: &str) -> String {
        self.cli(&["target", "trust", target, "--part", part]).ok().out() + "\n"
    }

    /// A `known_hosts` file with the gateway's host CA, and its X.509 CA, for clients.
    pub fn write_trust(&self, dir: &Path) {
        let host_ca = self.cli(&["ca", "show", "ssh-host"]).ok().out();
        let line = |key: &str| {
            if key.starts_with('@') { key.to_owned() } else { format!("@cert-authority {PUBLIC_NAME} {key}") }
        };
        let known: Vec<String> = host_ca.lines().filter(|l| !l.starts_with('#')).map(line).collect();
        fs::write(dir.join("known_hosts"), known.join("\n") + "\n").expect("known_hosts");
        fs::write(dir.join("ca.pem"), self.cli(&["ca", "show", "x509"]).ok().stdout).expect("ca.pem");
    }
}

/// All files below a folder.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&path)),
            Ok(kind) if kind.is_file() => found.push(path),
            _ => {}
        }
    }
    found
}
