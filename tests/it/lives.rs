//! The life of a grant: extended while its sessions go on, handed back, taken back; and held by one at a time.

use crate::asking::id;
use tidegate_tests::{
    Running, World,
    world::{PATIENCE, Plan},
};

pub(crate) fn plan(keys: &str) -> Plan {
    let logins = "logins = [\"deploy\"]";
    Plan::new().only_ssh().change(logins, &format!("{logins}\n{keys}"))
}

/// Asked for by her, approved by carol; the grant's id.
pub(crate) fn granted(world: &World, what: &str) -> String {
    let asked = id(world.control("alice", &[&format!("request {what} --reason fix it")]));
    world.control("carol", &[&format!("approve {asked}")]).ok();
    world.gateway.json(&["request", "show", &asked])["grant"].as_str().unwrap().to_owned()
}

/// By the same person as the grant, over a connection of its own.
pub(crate) fn extend(world: &World, grant: &str) {
    let asked = id(world.control("alice", &[&format!("extend {} --for 10m", &grant[28..])]));
    let shown = world.gateway.json(&["request", "show", &asked]);
    assert_eq!((shown["extends"].as_str(), shown["reason"].as_str()), (Some(grant), Some("fix it")));
    world.control("alice", &[&format!("approve {asked}")]).exited(1).says("nobody approves their own request");
    world.control("carol", &[&format!("approve {asked}")]).ok();
    world.control("alice", &[&format!("extend {grant}")]).exited(1).says("it was extended already");
}

#[test]
fn what_is_extended_goes_on_past_its_first_end_in_ssh_and_psql_and_is_told_so() {
    let keys = "approvals = [{ from = [\"sales\"] }]\nextend = \"once\"";
    let (logins, roles) = ("logins = [\"deploy\"]", "roles = [\"shop_reader\"]");
    let world =
        Plan::new().change(logins, &format!("{logins}\n{keys}")).change(roles, &format!("{roles}\n{keys}")).start();
    let grants = [granted(&world, "web-1/shell --for 70s"), granted(&world, "orders/readonly --for 70s")];
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 80; echo still here"]);
    let mut psql = world.psql_start("alice");
    psql.send("select 'on';\nselect pg_sleep(80);\nselect 'still here';\n");
    for running in [&ssh, &psql] {
        running.until_stdout("on", PATIENCE);
    }
    grants.iter().for_each(|grant| extend(&world, grant));
    for running in [&ssh, &psql] {
        running.until_stderr("was extended and goes on until", PATIENCE);
        running.until_stdout("still here", PATIENCE * 3);
    }
    ssh.finish(PATIENCE).ok();
    psql.close_stdin();
    psql.finish(PATIENCE).ok();
    let ledger = world.gateway.ledger();
    assert_eq!((ledger.count("session.extended"), ledger.count("session.cut")), (2, 0));
    world.gateway.until_no_lease(PATIENCE);
    world.gateway.verify_ledger().ok();
}

#[test]
fn who_hands_a_grant_back_ends_its_sessions_and_an_approver_can_take_it_back() {
    let world = plan("approvals = [{ from = [\"sales\"] }]\nextend = \"once\"").start();
    for forced in [false, true] {
        let grant = granted(&world, "web-1 --for 10m");
        extend(&world, &grant);
        let session = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
        session.until_stdout("on", PATIENCE);
        let give = |who: &str, more: &str| world.control(who, &[&format!("return {}{more}", &grant[28..])]);
        give("bob", " --force --reason mine").exited(1).says("no grant has this id");
        give("carol", "").exited(1).says("it is alice's");
        give("carol", " --force").exited(1).says("say why");
        if forced {
            give("carol", " --force --reason an incident").ok();
            session.end(PATIENCE).exited(1).says("revoked by carol: an incident");
        } else {
            give("alice", "").ok();
            session.end(PATIENCE).exited(1).says("you handed your grant back");
        }
        give("alice", "").exited(1).says("over already");
        world.exec("alice", "true").exited(77);
    }
    assert_eq!(world.gateway.ledger().count("grant.returned"), 4, "each with its extension");
    world.gateway.verify_ledger().ok();
}

/// `ssh` without a terminal that says why by a variable, and waits.
fn waiting(world: &World, who: &str) -> Running {
    let set = ["-o", "SetEnv=TIDEGATE_REASON=\"my turn\" TIDEGATE_FOR=10m"];
    Running::start(world.ssh_command(who, &set, "deploy@web-1", &["echo on; cat"]))
}

#[test]
fn what_one_holds_at_a_time_passes_on_when_it_is_handed_back_taken_back_or_over() {
    let world = plan("approvals = []\nexclusive = true")
        .change("groups = [\"sales\"]", "groups = [\"sales\", \"sre\"]")
        .start();
    let alice = waiting(&world, "alice");
    alice.until_stdout("on", PATIENCE);
    let bob = waiting(&world, "bob");
    bob.until_stderr("held by alice until 20", PATIENCE);
    bob.until_stderr("it is next", PATIENCE);
    let carol = waiting(&world, "carol");
    carol.until_stderr("1 before it", PATIENCE);
    let listed = world.gateway.cli(&["request", "list"]).ok().out();
    assert!(listed.contains("approved, held by alice until") && listed.contains("1 before it"), "{listed}");
    world
        .gateway
        .cli(&[
            "grant",
            "issue",
            "--user",
            "bob",
            "--target",
            "web-1",
            "--entitlement",
            "shell",
            "--for",
            "5m",
            "--reason",
            "x",
        ])
        .exited(1)
        .says("shell on web-1 is held by alice until");
    let grant = |who: &str| {
        let all = world.gateway.list(&["grant", "list"]);
        all.iter().find(|grant| grant["sub"] == who && grant["state"] == "active").unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    world.control("alice", &[&format!("return {}", grant("alice"))]).ok();
    alice.end(PATIENCE).exited(1).says("you handed your grant back");
    bob.until_stdout("on", PATIENCE);
    carol.until_stderr("held by bob until 20", PATIENCE);
    world.gateway.cli(&["grant", "return", &grant("bob"), "--force", "--reason", "an incident"]).ok();
    bob.end(PATIENCE).exited(1).says("revoked by operator: an incident");
    carol.until_stdout("on", PATIENCE);
    // Never two at once, by the ledger: each session opened after the one before had ended.
    world.gateway.ledger().assert_order(&["session.opened", "grant.returned", "session.cut", "session.opened"]);
    drop(carol);
    world.gateway.verify_ledger().ok();
}
