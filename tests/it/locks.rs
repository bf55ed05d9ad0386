//! Locks: what is live ends, what is new is refused, until somebody removes the lock.

use rusqlite::Connection;
use serde_json::Value;
use tidegate_tests::{
    World,
    evidence::{TWO_SECONDS_AND_SLACK, assert_within},
    running::run,
    secs,
    world::PATIENCE,
};

fn lock(world: &World, args: &[&str]) -> String {
    world.gateway.cli(&[&["lock", "add"], args].concat()).ok().out()
}

fn state(world: &World, id: &str) -> Value {
    let locks = world.gateway.list(&["lock", "list"]);
    locks.iter().find(|lock| lock["id"] == id).unwrap_or_else(|| panic!("no lock {id} in {locks:?}"))["state"].clone()
}

#[test]
fn a_lock_on_a_person_cuts_their_running_command_and_keeps_them_out_until_it_is_removed() {
    let mut world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("bob", "web-1", "shell", "30m");
    let session = world.ssh_start("alice", "deploy@web-1", &["echo in; while :; do sleep 1; done"]);
    session.until_stdout("in", PATIENCE);
    let mut other = world.ssh_start("bob", "deploy@web-1", &["echo in; cat; echo out"]);
    other.until_stdout("in", PATIENCE);
    let id = lock(&world, &["--user", "alice", "--reason", "laptop stolen"]);
    session.end(PATIENCE).exited(1).says("you are locked by operator: laptop stolen").says("ref ");
    let ledger = world.gateway.until_ledger("lease.disabled", 1, secs(60));
    ledger.assert_order(&["session.opened", "lock.added", "session.cut", "lease.disabled"]);
    assert_within(ledger.one("lock.added"), ledger.one("lease.disabled"), TWO_SECONDS_AND_SLACK);
    assert_eq!(ledger.one("session.cut")["detail"]["check"], "locked");
    // Her grant is good all the same; and she may look at nothing.
    world.exec("alice", "true").exited(1).says("you are locked by operator: laptop stolen");
    for verb in ["targets", "sessions", "whoami", "help"] {
        let refused = world.control("alice", &[verb]).exited(1).says("laptop stolen").says("ref ");
        assert!(refused.out().is_empty(), "{verb}: {}", refused.out());
    }
    world.gateway.kill9();
    drop(other.take_stdin());
    drop(other.finish(PATIENCE));
    world.gateway.start();
    world.exec("alice", "true").exited(1).says("laptop stolen");
    world.exec("bob", "echo mine").ok();
    assert_eq!(state(&world, &id), "active");
    let refused = world.exec("alice", "true").err();
    let reference: String = refused.split("ref ").nth(1).unwrap().chars().take(9).collect();
    assert_eq!(world.gateway.json(&["why", &reference])["refusals"][0]["check"], "locked");
    assert_eq!(world.gateway.cli(&["lock", "remove", &id[28..], "--reason", "found"]).ok().out(), id);
    assert_eq!(state(&world, &id), "removed");
    world.exec("alice", "echo back").ok();
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_lock_on_a_target_cuts_a_running_statement_and_refuses_passwords_and_sessions_there() {
    let world = World::start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut psql = world.psql_start("alice");
    psql.send("select 'in';\n");
    psql.until_stdout("in", PATIENCE);
    let password = world.password("alice", "orders"); // what psql came in with is replaced by it
    psql.send("select pg_sleep(600);\n");
    let id = lock(&world, &["--target", "orders", "--reason", "restoring a backup"]);
    psql.finish(PATIENCE).exited(2).says("57P01").says("orders is locked by operator: restoring a backup");
    let conninfo = world.conninfo("alice", "orders/shop");
    let connect = || run(world.psql_command(&conninfo, &password, &["-Atc", "select 'open'"]), PATIENCE);
    connect().exited(2).says("orders is locked by operator").says("DETAIL:");
    world.control("alice", &["password", "orders"]).exited(1).says("orders is locked by operator");
    world.gateway.cli(&["target", "test", "orders"]).exited(1).says("orders is locked");
    // Whoever may not see the target is told nothing of its lock.
    let stranger = world.control("carol", &["password", "orders"]);
    assert!(!stranger.err().contains("locked"), "{}", stranger.err());
    world.exec("alice", "echo elsewhere").ok();
    world.gateway.cli(&["lock", "remove", &id]).ok();
    assert_eq!(connect().ok().out(), "open");
    world.gateway.until_no_lease(secs(90));
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_lock_on_everything_is_shown_and_leaves_the_admin_the_socket() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "40m");
    let session = world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
    session.until_stdout("in", PATIENCE);
    let id = lock(&world, &["--all", "--reason", "incident 7", "--for", "20m"]);
    session
        .end(PATIENCE)
        .exited(1)
        .says("everything behind this gateway is locked by operator until")
        .says("incident 7");
    world.exec("alice", "true").exited(1).says("incident 7");
    world.control("alice", &["grants"]).ok();
    assert_eq!(world.gateway.json(&["status"])["locks"], 1);
    assert!(world.gateway.cli(&["status"]).ok().out().contains("tidegate lock list"));
    let doctor = world.gateway.cli(&["doctor"]).out();
    assert!(doctor.contains("1 lock(s) keep people out"), "{doctor}");
    world.gateway.cli(&["lock", "remove", &id]).ok();
    world.exec("alice", "echo again").ok();
    assert_eq!(world.gateway.json(&["status"])["locks"], 0);
}

#[test]
fn nobody_locks_themselves_or_sets_a_lock_without_being_an_admin() {
    let world = World::ssh_only();
    let refused = world.gateway.cli(&["lock", "add", "--user", "operator", "--reason", "oops"]).exited(1);
    assert!(refused.err().contains("nobody locks themselves out"), "{}", refused.err());
    world.gateway.cli(&["lock", "add", "--user", "alice", "--reason", " \u{7} "]).exited(1).says("say why");
    let past = ["lock", "add", "--all", "--reason", "r", "--until", "2020-01-01T00:00:00Z"];
    world.gateway.cli(&past).exited(1).says("would be over already");
    let unknown = world.gateway.cli(&["lock", "add", "--user", "alcie", "--reason", "typo"]).ok();
    assert!(unknown.err().contains("names nothing of this name"), "{}", unknown.err());
    world.gateway.cli(&["lock", "remove", "ffffffff"]).exited(1).says("no lock has this id");
    assert_eq!(world.gateway.ledger().count("lock.added"), 1);
}

#[test]
fn a_lock_that_somebody_lifts_in_the_store_opens_nothing_and_is_found() {
    for edit in
        ["delete from locks", "update locks set name = 'bob'", "update locks set until = '2020-01-01T00:00:00Z'"]
    {
        let world = World::ssh_only();
        world.gateway.grant("alice", "web-1", "shell", "30m");
        let id = lock(&world, &["--user", "alice", "--reason", "leaving"]);
        let store = Connection::open(world.gateway.state().join("tidegate.db")).unwrap();
        store.busy_timeout(secs(20)).unwrap();
        assert_eq!(store.execute(edit, []).unwrap(), 1);
        world.exec("alice", "echo never").exited(1).says("ledger verify");
        let found = world.gateway.verify_ledger().exited(1);
        assert!((found.out() + &found.err()).contains(&format!("locks {id}")), "{edit}: {}", found.err());
    }
}
