//! The clients that people have, each with the commands that they type: what works through the gate, and how the refusals
//! look in them. README has the table.
//!
//! All against one kind of world: the gate is known as `localhost`, by its host CA where the client can check one, else by
//! its plain host key. Nothing reads the machine's own configuration: `HOME` is the test's.

mod ansible;
mod carriers;
mod databases;
pub(crate) mod node;
mod openssh;
mod putty;
pub(crate) mod python;
mod small;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};
use tidegate_tests::{
    World,
    config::PUBLIC_NAME,
    running::{Output, run},
    secs,
    world::Plan,
};

/// Whom the clients ask for, in one word of theirs.
const DOOR: &str = "deploy@web-1";
/// How the clients call the gate.
const GATE: &str = "localhost";
/// For one client's work on a busy machine.
const LONG: std::time::Duration = secs(240);

/// A world with what clients need, and alice's grant in it.
struct Clients {
    world: World,
    home: PathBuf,
}

impl Clients {
    fn start() -> Self {
        let clients = Self::without_a_grant();
        clients.world.gateway.grant("alice", "web-1", "shell", "30m");
        clients
    }

    fn without_a_grant() -> Self {
        let names = format!("public_names = [\"{PUBLIC_NAME}\", \"{GATE}\"]");
        let plan = Plan::new().only_ssh().change(&format!("public_names = [\"{PUBLIC_NAME}\"]"), &names);
        let world = plan.sshd_config("MaxStartups 200").start();
        let home = world.dir().join("home-of-alice");
        fs::create_dir_all(home.join(".ssh")).unwrap();
        let clients = Self { world, home };
        let port = clients.port();
        let ca = clients.world.gateway.cli(&["ca", "show", "ssh-host"]).ok().out();
        // Without its comment, which dropbear takes for a part of the key.
        let key = clients.world.gateway.cli(&["ca", "show", "ssh-host-key"]).ok().out();
        let key = key.split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        fs::write(clients.file("by_ca"), format!("@cert-authority [{GATE}]:{port} {ca}\n")).unwrap();
        // dropbear looks for a name without its port.
        fs::write(clients.file("by_key"), format!("[{GATE}]:{port} {key}\n{GATE} {key}\n")).unwrap();
        let config = format!(
            "Host gate {GATE}\n  HostName {GATE}\n  Port {port}\n\
             Host web-1\n  HostName {GATE}\n  Port {port}\n  User {DOOR}\n\
             Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  BatchMode yes\n  UserKnownHostsFile {}\n  \
             GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n",
            clients.key().display(),
            clients.file("by_ca").display()
        );
        fs::write(clients.file("config"), config).unwrap();
        clients
    }

    fn port(&self) -> u16 {
        self.world.gateway.ssh().port()
    }

    /// Alice's private key, as `ssh-keygen` wrote it.
    fn key(&self) -> PathBuf {
        self.world.client_file("alice")
    }

    /// A file of alice's `~/.ssh`. `config` has the gate as `gate`, and the target behind it as `web-1`.
    fn file(&self, name: &str) -> PathBuf {
        self.home.join(".ssh").join(name)
    }

    /// `ssh` with alice's `config`, for programs that run it. (OpenSSH takes no `HOME` from the environment.)
    fn ssh(&self) -> String {
        format!("ssh -F {}", self.file("config").display())
    }

    /// A program of alice's, in her home.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.home).env("HOME", &self.home).env("LC_ALL", "C.UTF-8");
        for variable in ["SSH_AUTH_SOCK", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(variable);
        }
        command
    }

    /// A line of shell in alice's home, stopped at the first failure; `$ssh` is [`Clients::ssh`], and `$key`, `$port`,
    /// `$config`, `$by_ca` and `$by_key` are hers.
    fn shell_command(&self, line: &str) -> Command {
        let mut bash = self.command("bash");
        bash.args(["-euo", "pipefail", "-c", line]);
        bash.env("ssh", self.ssh()).env("port", self.port().to_string()).env("key", self.key());
        for file in ["config", "by_ca", "by_key"] {
            bash.env(file, self.file(file));
        }
        bash
    }

    /// The same, run to its end.
    fn shell(&self, line: &str) -> Output {
        run(self.shell_command(line), LONG)
    }

    /// What the target's account has.
    fn remote(&self, name: &str) -> PathBuf {
        self.world.sshd().home().join(name)
    }

    /// A tree as people have them: an empty file, a large one, spaces and other letters in names, modes and times.
    fn make_tree(&self) {
        self.shell(
            "mkdir -p 'tree/deep/and deeper' tree/empty
             : >tree/nothing
             head -c 3000000 /dev/urandom >'tree/deep/and deeper/große Datei'
             printf '#!/bin/sh\\necho ran\\n' >tree/deep/run
             chmod 755 tree/deep/run
             chmod 640 tree/nothing
             touch -d 2001-09-09T01:46:40Z tree/nothing tree/deep/run",
        )
        .ok();
    }
}

/// Asserts that both folders hold the same files with the same content, modes and times.
#[track_caller]
fn assert_same(one: &Path, other: &Path) {
    let list = |dir: &Path| {
        let mut list = Command::new("bash");
        let line = "find . -type f -print0 | sort -z | xargs -0 sh -c 'stat -c \"%a %Y %n\" \"$@\"; sha256sum \"$@\"' sh; \
                    find . -type d | sort";
        list.args(["-euo", "pipefail", "-c", line]).current_dir(dir).env("LC_ALL", "C.UTF-8");
        run(list, secs(60)).ok().out()
    };
    assert_eq!(list(one), list(other), "{} and {}", one.display(), other.display());
}
