//! The drill: a backup of a live gateway, a lost state directory, and what may and may not open afterwards.

use std::fs;
use tidegate_tests::{World, world::PATIENCE};

/// Everything is gone, and comes back from the backup.
fn lose_and_restore(world: &mut World, backup: &str) {
    world.gateway.kill9();
    fs::remove_dir_all(world.gateway.state()).expect("the state directory goes");
    let (state, identity) =
        (world.gateway.state().display().to_string(), world.gateway.identity().display().to_string());
    let restored = world.gateway.cli(&["restore", backup, "--into", &state, "--identity", &identity]).ok().out();
    assert!(restored.contains("all grants are revoked"), "{restored}");
    world.gateway.start();
}

#[test]
fn the_drill_a_restored_state_opens_nothing_old_finishes_old_leases_and_goes_on() {
    let mut world = World::start();
    let backup = world.dir().join("drill.tar").display().to_string();
    let active = world.gateway.grant("alice", "web-1", "shell", "1h");
    let revoked_later = world.gateway.grant("bob", "web-1", "shell", "1h");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    world.exec("alice", "true").ok();
    let password = world.password("alice", "orders");
    let mut live = world.psql_start("alice");
    live.send("select 'on';\n");
    live.until_stdout("on", PATIENCE);

    let made = world.gateway.cli(&["backup", &backup, "--with-keys", "--with-recordings"]).ok().out();
    assert!(made.contains("ledger entries as of") && made.contains("for the auditors' keys alone"), "{made}");
    world.gateway.cli(&["backup", &backup]).exited(1).says("exists already");
    world.gateway.revoke(&revoked_later);
    world.exec("bob", "true").exited(77);
    assert!(!world.pg().ephemeral_roles().is_empty());

    lose_and_restore(&mut world, &backup);
    drop(live);
    world.exec("alice", "true").exited(77).says("was revoked");
    world.exec("bob", "true").exited(77).says("was revoked");
    let conninfo = world.conninfo("alice", "orders/shop");
    let old = tidegate_tests::running::run(world.psql_command(&conninfo, &password, &["-c", "select 1"]), PATIENCE);
    assert_eq!(old.code, Some(2), "{old:?}");
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
    world.gateway.verify_ledger().ok();
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.one("store.restored")["detail"]["grants"], 3);
    assert!(ledger.all("grant.revoked").iter().any(|entry| entry["grant"] == active.as_str()));
    world.gateway.cli(&["recording", "verify", "--all"]);
    assert!(world.gateway.recordings().iter().any(|recording| recording["state"] == "complete"));

    // It goes on, with the same keys: targets and clients need nothing new. A restart restores nothing again.
    world.gateway.grant("alice", "web-1", "shell", "1h");
    world.exec("alice", "true").ok();
    world.gateway.terminate();
    world.gateway.start();
    world.exec("alice", "true").ok();
}

#[test]
fn a_single_use_grant_that_was_used_after_the_backup_opens_nothing_again() {
    let mut world = World::ssh_only();
    let backup = world.dir().join("before.tar").display().to_string();
    let issue = ["grant", "issue", "--user", "alice", "--target", "web-1", "--entitlement", "shell", "--for", "1h"];
    let once: Vec<&str> = issue.into_iter().chain(["--reason", "once", "--single-use"]).collect();
    world.gateway.cli(&once).ok();
    world.gateway.cli(&["backup", &backup, "--with-keys"]).ok();
    world.exec("alice", "true").ok();
    lose_and_restore(&mut world, &backup);
    world.exec("alice", "true").exited(77);
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_backup_is_for_its_owner_alone_its_keys_for_the_auditors_and_a_changed_one_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "1h");
    let file = world.dir().join("b.tar");
    let (backup, into) = (file.display().to_string(), world.dir().join("into").display().to_string());
    world.gateway.cli(&["backup", &backup, "--with-keys"]).ok();
    assert_eq!(fs::metadata(&file).expect("the backup").permissions().mode() & 0o777, 0o600);
    let bytes = fs::read(&file).expect("the backup");
    let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("age-encryption.org/v1") && !has("PRIVATE KEY"));
    let told = world.gateway.cli(&["restore", &backup, "--into", &into]).ok().out();
    assert!(told.contains("its keys were left out"), "{told}");
    assert!(!world.dir().join("into/keys").exists());
    world.gateway.cli(&["restore", &backup, "--into", &into]).exited(1).says("is not empty");
    fs::write(world.dir().join("no.tar"), "nothing of the kind").expect("a file");
    let no = world.dir().join("no.tar").display().to_string();
    let other = world.dir().join("other").display().to_string();
    world.gateway.cli(&["restore", &no, "--into", &other]).exited(1);
    assert!(!world.dir().join("other").exists());

    // A store that does not agree with its ledger is not worth a backup.
    let db = rusqlite::Connection::open(world.gateway.state().join("tidegate.db")).expect("the store");
    db.busy_timeout(PATIENCE).expect("patience");
    db.execute("UPDATE grants SET identity = 'bob'", []).expect("tampering");
    let next = world.dir().join("c.tar").display().to_string();
    world.gateway.cli(&["backup", &next]).exited(1).says("does not agree with its ledger");
    assert!(!world.dir().join("c.tar").exists());
}
