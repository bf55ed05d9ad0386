//! People who log in at an OpenID provider from within `ssh`.

use super::Outside;
use crate::asking;
use serde_json::json;
use std::process::Command;
use tidegate_tests::{
    Running, World, wait_until,
    world::{PATIENCE, Plan},
};

/// Groups `Ops` and `Admins` there are `sre` and `platform` here.
fn plan(outside: &Outside) -> Plan {
    let provider = format!(
        "[oidc]\nissuer = \"http://127.0.0.1:{}\"\nclient_id = \"tidegate\"\nclient_secret_file = \"client.secret\"\n\
         groups = {{ Ops = \"sre\", Admins = \"platform\", Sales = \"sales\" }}\nlife = \"1d\"\n",
        outside.provider
    );
    asking::plan("[]").block(provider).file("client.secret", "the secret of the client tidegate\n")
}

/// Somebody at the provider.
fn person(outside: &Outside, login: &str, name: &str, groups: &[&str]) {
    outside.provider("/test/person", &json!({ "login": login, "preferred_username": name, "groups": groups }));
}

/// `ssh` as somebody whom the gate does not know: with mallory's key, which is in no configuration.
fn ssh(world: &World, door: &str, args: &[&str]) -> Command {
    world.ssh_command("mallory", &["-o", "BatchMode=no"], door, args)
}

/// What `ssh` shows to somebody whom the gate does not know: the address, and the code.
fn invitation(ssh: &Running) -> (String, String) {
    wait_until(PATIENCE, "ssh shows where to log in", || {
        let shown = ssh.stderr();
        let lines: Vec<&str> = shown.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let at = lines.iter().position(|line| line.starts_with("http"))?;
        Some((lines[at].to_owned(), (*lines.get(at + 2)?).to_owned()))
    })
}

/// They go there, and log in as this.
fn log_in(outside: &Outside, ssh: &Running, login: &str) {
    let (at, code) = invitation(ssh);
    let seen = outside.provider("/test/visit", &json!({ "at": at, "login": login, "code": code }));
    assert!(seen["page"].as_str().unwrap_or_default().contains("Sign-in Success"), "{seen}");
}

#[test]
fn somebody_whom_no_key_names_logs_in_elsewhere_and_goes_straight_on() {
    let Some(outside) = Outside::start() else { return };
    let mut world = plan(&outside).start();
    person(&outside, "4711", "zoe", &["Ops", "Admins", "Unknown"]);
    let first = Running::start(ssh(&world, "zoe", &["request web-1/shell --for 10m --reason look"]));
    log_in(&outside, &first, "4711");
    first.finish(PATIENCE).ok();
    // The key is theirs for a day: nothing is asked again, also after a restart.
    assert_eq!(world.exec("mallory", "id -un").ok().out(), "deploy");
    world.restart_gateway();
    let me = world.control("mallory", &["whoami"]).ok().out();
    assert!(me.contains("zoe") && me.contains("sre") && !me.contains("platform"), "a role comes by no login: {me}");
    let ledger = world.gateway.ledger();
    assert_eq!(ledger.one("guest.arrived")["detail"]["subject"], "4711");
    assert_eq!(ledger.one("key.lent")["identity"], "zoe");
    // A reload that takes the group away ends what it gave.
    let ssh = world.ssh_start("mallory", "deploy@web-1", &["echo in; cat"]);
    ssh.until_stdout("in", PATIENCE);
    world.gateway.cli(&["user", "end", "zoe"]).ok();
    ssh.finish(PATIENCE).exited(1);
    world.control("mallory", &["whoami"]).exited(255);
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_key_that_is_known_is_not_asked_to_log_in_and_an_agent_full_of_others_may() {
    let Some(outside) = Outside::start() else { return };
    let world = plan(&outside).start();
    person(&outside, "4711", "zoe", &["Ops"]);
    let keys: Vec<String> = (0..8).map(|n| format!("extra-{n}")).collect();
    let mut options = vec!["-o".to_owned(), "BatchMode=no".to_owned()];
    for key in &keys {
        tidegate_tests::sshd::keygen(&world.client_file(key));
        options.extend(["-i".to_owned(), world.client_file(key).display().to_string()]);
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let known = Running::start(world.ssh_command("alice", &options, "alice", &["whoami"])).finish(PATIENCE).ok();
    assert!(known.out().contains("alice") && !known.err().contains("To log in"), "{}", known.err());
    let unknown = Running::start(world.ssh_command("mallory", &options, "zoe", &["whoami"]));
    log_in(&outside, &unknown, "4711");
    assert!(unknown.finish(PATIENCE).ok().out().contains("zoe"));
    assert_eq!(world.gateway.ledger().count("key.lent"), 1);
    // A script asks nobody: BatchMode answers no questions, and hears that its key opens nothing.
    world.control("bob", &["whoami"]).ok();
    world.ssh("extra-7", "zoe", &["whoami"]).exited(255);
}

/// What somebody hears who logs in as this, and is not let in.
fn turned_away(outside: &Outside, world: &World, login: &str) -> String {
    let ssh = Running::start(ssh(world, "zoe", &["whoami"]));
    log_in(outside, &ssh, login);
    ssh.finish(PATIENCE).exited(255).err()
}

#[test]
fn whom_the_provider_names_is_nobody_here_unless_the_configuration_maps_them() {
    let Some(outside) = Outside::start() else { return };
    let mut world = plan(&outside).start();
    for (login, name, groups, why) in [
        ("1", "alice", &["Ops"][..], "the configuration names a user alice"),
        ("2", "Zoe Smith", &["Ops"], "is no name here"),
        ("3", "zoe", &["Unknown"], "none of your groups there is one here"),
        ("4", "zoe", &[], "none of your groups there is one here"),
    ] {
        person(&outside, login, name, groups);
        let heard = turned_away(&outside, &world, login);
        assert!(heard.contains(why), "{name}: {heard}");
    }
    assert_eq!(world.gateway.ledger().count("guest.arrived"), 0);
    // A name is one person's, and a person has one name.
    person(&outside, "5", "zoe", &["Ops"]);
    let first = Running::start(ssh(&world, "zoe", &["whoami"]));
    log_in(&outside, &first, "5");
    first.finish(PATIENCE).ok();
    world.gateway.cli(&["user", "end", "zoe"]).ok();
    person(&outside, "6", "zoe", &["Ops"]);
    assert!(turned_away(&outside, &world, "6").contains("somebody else's here, for ever"));
    person(&outside, "5", "zoe2", &["Ops"]);
    assert!(turned_away(&outside, &world, "5").contains("nobody has two names"));
    // The configuration ties a login to a user of its own: they are that user, with the groups of the configuration.
    world.config.change("name = \"alice\"", "name = \"alice\"\noidc = \"1\"");
    world.gateway.configure(&world.config);
    world.gateway.cli(&["reload"]).ok();
    person(&outside, "1", "somebody", &[]);
    let tied = Running::start(ssh(&world, "alice", &["whoami"]));
    log_in(&outside, &tied, "1");
    let me = tied.finish(PATIENCE).ok().out();
    assert!(me.contains("alice") && me.contains("dba"), "{me}");
    world.gateway.verify_ledger().ok();
}

#[test]
fn a_provider_that_is_down_keeps_nobody_with_a_key_out_and_lets_nobody_else_in() {
    let Some(mut outside) = Outside::start() else { return };
    let world = plan(&outside).start();
    outside.stop();
    let down = Running::start(ssh(&world, "zoe", &["whoami"])).finish(PATIENCE).exited(255);
    assert!(down.err().contains("nobody can log in by the OpenID provider now"), "{}", down.err());
    world.control("alice", &["whoami"]).ok();
    outside.restart();
    person(&outside, "4711", "zoe", &["Ops"]);
    let back = Running::start(ssh(&world, "zoe", &["whoami"]));
    log_in(&outside, &back, "4711");
    back.finish(PATIENCE).ok();
    // A group that they lost there is lost here with their next login.
    world.gateway.cli(&["user", "end", "zoe"]).ok();
    person(&outside, "4711", "zoe", &["Sales"]);
    let moved = Running::start(ssh(&world, "zoe", &["targets"]));
    log_in(&outside, &moved, "4711");
    assert_eq!(moved.finish(PATIENCE).ok().out(), "");
}

#[test]
fn a_provider_that_says_it_is_another_one_is_not_believed() {
    let Some(outside) = Outside::start() else { return };
    // The same server, by an address that it does not call itself by.
    let named = format!("issuer = \"http://127.0.0.1:{}\"", outside.provider);
    let called = format!("issuer = \"http://127.0.0.1:{}/\"", outside.provider);
    let world = plan(&outside).change(&named, &called).start();
    let refused = Running::start(ssh(&world, "zoe", &["whoami"])).finish(PATIENCE).exited(255);
    assert!(refused.err().contains("nobody can log in by the OpenID provider now"), "{}", refused.err());
    let log = world.gateway.log();
    assert!(log.contains("OpenID provider cannot be asked"), "{log}");
}

#[test]
fn nobody_waits_for_ever_nor_in_numbers() {
    let Some(outside) = Outside::start() else { return };
    let world = plan(&outside).start();
    let waiting: Vec<Running> = (0..4).map(|_| Running::start(ssh(&world, "zoe", &["whoami"]))).collect();
    waiting.iter().for_each(|ssh| drop(invitation(ssh)));
    let fifth = Running::start(ssh(&world, "zoe", &["whoami"])).finish(PATIENCE).exited(255);
    assert!(fifth.err().contains("too many logins are awaited"), "{}", fifth.err());
    world.control("alice", &["whoami"]).ok();
}
