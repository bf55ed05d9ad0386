//! Much data through the tools that people move it with: every byte arrives, and the gateway's memory stays small.
//!
//! `TIDEGATE_TEST_MIB` says how much each tool moves each way; `./tests/run --volume 10240` is how to ask for 10 GiB.

use serde_json::Value;
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tidegate_tests::{Running, World, running::run, secs, world::PATIENCE};

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

#[test]
fn heavy_cat_moves_bytes_there_and_back_at_once() {
    let round = Round::start();
    round.with_ssh("ssh \"$@\" deploy@web-1@127.0.0.1 'tee there | cat' < sent > back");
    round.compare();
}

/// What one recording takes on disk, when its session is over.
fn on_disk(world: &World) -> u64 {
    world.gateway.until_ledger("recording.sealed", 1, PATIENCE);
    let recordings = world.gateway.recordings();
    let id = recordings[0]["session"].as_str().unwrap();
    run(world.gateway.command(&["recording", "verify", id]), patience()).ok();
    recordings[0]["bytes"].as_u64().unwrap()
}

#[test]
fn heavy_output_of_a_terminal_is_recorded_in_a_fraction_of_its_size() {
    let round = Round::start();
    let text = Command::new("ls").args(["-laR", "--color=always", "/usr"]).output().unwrap().stdout;
    let (mut file, mut left) = (File::create(round.here("sent")).unwrap(), usize::try_from(mib()).unwrap() << 20);
    while left > 0 {
        let piece = &text[..left.min(text.len())];
        file.write_all(piece).unwrap();
        left -= piece.len();
    }
    fs::copy(round.here("sent"), round.there.join("there")).unwrap();
    round.with_ssh("ssh -tt \"$@\" deploy@web-1@127.0.0.1 'stty raw; cat there' < /dev/null > back");
    let (raw, taken) = (mib() << 20, on_disk(&round.world));
    eprintln!("{} MiB of a terminal's output: {} per mille of it on disk", mib(), 1000 * taken / raw);
    assert!(taken * 100 <= raw * 15 && taken * 100 > raw, "{taken} of {raw} bytes");
    round.compare();
}

/// `./tests/run --volume 2500` makes a million of them.
#[test]
fn heavy_statements_are_each_recorded() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let count = mib() * 400;
    let script = world.dir().join("script");
    let lines: String = (0..count).map(|number| format!("select {number};\n")).collect();
    fs::write(&script, &lines).unwrap();
    let (password, conninfo) = (world.password("alice", "orders"), world.conninfo("alice", "orders/shop"));
    let said = run(world.psql_command(&conninfo, &password, &["-f", script.to_str().unwrap()]), patience()).ok().out();
    assert_eq!(said.lines().count() as u64, count);
    let (taken, peak) = (on_disk(&world), world.gateway.peak_of_its_own());
    let (recordings, identity) = (world.gateway.recordings(), world.gateway.identity());
    let export = ["recording", "export", "--format", "jsonl", "--identity", identity.to_str().unwrap()];
    let id = recordings[0]["session"].as_str().unwrap();
    let told = run(world.gateway.command(&[&export[..], &[id]].concat()), patience()).ok().out();
    let statements = told.lines().filter(|line| serde_json::from_str::<Value>(line).unwrap()["event"] == "statement");
    assert_eq!(statements.count() as u64, count);
    eprintln!("{count} statements: {} bytes on disk for each, {peak} KiB of its own in memory", taken / count);
    assert!(peak < MEMORY, "the gateway had {peak} KiB of its own in memory at its peak");
}
