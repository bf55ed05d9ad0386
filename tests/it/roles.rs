//! The ephemeral role on the target: what it may do, what becomes of what it made, and that it is gone.

use serde_json::Value;
use std::process::Command;
use tidegate_tests::{World, postgres::binary, running::run, wait_until, world::PATIENCE};

/// After everything was torn down: the receipt of the only lease.
fn receipt(world: &World) -> Value {
    world.gateway.until_no_lease(PATIENCE);
    let leases = world.gateway.list(&["lease", "list", "--all"]);
    assert_eq!(leases.len(), 1, "{leases:?}");
    assert_eq!(leases[0]["state"], "closed");
    let ledger = world.gateway.ledger();
    ledger.one("lease.closed")["detail"].clone()
}

#[test]
fn when_psql_ends_its_role_is_gone_and_the_receipt_says_so() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let role = world.psql("alice", "select session_user").ok().out();
    let receipt = receipt(&world).to_string();
    assert_eq!(world.pg().ask("postgres", &format!("select count(*) from pg_roles where rolname = '{role}'")), "0");
    for asked in ["pg_roles", "pg_shdepend", "pg_stat_activity", "pg_auth_members", "pg_db_role_setting"] {
        assert!(receipt.contains(asked), "{asked} is not in {receipt}");
    }
    assert_eq!(world.pg().heirs(), Vec::<String>::new());
}

#[test]
fn what_a_session_creates_waits_with_an_heir_of_its_own() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world.psql("alice", "create table notes (t text)").ok();
    let receipt = receipt(&world).to_string();
    let heirs = world.pg().heirs();
    assert_eq!(heirs.len(), 1, "{heirs:?}");
    assert!(receipt.contains(&heirs[0]) || receipt.contains("notes"), "the receipt names what was kept: {receipt}");
    let owner = world.pg().ask("shop", "select pg_get_userbyid(relowner) from pg_class where relname = 'notes'");
    assert_eq!(owner, heirs[0]);
    // From 16 on whoever makes a role may administer it; that is not to be one.
    let heir = format!(
        "select rolcanlogin or exists (select from pg_auth_members m where m.roleid = r.oid
           and m.member <> 'tidegate_owner'::regrole) from pg_roles r where rolname = '{owner}'"
    );
    assert_eq!(world.pg().ask("postgres", &heir), "f", "an heir neither logs in nor has members");
}

#[test]
fn with_an_owner_what_a_session_creates_belongs_to_the_owner() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "migrate", "30m");
    world.psql("alice", "create table invoices (n int); alter table items add column note text").ok();
    receipt(&world);
    assert_eq!(world.pg().ask("shop", "select tableowner from pg_tables where tablename = 'invoices'"), "shop_owner");
    assert_eq!(world.pg().heirs(), Vec::<String>::new());
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn a_role_that_sets_its_own_password_still_cannot_go_around_the_gate() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select session_user;\n");
    psql.until_stdout("\n", PATIENCE);
    let role = psql.stdout().trim().to_owned();
    psql.send(format!("alter role {role} password 'mine';\nselect 'set';\n"));
    psql.until_stdout("set", PATIENCE);
    let (port, ca) = (world.pg().port(), world.pg().tls_ca());
    for (host, mode) in [("localhost hostaddr=127.0.0.1", "verify-full"), ("localhost hostaddr=127.0.0.1", "disable")] {
        let mut direct = Command::new(binary("psql"));
        direct.args(["-X", "-c", "select 1", "-d"]).env("PGPASSWORD", "mine").arg(format!(
            "host={host} port={port} user={role} dbname=shop sslmode={mode} sslrootcert={}",
            ca.display()
        ));
        let output = run(direct, PATIENCE).exited(2);
        assert!(output.err().contains("reject") || output.err().contains("certificate"), "{}", output.err());
    }
    let mut direct = Command::new(binary("psql"));
    direct.args(["-X", "-c", "select 1", "-U", &role, "-d", "shop", "-p", &port.to_string(), "-h"]);
    direct.arg(world.dir().join("orders")).env("PGPASSWORD", "mine");
    run(direct, PATIENCE).exited(2).says("reject");
    psql.finish(PATIENCE).ok();
}

#[test]
fn a_session_cannot_become_more_than_its_roles() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    for sql in [
        "set role shop_writer",
        "set role tidegate_owner",
        "create role mine",
        "select tidegate.mint()",
        "set session authorization postgres",
        "alter role current_user superuser",
    ] {
        let output = world.psql("alice", sql).exited(1);
        assert!(output.err().contains("ERROR"), "{sql}: {}", output.err());
    }
}

#[test]
fn an_unreachable_target_is_retried_until_the_role_is_gone() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\n");
    psql.until_stdout("in", PATIENCE);
    world.postgres.as_mut().unwrap().stop();
    let output = psql.finish(PATIENCE);
    assert!(output.code.is_some());
    wait_until(PATIENCE, "an attempt at teardown has failed", || {
        world
            .gateway
            .leases()
            .iter()
            .any(|l| l["attempts"].as_u64() > Some(0) && l["last_error"].is_string())
            .then_some(())
    });
    let postgres = world.postgres.as_mut().unwrap();
    postgres.start();
    postgres.ready();
    world.gateway.until_no_lease(tidegate_tests::secs(120));
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn prepared_transactions_of_a_session_are_rolled_back() {
    let world =
        tidegate_tests::world::Plan::new().only_postgres().postgresql_conf("max_prepared_transactions = 5").start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world.psql("alice", "begin; insert into items values (777, 'kept?'); prepare transaction 'mine'").ok();
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ask("postgres", "select count(*) from pg_prepared_xacts"), "0");
    assert_eq!(world.pg().ask("shop", "select count(*) from items where id = 777"), "0");
}
