//! A throwaway OpenSSH server, as the person who runs a target would set it up from what `tidegate target trust` prints.
//!
//! It runs in namespaces of its own: there, `/etc/ssh` is the folder of this server, `/etc/passwd` has its one account,
//! and its processes are its own, so that killing it takes along what sessions left behind.

use crate::{
    daemon::{Daemon, Signal, mortal},
    running::run,
    scratch::Port,
    wait::{secs, wait_until},
};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
};

/// The account on the throwaway server.
pub const LOGIN: &str = "deploy";

/// What `tidegate target trust` printed, by part.
#[derive(Debug, Clone)]
pub struct SshTrust {
    /// The user CA's public key.
    pub ca: String,
    /// Lines for `sshd_config`.
    pub sshd_config: String,
    /// The account's principals; empty where the login itself is the principal.
    pub principals: String,
    /// Lines for `sshd_config` from OpenSSH 9.8 on.
    pub penalties: String,
}

/// One server, before or after its start.
#[derive(Debug)]
pub struct Sshd {
    daemon: Option<Daemon>,
    dir: PathBuf,
    port: Port,
    host_key: String,
    release: Option<PathBuf>,
}

/// Where `tests/openssh` put the sshd of this Debian release, if it did.
pub fn release(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("TIDEGATE_OPENSSH").unwrap_or_else(|| "/var/cache/tidegate-openssh".into());
    Some(PathBuf::from(folder).join(name)).filter(|root| root.join("usr/sbin/sshd").exists())
}

impl Sshd {
    /// Makes its folder, host key and account.
    pub fn prepare(dir: &Path) -> Self {
        let etc = dir.join("etc-ssh");
        fs::create_dir_all(&etc).expect("its /etc/ssh");
        keygen(&etc.join("host_key"));
        let host_key = fs::read_to_string(etc.join("host_key.pub")).expect("its host key");
        let (home, port) = (dir.join("home"), Port::take());
        let uid = uid(&port);
        fs::create_dir_all(&home).expect("its home");
        std::os::unix::fs::chown(&home, Some(uid), Some(uid)).expect("root may give folders away");
        let account = |file: &str, line: String| {
            let text = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            fs::write(dir.join(file), text + &line).expect("its account");
        };
        account("passwd", format!("{LOGIN}:x:{uid}:{uid}::{}:/bin/bash\n", home.display()));
        account("group", format!("{LOGIN}:x:{uid}:\n"));
        account("shadow", format!("{LOGIN}:*:19000:0:99999:7:::\n"));
        let host_key = host_key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        Self { daemon: None, dir: dir.to_owned(), port, host_key, release: None }
    }

    /// From the next start on it is the sshd in this folder, of another release.
    pub fn use_release(&mut self, root: &Path) {
        self.release = Some(root.to_owned());
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `ssh-ed25519 AAAA…`, as `host_key` of the configuration wants it.
    pub fn host_key(&self) -> &str {
        &self.host_key
    }

    /// The home of its account.
    pub fn home(&self) -> PathBuf {
        self.dir.join("home")
    }

    /// The folder that is its `/etc/ssh`.
    pub fn etc(&self) -> PathBuf {
        self.dir.join("etc-ssh")
    }

    /// Puts these lines before all others of its configuration: the first value of a setting counts. From the next start on.
    pub fn configure_first(&self, lines: &str) {
        let path = self.etc().join("sshd_config");
        let text = fs::read_to_string(&path).expect("its configuration");
        fs::write(&path, format!("{lines}\n{text}")).expect("its configuration");
    }

    /// Stops it and starts it again with what its folder holds now.
    pub fn restart(&mut self) {
        self.stop();
        self.start();
        self.ready();
    }

    /// Installs the trust, as printed, where its own lines say that it goes.
    pub fn install(&self, trust: &SshTrust, more: &str) {
        // The first value that sshd reads is the one that counts.
        let minimum = format!(
            "Port {}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host_key\nPidFile none\nUsePAM no\nStrictModes no\n\
             {more}\nLogLevel VERBOSE\nAcceptEnv LANG LC_*\nSubsystem sftp internal-sftp\nMaxSessions 50\n",
            self.port()
        );
        self.put("/etc/ssh/sshd_config", &(minimum + &trust.sshd_config));
        self.put(&directive(&trust.sshd_config, "TrustedUserCAKeys").expect("TrustedUserCAKeys"), &trust.ca);
        if let Some(path) = directive(&trust.sshd_config, "AuthorizedPrincipalsFile") {
            self.put(&path.replace("%u", LOGIN), &trust.principals);
        }
    }

    fn put(&self, path: &str, text: &str) {
        let within = Path::new(path).strip_prefix("/etc/ssh");
        let within = within.unwrap_or_else(|_| panic!("{path} is not in /etc/ssh, which alone is ours to change here"));
        let path = self.dir.join("etc-ssh").join(within);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder");
        fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }

    /// Starts it; [`Sshd::ready`] waits.
    pub fn start(&mut self) {
        let mut command = mortal("KILL", None);
        command.args([
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-euc",
            NAMESPACE,
        ]);
        command.arg("sshd").arg(&self.dir).arg(self.release.as_deref().unwrap_or(Path::new("")));
        self.daemon = Some(Daemon::spawn("sshd", command, &self.dir.join("sshd.log"), Signal::KILL, None));
    }

    /// Waits until it accepts.
    pub fn ready(&mut self) {
        let port = self.port();
        let daemon = self.daemon.as_mut().expect("it was started");
        wait_until(secs(20), "sshd listens", || {
            daemon.assert_alive();
            TcpStream::connect(("127.0.0.1", port)).ok().map(drop)
        });
    }

    /// Stops it, e.g. to be unreachable; [`Sshd::start`] brings it back.
    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            // The first process of the namespace takes all others along; `unshare` waits for it, so that no zombie is left.
            let children = format!("/proc/{0}/task/{0}/children", daemon.pid());
            let children = fs::read_to_string(children).unwrap_or_default();
            let first = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
            if let Some(pid) = first.and_then(rustix::process::Pid::from_raw) {
                rustix::process::kill_process(pid, Signal::KILL).ok();
                daemon.wait();
            }
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.join("sshd.log")).unwrap_or_default()).into_owned()
    }

    /// The command lines of its account's processes now.
    pub fn processes(&self) -> Vec<String> {
        let mut command = Command::new("ps");
        command.args(["-o", "args=", "-U", &uid(&self.port).to_string()]);
        let output = run(command, secs(20));
        output.out().lines().filter(|line| !line.starts_with('[')).map(str::to_owned).collect() // [sleep]: already dead
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Each server's account has a user id of its own, so that tests side by side do not see each other's processes.
fn uid(port: &Port) -> u32 {
    60_000 + u32::from(port.number())
}

/// Run as root inside the new namespaces; `$1` is the server's folder, `$2` the root of another release or empty. sshd starts
/// its helpers by their absolute paths, so another release's stand at those, each run by that release's own loader
/// (or, where it has none, with its libraries). With `/run` and `/var/log` of its own it leaves
/// no trace in the machine's login records.
const NAMESPACE: &str = r#"
for file in passwd group shadow; do mount --bind "$1/$file" "/etc/$file"; done
mount --bind "$1/etc-ssh" /etc/ssh
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /var/log
mkdir -p /run/sshd /run/release /run/libraries /run/programs
if [ -n "$2" ]; then
    mount --bind "$2" /run/release
    mount -t tmpfs -o mode=755 tmpfs /usr/lib/openssh
    libraries=/run/release/usr/lib/$(uname -m)-linux-gnu
    loader=$(echo "$libraries"/ld-linux-*.so.*)
    for program in /usr/sbin/sshd /usr/lib/openssh/sshd-session /usr/lib/openssh/sshd-auth; do
        if [ -e "/run/release$program" ]; then
            if [ -e "$loader" ]; then
                run="$loader --library-path $libraries --argv0 $program"
            else
                cp "$libraries"/libssl.so* "$libraries"/libcrypto.so* /run/libraries
                run="env LD_LIBRARY_PATH=/run/libraries"
            fi
            wrapper="/run/programs/${program##*/}"
            printf '#!/bin/sh\nexec %s /run/release%s "$@"\n' "$run" "$program" > "$wrapper"
            chmod 755 "$wrapper"
            [ -e "$program" ] || touch "$program"
            mount --bind "$wrapper" "$program"
        fi
    done
fi
exec /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config
"#;

/// The argument of a directive of `sshd_config(5)`.
fn directive(config: &str, name: &str) -> Option<String> {
    config.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| word.eq_ignore_ascii_case(name)).and_then(|_| words.next().map(str::to_owned))
    })
}

/// A new Ed25519 key without a passphrase.
pub fn keygen(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(path);
    run(command, secs(20)).ok();
}
