//! Much data through the tools that people move it with: every byte arrives, and the gateway's memory stays small.
//!
//! `TIDEGATE_TEST_MIB` says how much each tool moves each way; `./tests/run --volume 10240` is how to ask for 10 GiB.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tidegate_tests::{Running, World, secs};

/// The most resident memory that the gateway may ever have had, in KiB, however much went through it.
const MEMORY: u64 = 32 * 1024;

fn mib() -> u64 {
    std::env::var("TIDEGATE_TEST_MIB").ok().and_then(|text| text.parse().ok()).unwrap_or(24)
}

/// A busy machine moves a few MiB in a second.
fn patience() -> Duration {
    secs(120 + mib())
}

/// One file of random bytes that goes to the target under another name, and comes back under a third.
struct Round {
    world: World,
    ssh: Vec<String>,
    there: PathBuf,
}

impl Round {
    fn start() -> Self {
        let world = World::ssh_only();
        world.gateway.grant("alice", "web-1", "shell", "1h");
        let ssh = world.ssh_options("alice");
        let there = world.sshd().home();
        let round = Self { world, ssh, there };
        round.shell("head -c ${0}M /dev/urandom > \"$1\"", &[round.here("sent").as_os_str().to_str().unwrap()]);
        round
    }

    fn here(&self, name: &str) -> PathBuf {
        self.world.dir().join(name)
    }

    /// A line for bash: `$0` is the number of MiB, `$@` are these words.
    fn shell(&self, line: &str, words: &[&str]) {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", line, &mib().to_string()]).args(words);
        command.current_dir(self.world.dir()).env_remove("SSH_AUTH_SOCK");
        Running::start(command).finish(patience()).ok();
    }

    /// The line with the client's options as `$@`.
    fn with_ssh(&self, line: &str) {
        let words: Vec<&str> = self.ssh.iter().map(String::as_str).collect();
        self.shell(line, &words);
    }

    fn same(&self, one: &Path, other: &Path) {
        let mut compare = Command::new("cmp");
        compare.args([one, other]);
        Running::start(compare).finish(patience()).ok();
    }

    /// It went there and came back.
    fn compare(self) {
        self.same(&self.here("sent"), &self.there.join("there"));
        self.same(&self.here("sent"), &self.here("back"));
        let peak = self.world.gateway.peak_of_its_own();
        eprintln!("{} MiB each way: {peak} KiB of its own in memory at the peak", mib());
        assert!(peak < MEMORY, "the gateway had {peak} KiB of its own in memory at its peak");
    }
}

#[test]
fn heavy_scp_moves_a_file_there_and_back() {
    let round = Round::start();
    round.with_ssh("scp -q \"$@\" sent deploy@web-1@127.0.0.1:there; scp -q \"$@\" deploy@web-1@127.0.0.1:there back");
    round.compare();
}

#[test]
fn heavy_scp_of_old_moves_a_file_there_and_back() {
    let round = Round::start();
    round.with_ssh(
        "scp -O -q \"$@\" sent deploy@web-1@127.0.0.1:there; scp -O -q \"$@\" deploy@web-1@127.0.0.1:there back",
    );
    round.compare();
}

#[test]
fn heavy_rsync_moves_a_file_there_and_back() {
    let round = Round::start();
    round.with_ssh(
        "export RSYNC_RSH=\"ssh $*\"; rsync --whole-file sent deploy@web-1@127.0.0.1:there; \
         rsync --whole-file deploy@web-1@127.0.0.1:there back",
    );
    round.compare();
}

#[test]
fn heavy_tar_moves_a_folder_there_and_back() {
    let round = Round::start();
    fs::create_dir(round.here("tree")).unwrap();
    fs::hard_link(round.here("sent"), round.here("tree/there")).unwrap();
    round.with_ssh(
        "tar -C tree -c . | ssh \"$@\" deploy@web-1@127.0.0.1 'tar -x'; mkdir out; \
         ssh \"$@\" deploy@web-1@127.0.0.1 'tar -c there' | tar -C out -x; mv out/there back",
    );
    round.compare();
}
