//! Very many sessions that do nothing: what each costs the gateway in memory and descriptors is printed, somebody who comes
//! meanwhile is served, and when all have left, nothing is left.
//!
//! `TIDEGATE_TEST_IDLE` says how many over SSH, and a quarter of it over PostgreSQL; `./tests/run --idle 2000` is how to ask.

use futures::{StreamExt as _, stream};
use std::time::Duration;
use tidegate_tests::{
    World,
    in_process::{Database, Session, Shell},
    secs, wait_until,
    world::{PATIENCE, Plan},
};

/// Handshakes at once: each has a deadline, and a debug build on two busy cores takes its time.
const AT_ONCE: usize = 8;
/// PostgreSQL servers have processes, and few have thousands.
const SHARE: usize = 4;
/// By then a session in which nothing happens has put away what it needed for opening (the packer of its recording: 5 s).
const IDLE: Duration = secs(7);

fn sessions() -> usize {
    std::env::var("TIDEGATE_TEST_IDLE").ok().and_then(|text| text.parse().ok()).unwrap_or(48)
}

/// Resident memory in KiB, and open descriptors, of the gateway, once all are idle.
fn holds_idle(world: &World) -> (u64, usize) {
    std::thread::sleep(IDLE);
    holds(world)
}

/// The same, now.
fn holds(world: &World) -> (u64, usize) {
    (world.gateway.vm_rss(), world.gateway.descriptors())
}

fn print(what: &str, count: usize, before: (u64, usize), now: (u64, usize)) {
    let each = now.0.saturating_sub(before.0) as f64 / count as f64;
    let descriptors = now.1.saturating_sub(before.1) as f64 / count as f64;
    eprintln!("{count} idle {what} sessions: {each:.1} KiB and {descriptors:.1} descriptors each");
}

fn world(ssh: usize, postgres: usize) -> World {
    let many = format!(
        "[[entitlement]]\nname = \"many\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\ndatabases = [\"shop\"]\n\
         roles = [\"shop_reader\"]\nmax_connections = {}\nmax_duration = \"2h\"\n",
        postgres + 10
    );
    let mut world = Plan::new()
        .sshd_config(&format!("MaxStartups {0}:30:{0}\n", ssh + 100))
        .postgresql_conf(&format!("max_connections = {}", postgres + 60))
        .block(many)
        // All of them come from one address, and are one person.
        .block("[limits]\nconnections = 20000\nconnections_per_source = 20000\nsessions_per_identity = 20000\nsessions_per_target = 20000\n")
        .start();
    world.config.change("max_duration = \"30m\"", "max_duration = \"2h\"");
    world.restart_gateway();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "many", "2h");
    world
}

#[test]
fn thousands_of_idle_sessions_keep_nobody_out_and_leave_nothing() {
    let (ssh, postgres) = (sessions(), sessions().div_ceil(SHARE));
    let world = world(ssh, postgres);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (sh, database) = (Shell::of(&world, "alice"), Database::gate(&world, "many"));
    let shell = async || sh.open("echo here; read line").await.unwrap();
    let query = async || database.log_in().await.unwrap();
    // One of each first: what the first costs alone is not each one's.
    runtime.block_on(async { drop((shell().await, query().await)) });
    world.gateway.until_no_lease(secs(150));
    let empty = holds(&world);
    let shells: Vec<_> = runtime.block_on(stream::iter(0..ssh).map(|_| shell()).buffer_unordered(AT_ONCE).collect());
    let with_shells = holds_idle(&world);
    print("SSH", ssh, empty, with_shells);
    let clients: Vec<Session> =
        runtime.block_on(stream::iter(0..postgres).map(|_| query()).buffer_unordered(AT_ONCE).collect());
    print("PostgreSQL", postgres, with_shells, holds_idle(&world));
    assert_eq!(world.gateway.leases().len(), ssh + postgres);
    assert_eq!(world.exec("alice", "echo hi").ok().out(), "hi");
    assert_eq!(world.psql("alice~many", "select 'hi'").ok().out(), "hi");
    runtime.block_on(async {
        drop(clients);
        drop(shells);
    });
    let patience = PATIENCE + secs(120) + Duration::from_millis(200 * (ssh + postgres) as u64);
    world.gateway.until_no_lease(patience);
    let sshd = world.sshd.as_ref().unwrap();
    wait_until(secs(60), "the shells are gone", || sshd.processes().is_empty().then_some(()));
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    let after = holds_idle(&world);
    eprintln!("afterwards: {} to {} KiB, {} to {} descriptors", empty.0, after.0, empty.1, after.1);
    assert!(after.1 <= empty.1 + 24, "from {} to {} descriptors", empty.1, after.1);
    world.gateway.verify_ledger().ok();
}
