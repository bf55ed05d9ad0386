//! Auditors watch sessions while they are live, and sessions that must be watched stand still while nobody does.

use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};
use tidegate_tests::{
    Running, World,
    config::PUBLIC_NAME,
    wait_until,
    world::{PATIENCE, Plan},
};

/// `carol` is an auditor, and so is whoever is root on the gateway's host.
fn plan() -> Plan {
    Plan::new()
        .change("[\"sales\"]", "[\"audit\"]")
        .change("[\"platform\"]\nunix_user", "[\"platform\", \"audit\"]\nunix_user")
}

fn required(plan: Plan, entitlement: &str) -> Plan {
    let name = format!("name = \"{entitlement}\"");
    plan.change(&name, &format!("{name}\nwatch = \"required\""))
}

fn opened(world: &World) -> String {
    let ledger = world.gateway.until_ledger("session.opened", 1, PATIENCE);
    ledger.one("session.opened")["session"].as_str().unwrap().to_owned()
}

/// The live session, as lists show it.
fn listed(world: &World) -> Value {
    world.gateway.list(&["session", "list"]).into_iter().find(|session| session["state"] == "live").unwrap()
}

fn watch(world: &World, session: &str) -> Running {
    Running::start(world.gateway.command(&["session", "watch", session]))
}

#[test]
fn auditors_see_a_shell_live_inert_and_from_what_it_showed_last_on() {
    let world = plan().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut shell = Running::start(world.ssh_command("alice", &["-tt"], "deploy@web-1", &[]));
    shell.send("echo sum-$((40 + 2))\n");
    shell.until_stdout("sum-42", PATIENCE);
    let session = opened(&world);

    let carol = world.ssh_start("carol", "carol", &["watch", &session[28..]]);
    carol.until_stdout("sum-42", PATIENCE);
    let local = watch(&world, &session);
    local.until_stdout("sum-42", PATIENCE);
    shell.send("printf '\\033]52;c;aGk=\\007\\033]0;title\\007'; echo after-$((50 + 5))\n");
    carol.until_stdout("after-55", PATIENCE);
    local.until_stdout("after-55", PATIENCE);
    assert!(!carol.stdout().contains("\u{1b}]") && !local.stdout().contains("\u{1b}]"), "inert: {:?}", local.stdout());
    let now = listed(&world);
    assert_eq!(now["watchers"], serde_json::json!(["carol", "operator"]), "{now}");
    assert!(now["idle_s"].is_u64() && now.get("frozen").is_none(), "{now}");
    assert!(now["last"].as_str().unwrap().contains("echo after-$((50 + 5))"), "the line that was entered: {now}");

    shell.send("exit\n");
    shell.finish(PATIENCE).ok();
    carol.end(PATIENCE).ok().shows("[the session is over]");
    local.end(PATIENCE).ok().shows("[the session is over]");
    let ledger = world.gateway.until_ledger("session.unwatched", 2, PATIENCE);
    let entry = &ledger.all("session.watched")[0];
    assert_eq!((&entry["identity"], &entry["session"]), (&"carol".into(), &session.as_str().into()));
    assert_eq!(entry["detail"]["of"], "alice");
    world.control("carol", &["watch", &session]).exited(1).says("is over");
    world.gateway.verify_ledger().ok();
}

#[test]
fn nobody_but_an_auditor_watches_and_none_watches_themselves() {
    let world = plan().only_ssh().change("[\"platform\", \"audit\"]", "[\"platform\"]").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let session_of_alice = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    session_of_alice.until_stdout("on", PATIENCE);
    let session = opened(&world);
    world.control("bob", &["watch", &session]).exited(1).says("no session has this id");
    world.control("alice", &["watch", &session]).exited(1).says("only auditors watch sessions");
    let admin = world.gateway.cli(&["session", "watch", &session]).exited(1);
    assert!(admin.err().contains("only auditors watch sessions"), "{}", admin.err());
    assert_eq!(listed(&world).get("last"), None, "nor is an admin told what was done");
    assert_eq!(world.gateway.ledger().count("session.watched"), 0);
    session_of_alice.finish(PATIENCE).ok();

    let mut world = plan().only_ssh().start();
    world.config.change("name = \"alice\"\ngroups = [\"sre\"", "name = \"alice\"\ngroups = [\"audit\", \"sre\"");
    world.restart_gateway();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let own = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    own.until_stdout("on", PATIENCE);
    world.control("alice", &["watch", &opened(&world)]).exited(1).says("nobody watches their own session");
    own.finish(PATIENCE).ok();
}

#[test]
fn a_watcher_who_is_no_auditor_any_more_sees_no_more() {
    let mut world = plan().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let session_of_alice = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    session_of_alice.until_stdout("on", PATIENCE);
    let carol = world.ssh_start("carol", "carol", &["watch", &opened(&world)]);
    carol.until_stdout("on", PATIENCE);
    world.config.change("name = \"carol\"\ngroups = [\"audit\"]", "name = \"carol\"\ngroups = [\"sales\"]");
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    carol.end(PATIENCE);
    world.gateway.until_ledger("session.unwatched", 1, PATIENCE);
    session_of_alice.finish(PATIENCE).ok();
}

#[test]
fn who_watches_slowly_holds_nobody_up_and_is_told_that_something_was_skipped() {
    let world = plan().only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let command = "echo on; head -c 6000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo the-end; cat";
    let mut session_of_alice = world.ssh_start("alice", "deploy@web-1", &["read go;", command]);
    let session = opened(&world);
    // Its reader takes nothing until the session has written it all.
    let mut watcher = world.gateway.command(&["session", "watch", &session]).stdout(Stdio::piped()).spawn().unwrap();
    world.gateway.until_ledger("session.watched", 1, PATIENCE);
    session_of_alice.send("go\n");
    session_of_alice.until_stdout("the-end", PATIENCE);
    let out = watcher.stdout.take().unwrap();
    let reading = std::thread::spawn(move || std::io::read_to_string(out).unwrap());
    session_of_alice.close_stdin();
    session_of_alice.finish(PATIENCE).ok();
    let seen = reading.join().unwrap();
    watcher.wait().unwrap();
    assert!(seen.contains("[skipped: more came than could be shown"), "{}", seen.len());
    assert!(seen.ends_with("\u{1b}[0m\r\n") && seen.contains("the-end"), "and it ends with what came last");
}

fn file(world: &World) -> std::path::PathBuf {
    world.sshd().home().join("written")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn a_shell_that_must_be_watched_starts_frozen_and_freezes_again_when_its_watcher_leaves() {
    let world = required(plan(), "shell").only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let mut session_of_alice = world.ssh_start("alice", "deploy@web-1", &["echo on; tee written"]);
    session_of_alice.until_stderr("nobody watches it now", PATIENCE);
    world.gateway.until_ledger("session.frozen", 1, PATIENCE);
    let session = opened(&world);
    assert_eq!(listed(&world)["frozen"], true);
    assert_eq!((session_of_alice.stdout(), file(&world).exists()), (String::new(), false), "not even begun");

    let carol = world.ssh_start("carol", "carol", &["watch", &session]);
    session_of_alice.until_stdout("on", PATIENCE);
    session_of_alice.send("seen\n");
    session_of_alice.until_stdout("seen", PATIENCE);
    carol.until_stdout("seen", PATIENCE);
    let written = || (text(&file(&world)) == "seen\n").then_some(());
    wait_until(PATIENCE, "it is written", written);
    drop(carol); // as if her machine was switched off
    session_of_alice.until_stderr("goes on by itself when an auditor does", PATIENCE);
    world.gateway.until_ledger("session.frozen", 2, PATIENCE);
    session_of_alice.send("unseen\n");
    assert_eq!(listed(&world)["frozen"], true);
    assert_eq!(text(&file(&world)), "seen\n", "it has not reached the target");
    let again = watch(&world, &session);
    session_of_alice.until_stdout("unseen", PATIENCE);
    again.until_stdout("unseen", PATIENCE);
    session_of_alice.close_stdin();
    session_of_alice.finish(PATIENCE).ok();
    again.end(PATIENCE).ok();
    assert_eq!(text(&file(&world)), "seen\nunseen\n");
    assert_eq!(world.gateway.ledger().count("session.resumed"), 2);
}

#[test]
fn sql_that_must_be_watched_waits_and_is_not_done_behind_the_back_of_who_has_left() {
    let world = required(plan(), "readwrite").only_postgres().start();
    world.pg().psql("shop", "create table t (v int); grant all on t to shop_writer").ok();
    world.gateway.grant("alice", "orders", "readwrite", "30m");
    let mut sql = world.psql_start("alice");
    sql.send("insert into t values (1) returning 'row-' || v;\n");
    sql.until_stderr("nobody watches it now", PATIENCE);
    world.gateway.until_ledger("session.frozen", 1, PATIENCE);
    let session = opened(&world);
    assert_eq!(world.pg().ask("shop", "select count(*) from t"), "0");
    let watching = watch(&world, &session);
    sql.until_stdout("row-1", PATIENCE);
    watching.until_stdout("insert into t values (1)", PATIENCE);
    assert_eq!(listed(&world)["last"], "insert into t values (1) returning 'row-' || v;");
    drop(watching);
    world.gateway.until_ledger("session.frozen", 2, PATIENCE);
    sql.send("insert into t values (2);\n");
    assert_eq!(listed(&world)["frozen"], true);
    drop(sql); // killed
    world.gateway.until_ledger("session.closed", 1, PATIENCE);
    world.gateway.until_no_lease(PATIENCE);
    assert_eq!(world.pg().ask("shop", "select array_agg(v) from t"), "{1}");
}

#[test]
fn over_https_an_auditors_token_watches_and_one_that_only_reads_does_not() {
    let (name, more) = (format!("[\"{PUBLIC_NAME}\"]"), format!("[\"{PUBLIC_NAME}\", \"127.0.0.1\"]"));
    let world = plan().only_ssh().change(&name, &more).block("[api]\nlisten = \"127.0.0.1:0\"\n").start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let session_of_alice = world.ssh_start("alice", "deploy@web-1", &["echo on; cat"]);
    session_of_alice.until_stdout("on", PATIENCE);
    let session = opened(&world);
    let token = |scope: &str| {
        let issued = ["token", "issue", "--user", "carol", "--for", "1h", "--scope", scope, "--label", "watching"];
        world.gateway.cli(&issued).ok().out()
    };
    let remote = |token: &str| -> Command {
        let url = format!("https://127.0.0.1:{}", world.gateway.api().port());
        let ca = world.client_file("ca.pem");
        let mut command =
            world.gateway.command(&["--gateway", &url, "--ca", ca.to_str().unwrap(), "session", "watch", &session]);
        command.env("TIDEGATE_TOKEN", token);
        command
    };
    let watching = Running::start(remote(&token("all")));
    watching.until_stdout("on", PATIENCE);
    let refused = tidegate_tests::running::run(remote(&token("read")), PATIENCE).exited(1);
    assert!(refused.err().contains("this token goes as far as read"), "{}", refused.err());
    let entry = world.gateway.until_ledger("session.watched", 1, PATIENCE);
    assert_eq!(entry.one("session.watched")["detail"]["source"], "127.0.0.1");
    // With the token the watching ends, too.
    let revoked = world.gateway.list(&["token", "list"]).into_iter().find(|it| it["scope"] == "all").unwrap();
    world.gateway.cli(&["token", "revoke", revoked["id"].as_str().unwrap(), "--reason", "lost"]).ok();
    watching.end(PATIENCE);
    let over = || (world.gateway.ledger().count("session.unwatched") == 1).then_some(());
    wait_until(PATIENCE, "nobody watches any more", over);
    assert!(world.gateway.log().contains("their token is revoked, or has ended"));
    let again = Running::start(remote(&token("all")));
    again.until_stdout("on", PATIENCE);
    session_of_alice.finish(PATIENCE).ok();
    again.end(PATIENCE).ok();
}

#[test]
fn who_does_not_read_does_not_watch() {
    let world = required(plan(), "shell").only_ssh().start();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    let command = "head -c 6000000 /dev/zero | tr '\\0' 'x' | fold -w 99; cat";
    let session_of_alice = world.ssh_start("alice", "deploy@web-1", &[command]);
    let session = opened(&world);
    // A paused terminal: nobody reads this pipe.
    let mut watcher = world.gateway.command(&["session", "watch", &session]).stdout(Stdio::piped()).spawn().unwrap();
    world.gateway.until_ledger("session.resumed", 1, PATIENCE);
    world.gateway.until_ledger("session.unwatched", 1, PATIENCE);
    world.gateway.until_ledger("session.frozen", 2, PATIENCE);
    assert_eq!(listed(&world)["frozen"], true);
    let seen = std::io::read_to_string(watcher.stdout.take().unwrap()).unwrap();
    watcher.wait().unwrap();
    assert!(seen.contains("xxx"), "it ends for them too");
    assert_eq!(world.gateway.ledger().count("session.unwatched"), 1, "once");
    drop(session_of_alice);
}
