//! `tidegate doctor`: each thing that is wrong is named, with what to do about it.

use serde_json::Value;
use std::{fs, os::unix::fs::PermissionsExt};
use tidegate_tests::{
    World, wait_until,
    world::{PATIENCE, Plan},
};

/// All findings, and whether one of them failed.
fn examined(world: &World) -> (Vec<Value>, bool) {
    let output = world.gateway.cli(&["doctor", "--json"]);
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert!(matches!(output.code, Some(0 | 1)), "{output:?}");
    (findings, output.code == Some(1))
}

/// The findings of this check that have this verdict, in words.
fn said(findings: &[Value], check: &str, verdict: &str) -> String {
    let of = findings.iter().filter(|finding| finding["check"] == check && finding["verdict"] == verdict);
    of.map(|finding| format!("{} -> {}\n", finding["said"], finding["next"])).collect()
}

#[test]
fn a_sound_gateway_has_nothing_that_fails_and_each_check_looked() {
    let world = World::start();
    let (findings, failed) = examined(&world);
    assert!(!failed, "{findings:#?}");
    for check in [
        "configuration",
        "state",
        "disk",
        "keys",
        "certificates",
        "clock",
        "ledger",
        "gateway",
        "leases",
        "orphans",
        "targets",
    ] {
        assert!(findings.iter().any(|finding| finding["check"] == check), "{check} in {findings:#?}");
    }
    let shown = world.gateway.cli(&["doctor"]).ok().out();
    assert!(
        shown.contains("OK    ledger") && shown.contains("OK    targets        all 2 addresses take connections"),
        "{shown}"
    );
}

#[test]
fn open_files_and_a_lost_target_are_named_with_what_to_do() {
    let mut world = Plan::new().only_postgres().start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let mut session = world.psql_start("alice");
    session.send("select 'on';\n");
    session.until_stdout("on", PATIENCE);
    world.postgres.as_mut().expect("a server").stop_at_once();
    session.finish(PATIENCE);
    let database = world.gateway.state().join("tidegate.db");
    fs::set_permissions(&database, fs::Permissions::from_mode(0o644)).expect("its mode");
    wait_until(PATIENCE, "the lease waits for its target", || {
        world.gateway.leases().iter().any(|lease| !lease["last_error"].is_null()).then_some(())
    });
    let (findings, failed) = examined(&world);
    assert!(failed);
    assert!(said(&findings, "state", "FAIL").contains("chmod go= "), "{findings:#?}");
    assert!(said(&findings, "targets", "FAIL").contains("tidegate target test orders"), "{findings:#?}");
    assert!(!said(&findings, "orphans", "WARN").is_empty(), "{findings:#?}");
}

#[test]
fn without_a_running_gateway_the_rest_is_examined_all_the_same() {
    let mut world = World::ssh_only();
    world.gateway.terminate();
    let (findings, failed) = examined(&world);
    assert!(failed);
    assert!(said(&findings, "gateway", "FAIL").contains("tidegate serve"), "{findings:#?}");
    assert!(
        !said(&findings, "ledger", "OK").is_empty() && !said(&findings, "targets", "OK").is_empty(),
        "{findings:#?}"
    );
}

#[test]
fn a_changed_store_a_lost_key_and_an_expired_ca_of_a_target_fail() {
    let mut world = Plan::new().only_postgres().start();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.gateway.terminate();
    let db = rusqlite::Connection::open(world.gateway.state().join("tidegate.db")).expect("the store");
    db.execute("UPDATE grants SET identity = 'bob'", []).expect("tampering");
    drop(db);
    // A file of its own: the CA of the throwaway servers is shared by all tests.
    let expired = world.dir().join("expired-ca.pem");
    fs::write(&expired, include_str!("fixtures/expired-ca.pem")).expect("another CA");
    let shared = world.pg().tls_ca();
    let mut config = world.config.clone();
    world.gateway.configure(config.change(&format!("{shared:?}"), &format!("{expired:?}")));
    let (findings, _) = examined(&world);
    assert!(said(&findings, "ledger", "FAIL").contains("grants"), "{findings:#?}");
    assert!(said(&findings, "certificates", "FAIL").contains("tls_ca of orders has ended"), "{findings:#?}");
    fs::remove_file(world.gateway.state().join("keys/grants.key")).expect("a key");
    let (findings, failed) = examined(&world);
    assert!(failed && said(&findings, "keys", "FAIL").contains("grants.key"), "{findings:#?}");
}
