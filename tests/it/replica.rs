//! Sessions on a replica: their roles are made and removed at its primary, and awaited on the replica.

use tidegate_tests::{
    Postgres, World, wait_until,
    world::{PATIENCE, Plan},
};

/// The target's address is the replica's.
fn world() -> (World, Postgres) {
    let mut world = Plan::new().only_postgres().start();
    let replica = world.pg().replica(&world.dir().join("replica"));
    let primary = format!("address = \"127.0.0.1:{}\"", world.pg().port());
    let both = format!("address = \"127.0.0.1:{}\"\nadmin_{primary}", replica.port());
    world.config.change(&primary, &both);
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    (world, replica)
}

fn roles(server: &Postgres) -> String {
    server.ask("postgres", "select string_agg(rolname, ' ') from pg_roles where rolname like 'tg\\_%'")
}

#[test]
fn a_session_on_a_replica_has_a_role_of_the_primary_and_both_forget_it() {
    let (world, replica) = world();
    let read = world.psql("alice", "select pg_is_in_recovery(), count(*) from items").ok().out();
    assert_eq!(read, "t|100");
    let written = world.psql("alice", "insert into items values (101, 'x')");
    assert!(written.err().contains("25006"), "{}", written.err());
    world.gateway.until_no_lease(PATIENCE);
    wait_until(PATIENCE, "the replica has forgotten the first roles", || roles(&replica).is_empty().then_some(()));
    let mut psql = world.psql_start("alice");
    psql.send("select session_user;\n");
    let role = wait_until(PATIENCE, "both know the role", || {
        let (here, there) = (roles(&replica), roles(world.pg()));
        (!here.is_empty() && here == there && !here.contains(' ')).then_some(here)
    });
    psql.until_stdout(&role, PATIENCE);
    let sessions = format!("select count(*) from pg_stat_activity where usename = '{role}'");
    assert_eq!((replica.ask("postgres", &sessions), world.pg().ask("postgres", &sessions)), ("1".into(), "0".into()));
    let live = world.gateway.list(&["session", "list"]).remove(0)["id"].as_str().unwrap().to_owned();
    world.gateway.cli(&["session", "kill", &live]).ok();
    psql.send("select 'never';\n");
    assert!(!psql.finish(PATIENCE).out().contains("never"));
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(roles(world.pg()), "");
    wait_until(PATIENCE, "the replica has forgotten it too", || roles(&replica).is_empty().then_some(()));
    let closed = world.gateway.ledger().last("lease.closed").unwrap()["detail"].to_string();
    assert!(closed.contains("pg_stat_activity of the replica"), "{closed}");
    let tested = world.gateway.cli(&["target", "test", "orders", "--entitlement", "readwrite"]);
    assert_eq!(tested.code, Some(0), "{}{}", tested.out(), tested.err());
}

#[test]
fn a_standby_that_was_promoted_is_the_same_server_and_the_receipt_says_so() {
    let mut world = Plan::new().only_postgres().start();
    let replica = world.pg().replica(&world.dir().join("replica"));
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\n");
    psql.until_stdout("in", PATIENCE);
    let role = roles(world.pg());
    wait_until(PATIENCE, "the standby knows the role", || (roles(&replica) == role).then_some(()));
    world.gateway.kill9();
    let old = format!("127.0.0.1:{}", world.pg().port());
    world.postgres.as_mut().unwrap().stop_at_once();
    replica.ask("postgres", "select pg_promote()");
    world.config.change(&old, &format!("127.0.0.1:{}", replica.port()));
    world.gateway.configure(&world.config);
    world.gateway.start();
    world.gateway.until_no_lease(PATIENCE);
    psql.finish(PATIENCE);
    assert_eq!(roles(&replica), "");
    let closed = world.gateway.ledger().last("lease.closed").unwrap()["detail"].to_string();
    for said in [
        "failed over or restored since its mint",
        "made on timeline 1, looked for on timeline 2",
        "still runs beside this one",
    ] {
        assert!(closed.contains(said), "{said}: {closed}");
    }
}

#[test]
fn a_replica_that_lags_lets_nobody_in_and_keeps_the_lease_until_it_has_caught_up() {
    let (world, replica) = world();
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\nselect pg_sleep(600);\n");
    psql.until_stdout("in", PATIENCE);
    replica.psql("postgres", "select pg_wal_replay_pause()").ok();
    wait_until(PATIENCE, "it has paused", || {
        (replica.ask("postgres", "select pg_get_wal_replay_pause_state()") == "paused").then_some(())
    });
    let late = world.psql("alice", "select 1");
    assert!(late.code == Some(2) && late.err().contains("cannot be reached"), "{}", late.err());
    assert!(world.gateway.log().contains("lags behind"), "the admin is told why");
    let live = world.gateway.list(&["session", "list"]);
    let live = live.iter().rev().find(|session| session["state"] == "live").expect("the first one lives");
    world.gateway.cli(&["session", "kill", live["id"].as_str().unwrap()]).ok();
    let held = wait_until(PATIENCE, "the lease says what it waits for", || {
        let leases = world.gateway.leases();
        leases.into_iter().find(|lease| lease["last_error"].as_str().is_some_and(|said| said.contains("the replica")))
    });
    assert_ne!(held["state"], "closed");
    replica.psql("postgres", "select pg_wal_replay_resume()").ok();
    world.gateway.until_no_lease(PATIENCE);
    psql.end(PATIENCE);
    assert_eq!(roles(world.pg()), "");
    assert_eq!(replica.ask("postgres", "select count(*) from pg_stat_activity where usename like 'tg\\_%'"), "0");
}
