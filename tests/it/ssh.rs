//! Plain `ssh` through the gate: exec, streams, exit status, and what the target sees.

use std::{io::Write, thread};
use tidegate_tests::{
    Running, World,
    evidence::at,
    running::run,
    secs,
    world::{PATIENCE, Plan},
};

#[test]
fn a_command_runs_on_the_target_and_its_status_comes_back() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let output = world.exec("alice", "id -un; echo to stderr >&2; exit 42").exited(42);
    assert_eq!(output.out(), "deploy");
    assert!(output.err().contains("to stderr"));
    world.gateway.until_no_lease(secs(90));
    world.gateway.until_ledger("session.closed", 1, secs(20)).assert_order(&[
        "grant.issued",
        "session.opened",
        "credential.minted",
        "lease.disabled",
        "recording.sealed",
        "lease.closed",
        "session.closed",
    ]);
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_signal_that_kills_the_command_is_reported() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let direct = "kill -TERM $$";
    // OpenSSH's client exits with 255 when the remote command was killed by a signal.
    world.exec("alice", direct).exited(255);
    let recordings = world.gateway.recordings();
    let events = world.gateway.events(recordings[0]["session"].as_str().unwrap());
    assert!(events.iter().any(|e| e.to_string().contains("TERM")), "{events:?}");
}

#[test]
fn bytes_go_both_ways_unchanged_and_each_end_is_told_of_the_other_ones() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // `wc` answers only when it has seen the end of its input.
    let mut ssh = world.ssh_start("alice", "deploy@web-1", &["tee /dev/stderr | wc -c >&2; echo end"]);
    let (mut stdin, bytes) = (ssh.take_stdin(), sent.clone());
    let writer = thread::spawn(move || stdin.write_all(&bytes));
    let output = ssh.end(PATIENCE).ok();
    writer.join().unwrap().unwrap();
    assert_eq!(output.out(), "end");
    let (echo, count) = output.stderr.split_at(sent.len());
    assert!(echo == sent, "the bytes on stderr differ from those sent");
    assert_eq!(String::from_utf8_lossy(count).trim(), "3000000");
}

#[test]
fn a_command_that_closes_its_output_first_still_reads_its_input() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut ssh = world.ssh_start("alice", "deploy@web-1", &["echo first; exec >&-; cat > got; exit 7"]);
    ssh.until_stdout("first", PATIENCE);
    ssh.send("after the end of output");
    ssh.finish(PATIENCE).exited(7);
    let got = world.sshd().home().join("got");
    assert_eq!(std::fs::read_to_string(got).unwrap(), "after the end of output");
}

#[test]
fn the_last_bytes_status_and_stderr_are_complete_20_times_of_20() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let command = "head -c 700000 /dev/zero | tr '\\0' x; echo -n last; head -c 70000 /dev/zero | tr '\\0' y >&2; \
                   echo -n LAST >&2; exit 33";
    for round in 1..=20 {
        let output = world.exec("alice", command).exited(33);
        assert_eq!(output.stdout.len(), 700_004, "round {round}");
        assert!(output.stdout.ends_with(b"xlast"), "round {round}");
        assert!(output.stderr.ends_with(b"yLAST"), "round {round}");
        assert_eq!(output.stderr.len(), 70_004, "round {round}: {}", output.err());
    }
}

#[test]
fn each_connection_to_the_target_has_a_certificate_of_its_own() {
    let world = World::ssh_only();
    let grant = world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    world.exec("alice", "true").ok();
    let log = world.sshd().log();
    let accepted = log.lines().filter(|l| l.contains("Accepted publickey for deploy"));
    // The look around for the receipt is a connection with a certificate of its own, too.
    let accepted: Vec<&str> = accepted.filter(|l| !l.contains("receipt of lease")).collect();
    assert_eq!(accepted.len(), 2, "{log}");
    assert!(accepted.iter().all(|line| line.contains("ED25519-CERT")), "{accepted:?}");
    assert!(accepted.iter().all(|line| line.contains("alice") && line.contains(&grant)), "{accepted:?}");
    let key = |line: &str| line.split("SHA256:").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_ne!(key(accepted[0]), key(accepted[1]), "a key was used twice");
}

#[test]
fn a_target_with_another_host_key_is_refused_before_a_byte_of_the_session() {
    let other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIXkfbl9vFYkCDtXbJ5eEr2tdDr3nfxeXqUUHy1cO8sK";
    let mut world = World::ssh_only();
    let key = world.sshd().host_key().to_owned();
    world.config.change(&key, other);
    world.gateway.configure(&world.config);
    world.gateway.terminate();
    world.gateway.start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "echo never").exited(1).says("did not prove");
    assert!(!world.sshd().log().contains("Accepted"), "{}", world.sshd().log());
    world.gateway.until_no_lease(secs(90));
}

#[test]
fn the_client_knows_the_gate_by_its_host_ca_alone() {
    let world = World::ssh_only();
    let known = std::fs::read_to_string(world.client_file("known_hosts")).unwrap();
    assert!(known.lines().all(|l| l.is_empty() || l.starts_with("@cert-authority gate.test ")), "{known}");
    world.control("alice", &["help"]).ok();
    let wrong = world.ssh_command("alice", &["-o", "HostKeyAlias=other.test"], "alice", &["help"]);
    run(wrong, PATIENCE).exited(255).says("Host key verification failed");
}

#[test]
fn the_control_shell_shows_help_and_only_the_targets_that_one_may_ask_for() {
    let world = World::ssh_only();
    let help = world.control("alice", &["help"]).ok();
    assert!(help.out().contains("password") && help.out().contains("targets"), "{}", help.out());
    let targets = world.control("alice", &["targets"]).ok();
    assert!(targets.out().contains("web-1"), "{}", targets.out());
    let none = world.control("carol", &["targets"]).ok();
    assert!(!none.out().contains("web-1"), "{}", none.out());
    world.control("alice", &["no-such-verb"]).exited(2).says("no such command");
}

#[test]
fn without_a_grant_the_answer_is_77_with_the_command_to_ask() {
    let world = World::ssh_only();
    world.exec("alice", "true").exited(77).says("you hold no grant").says("grant issue");
    let ledger = world.gateway.until_ledger("session.denied", 1, secs(20));
    assert_eq!(ledger.one("session.denied")["identity"], "alice");
    assert!(!world.sshd().log().contains("Accepted"), "{}", world.sshd().log());
    assert_eq!(world.gateway.recordings(), Vec::<serde_json::Value>::new());
}

#[test]
fn an_unknown_target_and_a_forbidden_one_look_alike() {
    let world = World::ssh_only();
    let unknown = world.ssh("carol", "deploy@web-9", &["true"]).exited(1);
    let forbidden = world.ssh("carol", "deploy@web-1", &["true"]).exited(1);
    // But for their references, which are random and as long.
    let before =
        |said: String| said.split_once("(ref ").map(|(before, after)| (before.to_owned(), after.len())).unwrap();
    assert_eq!(before(unknown.err().replace("web-9", "web-1")), before(forbidden.err()));
}

#[test]
fn a_grant_whose_entitlement_is_no_longer_configured_opens_nothing() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    world.config.change("groups = [\"sre\"]\ntargets = { env", "groups = [\"others\"]\ntargets = { env");
    world.gateway.configure(&world.config);
    world.gateway.terminate();
    world.gateway.start();
    world.exec("alice", "echo never").exited(1).says("no target web-1 for you");
}

#[test]
fn many_sessions_at_once_keep_apart() {
    let world = Plan::new().only_ssh().sshd_config("MaxStartups 100").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let all: Vec<(usize, Running)> = (0..8)
        .map(|n| (n, world.ssh_start("alice", "deploy@web-1", &[&format!("head -c 100000 /dev/zero | tr '\\0' {n}")])))
        .collect();
    for (n, ssh) in all {
        let output = ssh.finish(PATIENCE).ok();
        assert!(output.stdout.len() == 100_000 && output.stdout.iter().all(|b| *b == b'0' + n as u8));
    }
    let ledger = world.gateway.until_ledger("session.closed", 8, secs(60));
    for opened in ledger.all("session.opened") {
        let own = ledger.of_session(&opened["session"]);
        assert!(at(own.one("recording.sealed")) >= at(opened), "{}", own.story());
    }
}
