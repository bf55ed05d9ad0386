//! Hours, limits of sessions, the end that is told before it comes, and what `policy` says of them.

use crate::{asking::plan, terminal::expect};
use std::{fs, process::Command};
use tidegate_tests::{
    World,
    running::run,
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
    // Where a key of the entitlement begins, as `:LINE:1`.
    let line = |key: &str| {
        let text = world.config.text();
        let before = text[..text.find("name = \"shell\"").unwrap()].matches('\n').count();
        let shell = text.lines().skip(before).position(|line| line.starts_with(key)).unwrap();
        format!("tidegate.toml:{}:1", before + shell + 1)
    };
    let said = explain("alice", "web-1");
    assert!(
        said.contains("level 1: 1 of sales (carol), attested")
            && said.contains("\nask, by entitlement[shell].approvals at ")
            && said.ends_with(&line("approvals = [")),
        "{said}"
    );
    let refused = explain("carol", "web-1");
    assert!(refused.contains("\ndeny, by entitlement[shell].groups at "), "{refused}");
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

#[test]
fn what_opens_under_a_condition_opens_where_it_holds_and_ends_when_it_no_longer_does() {
    let (logins, roles) = ("logins = [\"deploy\"]", "roles = [\"shop_reader\"]");
    let from = |range: &str| format!("when = 'context.ip.isInRange(ip(\"{range}\"))'");
    let local = from("127.0.0.0/8");
    let mut world =
        Plan::new().change(logins, &format!("{logins}\n{local}")).change(roles, &format!("{roles}\n{local}")).start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    world.gateway.grant("alice", "orders", "readonly", "30m");
    let ssh = world.ssh_start("alice", "deploy@web-1", &["echo on; sleep 600"]);
    let mut psql = world.psql_start("alice");
    psql.send("select 'on';\n");
    for running in [&ssh, &psql] {
        running.until_stdout("on", PATIENCE);
    }
    psql.send("select pg_sleep(600);\n");
    world.config.change(&local, &from("10.0.0.0/8"));
    let planned = world.config.write(world.dir());
    let planned = world.gateway.cli(&["config", "diff", planned.to_str().unwrap()]).ok().out();
    assert!(planned.contains("2 live session(s) would end"), "{planned}");
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    for running in [&ssh, &psql] {
        running.until_stderr("the condition under which this may be used no longer holds", PATIENCE);
    }
    world.exec("alice", "true").exited(1).says("is open to you only when context.ip.isInRange(ip(\"10.0.0.0/8\"))");
    assert!(world.psql("alice", "select 1").err().contains("only when"));
    let ledger = world.gateway.ledger();
    let denied = ledger.all("session.denied");
    assert!(denied.len() >= 2 && denied.iter().all(|entry| entry["detail"]["check"] == "when"), "{denied:?}");
    world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn a_condition_knows_by_which_key_somebody_came_and_policy_says_what_it_would_say() {
    let mut world = with("when = 'context.device has key && context.device.key == \"SHA256:KEY\"'").start();
    let key = |person: &str| {
        let file = world.client_file(&format!("{person}.pub"));
        let mut command = Command::new("ssh-keygen");
        command.arg("-lf").arg(file);
        let listed = run(command, PATIENCE).ok().out();
        listed.split_whitespace().nth(1).unwrap().to_owned()
    };
    let (alices, bobs) = (key("alice"), key("bob"));
    world.config.change("SHA256:KEY", &alices);
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    for who in ["alice", "bob"] {
        world.gateway.grant(who, "web-1", "shell", "30m");
    }
    world.exec("alice", "true").ok();
    world.exec("bob", "true").exited(1).says("is open to you only when");
    let explain = |key: &[&str]| {
        let command = ["policy", "explain", "--user", "alice", "--target", "web-1", "--entitlement", "shell"];
        world.gateway.cli(&[&command, key].concat()).ok().out()
    };
    assert!(explain(&["--key", &alices]).contains("holds\n"));
    assert!(explain(&["--key", &bobs]).contains("deny, by entitlement[shell].when at "));
    assert!(explain(&[]).contains("cannot be told"));
    let table = world.dir().join("cases.toml");
    let case = |key: &str, expect: &str| {
        format!(
            "[[case]]\nuser = \"alice\"\ntarget = \"web-1\"\nentitlement = \"shell\"\nfrom = \"10.0.0.1\"\nkey = \"{key}\"\n\
             expect = \"{expect}\"\n"
        )
    };
    fs::write(&table, case(&alices, "ask") + &case(&bobs, "deny")).unwrap();
    let tested = world.gateway.cli(&["policy", "test", table.to_str().unwrap()]);
    assert_eq!(tested.ok().out(), "2 case(s), 0 otherwise than expected");
    fs::write(&table, case(&alices, "ask").replace("from", "form")).unwrap();
    world.gateway.cli(&["policy", "test", table.to_str().unwrap()]).exited(1).says("a case has no key form");
}

#[test]
fn the_time_of_a_grant_can_start_with_its_first_session() {
    let mut world = with("approvals = []\nclock = \"first-use\"").start();
    world.gateway.terminate();
    world.gateway.own_clock();
    world.gateway.start();
    world.control("alice", &["request web-1/shell --for 20s --reason later"]).ok();
    let grant = world.gateway.list(&["grant", "list"]).remove(0);
    let shown = world.gateway.cli(&["grant", "show", grant["id"].as_str().unwrap()]).ok().out();
    assert!(shown.contains("20s from its first session"), "{shown}");
    world.gateway.shift_clock(25); // past what it would have been from its approval, and a target still takes our certificates
    world.exec("alice", "true").ok();
    world.gateway.shift_clock(60);
    world.exec("alice", "true").exited(77).says("expired");
    assert_eq!(world.gateway.ledger().count("grant.started"), 1);
    world.gateway.verify_ledger().ok();
}
