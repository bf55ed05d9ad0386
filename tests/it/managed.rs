//! Targets that take no certificate: SCRAM with a `pg_hba.conf` of ours, and managed services without a superuser.

use serde_json::Value;
use tidegate_tests::{
    World, wait_until,
    world::{MASTER_PASSWORD, PATIENCE, Plan},
};

fn scram() -> World {
    let world = Plan::new().only_postgres().scram().start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world
}

fn managed() -> World {
    let world = Plan::new().only_postgres().managed().start();
    for entitlement in ["readonly", "readwrite", "migrate"] {
        world.gateway.grant("alice", "orders", entitlement, "30m");
    }
    world
}

fn said(world: &World, step: &str, outcome: &str) -> String {
    let output = world.gateway.cli(&["target", "test", "orders", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let fits = |found: &&Value| found["step"] == step && found["outcome"] == outcome;
    let said: String =
        report["steps"].as_array().unwrap().iter().filter(fits).map(|found| format!("{found}\n")).collect();
    if said.is_empty() { format!("nothing of that in {report:#}") } else { said }
}

#[test]
fn a_session_logs_in_by_a_password_of_its_own_that_no_log_holds() {
    let world = scram();
    assert_eq!(world.psql("alice", "select count(*) from items").ok().out(), "100");
    world.psql("alice", "create table kept (n int)").ok();
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    assert_eq!(world.pg().heirs().len(), 1);
    let log = world.pg().log();
    assert!(log.contains("method=scram-sha-256") && !log.contains("method=cert"), "{log}");
    assert!(!log.contains("SCRAM-SHA-256$") && !world.gateway.log().contains("the-gateway-s-own-password"), "{log}");
    let minted = world.gateway.ledger().all("credential.minted")[0].clone();
    assert_eq!(
        (minted["detail"]["password"].clone(), minted["detail"]["certificate"].clone()),
        (true.into(), Value::Null)
    );
    let reported = &minted["detail"]["reported"];
    assert_eq!(
        reported["member_of"],
        serde_json::json!(["shop_writer", "tidegate_sessions"]),
        "as the target has it: {reported}"
    );
    let not = ["superuser", "createdb", "createrole", "replication", "bypassrls"];
    assert!(reported["login"] == true && not.iter().all(|power| reported[power] == false), "{reported}");
    assert!(reported["valid_until"].is_string() && reported["connection_limit"].is_i64(), "{reported}");
    let check = world.gateway.cli(&["check"]).ok().out();
    assert!(check.contains("orders.password: password of the gateway's own login"), "{check}");
    assert!(check.contains("no key of any target but that of orders (auth = \"scram\")"), "{check}");
}

#[test]
fn a_test_says_that_a_session_could_come_in_directly() {
    let world = scram();
    world.pg().script("shop", "revoke create on schema public from public;").ok();
    let weak = said(&world, "past the gate", "weak");
    assert!(
        weak.contains("by password over TLS, into shop") && weak.contains("\\\"scram\\\" cannot shut this"),
        "{weak}"
    );
    // Ours are the lines of pg_hba.conf all the same: no other way is open. It is as good as it can be, and says what that is.
    assert!(!weak.contains("template1") && !weak.contains("without TLS"), "{weak}");
    let output = world.gateway.cli(&["target", "test", "orders"]).ok();
    assert!(output.err().contains("warning: orders is as it can be for shop, with 1 weakness"), "{}", output.err());
    assert!(output.out().contains("weak    past the gate"), "{}", output.out());
    assert!(said(&world, "functions", "ok").contains("in shop they are what was installed"));
    assert!(said(&world, "teardown", "ok").contains("closed by the receipt"));
}

#[test]
fn a_password_that_the_server_does_not_know_opens_nothing() {
    let world = scram();
    world.pg().ask("postgres", "alter role tidegate password 'another-one'");
    world.psql("alice", "select 1").exited(2);
    assert!(said(&world, "administrator", "failed").contains("28P01"));
    world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn the_password_file_is_read_like_every_secret() {
    use std::{fs, os::unix::fs::PermissionsExt};
    let world = scram();
    let file = world.gateway.dir().join("orders.password");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    world.gateway.cli(&["check"]).exited(1).says("is open to others").says("admin_password_file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&file, "short\n").unwrap();
    world.gateway.cli(&["check"]).exited(1).says("too few for a secret");
    fs::write(&file, "not the printable kind: é\n").unwrap();
    world.gateway.cli(&["check"]).exited(1).says("printable ASCII");
}

#[test]
fn without_a_superuser_sessions_work_and_are_torn_down_with_a_receipt() {
    let world = managed();
    assert_eq!(world.psql("alice~readonly", "select count(*) from items").ok().out(), "100");
    world.psql("alice~readonly", "delete from items").exited(1).says("42501");
    world
        .psql("alice~readwrite", "create table kept (n int); create temp table t (n int); insert into kept values (1)")
        .ok();
    world.psql("alice~migrate", "create table invoices (n int)").ok();
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    let heirs = world.pg().heirs();
    assert_eq!(heirs.len(), 1, "{heirs:?}");
    let owner =
        |table: &str| world.pg().ask("shop", &format!("select tableowner from pg_tables where tablename = '{table}'"));
    assert_eq!((owner("kept"), owner("invoices")), (heirs[0].clone(), "shop_owner".to_owned()));
    let closed = world.gateway.ledger().all("lease.closed").iter().map(|e| e.to_string()).collect::<String>();
    assert!(closed.contains("no superuser could look"), "{closed}");
    // Nobody but the superuser of the service itself is one.
    assert_eq!(world.pg().ask("shop", "select string_agg(rolname, ',') from pg_roles where rolsuper"), "postgres");
    assert_eq!(
        world.pg().ask("shop", "select pg_get_userbyid(nspowner) from pg_namespace where nspname = 'tidegate'"),
        "master"
    );
}

#[test]
fn a_live_session_of_a_managed_service_is_ended_when_its_grant_is() {
    let world = Plan::new().only_postgres().managed().start();
    let grant = world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\nbegin; alter role current_user password 'locked'; select pg_sleep(500);\n");
    psql.until_stdout("in", PATIENCE);
    wait_until(PATIENCE, "its role is locked by itself", || {
        (world.pg().ask(
            "shop",
            "select count(*) from pg_stat_activity where query like '%pg_sleep(500)%' and usename like 'tg\\_%'",
        ) == "1")
            .then_some(())
    });
    world.gateway.revoke(&grant);
    psql.finish(PATIENCE);
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ask("shop", "select count(*) from pg_stat_activity where usename like 'tg\\_%'"), "0");
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn what_nobody_but_a_superuser_could_take_back_holds_the_lease_of_a_disabled_role() {
    let world = managed();
    let mut psql = world.psql_start("alice~readonly");
    psql.send("select session_user;\n");
    psql.until_stdout("\n", PATIENCE);
    let role = psql.stdout().trim().to_owned();
    // An owner that the gateway has no power over grants the role something.
    world.pg().script("shop", &format!("create role other; create table others (n int); alter table others owner to other; set role other; grant select on others to {role};")).ok();
    psql.finish(PATIENCE).ok();
    let held = wait_until(PATIENCE, "the lease says why it is held", || {
        world
            .gateway
            .leases()
            .into_iter()
            .find(|lease| lease["last_error"].to_string().contains("only they can take back"))
    });
    assert!(held["last_error"].to_string().contains("others"), "{held}");
    assert_eq!(world.pg().ask("shop", &format!("select rolcanlogin from pg_roles where rolname = '{role}'")), "f");
    // Somebody who can, does; the next attempt closes the lease.
    world.pg().script("shop", &format!("set role other; revoke all on others from {role};")).ok();
    // It may have been tried again by itself already.
    world.gateway.cli(&["lease", "retry", held["id"].as_str().unwrap()]);
    world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn a_test_of_a_managed_service_says_what_cannot_be_shut_there() {
    let world = managed();
    let open = said(&world, "past the gate", "open");
    assert!(open.contains("into template1") && open.contains("revoke CONNECT on that database"), "{open}");
    assert!(said(&world, "past the gate", "weak").contains("by password over TLS, into shop"));
    assert!(said(&world, "service", "unseen").contains("pg_hba.conf is the service's"));
    assert!(said(&world, "functions", "ok").contains("in shop they are what was installed"));
    assert!(said(&world, "teardown", "ok").contains("closed by the receipt"));
    // Installing again changes nothing, and leaves the master user out of the role that owns the functions.
    let sql = world.gateway.postgres_trust("orders").sql_managed;
    world.pg().script_as("master", MASTER_PASSWORD, "postgres", &sql).ok();
    assert!(said(&world, "functions", "ok").contains("in shop they are what was installed"));
    let member = "select pg_has_role('master', 'tidegate_owner', 'usage')";
    assert_eq!(world.pg().ask("shop", member), "f");
    world
        .pg()
        .script_as(
            "master",
            MASTER_PASSWORD,
            "shop",
            "create or replace function tidegate._end(p_name text, p_oid oid) returns int language sql as 'select 0';",
        )
        .exited(3);
}

#[test]
fn the_master_user_removes_what_it_installed() {
    let world = managed();
    world.psql("alice~readonly", "select 1").ok();
    world.gateway.until_no_lease(PATIENCE);
    let remove = world.gateway.cli(&["target", "trust", "orders", "--part", "sql_remove"]).ok().out() + "\n";
    world.pg().script_as("master", MASTER_PASSWORD, "postgres", &remove).ok();
    let left = "select (select count(*) from pg_roles where rolname like 'tidegate%') + (select count(*) from pg_namespace \
                where nspname like 'tidegate%') + (select count(*) from pg_proc where oid >= 16384)";
    assert_eq!(world.pg().ask("shop", left), "0");
}
