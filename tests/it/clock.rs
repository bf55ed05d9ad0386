//! Clocks that jump: nothing new opens behind the ledger, nothing lives longer, and a human can set it right.

use tidegate_tests::{World, secs, world::PATIENCE};

/// A gateway whose clock the test sets.
fn world() -> World {
    let mut world = World::ssh_only();
    world.gateway.terminate();
    world.gateway.own_clock();
    world.gateway.start();
    world
}

#[test]
fn behind_its_ledger_the_gateway_opens_and_grants_nothing_until_the_clock_is_right_again() {
    let world = world();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    let mut live = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    live.until_stdout("on", PATIENCE);
    world.gateway.shift_clock(-3600);
    world.exec("alice", "true").exited(1).says("clock has gone back");
    let issue = ["grant", "issue", "--user", "bob", "--target", "web-1", "--entitlement", "shell", "--for", "10m"];
    let issue: Vec<&str> = issue.into_iter().chain(["--reason", "r"]).collect();
    world.gateway.cli(&issue).exited(1).says("clock has gone back");
    world.gateway.cli(&["status"]).exited(1);
    live.send("still here\n");
    live.until_stdout("still here", PATIENCE);
    world.gateway.shift_clock(0);
    world.exec("alice", "true").ok();
    live.finish(PATIENCE).ok();
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_restart_does_not_make_an_early_clock_right_and_an_admin_can() {
    let mut world = world();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    // Not by hours: the gateway's own host certificate would be made anew, and clients would not take it yet.
    world.gateway.shift_clock(2400);
    world.exec("alice", "true").exited(77).says("expired");
    world.gateway.shift_clock(0);
    world.exec("alice", "true").exited(1).says("clock has gone back");
    world.gateway.terminate();
    world.gateway.start();
    world.exec("alice", "true").exited(1).says("clock has gone back");
    world.gateway.cli(&["clock", "accept", "--reason", "the hypervisor was ahead"]).ok();
    world.exec("alice", "true").ok();
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.one("clock.accepted")["identity"], "operator");
    world.gateway.terminate();
    world.gateway.start();
    world.exec("alice", "true").ok();
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_clock_that_goes_back_lengthens_no_live_session_and_one_that_jumps_ahead_opens_nothing_ended() {
    let world = world();
    world.gateway.grant("alice", "web-1", "shell", "20s");
    let live = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    live.until_stdout("on", PATIENCE);
    world.gateway.shift_clock(-3600);
    live.end(secs(60)).exited(1).says("your grant ended at");
    world.gateway.shift_clock(0);
    world.exec("alice", "true").exited(77).says("expired");
}
