//! Faults of the gateway's own host: each ends clearly, loses nothing, and lets nobody in.
//!
//! Full and read-only disks are in `disk`, two gateways on one state directory in `crash`, edited rows in `tamper`, restored
//! states in `backup`, clocks in `clock`.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path, process::Command};
use tidegate_tests::{
    Output, World,
    running::run,
    wait_until,
    world::{PATIENCE, Plan},
};

/// `serve` to its end, which is to come by itself.
fn serve(world: &World) -> Output {
    let mut command = Command::new("timeout");
    let inner = world.gateway.command(&["serve"]);
    command.arg("20").arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(key, value)| Some((key, value?))));
    run(command, PATIENCE)
}

fn stopped() -> World {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.terminate();
    world
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("its mode");
}

#[test]
fn a_port_that_is_taken_is_named_with_its_key_and_nothing_is_left_behind() {
    let mut world = stopped();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = taken.local_addr().expect("its address").to_string();
    for (from, to, key) in [
        ("[ssh]\nlisten = \"127.0.0.1:0\"", format!("[ssh]\nlisten = \"{at}\""), "ssh.listen"),
        ("[postgres]\nlisten = \"127.0.0.1:0\"", format!("[postgres]\nlisten = \"{at}\""), "postgres.listen"),
        ("[recording]", format!("[metrics]\nlisten = \"{at}\"\n[recording]"), "metrics.listen"),
    ] {
        let mut config = world.config.clone();
        world.gateway.configure(config.change(from, &to));
        serve(&world).exited(1).says(&format!("{key}: {at} is taken by another program"));
    }
    world.gateway.configure(&world.config);
    world.gateway.start();
    world.exec("alice", "true").ok();
}

#[test]
fn a_state_directory_that_is_lost_is_no_new_one() {
    let world = stopped();
    let away = world.dir().join("away");
    fs::rename(world.gateway.state(), &away).expect("it goes");
    serve(&world).exited(1).says("the state directory").says("does not exist");
    assert!(!world.gateway.state().exists());
}

#[test]
fn what_others_could_write_or_read_is_not_used() {
    let world = stopped();
    mode(&world.gateway.state(), 0o777);
    serve(&world).exited(1).says("others can write to the state directory");
    mode(&world.gateway.state(), 0o711);
    let key = world.gateway.state().join("keys/grants.key");
    mode(&key, 0o644);
    serve(&world).exited(1).says("grants.key");
    mode(&key, 0o600);
}

#[test]
fn a_store_that_is_no_database_any_more_is_left_as_it_is_and_nobody_is_let_in() {
    let world = stopped();
    let file = world.gateway.state().join("tidegate.db");
    let garbage = vec![0x5a; 65_536];
    fs::write(&file, &garbage).expect("garbage");
    serve(&world).exited(1).says("the state directory");
    assert_eq!(fs::read(&file).expect("the file"), garbage);
}

#[test]
fn a_store_with_a_damaged_page_opens_nothing_and_says_so() {
    let mut world = stopped();
    let file = world.gateway.state().join("tidegate.db");
    let mut bytes = fs::read(&file).expect("the store");
    // Every page but the first loses its end, where SQLite keeps what was written first.
    for page in bytes.chunks_mut(4096).skip(1) {
        let end = page.len();
        page[end - 512..].fill(0x5a);
    }
    fs::write(&file, &bytes).expect("damage");
    let verified = world.gateway.verify_ledger();
    assert_eq!(verified.code, Some(1), "{verified:?}");
    // It may not even open; if it does, it is for teardown alone.
    let ended = serve(&world);
    if ended.code == Some(124) {
        world.gateway.start();
        world.exec("alice", "true").exited(1).says("do not agree with its ledger");
    } else {
        assert_eq!(ended.code, Some(1), "{ended:?}");
    }
}

#[test]
fn when_the_state_directory_goes_while_it_serves_sessions_end_none_begin_and_the_role_is_removed() {
    let world = Plan::new().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    ssh.until_stdout("on", PATIENCE);
    let mut sql = world.psql_start("alice");
    sql.send("select 'on';\n");
    sql.until_stdout("on", PATIENCE);
    assert!(!world.pg().ephemeral_roles().is_empty());
    fs::remove_dir_all(world.gateway.state()).expect("it goes");
    ssh.end(PATIENCE).exited(1).says("can no longer be recorded");
    sql.finish(PATIENCE);
    wait_until(PATIENCE, "the role is gone", || world.pg().ephemeral_roles().is_empty().then_some(()));
    assert_ne!(world.exec("alice", "echo never").code, Some(0));
}
