//! SIGTERM: nobody new is let in, who is in is told and may finish, and what is left is cut.

use std::os::unix::net::UnixDatagram;
use tidegate_tests::{
    Running, World,
    daemon::Signal,
    running::run,
    secs,
    world::{PATIENCE, Plan},
};

fn plan(drain: &str) -> Plan {
    Plan::new().change("drain = \"0s\"", &format!("drain = \"{drain}\""))
}

fn cat(world: &World) -> Running {
    let session = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    session.until_stdout("on", PATIENCE);
    session
}

fn psql(world: &World, user: &str) -> Running {
    let mut session = world.psql_start(user);
    session.send("select 'on';\n");
    session.until_stdout("on", PATIENCE);
    session
}

#[test]
fn live_sessions_are_told_and_finish_while_new_ones_are_refused_with_a_sentence() {
    let mut world = plan("10m").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut ssh: Vec<Running> = (0..3).map(|_| cat(&world)).collect();
    let mut sql: Vec<Running> = ["alice", "alice"].into_iter().map(|user| psql(&world, user)).collect();
    let password = world.password("alice", "orders"); // of those, the last is good

    world.gateway.signal(Signal::TERM);
    for session in &ssh {
        session.until_stderr("the gateway is being stopped: this session ends at", PATIENCE);
    }
    world.exec("alice", "true").exited(1).says("lets nobody in");
    let conninfo = world.conninfo("alice", "orders/shop");
    run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE).exited(2).says("lets nobody in");
    world.gateway.cli(&["status"]).exited(1);

    for session in &mut sql {
        session.send("select 'still here';\n");
        session.until_stdout("still here", PATIENCE);
        session.until_stderr("WARNING:  01000: the gateway is being stopped", PATIENCE);
    }
    for session in &mut ssh {
        session.send("to the end\n");
        session.until_stdout("to the end", PATIENCE);
    }
    for session in ssh.into_iter().chain(sql) {
        session.finish(PATIENCE).ok();
    }
    // Nobody is in any more: the rest of the ten minutes is not waited for.
    assert_eq!(world.gateway.ended(PATIENCE), Some(0));
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    world.gateway.verify_ledger().ok();
    let states: Vec<_> = world.gateway.recordings().iter().map(|r| r["state"].clone()).collect();
    assert_eq!(states, ["complete"; 5]);
}

#[test]
fn when_the_time_is_over_who_is_still_in_is_cut_and_torn_down() {
    let mut world = plan("1s").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let (ssh, sql) = (cat(&world), psql(&world, "alice"));
    world.gateway.signal(Signal::TERM);
    ssh.end(PATIENCE).exited(1).says("this session ends at").says("the gateway is stopping");
    assert_eq!(world.gateway.ended(PATIENCE), Some(0));
    sql.finish(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    world.gateway.verify_ledger().ok();
    assert_eq!(world.gateway.ledger().count("session.cut"), 2);
}

#[test]
fn a_second_sigterm_cuts_at_once() {
    let mut world = plan("10m").only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let ssh = cat(&world);
    world.gateway.signal(Signal::TERM);
    ssh.until_stderr("this session ends at", PATIENCE);
    world.gateway.signal(Signal::TERM);
    ssh.end(PATIENCE).exited(1).says("the gateway is stopping");
    assert_eq!(world.gateway.ended(PATIENCE), Some(0));
}

#[test]
fn a_target_that_is_away_keeps_no_gateway_from_stopping_and_the_next_start_cleans_up() {
    let mut world = plan("0s").only_postgres().start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let sql = psql(&world, "alice");
    world.postgres.as_mut().expect("a server").stop_at_once();
    world.gateway.signal(Signal::TERM);
    assert_eq!(world.gateway.ended(PATIENCE), Some(0));
    assert!(world.gateway.log().contains("1 lease(s) are left for the next start"), "{}", world.gateway.log());
    drop(sql);
    world.postgres.as_mut().expect("a server").start();
    world.postgres.as_mut().expect("a server").ready();
    world.gateway.start();
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn a_teardown_that_is_not_waited_for_is_told_by_the_exit_code_and_done_at_the_next_start() {
    let mut world = plan("0s").only_postgres().pause_at("during-disable").start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let sql = psql(&world, "alice");
    world.gateway.signal(Signal::TERM);
    world.gateway.until_paused();
    world.gateway.signal(Signal::TERM);
    assert_eq!(world.gateway.ended(PATIENCE), Some(1));
    drop(sql);
    world.gateway.pause_nowhere();
    world.gateway.start();
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn systemd_is_told_of_ready_reloading_and_stopping() {
    let mut world = World::ssh_only();
    let path = world.dir().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let hear = || {
        let mut buffer = [0; 4096];
        let count = socket.recv(&mut buffer).expect("a word");
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    };
    world.gateway.terminate();
    world.gateway.how.env.push(("NOTIFY_SOCKET".to_owned(), path.display().to_string()));
    world.gateway.start();
    assert!(hear().contains("READY=1"));
    world.gateway.signal(Signal::HUP);
    let reloading = hear();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(hear().contains("READY=1"));
    world.gateway.signal(Signal::TERM);
    assert!(hear().contains("STOPPING=1"));
    assert_eq!(world.gateway.ended(secs(60)), Some(0));
}
