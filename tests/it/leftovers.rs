//! What a session leaves running on a shared SSH login is named, not passed over.

use tidegate_tests::{World, secs};

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
