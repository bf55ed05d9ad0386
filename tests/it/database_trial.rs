//! `target test` for a PostgreSQL target: what it says of one that is as it should be, and of each way in which it is not.

use serde_json::Value;
use std::{fs, path::PathBuf};
use tidegate_tests::{World, secs, wait_until, world::Plan};

/// The report, and the exit code.
fn tested(world: &World) -> (Value, i32) {
    let output = world.gateway.cli(&["target", "test", "orders", "--json"]);
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|e| panic!("{e}: {}{}", output.out(), output.err())), output.code.unwrap())
}

/// All that is said in steps of this name with this outcome, what to do next included.
fn said(report: &Value, step: &str, outcome: &str) -> String {
    let steps = report["steps"].as_array().unwrap().iter();
    let fits = steps.filter(|found| found["step"] == step && found["outcome"] == outcome);
    fits.map(|found| format!("{} {}\n", found["said"], found["next"])).collect()
}

#[track_caller]
fn assert_said(report: &Value, step: &str, outcome: &str, text: &str) {
    assert!(said(report, step, outcome).contains(text), "no {outcome} {step} says {text:?} in {report:#}");
}

/// A world in which nothing is open: 14 still lets everybody create in `public`, and 15 let upgraded servers keep that.
fn sound() -> World {
    let world = World::postgres_only();
    world.pg().script("shop", "revoke create on schema public from public;").ok();
    world
}

#[test]
fn a_test_goes_the_way_of_a_session_and_finds_a_sound_target_sound() {
    let world = sound();
    let output = world.gateway.cli(&["target", "test", "orders"]);
    assert_eq!(output.code, Some(0), "{}{}", output.out(), output.err());
    for line in [
        "ok      dial",
        "ok      host",
        "ok      administrator",
        "ok      own door",
        "ok      version",
        "ok      settings",
        "ok      clock",
        "ok      functions",
        "ok      privileges",
        "unseen  pg_hba",
        "ok      mint",
        "ok      login",
        "ok      session",
        "ok      past the gate",
        "ok      teardown",
        "receipt of",
        "0 pg_shdepend",
        "pg_hba_file_rules",
    ] {
        assert!(output.out().contains(line), "{line:?} is not in\n{}", output.out());
    }
    let report = tested(&world).0;
    assert_eq!((&report["database"], report.get("login")), (&Value::from("shop"), None));
    let ledger = world.gateway.until_ledger("session.closed", 2, secs(20));
    ledger.assert_order(&[
        "grant.issued",
        "grant.revoked",
        "session.opened",
        "recording.started",
        "lease.opened",
        "credential.minted",
        "target.connected",
        "recording.sealed",
        "lease.closed",
        "session.closed",
    ]);
    let opened = ledger.last("session.opened").unwrap();
    assert_eq!(opened["identity"], "operator");
    assert_eq!(world.gateway.leases(), Vec::<Value>::new());
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    world.gateway.cli(&["recording", "verify", "--all"]).ok();
    let events = world.gateway.events(opened["session"].as_str().unwrap());
    assert!(events.iter().any(|event| event.to_string().contains("past the gate: ")), "{events:?}");
    // The password that the test set for a moment is in no log.
    assert!(!world.pg().log().contains("SCRAM-SHA-256$"), "{}", world.pg().log());
}

#[test]
fn each_entitlement_is_tested_on_its_own_terms() {
    let world = sound();
    let output =
        world.gateway.cli(&["target", "test", "orders", "--database", "shop", "--entitlement", "migrate"]).ok();
    assert!(output.out().contains("it works as shop_owner"), "{}", output.out());
    world
        .gateway
        .cli(&["target", "test", "orders", "--entitlement", "nothing"])
        .exited(1)
        .says("no entitlement nothing");
    world
        .gateway
        .cli(&["target", "test", "orders", "--database", "payroll"])
        .exited(1)
        .says("they open: database shop");
    world.gateway.cli(&["target", "test", "orders", "--login", "root"]).exited(1).says("name a --database");
    let world =
        Plan::new().only_postgres().change("databases = [\"shop\"]", "databases = [\"shop\", \"postgres\"]").start();
    world
        .gateway
        .cli(&["target", "test", "orders"])
        .exited(1)
        .says("several databases, name one with --database: postgres, shop");
}

#[test]
fn a_function_that_is_not_what_was_installed_is_found() {
    let world = sound();
    let superuser = |sql: &str| {
        world.pg().script("shop", sql).ok();
    };
    // Its body, who may call it, its owner, its settings, and one that is none of ours.
    superuser(
        "do $do$ begin execute replace(pg_get_functiondef('tidegate.sever'::regproc), 'seen := ', 'seen := 0 * '); end $do$;",
    );
    superuser("grant execute on function tidegate.mint to public;");
    superuser("alter function tidegate.disable owner to postgres; alter function tidegate.lend reset all;");
    superuser("create function tidegate.door() returns int language sql as 'select 1';");
    superuser(
        "drop function tidegate.discard; create table tidegate.notes (t text); grant create on schema tidegate to shop_reader;",
    );
    let (report, code) = tested(&world);
    assert_eq!(code, 1);
    for text in [
        "tidegate.sever is not what was installed: its body differ",
        "tidegate.mint is not what was installed: its callers differ",
        "tidegate.disable is not what was installed: its owner",
        "tidegate.lend is not what was installed: its settings",
        "tidegate.door is none of ours",
        "tidegate.discard is missing",
        "shop_reader CREATE",
        "are no functions lie in the schema",
        "target trust orders --part sql",
    ] {
        assert_said(&report, "functions", "open", text);
    }
    // Installed again, all is as it should be.
    superuser("drop table tidegate.notes; revoke create on schema tidegate from shop_reader;");
    world.pg().script("postgres", &world.gateway.postgres_trust("orders").sql).ok();
    world.gateway.until_no_lease(secs(90));
    let (report, code) = tested(&world);
    assert_eq!(code, 0, "{report:#}");
}

#[test]
fn every_privilege_too_many_is_named_with_the_sql_that_takes_it_back() {
    let world = sound();
    let tampered = "
        alter role tidegate createdb createrole;
        alter role tidegate_sessions login;
        grant shop_reader to tidegate; create role stranger; grant tidegate to shop_writer;
        grant tidegate_owner to stranger; grant tidegate_sessions to stranger; grant shop_writer to tidegate_sessions;
        grant pg_read_all_data to tidegate_owner;
        create table ledger (n int); grant select on ledger to tidegate; grant select on items to public;
        create table kept (n int); alter table kept owner to tidegate_owner;
        grant create on database shop to tidegate; grant create on database shop to public;
        grant create on schema public to public;
        alter default privileges for role shop_owner grant select on tables to public;
        create function helper() returns int language sql security definer as 'select 1';
        alter role shop_writer createrole; alter role shop_reader login;
        alter role tidegate set work_mem = '1GB'; alter role tidegate reset synchronous_commit;
        create function fire() returns event_trigger language plpgsql as 'begin end'; alter function fire owner to shop_owner;
        create event trigger fire on ddl_command_end execute function fire();
    ";
    world.pg().script("shop", tampered).ok();
    world.pg().script("postgres", "create table t (n int); grant select on t to tidegate;").ok();
    let (report, code) = tested(&world);
    assert_eq!(code, 1);
    for text in [
        "tidegate has CREATEDB",
        "tidegate has CREATEROLE",
        "tidegate_sessions has LOGIN",
        "alter role \\\"tidegate\\\" nocreatedb",
        "tidegate is a member of shop_reader",
        "shop_writer is a member of tidegate ",
        "stranger is a member of tidegate_owner",
        "revoke \\\"tidegate_owner\\\" from \\\"stranger\\\"",
        "stranger is a member of tidegate_sessions",
        "tidegate_sessions is a member of shop_writer",
        "tidegate_owner is a member of pg_read_all_data",
        "tidegate has rights on table public.ledger",
        "everybody may use 1 table",
        "tidegate_owner owns table public.kept",
        "tidegate has CREATE on database shop",
        "everybody has CREATE on database shop",
        "everybody may create in schema public",
        "what shop_owner will create in shop is granted to PUBLIC",
        "SECURITY DEFINER function(s) of shop",
        "a session can become shop_reader, which logs in by itself",
        "starts with work_mem=1GB",
        "does not start with synchronous_commit=local",
        "the event trigger fire of shop runs",
        "tidegate owns or may use something in database postgres",
    ] {
        let text = text.trim_end();
        assert_said(&report, "privileges", "open", text);
    }
    // What mint refuses is a failure, not only open.
    assert_said(&report, "privileges", "failed", "a session can become shop_writer, which is CREATEROLE");
}

fn hba(world: &World) -> PathBuf {
    world.dir().join("orders/data/pg_hba.conf")
}

/// Changes `pg_hba.conf`, and waits until the server has read it.
fn reload_with(world: &World, text: &str) {
    fs::write(hba(world), text).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count().to_string();
    world.pg().ask("postgres", "select pg_reload_conf()");
    wait_until(secs(20), "pg_hba.conf is in force", || {
        // A new connection is judged by what its postmaster has read; the file's rules say what that will be.
        (world.pg().ask("postgres", "select count(*) from pg_hba_file_rules") == lines).then_some(())
    });
}

#[test]
fn a_way_in_past_the_gate_is_found_by_trying_it() {
    let world = sound();
    let lines = fs::read_to_string(hba(&world)).unwrap();
    // Without our reject lines, a password line behind them lets in any role that sets itself a password.
    let open: String = lines
        .lines()
        .filter(|line| !line.contains("reject") && !line.contains("+tidegate_sessions"))
        .map(|l| format!("{l}\n"))
        .collect();
    let open = format!("hostssl all +tidegate_sessions 127.0.0.1/32 cert\n{}", open);
    let password_first =
        format!("local all postgres trust\nhost shop +tidegate_sessions 127.0.0.1/32 scram-sha-256\n{open}");
    reload_with(&world, &open);
    wait_until(secs(20), "the test finds template1 open", || {
        said(&tested(&world).0, "past the gate", "open").contains("into template1").then_some(())
    });
    // The certificate line is gone: the role cannot come in as the gateway does.
    reload_with(&world, &password_first);
    wait_until(secs(20), "the login fails", || (!said(&tested(&world).0, "login", "failed").is_empty()).then_some(()));
    reload_with(&world, &lines);
    wait_until(secs(20), "all is well", || (tested(&world).1 == 0).then_some(()));
    world.gateway.until_no_lease(secs(90));
}

#[test]
fn settings_that_let_something_outlive_its_session_are_open() {
    let conf = "max_prepared_transactions = 5\npassword_encryption = 'md5'\n";
    let world = Plan::new().only_postgres().postgresql_conf(conf).start();
    let (report, code) = tested(&world);
    assert_eq!(code, 1);
    assert_said(&report, "settings", "open", "max_prepared_transactions is 5");
    assert_said(&report, "settings", "open", "password_encryption is md5");
    assert_said(&report, "settings", "open", "alter system set max_prepared_transactions = 0;");
    assert_said(&report, "teardown", "ok", "closed by the receipt");
}

#[test]
fn a_target_that_is_not_there_not_itself_or_not_installed_is_told_apart() {
    let mut world = sound();
    world.pg().script("shop", "drop schema tidegate cascade;").ok();
    let (report, code) = tested(&world);
    assert_eq!(code, 1);
    assert_said(&report, "functions", "failed", "--part sql");
    world.pg().script("postgres", &world.gateway.postgres_trust("orders").sql).ok();

    // The server's certificate comes from another authority than the one that is named.
    let (theirs, ours) = (world.pg().tls_ca().display().to_string(), world.client_file("ca.pem").display().to_string());
    world.config.change(&theirs, &ours);
    world.restart_gateway();
    let (report, _) = tested(&world);
    assert_said(&report, "host", "failed", "tls_ca of target orders");
    world.config.change(&ours, &theirs);
    world.restart_gateway();

    let lines = fs::read_to_string(hba(&world)).unwrap();
    reload_with(&world, &lines.replace("127.0.0.1/32 cert", "10.9.9.9/32 cert"));
    wait_until(secs(20), "the gateway's own login is refused", || {
        said(&tested(&world).0, "administrator", "failed").contains("--part pg_hba").then_some(())
    });
    reload_with(&world, &lines);
    world.gateway.until_no_lease(secs(90));

    world.postgres.as_mut().unwrap().stop();
    let (report, code) = tested(&world);
    assert_eq!(code, 1);
    assert_said(&report, "dial", "failed", "is PostgreSQL running there");
    world.postgres.as_mut().unwrap().start();
    world.postgres.as_mut().unwrap().ready();
    world.gateway.until_no_lease(secs(120));
}

#[test]
fn a_login_of_the_gateways_that_was_shut_out_since_is_found() {
    let world = sound();
    assert_eq!(tested(&world).1, 0);
    world.pg().psql("postgres", "alter role tidegate nologin").ok();
    let (report, code) = tested(&world);
    assert_eq!((code, report["sound"].as_bool()), (1, Some(false)), "{report:#}");
    assert!(!said(&report, "administrator", "failed").is_empty(), "{report:#}");
}
