//! Hours, limits of sessions, the end that is told before it comes, and what `policy` says of them.

use crate::{asking::plan, terminal::expect};
use std::fs;
use tidegate_tests::{
    World,
    world::{PATIENCE, Plan},
};

/// The name of a day, so many from today.
fn day(ahead: i64) -> String {
    let day = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(24 * ahead)).unwrap();
    day.strftime("%a").to_string().to_lowercase()
}

fn with(keys: &str) -> Plan {
    let logins = "logins = [\"deploy\"]";
    Plan::new().only_ssh().change(logins, &format!("{logins}\n{keys}"))
}

fn hours(days: &str) -> String {
    format!("hours = {{ days = \"{days}\", from = \"00:00\", to = \"24:00\", tz = \"UTC\" }}")
}

#[test]
fn outside_its_hours_nothing_opens_and_the_person_is_told_when_it_does() {
    // Not today, and not tomorrow either: midnight may pass meanwhile.
    let mut world = with(&hours(&day(3))).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let refused = world.exec("alice", "true").exited(1);
    assert!(refused.err().contains("only, next from 20") && refused.err().contains("T00:00:00Z"), "{}", refused.err());
    assert_eq!(world.gateway.ledger().all("session.denied")[0]["detail"]["check"], "hours");
    world.config.change(&hours(&day(3)), &hours("mon-sun"));
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    world.exec("alice", "true").ok();
}

#[test]
fn no_more_sessions_of_one_person_open_than_the_entitlement_has() {
    let world = with("max_sessions = 1").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("bob", "web-1", "shell", "30m");
    let first = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    first.until_stdout("on", PATIENCE);
    world.exec("alice", "true").exited(1).says("1 of your sessions under shell are open already");
    world.exec("bob", "true").ok();
    first.finish(PATIENCE).ok();
    world.gateway.until_no_lease(PATIENCE);
    world.exec("alice", "true").ok();
}

#[test]
fn the_end_is_told_a_minute_before_it_comes() {
    let world = Plan::new().start();
    world.gateway.grant("alice", "web-1", "shell", "85s");
    world.gateway.grant("alice", "orders", "readonly", "85s");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    let mut psql = world.psql_start("alice");
    // psql reads what it is told while it waits for an answer.
    psql.send("select 'on';\nselect pg_sleep(40);\nselect 'still here';\n");
    let title = "eval spawn -noecho $ssh\nexpect {$ }\nexpect \"\\033]0;tidegate: this session ends in 1m\\007\"\nputs stderr TITLE\n";
    let terminal = expect(&world, title);
    for running in [&ssh, &psql] {
        running.until_stdout("on", PATIENCE);
        running.until_stderr("this session ends in 1m", PATIENCE);
    }
    terminal.until_stderr("TITLE", PATIENCE);
    psql.until_stdout("still here", PATIENCE);
}

#[test]
fn policy_says_what_the_configuration_says_and_by_which_key() {
    let world: World = plan("[{ from = [\"sales\"] }]").start();
    let explain = |user: &str, target: &str| {
        let command = ["policy", "explain", "--user", user, "--target", target, "--entitlement", "shell"];
        world.gateway.cli(&command).ok().out()
    };
    let said = explain("alice", "web-1");
    assert!(
        said.contains("level 1: 1 of sales (carol), attested")
            && said.ends_with("ask, by entitlement[shell].approvals"),
        "{said}"
    );
    assert!(explain("carol", "web-1").ends_with("deny, by entitlement[shell].groups"));
    assert!(explain("alice", "web-9").ends_with("deny, by target[web-9]"));
    let table = world.dir().join("cases.toml");
    let case = |expect: &str| {
        format!("[[case]]\nuser = \"alice\"\ntarget = \"web-1\"\nentitlement = \"shell\"\nexpect = \"{expect}\"\n")
    };
    let test = |text: String| {
        fs::write(&table, text).unwrap();
        world.gateway.cli(&["policy", "test", table.to_str().unwrap()])
    };
    assert_eq!(test(case("ask")).ok().out(), "1 case(s), 0 otherwise than expected");
    let wrong = test(case("ask") + &case("allow")).exited(1).out();
    assert!(wrong.contains("expected allow") && wrong.ends_with("2 case(s), 1 otherwise than expected"), "{wrong}");
    test(String::new()).exited(1).says("has no [[case]]");
    test(case("maybe")).exited(1).says("cases.toml");
}
