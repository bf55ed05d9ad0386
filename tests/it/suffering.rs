//! A target that suffers: people are told so in their own client, leases converge once it is well again, and it is not asked
//! more often than it can bear.

use std::fs;
use tidegate_tests::{
    Running, World,
    daemon::Signal,
    postgres::{binary, version},
    running::{Output, run},
    secs, wait_until,
    world::{PATIENCE, Plan},
};

/// Back-off may have grown to a minute.
const CONVERGED: std::time::Duration = secs(150);

fn world() -> World {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

/// A session that is in.
fn session(world: &World) -> Running {
    let mut psql = world.psql_start("alice");
    psql.send("create table made (id int);\nselect 'in';\n");
    psql.until_stdout("in", PATIENCE);
    psql
}

/// psql as superuser on the target, past the gate, that has done this.
fn superuser(world: &World, sql: &str) -> Running {
    let mut command = std::process::Command::new(binary("psql"));
    command.args(["-X", "-At", "-U", "postgres", "-d", "shop", "-p", &world.pg().port().to_string(), "-h"]);
    command.arg(world.pg().socket());
    let mut psql = Running::start(command);
    psql.send(format!("{sql}\nselect 'done';\n"));
    psql.until_stdout("done", PATIENCE);
    psql
}

fn someone_tries(world: &World) -> Output {
    let password = world.password("alice", "orders");
    run(world.psql_command(&world.conninfo("alice", "orders/shop"), &password, &["-c", "select 1"]), PATIENCE)
}

/// Waits until teardown was tried this often.
fn until_tried(world: &World, times: u64) {
    wait_until(CONVERGED, "teardown was tried", || {
        let tried: u64 = world.gateway.leases().iter().map(|lease| lease["attempts"].as_u64().unwrap()).max()?;
        (tried >= times).then_some(())
    });
}

/// How often the server was called over the network: that is, by the gateway.
fn calls(world: &World) -> usize {
    world.pg().log().matches("connection received: host=127.0.0.1").count()
}

fn converges(world: &World) {
    world.gateway.until_no_lease(CONVERGED);
    assert_eq!(world.pg().ask("postgres", "select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
    world.gateway.verify_ledger().ok();
    assert_eq!(world.psql("alice", "select 'well again'").ok().out(), "well again");
}

#[test]
fn a_full_server_is_named_to_the_person_and_asked_seldom_until_there_is_room() {
    let plan = Plan::new().only_postgres().postgresql_conf("max_connections = 12\nsuperuser_reserved_connections = 3");
    let world = plan.start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let psql = session(&world);
    let mut crowd: Vec<Running> = Vec::new();
    wait_until(PATIENCE, "the server is full", || {
        crowd.push(superuser(&world, "select 1;"));
        (crowd.len() >= 9).then_some(())
    });
    is_told_that_it_is_full(&world);
    psql.finish(PATIENCE);
    // The gateway had a connection left, or it had not: either way it does not call in a storm.
    let before = calls(&world);
    is_told_that_it_is_full(&world);
    drop(crowd);
    converges(&world);
    let tried: u64 =
        world.gateway.list(&["lease", "list", "--all"]).iter().map(|l| l["attempts"].as_u64().unwrap()).sum();
    let called = (calls(&world) - before) as u64;
    assert!(called <= 12 + 4 * tried, "{called} calls, {tried} attempts");
}

fn is_told_that_it_is_full(world: &World) {
    let said = someone_tries(world).exited(2).err();
    assert!(
        said.contains("orders") && (said.contains("slots are reserved") || said.contains("too many clients")),
        "{said}"
    );
}

#[test]
fn a_lock_on_the_catalog_of_roles_is_waited_out_without_a_storm() {
    let world = world();
    let psql = session(&world);
    let holder = superuser(&world, "begin; lock table pg_authid in access exclusive mode;");
    let before = calls(&world);
    let refused = someone_tries(&world).exited(2);
    assert!(refused.err().contains("orders cannot be reached"), "{}", refused.err());
    psql.finish(PATIENCE);
    until_tried(&world, 4);
    let called = calls(&world) - before;
    assert!(called < 40, "{called} calls for four attempts");
    holder.finish(PATIENCE).ok();
    converges(&world);
}

#[test]
fn a_lock_on_what_a_session_made_and_a_restart_in_the_middle_of_its_removal_are_waited_out() {
    let mut world = world();
    let psql = session(&world);
    let holder = superuser(&world, "begin; lock table made in access exclusive mode;");
    psql.finish(PATIENCE).ok();
    until_tried(&world, 1);
    let state = world.gateway.leases()[0]["state"].clone();
    assert_eq!(state, "cleaning", "what cannot be cleaned yet cannot log in any more");
    world.postgres.as_mut().unwrap().stop_at_once();
    drop(holder);
    until_tried(&world, 2);
    let postgres = world.postgres.as_mut().unwrap();
    postgres.start();
    postgres.ready();
    converges(&world);
    assert!(
        world.pg().ask("shop", "select relowner::regrole from pg_class where relname = 'made'").starts_with("tgq_")
    );
}

/// A session is made and removed at the first attempt, whatever becomes of its statement.
fn assert_a_session_comes_and_goes(world: &World) {
    someone_tries(world);
    world.gateway.until_no_lease(CONVERGED);
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.count("credential.minted"), 1, "{}", ledger.story());
    assert_eq!(ledger.count("lease.failed"), 0, "{}", ledger.story());
}

#[test]
fn a_tiny_statement_timeout_of_the_server_is_not_ours() {
    let world = world();
    let settings = "alter system set statement_timeout = 1; alter system set lock_timeout = 1; \
                    alter system set idle_session_timeout = 1; select pg_reload_conf();";
    for sql in settings.split_inclusive(';') {
        world.pg().psql("postgres", sql);
    }
    assert_a_session_comes_and_goes(&world);
}

#[test]
fn a_tiny_transaction_timeout_of_the_server_is_not_ours() {
    if version() < 17 {
        return eprintln!("SKIPPED: PostgreSQL has it since 17; ./tests/run tries that too");
    }
    let world = world();
    for sql in ["alter system set transaction_timeout = 1", "select pg_reload_conf()"] {
        world.pg().psql("postgres", sql).ok();
    }
    assert_a_session_comes_and_goes(&world);
}

#[test]
fn a_server_that_was_full_from_the_start_is_named_as_such() {
    let plan = Plan::new().only_postgres().postgresql_conf("max_connections = 10\nsuperuser_reserved_connections = 3");
    let world = plan.start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    // Before the gateway has come to it, and so without a connection that it could have kept.
    let mut crowd: Vec<Running> = Vec::new();
    wait_until(PATIENCE, "the server is full", || {
        crowd.push(superuser(&world, "select 1;"));
        (crowd.len() >= 7).then_some(())
    });
    let said = someone_tries(&world).exited(2).err();
    assert!(said.contains("orders says: ") && said.contains("slots are reserved"), "{said}");
    assert_eq!(world.gateway.ledger().count("credential.refused"), 1);
    drop(crowd);
    converges(&world);
}

#[test]
fn a_standby_that_is_gone_keeps_no_role_alive() {
    let world = world();
    let mut psql = session(&world);
    for sql in ["alter system set synchronous_standby_names = 'nobody'", "select pg_reload_conf()"] {
        world.pg().psql("postgres", sql).ok();
    }
    psql.send("insert into made values (1);\n");
    wait_until(PATIENCE, "its commit waits for the standby", || {
        let waiting = "select count(*) from pg_stat_activity where wait_event = 'SyncRep'";
        (world.pg().ask("postgres", waiting) == "1").then_some(())
    });
    let second = someone_tries(&world).ok();
    assert_eq!(second.out(), "1", "others come in all the same");
    let grant = world.gateway.list(&["grant", "list"])[0]["id"].as_str().unwrap().to_owned();
    world.gateway.revoke(&grant);
    psql.end(PATIENCE).exited(2);
    world.gateway.until_no_lease(CONVERGED);
    assert_eq!(world.pg().ask("postgres", "select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
}

/// A server whose processes stand still, until this is dropped.
struct StandingStill(Vec<rustix::process::Pid>);

impl StandingStill {
    /// The postmaster and all of its children.
    fn of(world: &World) -> Self {
        let file = fs::read_to_string(world.pg().socket().join("data/postmaster.pid")).unwrap();
        let postmaster = file.lines().next().unwrap();
        let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
        let all = children.split_whitespace().chain([postmaster]);
        let all = Self(all.map(|pid| rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap()).collect());
        all.signal(Signal::STOP);
        all
    }

    fn signal(&self, signal: Signal) {
        for pid in &self.0 {
            // One may have ended.
            rustix::process::kill_process(*pid, signal).ok();
        }
    }
}

impl Drop for StandingStill {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
    }
}

#[test]
fn a_server_that_stands_still_is_given_up_in_time_and_finished_when_it_goes_on() {
    let world = world();
    let psql = session(&world);
    let standing = StandingStill::of(&world);
    let refused = someone_tries(&world).exited(2);
    assert!(refused.err().contains("orders cannot be reached"), "{}", refused.err());
    psql.finish(PATIENCE);
    until_tried(&world, 2);
    drop(standing);
    converges(&world);
}
