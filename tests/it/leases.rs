//! Leases that need a human, and accounts that no lease speaks of.

use serde_json::Value;
use std::process::Command;
use tidegate_tests::{
    Running, World,
    postgres::binary,
    running::{Output, run},
    secs, wait_until,
    world::PATIENCE,
};

/// The only open lease, once it is held.
fn held(world: &World) -> Value {
    wait_until(PATIENCE, "the lease is held", || {
        world.gateway.leases().into_iter().find(|lease| lease["state"] == "held")
    })
}

fn id(lease: &Value) -> String {
    lease["id"].as_str().unwrap().to_owned()
}

/// A session that has said its role's name.
fn session(world: &World, user: &str) -> (Running, String) {
    let mut psql = world.psql_start(user);
    psql.send("select 'I am ' || session_user;\n");
    psql.until_stdout("I am tg_", PATIENCE);
    let role = psql.stdout().trim().trim_start_matches("I am ").to_owned();
    (psql, role)
}

/// A script of the human, with psql as superuser.
fn by_hand(world: &World, script: &str) -> Output {
    world.pg().script("postgres", script)
}

fn exists(world: &World, role: &str) -> bool {
    world.pg().ask("postgres", &format!("select count(*) from pg_roles where rolname = '{role}'")) == "1"
}

#[test]
fn a_held_lease_says_what_to_look_at_and_closes_once_that_is_done() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "migrate", "30m");
    world.psql("alice~migrate", "alter default privileges grant select on tables to public").ok();
    let lease = id(&held(&world));
    assert_eq!(world.gateway.json(&["status"])["held_leases"], 1);
    let shown = world.gateway.cli(&["lease", "show", &lease]).ok().out();
    for said in [
        "1 changed while it lived: default privileges",
        "pg_default_acl",
        "tidegate lease retry",
        "tidegate lease accept",
    ] {
        assert!(shown.contains(said), "{said} is not in:\n{shown}");
    }
    // The whole is a script that changes nothing.
    assert!(by_hand(&world, &shown).ok().out().contains("shop_owner"));
    let detail = world.gateway.json(&["lease", "show", &lease]);
    assert_eq!(detail["acceptable"], true);
    let finish = detail["advice"][0]["finish"][0].as_str().unwrap().trim_end_matches(';');
    world.pg().script("shop", &format!("{finish}\\gexec\n")).ok();
    world.gateway.cli(&["lease", "retry", &lease]).ok();
    world.gateway.until_no_lease(PATIENCE);
    world.gateway.verify_ledger().ok();
}

#[test]
fn what_a_dba_changed_meanwhile_is_accepted_by_an_admin_with_a_reason() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let (psql, _) = session(&world, "alice");
    by_hand(&world, "alter role shop_reader connection limit 7;").ok();
    psql.finish(PATIENCE).ok();
    let lease = id(&held(&world));
    world.gateway.cli(&["lease", "accept", &lease]).exited(2);
    world.gateway.cli(&["lease", "accept", &lease, "--reason", " "]).exited(1).says("say why");
    let accepted = world.gateway.json(&["lease", "accept", &lease, "--reason", "it was me"]);
    assert_eq!(accepted["state"], "closed");
    assert_eq!(accepted["receipt"]["accepted"]["by"], "operator");
    assert_eq!(accepted["receipt"]["accepted"]["reason"], "it was me");
    assert_eq!(accepted["receipt"]["clean"], false, "it says what was left all the same");
    let ledger = world.gateway.ledger();
    let entry = ledger.one("lease.accepted").to_string();
    for said in ["operator", "it was me", "changed while it lived: roles", "shop_reader at transaction"] {
        assert!(entry.contains(said), "{said} is not in {entry}");
    }
    world.gateway.cli(&["lease", "accept", &lease, "--reason", "again"]).exited(1);
    assert!(world.gateway.leases().is_empty());
    assert!(world.gateway.cli(&["lease", "show", &lease]).ok().out().contains("by operator: it was me"));
    world.gateway.verify_ledger().ok();
}

#[test]
fn an_account_that_still_exists_cannot_be_accepted() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let (mut psql, role) = session(&world, "alice");
    let heir = role.replacen("tg_", "tgq_", 1);
    by_hand(&world, &format!("create role {heir};")).ok();
    psql.send("create table mine (id int);\n");
    psql.finish(PATIENCE).ok();
    let lease = held(&world);
    assert!(lease["last_error"].as_str().unwrap().contains(&format!("there is a role {heir} that we did not make")));
    let refused = world.gateway.cli(&["lease", "accept", &id(&lease), "--reason", "never mind"]).exited(1);
    assert!(refused.err().contains(&format!("{role} still exists on orders")), "{}", refused.err());
    let shown = world.gateway.cli(&["lease", "show", &id(&lease)]).ok().out();
    assert!(shown.contains(&format!("drop owned by \"{role}\"")) && !shown.contains("lease accept"), "{shown}");
    by_hand(&world, &shown).ok();
    assert!(exists(&world, &role), "showing it changes nothing");
    by_hand(&world, &format!("drop role {heir};")).ok();
    world.gateway.cli(&["lease", "retry", &id(&lease)]).ok();
    world.gateway.until_no_lease(PATIENCE);
    assert!(!exists(&world, &role));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to);
    run(command, PATIENCE).ok();
}

#[test]
fn a_role_that_comes_back_with_a_restored_server_reopens_its_lease_and_is_removed_again() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let (psql, role) = session(&world, "alice");
    // A backup, taken while the session lives.
    let data = world.pg().socket().join("data");
    let backup = world.dir().join("backup");
    let hba = data.join("pg_hba.conf");
    let rules = std::fs::read_to_string(&hba).unwrap();
    std::fs::write(&hba, rules + "local replication postgres trust\n").unwrap();
    by_hand(&world, "select pg_reload_conf();").ok();
    let mut basebackup = Command::new(binary("pg_basebackup"));
    basebackup.args(["-U", "postgres", "-X", "stream", "-c", "fast", "-p", &world.pg().port().to_string(), "-h"]);
    basebackup.arg(world.pg().socket()).arg("-D").arg(&backup);
    run(basebackup, PATIENCE).ok();
    psql.finish(PATIENCE).ok();
    world.gateway.until_no_lease(PATIENCE);
    assert!(!exists(&world, &role));
    let postgres = world.postgres.as_mut().unwrap();
    postgres.stop();
    std::fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    let mut chown = Command::new("chown");
    chown.args(["-R", "postgres:postgres"]).arg(&data);
    run(chown, PATIENCE).ok();
    postgres.start();
    postgres.ready();
    assert!(exists(&world, &role), "the backup has it");
    let swept = world.gateway.json(&["lease", "sweep", "--target", "orders"]);
    assert_eq!(swept[0]["reopened"].as_array().unwrap().len(), 1, "{swept}");
    world.gateway.until_no_lease(PATIENCE);
    assert!(!exists(&world, &role));
    let ledger = world.gateway.ledger();
    ledger.assert_order(&["lease.closed", "lease.reopened", "lease.closed"]);
    world.gateway.verify_ledger().ok();
}

#[test]
fn another_timeline_behind_the_same_address_is_told_once() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.psql("alice", "select 1").ok();
    world.gateway.until_no_lease(PATIENCE);
    let sweep = |world: &World| drop(world.gateway.cli(&["lease", "sweep", "--target", "orders"]).ok());
    sweep(&world);
    assert_eq!(world.gateway.ledger().count("target.changed"), 0);

    // A restore from an archive, as far as that goes: the same system, on another timeline.
    let data = world.pg().socket().join("data");
    let postgres = world.postgres.as_mut().unwrap();
    postgres.stop();
    let conf = std::fs::read_to_string(data.join("postgresql.conf")).unwrap();
    std::fs::write(data.join("postgresql.conf"), conf + "\nrestore_command = 'false'\n").unwrap();
    std::fs::write(data.join("recovery.signal"), "").unwrap();
    let mut chown = Command::new("chown");
    chown.args(["-R", "postgres:postgres"]).arg(&data);
    run(chown, PATIENCE).ok();
    postgres.start();
    postgres.ready();
    sweep(&world);
    let changed = world.gateway.ledger().one("target.changed")["detail"].clone();
    assert_ne!(changed["before"], changed["now"], "{changed}");
    sweep(&world);
    assert_eq!(world.gateway.ledger().count("target.changed"), 1, "it is told once");

    // And a receipt says whose word it is.
    let before = world.pg().ask("postgres", "select system_identifier from pg_control_system()");
    let receipts = world.gateway.ledger().count("lease.closed");
    world.psql("alice", "select 1").ok();
    world.gateway.until_ledger("lease.closed", receipts + 1, PATIENCE);
    let ledger = world.gateway.ledger();
    let receipt = ledger.last("lease.closed").unwrap().to_string();
    assert!(receipt.contains(&before), "the receipt names the system: {receipt}");
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_role_with_our_mark_and_no_lease_is_told_and_removed_only_once_it_is_adopted() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.gateway.terminate();
    let (state, backup) = (world.gateway.state(), world.dir().join("state-backup"));
    copy(&state, &backup);
    world.gateway.start();
    let (psql, role) = session(&world, "alice");
    world.gateway.kill9();
    psql.finish(PATIENCE);
    // Somebody restores yesterday's state.
    std::fs::remove_dir_all(&state).unwrap();
    copy(&backup, &state);
    world.gateway.start();
    let ledger = world.gateway.until_ledger("orphan.found", 1, PATIENCE);
    assert!(ledger.one("orphan.found").to_string().contains(&role));
    assert_eq!(world.gateway.json(&["status"])["orphans"], serde_json::json!([format!("{role} on orders")]));
    let swept = world.gateway.cli(&["lease", "sweep", "--json"]).exited(1).out();
    let swept: Value = serde_json::from_str(&swept).unwrap();
    assert_eq!(swept[0]["orphans"][0]["name"], role.as_str());
    assert!(world.gateway.leases().is_empty());
    assert!(exists(&world, &role), "it is not removed on its own");
    assert_eq!(world.gateway.ledger().count("orphan.found"), 1, "it is told once");

    let adopt = |name: &str| world.gateway.cli(&["lease", "adopt", "--target", "orders", name, "--reason", "restored"]);
    adopt("tg_nobody_aaaaaaaa").exited(1).says("tidegate lease sweep");
    adopt("postgres").exited(1);
    assert_eq!(adopt(&role).ok().out().len(), 36);
    world.gateway.until_no_lease(PATIENCE);
    assert!(!exists(&world, &role));
    world.gateway.cli(&["lease", "sweep"]).ok();
    assert_eq!(world.gateway.json(&["status"])["orphans"], serde_json::json!([]));
    let ledger = world.gateway.ledger();
    assert!(ledger.one("lease.adopted").to_string().contains("restored"));
    world.gateway.verify_ledger().ok();
}

#[test]
fn roles_of_live_sessions_and_of_other_gateways_are_no_orphans() {
    let world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let other = "0193b2a4-0000-7000-8000-000000000001";
    by_hand(
        &world,
        &format!(
            "create role tg_theirs_aaaaaaaa login in role tidegate_sessions; \
             comment on role tg_theirs_aaaaaaaa is 'tidegate other lease {other} session {other}';"
        ),
    )
    .ok();
    let (psql, role) = session(&world, "alice");
    let swept = world.gateway.json(&["lease", "sweep"]);
    assert_eq!(swept[0]["orphans"], serde_json::json!([]), "{swept}");
    assert!(exists(&world, &role) && exists(&world, "tg_theirs_aaaaaaaa"));
    let adopt = ["lease", "adopt", "--target", "orders", "tg_theirs_aaaaaaaa", "--reason", "x"];
    world.gateway.cli(&adopt).exited(1);
    psql.finish(PATIENCE).ok();
    world.gateway.until_no_lease(secs(60));
}

#[test]
fn another_server_at_the_same_address_is_told_and_closes_no_lease_of_the_first() {
    let mut world = World::postgres_only();
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.psql("alice", "select 1").ok();
    world.gateway.until_no_lease(PATIENCE);
    let identifier = |world: &World| world.pg().ask("postgres", "select system_identifier from pg_control_system()");
    let (psql, role) = session(&world, "alice");
    let before = identifier(&world);
    let trust = world.gateway.cli(&["target", "trust", "orders", "--part", "sql"]).ok().out();
    world.postgres.as_mut().unwrap().replace();
    by_hand(&world, &trust).ok();
    let now = identifier(&world);
    assert_ne!(before, now);
    psql.finish(PATIENCE);

    let why = wait_until(PATIENCE, "the lease is on another server", || {
        let leases = world.gateway.leases();
        leases[0]["last_error"].as_str().filter(|why| why.contains("is another server now")).map(str::to_owned)
    });
    for part in [&before, &now, &role] {
        assert!(why.contains(part), "{part} is not in {why}");
    }
    world.gateway.cli(&["lease", "sweep", "--target", "orders"]).ok();
    let changed = world.gateway.ledger().last("target.changed").unwrap()["detail"].clone();
    assert!(changed["before"].to_string().contains(&before) && changed["now"].to_string().contains(&now), "{changed}");

    // Nothing is said of the role before a human has looked; the new server serves meanwhile.
    let made = world.psql("alice", "select session_user").ok().out();
    wait_until(PATIENCE, "the lease of the new server closes", || (world.gateway.leases().len() == 1).then_some(()));
    assert!(made.starts_with("tg_") && !exists(&world, &made));
    assert_eq!(world.gateway.ledger().count("lease.closed"), 2);
    let lease = world.gateway.leases()[0].clone();
    assert!(lease["last_error"].as_str().unwrap().contains(&role));

    // The first server never comes back: an admin says so, and the receipt says that nobody could look.
    let accepted = world.gateway.json(&["lease", "accept", &id(&lease), "--reason", "that server was scrapped"]);
    assert_eq!(accepted["state"], "closed");
    assert_eq!(accepted["receipt"]["clean"], false);
    let entry = world.gateway.ledger().one("lease.accepted").to_string();
    assert!(entry.contains("that server was scrapped") && entry.contains("is another server now"), "{entry}");
    assert!(world.gateway.leases().is_empty());
    world.gateway.verify_ledger().ok();
}
