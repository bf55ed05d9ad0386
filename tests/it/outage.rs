//! The target stops in the middle of a statement: people hear from it what they would hear without the gate, and once it
//! is back, nothing of their sessions is left on it.

use crate::raw::{self, Raw, Reply, query};
use tidegate_tests::{
    World, daemon,
    running::run,
    wait_until,
    world::{PATIENCE, Plan},
};

/// A session through the gate and one that goes directly, each in a statement that does not end by itself.
fn two_that_sleep(world: &World) -> [Raw; 2] {
    raw::equal(world);
    let password = world.password("alice", "orders");
    let mut both = [Raw::through_the_gate(world, &password), Raw::directly(world)];
    for session in &mut both {
        session.send(&query("select pg_sleep(6000)"));
    }
    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    wait_until(PATIENCE, "both sleep", || (world.pg().ask("postgres", asleep) == "2").then_some(()));
    both
}

/// What both heard, to the end of the connection: the same, with this SQLSTATE at last.
fn both_heard(mut both: [Raw; 2], code: &str) {
    let [through, directly]: [Vec<Reply>; 2] = both.each_mut().map(|session| session.rest());
    assert_eq!(through, directly);
    let last = through.last().expect("a last word");
    assert_eq!(last.field(b'C'), code, "{through:?}");
}

/// The lease is closed by a receipt, and no role is left.
fn converges(world: &World) {
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    assert!(world.gateway.ledger().count("lease.closed") > 0, "{}", world.gateway.ledger().story());
    world.gateway.verify_ledger().ok();
}

fn world() -> World {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

/// How a server is stopped.
type Stop = fn(&mut tidegate_tests::Postgres);

#[test]
fn a_server_that_shuts_down_says_so_itself_and_its_leases_converge_when_it_is_back() {
    for stop in [tidegate_tests::Postgres::stop as Stop, tidegate_tests::Postgres::stop_at_once] {
        let mut world = world();
        let both = two_that_sleep(&world);
        stop(world.postgres.as_mut().unwrap());
        both_heard(both, "57P01");
        let password = world.password("alice", "orders");
        let conninfo = world.conninfo("alice", "orders/shop");
        let meanwhile = run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE);
        meanwhile.exited(2).says("orders cannot be reached").says("try again");
        assert!(!world.gateway.leases().is_empty(), "what could not be removed is not forgotten");
        let postgres = world.postgres.as_mut().unwrap();
        postgres.start();
        postgres.ready();
        converges(&world);
        assert_eq!(world.psql("alice", "select 'open again'").ok().out(), "open again");
    }
}

#[test]
fn a_crash_of_another_backend_is_told_in_the_servers_own_words() {
    let world = world();
    let both = two_that_sleep(&world);
    let mut victim = tidegate_tests::Running::start(world.psql_command(
        &format!("host={} port={} user=postgres dbname=shop", world.pg().socket().display(), world.pg().port()),
        "",
        &[],
    ));
    victim.send("select pg_backend_pid();\n");
    victim.until_stdout("\n", PATIENCE);
    let pid = rustix::process::Pid::from_raw(victim.stdout().trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, daemon::Signal::KILL).unwrap();
    both_heard(both, "57P02");
    converges(&world);
    assert_eq!(world.psql("alice", "select 'open again'").ok().out(), "open again");
}

#[test]
fn a_backend_that_its_admin_ends_says_so() {
    let world = world();
    let both = two_that_sleep(&world);
    world.pg().psql("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep'");
    both_heard(both, "57P01");
    converges(&world);
}

#[test]
fn a_server_without_room_says_so_itself() {
    let world = Plan::new()
        .only_postgres()
        .postgresql_conf("max_connections = 12\nsuperuser_reserved_connections = 3\n")
        .start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    raw::equal(&world);
    let password = world.password("alice", "orders");
    let mut crowd: Vec<Raw> = vec![Raw::through_the_gate(&world, &password)];
    // The gateway keeps its administrator's connection; the rest is taken, one by one, until the server is full.
    while let Ok(another) = Raw::start(crate::wire::tls_to_target(&world), &raw::DIRECT) {
        crowd.push(another);
    }
    let Err(told) = Raw::start(crate::wire::tls(&world), &raw::gate(&password)) else { panic!("there was room") };
    let told = told.last().unwrap();
    assert_eq!(told.field(b'C'), "53300", "{told:?}");
    assert!(told.field(b'M').starts_with("orders says: "), "{told:?}");
    drop(crowd);
    converges(&world);
}
