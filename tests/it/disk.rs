//! A recording directory that cannot be written. Root ignores file modes, so the gateway gets a small tmpfs of its own
//! in its mount namespace: it fills up, or becomes read-only.

use std::process::Command;
use tidegate_tests::{
    World,
    evidence::{TWO_SECONDS_AND_SLACK, at},
    running::run,
    secs,
    world::{PATIENCE, Plan},
};

const SMALL: &str =
    "mkdir -p \"$1/state/recordings\"; mount -t tmpfs -o size=1m,mode=700 tmpfs \"$1/state/recordings\"";

/// Runs a script in the gateway's mount namespace, with the recordings' folder as `$1`.
fn within(world: &World, script: &str) {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--target", &world.gateway.pid().to_string(), "--", "sh", "-c", script, "sh"]);
    command.arg(world.gateway.state().join("recordings"));
    run(command, PATIENCE);
}

const FILL: &str = "cat /dev/zero > \"$1/filler\"";
/// The file of a live recording keeps a tmpfs from being made read-only (EBUSY); a read-only one over it is what a
/// volume looks like that the kernel has given up.
const READ_ONLY: &str = "mount -t tmpfs -o ro,size=1m tmpfs \"$1\"";
const WRITABLE_AGAIN: &str = "umount \"$1\"";

fn live_sessions_end(script: &str) -> World {
    let world = Plan::new().mounts(SMALL).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    ssh.until_stdout("on", PATIENCE);
    let mut sql = world.psql_start("alice");
    sql.send("select 'on';\n");
    sql.until_stdout("on", PATIENCE);
    let broken = jiff::Timestamp::now();
    within(&world, script);
    ssh.end(PATIENCE).exited(1).says("can no longer be recorded");
    let ledger = world.gateway.until_ledger("lease.disabled", 2, PATIENCE);
    for cut in ledger.all("session.cut").into_iter().chain(ledger.all("lease.disabled")) {
        let took = at(cut).duration_since(broken);
        // The write probe runs each second; the rest is the promise's.
        assert!(took <= TWO_SECONDS_AND_SLACK + jiff::SignedDuration::from_secs(1), "{took:?}:\n{}", ledger.story());
    }
    sql.send("select 'never';\n");
    let told = sql.finish(PATIENCE).says("can no longer be recorded").out();
    assert!(!told.contains("never"), "{told}");
    world.exec("alice", "echo never").exited(1).says("cannot be recorded");
    world.gateway.until_no_lease(secs(90));
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    world.gateway.verify_ledger().ok();
    world
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_transfer_lets_nothing_through_that_is_not_recorded() {
    let whole = "[recording]\nstream_limit = \"64MiB\"\n";
    let world = Plan::new().only_ssh().mounts(SMALL).change("[recording]\n", whole).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    // What cannot be packed, until the disk itself says no. No line of ours can come between the bytes of a transfer: the disconnect tells.
    let sent = world.exec("alice", "base64 -w 0 /dev/urandom | head -c 20000000").exited(255);
    let sent = sent.says("the session cannot be recorded");
    let received = sent.stdout.len();
    assert!((100_000..20_000_000).contains(&received), "{received}");
    let copy = world.dir().join("copy.tgr");
    within(&world, &format!("find \"$1\" -name '*.tgr' -exec cp {{}} '{}' ';'", copy.display()));
    let exported = world.gateway.export(copy.to_str().unwrap(), "jsonl");
    let events = exported.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let of_stdout = events.filter(|event| event["event"] == "data" && event["stream"] == "stdout");
    let recorded: String = of_stdout.map(|event| event["text"].as_str().unwrap().to_owned()).collect();
    assert!(recorded.as_bytes().starts_with(&sent.stdout), "{received} of {}", recorded.len());
    world.gateway.until_no_lease(secs(90));
    world.gateway.verify_ledger().ok();
}

#[test]
fn on_a_full_disk_live_sessions_end_no_new_one_opens_and_teardown_completes() {
    let world = live_sessions_end(FILL);
    within(&world, "rm \"$1/filler\"");
    tidegate_tests::wait_until(secs(20), "sessions open again once there is room", || {
        (world.exec("alice", "true").code == Some(0)).then_some(())
    });
}

#[test]
fn on_a_read_only_disk_live_sessions_end_no_new_one_opens_and_teardown_completes() {
    let world = live_sessions_end(READ_ONLY);
    within(&world, WRITABLE_AGAIN);
    tidegate_tests::wait_until(secs(20), "sessions open again once it can be written", || {
        (world.exec("alice", "true").code == Some(0)).then_some(())
    });
}

#[test]
fn when_the_whole_state_is_on_a_full_disk_teardown_still_completes() {
    let mounts = "mkdir -p \"$1/keep\"; cp -a \"$1/state/.\" \"$1/keep/\"; \
                  mount -t tmpfs -o size=40m,mode=711 tmpfs \"$1/state\"; cp -a \"$1/keep/.\" \"$1/state/\"";
    let world = Plan::new().only_postgres().mounts(mounts).start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut sql = world.psql_start("alice");
    sql.send("select 'on';\n");
    sql.until_stdout("on", PATIENCE);
    within(&world, "mkdir -p \"$1\"; cat /dev/zero > \"$1/filler\"");
    world.gateway.until_ledger("lease.closed", 1, PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    sql.finish(PATIENCE);
}
