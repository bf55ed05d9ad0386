//! Flow control (russh credits windows on arrival, not on consumption): much data, stalled readers, stalled uploads,
//! and the gateway's memory small through all of it.

use std::{
    io::Write,
    process::{Command, Stdio},
    thread,
    time::Instant,
};
use tidegate_tests::{Master, Running, World, daemon::Signal, secs, world::Plan};

/// The most resident memory that the gateway may ever have had, in KiB.
const MEMORY: u64 = 32 * 1024;
/// For transfers on a busy machine. A hang is what these tests are about, and it lasts for ever.
const LONG: std::time::Duration = secs(240);
/// How long a reader stays asleep.
const STALL: std::time::Duration = secs(20);

fn small_memory(world: &World) {
    let peak = world.gateway.peak_of_its_own();
    assert!(peak < MEMORY, "the gateway had {peak} KiB of its own in memory at its peak");
}

fn world() -> World {
    let world = Plan::new().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

/// A shell line with `$SSH` as the client's command line up to the host.
fn shell(world: &World, line: &str) -> Running {
    let mut command = Command::new("bash");
    let ssh = world.ssh_command("alice", &[], "deploy@web-1", &[]);
    let words: Vec<_> = ssh.get_args().map(|w| w.to_string_lossy().into_owned()).collect();
    command.args(["-euo", "pipefail", "-c", line, "bash"]).args(words).env_remove("SSH_AUTH_SOCK");
    Running::start(command)
}

#[test]
fn heavy_300_mib_come_back_from_cat_unchanged() {
    let world = world();
    let line = "head -c 300M /dev/zero | ssh \"$@\" cat | sha256sum; head -c 300M /dev/zero | sha256sum";
    let output = shell(&world, line).finish(LONG).ok();
    let sums: Vec<String> = output.out().lines().map(str::to_owned).collect();
    assert_eq!(sums[0], sums[1]);
    small_memory(&world);
}

#[test]
fn heavy_ten_bytes_out_for_each_byte_in_with_a_slow_reader() {
    let world = world();
    let line = "head -c 4M /dev/zero | ssh \"$@\" \"perl -e 'while (sysread STDIN, \\$b, 4096) { print \\\"x\\\" x (10 * length \\$b) }'\" \
                | perl -e 'my $n = 0; while (my $c = sysread STDIN, my $b, 65536) { $n += $c; select undef, undef, undef, 0.002 } print $n'";
    assert_eq!(shell(&world, line).finish(LONG).ok().out(), (40 * 1024 * 1024).to_string());
    small_memory(&world);
}

#[test]
fn heavy_a_stalled_reader_loses_nothing_and_costs_no_memory() {
    let world = world();
    let line = format!(
        "ssh \"$@\" 'head -c 200M /dev/zero' | (head -c 1000; sleep {}; cat) | sha256sum; head -c 200M /dev/zero | sha256sum",
        STALL.as_secs()
    );
    let output = shell(&world, &line).finish(LONG).ok();
    let sums: Vec<String> = output.out().lines().map(str::to_owned).collect();
    assert_eq!(sums[0], sums[1]);
    small_memory(&world);
}

#[test]
fn heavy_an_upload_into_a_stalled_program_loses_nothing_and_costs_no_memory() {
    let world = world();
    let line = format!("head -c 200M /dev/zero | ssh \"$@\" '(head -c 1000; sleep {}; cat) | wc -c'", STALL.as_secs());
    assert_eq!(shell(&world, &line).finish(LONG).ok().out(), (200 * 1024 * 1024).to_string());
    small_memory(&world);
}

#[test]
fn heavy_beside_stalled_channels_of_one_connection_a_third_one_works() {
    let world = world();
    let master = Master::start(&world);
    // A reader that never reads: its client is stopped, with a pipe that nobody empties.
    let mut reader = master.command("head -c 100M /dev/zero");
    reader.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut reader = reader.spawn().unwrap();
    // An upload into a program that never reads.
    let mut upload = Running::start(master.command("echo up; exec sleep 500"));
    upload.until_stdout("up", secs(60));
    let mut stdin = upload.take_stdin();
    thread::spawn(move || {
        let zeros = vec![0; 65536];
        while stdin.write_all(&zeros).is_ok() {}
    });
    let echo = Running::start(master.command("echo hi")).finish(LONG).ok();
    assert_eq!(echo.out(), "hi");
    let started = Instant::now();
    let down = Running::start(master.command("head -c 100M /dev/zero")).finish(LONG).ok();
    assert_eq!(down.stdout.len(), 100 * 1024 * 1024);
    eprintln!("100 MiB beside two stalled channels took {:?}", started.elapsed());
    assert!(reader.try_wait().unwrap().is_none(), "the stalled reader is still there");
    assert!(upload.ended().is_none(), "the stalled upload is still there");
    reader.kill().unwrap();
    reader.wait().unwrap();
    small_memory(&world);
}

#[test]
fn every_further_channel_of_a_connection_is_authorized_anew() {
    let world = Plan::new().only_ssh().start();
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    let master = Master::start(&world);
    Running::start(master.command("true")).finish(secs(60)).ok();
    world.gateway.revoke(&grant);
    let refused = Running::start(master.command("echo never")).finish(secs(60));
    assert_ne!(refused.code, Some(0), "{}", refused.out());
    assert!(!refused.out().contains("never"));
}

#[test]
fn a_stopped_client_is_cut_all_the_same_when_its_grant_ends() {
    let world = Plan::new().only_ssh().start();
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; yes"]);
    ssh.until_stdout("on", secs(60));
    ssh.signal(Signal::STOP);
    world.gateway.revoke(&grant);
    world.gateway.until_ledger("lease.disabled", 1, secs(30));
    ssh.signal(Signal::KILL);
    small_memory(&world);
}
