//! What `target trust` prints for a PostgreSQL server: installed, upgraded under a live session, and removed without a trace.

use std::fmt::Write as _;
use tidegate_tests::{Postgres, World, secs, wait_until, world::PATIENCE};

/// All that an installation could leave in the catalogs, by name.
fn catalogs(server: &Postgres) -> String {
    let mut all = String::new();
    for database in ["postgres", "shop"] {
        for sql in [
            "select rolname, rolsuper, rolcanlogin, rolcreaterole, rolconfig from pg_roles order by 1",
            "select roleid::regrole, member::regrole from pg_auth_members order by 1, 2",
            "select setrole, setconfig from pg_db_role_setting order by 1",
            "select nspname, nspowner::regrole, nspacl from pg_namespace where nspname !~ '^pg_(toast_)?temp' order by 1",
            "select oid::regprocedure, proacl from pg_proc where oid >= 16384 order by 1::text",
            "select deptype, dbid, refobjid::regrole, count(*) from pg_shdepend group by 1, 2, 3 order by 1, 2, 3::text",
            "select defaclrole::regrole, defaclacl from pg_default_acl order by 1",
            "select datname, datacl from pg_database order by 1",
        ] {
            writeln!(all, "{database}: {sql}\n{}", server.ask(database, sql)).unwrap();
        }
    }
    all
}

fn part(world: &World, part: &str) -> String {
    world.gateway.cli(&["target", "trust", "orders", "--part", part]).ok().out() + "\n"
}

#[test]
fn what_was_installed_is_removed_without_a_trace() {
    let world = World::postgres_only();
    let (install, remove) = (part(&world, "sql"), part(&world, "sql_remove"));
    // A server that never had any of it, to compare with.
    let dir = world.dir().join("fresh");
    std::fs::create_dir_all(&dir).unwrap();
    let mut fresh = Postgres::prepare(&dir);
    fresh.install(&world.gateway.postgres_trust("orders"), "");
    fresh.start();
    fresh.ready();
    let before = catalogs(&fresh);
    fresh.script("postgres", &install).ok();
    assert_ne!(catalogs(&fresh), before);
    fresh.script("postgres", &remove).ok();
    assert_eq!(catalogs(&fresh), before);
    // Also after sessions, and twice.
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world.psql("alice", "insert into items values (1000, 'more')").ok();
    world.gateway.until_no_lease(PATIENCE);
    for _ in 0..2 {
        let output = world.pg().script("postgres", &remove).ok();
        assert!(output.out().contains("out of pg_hba.conf"), "{}", output.out());
        assert_eq!(catalogs(world.pg()), before);
    }
    world.psql("alice", "select 1").exited(2);
    world.pg().script("postgres", &install).ok();
    world.psql("alice", "select 1").ok();
    world.gateway.until_no_lease(secs(90));
}

#[test]
fn nothing_is_removed_while_a_session_or_an_heir_is_left() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let remove = part(&world, "sql_remove");
    let mut psql = world.psql_start("alice");
    psql.send("create table kept (n int);\nselect 'in';\n");
    psql.until_stdout("in", PATIENCE);
    let role = world.pg().ephemeral_roles().remove(0);
    world.pg().script("postgres", &remove).exited(3).says(&role).says("tidegate lease list");
    psql.send("select 'and on';\n");
    psql.until_stdout("and on", PATIENCE);
    psql.finish(PATIENCE).ok();
    world.gateway.until_no_lease(PATIENCE);
    let heir = world.pg().heirs().remove(0);
    world.pg().script("postgres", &remove).exited(3).says(&heir).says("REASSIGN OWNED");
    // A human decides.
    world
        .pg()
        .script("shop", &format!("reassign owned by {heir} to shop_owner; drop owned by {heir}; drop role {heir};"))
        .ok();
    world.pg().script("postgres", &remove).ok();
    assert_eq!(world.pg().ask("shop", "select count(*) from pg_namespace where nspname like 'tidegate%'"), "0");
}

#[test]
fn functions_of_version_1_are_said_to_be_old_and_replaced_under_a_live_session() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("create table kept (n int);\nselect 'in';\n");
    psql.until_stdout("in", PATIENCE);
    // What a gateway before this one installed.
    world.pg().script("postgres", include_str!("fixtures/functions-1.sql")).ok();
    psql.send("select 'still in';\n");
    psql.until_stdout("still in", PATIENCE);
    // Connections that are kept have asked for the version already: a new one is refused.
    world.pg().ask("postgres", "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'tidegate'");
    let output = world.gateway.cli(&["target", "test", "orders"]).exited(1);
    assert!(output.out().contains("are of version 1"), "{}", output.out());
    psql.finish(PATIENCE).ok();
    wait_until(PATIENCE, "the lease waits for the new functions", || {
        world.gateway.leases().iter().any(|lease| lease["last_error"].to_string().contains("version 1")).then_some(())
    });
    world.pg().script("postgres", &part(&world, "sql")).ok();
    world.gateway.until_no_lease(secs(120));
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    assert_eq!(world.pg().ask("shop", "select tableowner like 'tgq\\_%' from pg_tables where tablename = 'kept'"), "t");
    world.psql("alice", "select 1").ok();
    world.gateway.until_no_lease(PATIENCE);
}
