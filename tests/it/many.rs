//! Very many short sessions: the target's catalogs are as they were, and the gateway holds no more than before.
//!
//! `TIDEGATE_TEST_SESSIONS` says how many; `./tests/run --sessions 10000` is how to ask for ten thousand. How long minting and
//! teardown took is printed, beside the target's own log-in without the gate, and asserted nowhere.

use futures::{StreamExt as _, stream};
use jiff::SignedDuration;
use serde_json::Value;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tidegate_tests::{
    World,
    evidence::at,
    in_process::{Database, Session, print_quantiles},
    secs,
    world::{PATIENCE, Plan},
};

/// Sessions before the baseline is taken: caches are warm then, and kept connections open.
const WARM: usize = 30;
/// Sessions with nobody beside them, afterwards.
const ALONE: usize = 20;
/// Sessions at once.
const CROWD: usize = 200;
/// Log-ins at once: a debug build on two busy cores takes its time for each, and a handshake has a deadline.
const LOG_INS: usize = 16;
/// The gateway's memory may differ by this much from one moment to another, in KiB: allocators keep what they had.
const MEMORY: u64 = 24 * 1024;
/// Connections to a target that the gateway may keep: four for each lane (quick, slow) and database (`shop`, `postgres`).
const KEPT: usize = 16;
/// Descriptors that come and go by themselves: a listener's next connection, the store's journal.
const DESCRIPTORS: usize = 8;

const MANY: &str = "[[entitlement]]\nname = \"many\"\ngroups = [\"sre\"]\ntargets = [\"orders\"]\n\
    databases = [\"shop\"]\nroles = [\"shop_reader\"]\nmax_connections = 250\nmax_duration = \"8h\"\n";

fn sessions() -> usize {
    std::env::var("TIDEGATE_TEST_SESSIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(150)
}

fn world() -> World {
    let world = Plan::new()
        .only_postgres()
        .postgresql_conf("max_connections = 260")
        .change("[postgres]\n", "[postgres]\npassword_window = \"8h\"\n")
        .block(MANY)
        .start();
    world.gateway.grant("alice", "orders", "many", "8h");
    world
}

/// A session of one statement; how long it took to be logged in.
async fn visit(database: &Database) -> Duration {
    let began = Instant::now();
    let session = database.log_in().await.unwrap();
    let took = began.elapsed();
    let row = session.client.query_one("select count(*) from items", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 100);
    session.leave().await;
    took
}

async fn visits(database: &Database, count: usize) -> Vec<Duration> {
    stream::iter(0..count).then(|_| visit(database)).collect().await
}

/// All that sessions could leave in catalogs that databases share, and in this one.
fn catalogs(world: &World) -> String {
    let rows = |table: &str| format!("select '{table}', (t)::text from {table} t");
    let tables = ["pg_roles", "pg_auth_members", "pg_shdepend", "pg_db_role_setting", "pg_shdescription"];
    let tables = tables.map(rows).join(" union all ");
    let counts = "select 'pg_class', count(*)::text from pg_class where relpersistence <> 't' union all \
                  select 'pg_proc', count(*)::text from pg_proc union all select 'pg_namespace', count(*)::text from pg_namespace";
    world.pg().ask("shop", &format!("{tables} union all {counts} order by 1, 2"))
}

/// Connections that the target has open, the asking one apart.
fn connections(world: &World) -> usize {
    let sql = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()";
    world.pg().ask("postgres", sql).parse().unwrap()
}

/// What the store takes on disk, its journal included, in KiB.
fn store(world: &World) -> u64 {
    let size = |name: &str| std::fs::metadata(world.gateway.state().join(name)).map_or(0, |file| file.len());
    (size("tidegate.db") + size("tidegate.db-wal")) / 1024
}

/// Of the gateway: resident memory in KiB, open descriptors, threads.
fn holds(world: &World) -> (u64, usize, u64) {
    (world.gateway.vm_rss(), world.gateway.descriptors(), world.gateway.threads())
}

/// Waits until no session's lease is open, however many there were.
fn settle(world: &World, sessions: usize) {
    world.gateway.until_no_lease(PATIENCE + secs(sessions as u64 / 10));
}

/// From one kind of entry to another of the same session, by the ledger's own times.
fn between(ledger: &[Value], from: &str, to: &str) -> Vec<Duration> {
    let mut began = HashMap::new();
    let mut took = Vec::new();
    for entry in ledger {
        let session = entry["session"].as_str().unwrap_or_default();
        if entry["kind"] == from {
            began.insert(session, at(entry));
        } else if entry["kind"] == to
            && let Some(began) = began.remove(session)
        {
            took.push(at(entry).duration_since(began));
        }
    }
    took.into_iter().map(SignedDuration::unsigned_abs).collect()
}

/// How long the parts of sessions took, by the ledger.
fn print_parts(ledger: &[Value]) {
    for (from, to) in [
        ("session.opened", "lease.opened"),
        ("lease.opened", "credential.minted"),
        ("lease.disabled", "lease.closed"),
        ("session.opened", "session.closed"),
    ] {
        print_quantiles(&format!("{from} to {to}"), between(ledger, from, to));
    }
}

/// A few with a pause after each: what a session costs where nobody else is.
fn print_alone(world: &World, gate: &Database, runtime: &tokio::runtime::Runtime) {
    let earlier = world.gateway.ledger().entries.len();
    for _ in 0..ALONE {
        runtime.block_on(visit(gate));
        std::thread::sleep(Duration::from_millis(300));
    }
    settle(world, ALONE);
    eprintln!("one at a time:");
    print_parts(&world.gateway.ledger().entries[earlier..]);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn many_sessions_in_a_row_leave_everything_as_it_was() {
    let world = world();
    let direct = Database::direct(&world);
    let gate = Database::gate(&world, "many");
    let runtime = runtime();
    runtime.block_on(visits(&gate, WARM));
    settle(&world, WARM);
    let (before, open, (memory, descriptors, threads)) = (catalogs(&world), connections(&world), holds(&world));
    let stored = store(&world);
    let count = sessions();
    let through = runtime.block_on(visits(&gate, count));
    settle(&world, count);
    let kept = connections(&world);
    let (now, files, running) = holds(&world);
    eprintln!(
        "{count} sessions: {memory} to {now} KiB, {descriptors} to {files} descriptors, {threads} to {running} threads, \
         {open} to {kept} connections kept to the target"
    );
    // Entries of the ledger, and a row each of sessions, leases and recordings: an audit trail is kept.
    let growth = store(&world).saturating_sub(stored) as f64 / count as f64;
    eprintln!("the store grew by {growth:.1} KiB for each session");
    assert_eq!(catalogs(&world), before);
    assert!(kept <= KEPT, "the gateway keeps {kept} connections");
    assert!(now <= memory + MEMORY, "from {memory} to {now} KiB in memory");
    let descriptors = descriptors + kept.saturating_sub(open);
    assert!(files <= descriptors + DESCRIPTORS, "from {descriptors} to {files} descriptors");
    let compared = runtime.block_on(visits(&direct, count.min(500)));
    print_quantiles("log-in at the target itself, by password", compared);
    print_quantiles("log-in through the gate", through);
    print_parts(&world.gateway.ledger().entries);
    assert_eq!(world.gateway.ledger().count("lease.closed"), count + WARM);
    print_alone(&world, &gate, &runtime);
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_crowd_of_sessions_at_once_leaves_everything_as_it_was() {
    let world = world();
    let gate = Database::gate(&world, "many");
    let runtime = runtime();
    runtime.block_on(visits(&gate, 1));
    settle(&world, 1);
    let before = catalogs(&world);
    runtime.block_on(async {
        let crowd: Vec<Session> =
            stream::iter(0..CROWD).map(|_| gate.log_in()).buffer_unordered(LOG_INS).map(Result::unwrap).collect().await;
        let roles = futures::future::join_all(crowd.iter().map(async |session| {
            session.client.query_one("select session_user::text", &[]).await.unwrap().get::<_, String>(0)
        }));
        let mut roles = roles.await;
        roles.sort();
        roles.dedup();
        assert_eq!(roles.len(), CROWD, "each session has a role of its own");
        assert_eq!(world.gateway.leases().len(), CROWD);
        futures::future::join_all(crowd.into_iter().map(Session::leave)).await;
    });
    settle(&world, CROWD);
    assert_eq!(catalogs(&world), before);
    let kept = connections(&world);
    assert!(kept <= KEPT, "the gateway keeps {kept} connections");
    eprintln!("{CROWD} sessions at once: {} KiB at the peak", world.gateway.vm_hwm());
    print_parts(&world.gateway.ledger().entries);
}
