//! The network between the gate and its target is gone, and comes back: people are told, what is left on the target is
//! known and asked for again and again but never in a storm, and it all ends with what the target itself says.

use jiff::Timestamp;
use serde_json::Value;
use tidegate_tests::{
    Cable, Running, World,
    running::{Output, run},
    secs, wait_until,
    world::{PATIENCE, Plan},
};

/// TCP takes its time, and back-off may have grown to a minute.
const CONVERGED: std::time::Duration = secs(240);

fn world() -> World {
    let world = Plan::new().only_postgres().remote().start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

fn cable(world: &World) -> &Cable {
    world.pg().cable().unwrap()
}

/// A session that is in, and has done this.
fn session(world: &World, sql: &str) -> Running {
    let mut psql = world.psql_start("alice");
    psql.send(format!("{sql}\nselect 'in';\n"));
    psql.until_stdout("in", PATIENCE);
    psql
}

fn someone_tries(world: &World) -> Output {
    let password = world.password("alice", "orders");
    run(world.psql_command(&world.conninfo("alice", "orders/shop"), &password, &["-c", "select 'came in'"]), CONVERGED)
}

/// Waits until teardown was tried this often.
fn until_tried(world: &World, times: u64) {
    wait_until(CONVERGED, "teardown was tried", || {
        let tried: u64 = world.gateway.leases().iter().map(|lease| lease["attempts"].as_u64().unwrap()).max()?;
        (tried >= times).then_some(())
    });
}

/// Between two attempts at one lease lies at least the first wait, which grows from there.
fn no_storm(world: &World) {
    let ledger = world.gateway.ledger();
    let failed: Vec<&Value> = ledger.entries.iter().filter(|entry| entry["kind"] == "lease.failed").collect();
    let leases: std::collections::BTreeSet<_> = failed.iter().map(|entry| entry["lease"].as_str().unwrap()).collect();
    for lease in leases {
        let times = failed.iter().filter(|entry| entry["lease"] == lease);
        let times: Vec<Timestamp> = times.map(|entry| entry["at"].as_str().unwrap().parse().unwrap()).collect();
        // The first is the session's own, and the reaper begins at once.
        let gaps = times.windows(2).skip(1).map(|two| two[1].duration_since(two[0]).as_secs_f64());
        let gaps: Vec<f64> = gaps.collect();
        assert!(gaps.iter().all(|gap| *gap >= 1.0), "{lease}: {gaps:?}");
    }
}

/// With the cable in its place: nothing is left, and a receipt of the target's says so for each lease.
fn converges(world: &World) {
    world.gateway.until_no_lease(CONVERGED);
    assert_eq!(world.pg().ask("postgres", "select count(*) from pg_roles where rolname ~ '^tg_'"), "0");
    assert_eq!(world.pg().ask("postgres", "select count(*) from pg_stat_activity where usename ~ '^tg_'"), "0");
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.count("lease.closed"), ledger.count("lease.opened"), "{}", ledger.story());
    world.gateway.verify_ledger().ok();
    no_storm(world);
    assert_eq!(someone_tries(world).ok().out(), "came in");
}

#[test]
fn a_network_that_goes_away_in_mid_session_is_told_and_what_is_left_is_removed_when_it_is_back() {
    let world = world();
    let mut waits = session(&world, "");
    waits.send("select pg_sleep(6000);\n");
    let asleep = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    wait_until(PATIENCE, "it sleeps", || (world.pg().ask("postgres", asleep) == "1").then_some(()));
    let mut sends = session(&world, "create table made (id int);");
    cable(&world).pull();
    // One waits for an answer, which the kernel's probes find out; what the other sends, nobody takes.
    sends.send("insert into made values (1);\n");
    for psql in [waits, sends] {
        let output = psql.end(CONVERGED).exited(2);
        output.says("FATAL:  08006: orders does not answer any more").says("may have been done or not");
    }
    let refused = someone_tries(&world).exited(2);
    assert!(refused.err().contains("orders cannot be reached"), "{}", refused.err());
    until_tried(&world, 4);
    let open = world.gateway.leases().iter().filter(|lease| lease["state"] == "open").count();
    assert_eq!((open, world.pg().ephemeral_roles().len()), (2, 2), "what is there is known");
    assert_eq!(world.gateway.ledger().count("session.cut"), 2);
    cable(&world).plug_in();
    converges(&world);
    assert_eq!(world.pg().ask("shop", "select count(*) from made"), "0", "what was lost on the way was not done");
}

#[test]
fn a_session_that_finds_no_network_is_told_so_and_leaves_nothing_to_remove() {
    let world = world();
    session(&world, "").finish(PATIENCE).ok(); // the administrator's connections are there, and lead nowhere soon
    world.gateway.until_no_lease(PATIENCE);
    cable(&world).pull();
    let refused = someone_tries(&world).exited(2);
    assert!(refused.err().contains("orders cannot be reached"), "{}", refused.err());
    cable(&world).plug_in();
    converges(&world);
    assert_eq!(world.gateway.ledger().count("target.connected"), 2, "the first one, and the one at the end");
}

#[test]
fn a_network_that_goes_away_between_disable_and_drop_leaves_a_role_that_cannot_log_in_until_it_is_back() {
    let world = world();
    let psql = session(&world, "create table made (id int);");
    let mut holder = world.pg().psql_start("shop");
    holder.send("begin; lock table made in access exclusive mode;\n\\echo locked\n");
    holder.until_stdout("locked", PATIENCE);
    psql.finish(PATIENCE).ok();
    until_tried(&world, 1);
    cable(&world).pull();
    holder.finish(PATIENCE).ok();
    until_tried(&world, 4);
    assert_eq!(world.gateway.leases()[0]["state"], "cleaning");
    let roles = "select count(*), bool_or(rolcanlogin) from pg_roles where rolname ~ '^tg_'";
    assert_eq!(world.pg().ask("postgres", roles), "1|f");
    cable(&world).plug_in();
    converges(&world);
    assert!(
        world.pg().ask("shop", "select relowner::regrole from pg_class where relname = 'made'").starts_with("tgq_")
    );
}
