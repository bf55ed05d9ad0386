//! What a session leaves behind is named or kept aside, not passed over: processes on a shared SSH login; what goes on by itself in
//! a database.

use tidegate_tests::{
    World,
    postgres::version,
    secs,
    world::{PATIENCE, Plan},
};

#[test]
fn a_process_left_behind_is_named_in_the_receipt() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "nohup setsid sleep 4321 > /dev/null 2>&1 < /dev/null & echo started").ok();
    assert!(world.sshd().processes().iter().any(|p| p.contains("sleep 4321")));
    world.gateway.until_ledger("session.closed", 1, secs(90));
    let ledger = world.gateway.ledger();
    let receipts: String = ledger.entries.iter().filter(|e| e["lease"].is_string()).map(ToString::to_string).collect();
    assert!(receipts.contains("sleep 4321"), "the receipt names what is left:\n{}", ledger.story());
}

#[test]
fn a_clean_session_on_a_shared_login_still_says_what_cannot_be_known() {
    let world = World::ssh_only();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.exec("alice", "true").ok();
    world.gateway.until_no_lease(secs(90));
    let ledger = world.gateway.ledger();
    let receipt = ledger.one("lease.closed")["detail"].to_string();
    assert!(receipt.contains("unverifiable"), "{receipt}");
    assert!(!receipt.contains("\"unverifiable\":[]"), "a shared login always has something: {receipt}");
}

#[test]
fn a_subscription_that_a_session_made_is_switched_off_and_kept_aside() {
    if version() < 16 {
        return eprintln!(
            "SKIPPED: before PostgreSQL 16 only a superuser can make one; ./tests/run tries newer ones too"
        );
    }
    let world = Plan::new()
        .only_postgres()
        .postgres_sql(
            "grant pg_create_subscription, pg_monitor to shop_writer; grant create on database shop to shop_writer;",
        )
        .start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let made = "create subscription away connection 'host=127.0.0.1 port=1 user=x password=x dbname=x' publication p \
                with (connect = false, slot_name = none)";
    world.psql("alice", made).ok();
    world.gateway.until_no_lease(PATIENCE);
    let left = "select subname, subenabled, subowner::regrole::text like 'tgq\\_%' from pg_subscription";
    assert_eq!(world.pg().ask("shop", left), "away|f|t");
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}

#[test]
fn a_publication_that_a_session_made_is_kept_aside() {
    let world = Plan::new().only_postgres().postgres_sql("grant create on database shop to shop_writer;").start();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    world.psql("alice", "create table own (id int primary key); create publication news for table own").ok();
    world.gateway.until_no_lease(PATIENCE);
    let left = "select pubname, pubowner::regrole::text like 'tgq\\_%' from pg_publication";
    assert_eq!(world.pg().ask("shop", left), "news|t");
    assert_eq!(world.pg().ephemeral_roles(), Vec::<String>::new());
}
