//! SIGKILL at each named step. After the restart nothing of the session is left on the target, no lease is open, and
//! the recording can be read to its last frame.

use std::process::Command;
use tidegate_tests::{
    Running, World, secs, wait_until,
    world::{PATIENCE, Plan},
};

/// The reaper waits until an SSH certificate has ended, which takes a minute, and backs off when it must.
const REAPED: std::time::Duration = secs(120);

/// What the restarted gateway must have put in order.
fn assert_in_order(world: &World, sealed: bool) {
    world.gateway.until_no_lease(REAPED);
    world.gateway.verify_ledger().ok();
    if let Some(postgres) = &world.postgres {
        let marked = "select count(*) from pg_roles where rolname like 'tg\\_%'";
        assert_eq!(postgres.ask("postgres", marked), "0", "a role with our mark is left");
        let owning = "select count(*) from pg_roles r where rolname like 'tgq\\_%' and not exists
                      (select from pg_shdepend d where d.refobjid = r.oid and d.deptype = 'o')";
        assert_eq!(postgres.ask("postgres", owning), "0", "an heir without an inheritance");
    }
    if let Some(sshd) = &world.sshd {
        wait_until(secs(30), "the session's processes are gone", || sshd.processes().is_empty().then_some(()));
    }
    let recordings = world.gateway.recordings();
    assert_eq!(recordings.len(), 1, "{recordings:?}");
    let state = if sealed { "complete" } else { "truncated" };
    assert_eq!(recordings[0]["state"], state, "{recordings:?}");
    let id = recordings[0]["session"].as_str().unwrap();
    let said = world.gateway.cli(&["recording", "verify", id]);
    if sealed {
        said.ok();
    } else {
        assert!((said.out() + &said.err()).contains("TRUNCATED after frame"), "{} {}", said.out(), said.err());
    }
    world.gateway.events(id); // decrypts to the last frame
}

fn restart(world: &mut World) {
    world.gateway.kill9();
    world.gateway.pause_nowhere();
    world.gateway.start();
}

fn psql(world: &World, user: &str) -> Running {
    let person = user.split('~').next().unwrap();
    let password = world.password(person, "orders");
    Running::start(world.psql_command(&world.conninfo(user, "orders/shop"), &password, &[]))
}

/// Killed when it comes to `point` while a session opens.
fn postgres_killed_at_opening(point: &str) {
    let mut world = Plan::new().only_postgres().pause_at(point).start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let client = psql(&world, "alice");
    world.gateway.until_paused();
    restart(&mut world);
    client.finish(PATIENCE);
    assert_in_order(&world, false);
}

/// Killed when it comes to `point` while a session closes that has made something.
fn postgres_killed_at_closing(point: &str, sealed: bool) {
    let mut world = Plan::new().only_postgres().pause_at(point).start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut client = psql(&world, "alice");
    client.send("create table left_behind (n int);\nselect 'made';\n");
    client.until_stdout("made", PATIENCE);
    client.close_stdin();
    world.gateway.until_paused();
    restart(&mut world);
    client.finish(PATIENCE);
    assert_in_order(&world, sealed);
    let owner = "select pg_get_userbyid(relowner) from pg_class where relname = 'left_behind'";
    assert!(world.pg().ask("shop", owner).starts_with("tgq_"), "what the session made waits with its heir");
}

#[test]
fn postgres_killed_after_the_lease() {
    postgres_killed_at_opening("after-lease");
}

#[test]
fn postgres_killed_during_mint() {
    postgres_killed_at_opening("during-mint");
}

#[test]
fn postgres_killed_after_mint() {
    postgres_killed_at_opening("after-mint");
}

#[test]
fn postgres_killed_during_connect() {
    postgres_killed_at_opening("during-connect");
}

#[test]
fn postgres_killed_during_relay() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut client = psql(&world, "alice");
    client.send("create table left_behind (n int);\nselect 'made';\nbegin;\nselect pg_sleep(600);\n");
    client.until_stdout("made", PATIENCE);
    restart(&mut world);
    client.finish(PATIENCE);
    assert_in_order(&world, false);
    let recordings = world.gateway.recordings();
    let events = world.gateway.events(recordings[0]["session"].as_str().unwrap());
    assert!(events.iter().any(|e| e.to_string().contains("left_behind")), "what was done before the kill is recorded");
    world.psql("alice~readwrite", "select 1").ok();
}

#[test]
fn postgres_killed_during_disable() {
    postgres_killed_at_closing("during-disable", false);
}

#[test]
fn postgres_killed_during_clean() {
    postgres_killed_at_closing("during-clean", true);
}

#[test]
fn postgres_killed_before_the_receipt() {
    postgres_killed_at_closing("before-receipt", true);
}

/// Killed when it comes to `point` in an SSH session that runs `command`.
fn ssh_killed_at(point: &str, command: &str, sealed: bool) {
    let mut world = Plan::new().only_ssh().pause_at(point).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let client = world.ssh_start("alice", "deploy@web-1", &[command]);
    world.gateway.until_paused();
    restart(&mut world);
    client.finish(PATIENCE);
    assert_in_order(&world, sealed);
}

#[test]
fn ssh_killed_after_the_lease() {
    ssh_killed_at("after-lease", "true", false);
}

#[test]
fn ssh_killed_during_connect() {
    ssh_killed_at("during-connect", "true", false);
}

#[test]
fn ssh_killed_during_relay() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let client = world.ssh_start("alice", "deploy@web-1", &["echo before the kill; cat"]);
    client.until_stdout("before the kill", PATIENCE);
    restart(&mut world);
    client.finish(PATIENCE);
    assert_in_order(&world, false);
    let recordings = world.gateway.recordings();
    let text = world.gateway.export(recordings[0]["session"].as_str().unwrap(), "text");
    assert!(text.contains("before the kill"), "{text}");
}

#[test]
fn ssh_killed_before_the_receipt() {
    ssh_killed_at("before-receipt", "true", true);
}

#[test]
fn a_gateway_asked_to_stop_ends_its_sessions_and_tears_down_first() {
    let mut world = World::start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    ssh.until_stdout("on", PATIENCE);
    let mut sql = psql(&world, "alice");
    sql.send("select 'on';\n");
    sql.until_stdout("on", PATIENCE);
    world.gateway.terminate();
    ssh.end(PATIENCE).exited(1).says("the gateway is stopping");
    sql.finish(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    world.gateway.verify_ledger().ok();
    let states: Vec<_> = world.gateway.recordings().iter().map(|r| r["state"].clone()).collect();
    assert_eq!(states, ["complete", "complete"]);
}

#[test]
fn two_gateways_on_one_state_directory_are_refused() {
    let world = World::ssh_only();
    let mut second = Command::new("timeout");
    let inner = world.gateway.command(&["serve"]);
    second.arg("20").arg(inner.get_program()).args(inner.get_args());
    second.envs(inner.get_envs().filter_map(|(k, v)| Some((k, v?))));
    tidegate_tests::running::run(second, PATIENCE).exited(1).says("another tidegate is running");
}
