//! `ssh gate play`: one's own recording, for as long as the gateway has a key to it.

use std::{fs, path::PathBuf};
use tidegate_tests::{
    Running, World, secs, wait_until,
    world::{PATIENCE, Plan},
};

/// A gateway with this replay window.
fn world(window: &str) -> World {
    let window = format!("[recording]\nreplay_window = \"{window}\"\n");
    let world = Plan::new().only_ssh().change("[recording]\n", &window).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world
}

/// A session of alice's that is over; its id.
fn session(world: &World, command: &str) -> String {
    let before = world.gateway.ledger().count("session.closed");
    let mut ssh = world.ssh_start("alice", "deploy@web-1", &[command]);
    ssh.send("typed by alice\n");
    ssh.finish(PATIENCE).ok();
    let ledger = world.gateway.until_ledger("session.closed", before + 1, PATIENCE);
    ledger.all("session.closed").last().unwrap()["session"].as_str().unwrap().to_owned()
}

fn keys(world: &World) -> Vec<PathBuf> {
    let folder = world.gateway.state().join("replay");
    fs::read_dir(folder).into_iter().flatten().map(|item| item.unwrap().path()).collect()
}

#[test]
fn one_sees_their_own_session_again_without_what_was_typed_and_nobody_elses() {
    let mut world = world("1h");
    let id = session(&world, "cat >/dev/null; printf 'seen \\033]0;title\\007\\033[31mred\\n'");
    let played = world.control("alice", &["play", &id[28..], "--speed", "2"]).ok().says("complete");
    assert!(played.out().contains("seen ") && played.out().contains("red"), "{}", played.out());
    assert!(!played.out().contains("typed by alice"));
    assert!(!played.stdout.contains(&0x07) && !played.out().contains("\u{1b}]"), "inert: {:?}", played.out());
    let ledger = world.gateway.until_ledger("recording.played", 1, PATIENCE);
    let entry = ledger.one("recording.played");
    assert_eq!((&entry["identity"], &entry["session"]), (&"alice".into(), &id.as_str().into()));
    world.control("bob", &["play", &id]).exited(1).says("no session has this id");
    assert!(world.gateway.cli(&["check"]).ok().out().contains("until 1h after a session"));
    // No key of the gateway's opens what was typed, and it survives a restart.
    assert_eq!(keys(&world).len(), 1);
    world.gateway.terminate();
    world.gateway.start();
    world.control("alice", &["play", &id]).ok();
    // The same, told to an auditor who comes in over ssh.
    world.config.change("name = \"carol\"\ngroups = [\"sales\"]", "name = \"carol\"\ngroups = [\"audit\"]");
    world.gateway.configure(&world.config);
    world.gateway.terminate();
    world.gateway.start();
    assert!(world.control("carol", &["play", &id]).ok().out().contains("seen"));
    let ledger = world.gateway.until_ledger("recording.played", 3, PATIENCE);
    assert_eq!(ledger.all("recording.played")[2]["detail"]["of"], "alice");
    world.gateway.verify_ledger().ok();
}

#[test]
fn when_the_window_is_over_the_key_is_gone_and_an_auditor_is_named() {
    let world = world("3s");
    let id = session(&world, "cat; echo done");
    let destroyed = world.gateway.until_ledger("recording.key_destroyed", 1, PATIENCE);
    assert_eq!(destroyed.one("recording.key_destroyed")["session"], id.as_str());
    assert_eq!(keys(&world), Vec::<PathBuf>::new());
    let refused = world.control("alice", &["play", &id]).exited(1);
    assert!(refused.err().contains(&format!("tidegate recording play {id} --identity FILE")), "{}", refused.err());
    assert_eq!(world.gateway.ledger().count("recording.played"), 0);
    let identity = world.gateway.identity();
    let auditor = ["recording", "play", &id, "--identity", identity.to_str().unwrap()];
    assert!(world.gateway.cli(&auditor).ok().out().contains("done"));
}

#[test]
fn what_was_due_while_the_gateway_was_down_is_destroyed_when_it_starts() {
    let mut world = world("3s");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    ssh.until_stdout("in", PATIENCE);
    let id = world.gateway.list(&["session", "list"])[0]["id"].as_str().unwrap().to_owned();
    world.gateway.kill9();
    let down = std::time::Instant::now();
    assert_eq!(keys(&world).len(), 1, "a live session's key is kept");
    wait_until(PATIENCE, "the window is over", || (down.elapsed() > secs(4)).then_some(()));
    world.gateway.start();
    world.control("alice", &["play", &id]).exited(1).says("--identity FILE");
    world.gateway.until_ledger("recording.key_destroyed", 1, PATIENCE);
    assert_eq!(keys(&world), Vec::<PathBuf>::new());
}

#[test]
fn without_a_window_the_gateway_has_no_key_at_all() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let id = session(&world, "cat; echo done");
    assert!(!world.gateway.state().join("replay").exists());
    let refused = world.control("alice", &["play", &id]).exited(1).says("for auditors here");
    assert!(refused.err().contains(&format!("tidegate recording play {id} --identity FILE")), "{}", refused.err());
    assert!(world.gateway.cli(&["check"]).ok().out().contains("the gateway cannot read them"));
}

#[test]
fn in_a_terminal_it_plays_in_time_and_stops_when_told_to() {
    let world = world("1h");
    let id = session(&world, "echo fir''st; sleep 1; echo sec''ond");
    let play =
        |speed: &str| Running::start(world.ssh_command("alice", &["-tt"], "alice", &["play", &id, "--speed", speed]));
    let fast = play("1000").end(PATIENCE).ok();
    assert!(fast.out().contains("second"), "{}", fast.out());
    let mut slow = play("0.01");
    slow.until_stderr("complete", PATIENCE);
    slow.send("q");
    let stopped = slow.end(PATIENCE).ok();
    assert!(!stopped.out().contains("second") && stopped.err().contains("stopped"), "{}", stopped.out());
    // In the prompt, too.
    let mut shell = Running::start(world.ssh_command("alice", &["-tt"], "alice", &[]));
    shell.until_stdout("tidegate> ", PATIENCE);
    shell.send(format!("play {id} --speed 1000 --idle-limit 0\r"));
    shell.until_stdout("second", PATIENCE);
    let prompts = || shell.stdout().matches("tidegate> ").count();
    wait_until(PATIENCE, "the prompt is back", || (prompts() == 2).then_some(()));
    shell.send("exit\r");
    shell.end(PATIENCE).ok();
}

#[test]
fn a_live_session_is_not_played() {
    let world = world("1h");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    ssh.until_stdout("in", PATIENCE);
    let sessions = world.control("alice", &["sessions", "--json"]).ok().out();
    let sessions: serde_json::Value = serde_json::from_str(&sessions).unwrap();
    world.control("alice", &["play", sessions[0]["id"].as_str().unwrap()]).exited(1).says("still live");
    ssh.finish(PATIENCE).ok();
}
