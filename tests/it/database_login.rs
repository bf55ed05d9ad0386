//! What `target test` says of a PostgreSQL server that does not let the gateway in as it should: what the server said, and which
//! part of `target trust` mends it.

use serde_json::Value;
use std::fs;
use tidegate_tests::{Output, World, postgres::version, secs, wait_until};

fn tested(world: &World) -> Output {
    world.gateway.cli(&["target", "test", "orders", "--json"])
}

/// All that is said in steps of this name with this outcome, what to do next included.
fn said(world: &World, step: &str, outcome: &str) -> String {
    let output = tested(world);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", output.out(), output.err()));
    let fits = |found: &&Value| found["step"] == step && found["outcome"] == outcome;
    report["steps"].as_array().unwrap().iter().filter(fits).map(|found| format!("{found}\n")).collect()
}

#[track_caller]
fn assert_said(world: &World, step: &str, outcome: &str, texts: &[&str]) {
    let said = said(world, step, outcome);
    for text in texts {
        assert!(said.contains(text), "{text:?} is not in {said:?}: {}", tested(world).out());
    }
}

/// A world in which nothing is open.
fn sound() -> World {
    let world = World::postgres_only();
    world.pg().script("shop", "revoke create on schema public from public;").ok();
    world
}

/// Changes the server's files, and waits until the test says this with these remedies.
fn until_said(world: &World, step: &str, outcome: &str, texts: &[&str]) {
    world.pg().ask("postgres", "select pg_reload_conf()");
    wait_until(secs(30), &format!("{texts:?} is said"), || {
        let said = said(world, step, outcome);
        texts.iter().all(|text| said.contains(text)).then_some(())
    });
}

#[test]
fn lines_of_pg_hba_that_are_missing_late_or_wrong_are_refusals_that_name_their_part() {
    let world = sound();
    let file = world.dir().join("orders/data/pg_hba.conf");
    let lines = fs::read_to_string(&file).unwrap();
    let (own, rest) = lines.split_once('\n').unwrap();
    let ours = |line: &&str| line.contains("tidegate");
    let missing: String = lines.lines().filter(|line| !ours(line)).map(|line| format!("{line}\n")).collect();
    let late = format!("{own}\nhost all all 127.0.0.1/32 scram-sha-256\n{rest}");
    let wrong = lines.replace("127.0.0.1/32 cert", "10.9.9.9/32 cert");
    for (text, says) in
        [(missing, "it asked for what our credential is not"), (late, "password missing"), (wrong, "SQLSTATE 28000")]
    {
        fs::write(&file, &text).unwrap();
        let texts = ["orders refused the gateway's own login", says, "target trust orders --part pg_hba"];
        until_said(&world, "administrator", "failed", &texts);
        assert!(!tested(&world).out().contains("cannot be reached"), "{}", tested(&world).out());
        // Back again, so that the next one is what is seen.
        fs::write(&file, &lines).unwrap();
        until_said(&world, "administrator", "ok", &["logs in"]);
    }
    assert_eq!(tested(&world).code, Some(0), "{}", tested(&world).out());
    world.gateway.until_no_lease(secs(90));
}

#[test]
fn a_line_that_lets_anybody_in_as_the_gateway_is_found_by_trying_it() {
    let world = sound();
    assert!(said(&world, "own door", "ok").contains("3 other ways"));
    let file = world.dir().join("orders/data/pg_hba.conf");
    let lines = fs::read_to_string(&file).unwrap();
    let (own, rest) = lines.split_once('\n').unwrap();
    fs::write(&file, format!("{own}\nhost all tidegate 127.0.0.1/32 trust\n{rest}")).unwrap();
    until_said(
        &world,
        "own door",
        "open",
        &[
            "comes in as tidegate without TLS",
            "comes in as tidegate without a certificate",
            "comes in as tidegate with a certificate of another name",
            "hostssl \\\"shop\\\" \\\"tidegate\\\" 127.0.0.1/32 cert",
            "pg_hba_file_rules",
            "--part pg_hba",
        ],
    );
    assert_eq!(tested(&world).code, Some(1));
}

#[test]
fn a_server_that_takes_certificates_of_another_authority_is_told_so() {
    let world = sound();
    let ca = world.dir().join("orders/client-ca.pem");
    let ours = fs::read(&ca).unwrap();
    fs::copy(world.pg().tls_ca(), &ca).unwrap();
    until_said(&world, "administrator", "failed", &["it does not know our CA", "target trust orders --part ca"]);
    fs::write(&ca, ours).unwrap();
    until_said(&world, "administrator", "ok", &["logs in"]);
}

#[test]
fn functions_that_are_not_there_of_another_version_or_without_power_are_told_apart() {
    let world = sound();
    let install = world.gateway.postgres_trust("orders").sql;
    let superuser = |sql: &str| {
        world.pg().script("shop", sql).ok();
    };
    superuser("alter role tidegate_owner nocreaterole");
    let texts = ["tidegate_owner has no CREATEROLE", "alter role \\\"tidegate_owner\\\" createrole;"];
    assert_said(&world, "privileges", "failed", &texts);
    superuser("alter role tidegate_owner createrole");
    if version() >= 16 {
        superuser("revoke shop_reader from tidegate_owner");
        let texts = ["may not make sessions members of shop_reader", "(--part sql)"];
        assert_said(&world, "privileges", "failed", &texts);
        superuser(&install);
    }
    superuser(
        "create or replace function tidegate.version(out version int, out clock float8) language sql volatile \
         set search_path = pg_catalog, pg_temp as $$ select 1, 0::float8 $$;",
    );
    let texts = ["in database shop are of version 1, and this gateway calls version", "--part sql"];
    assert_said(&world, "functions", "failed", &texts);
    superuser("drop schema tidegate cascade");
    let texts = ["there is no schema tidegate in database shop", "target trust orders --part sql"];
    assert_said(&world, "functions", "failed", &texts);
    superuser(&install);
    world.gateway.until_no_lease(secs(90));
    assert_eq!(tested(&world).code, Some(0), "{}", tested(&world).out());
}
