//! `[[inventory]]`: targets that somebody's program lists come, go, and fail to be listed, while sessions live.

use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};
use tidegate_tests::{Running, World, wait_until, world::PATIENCE};

/// A world whose SSH target is listed by a program that prints a file, or fails if there is none.
struct Listed {
    world: World,
    file: PathBuf,
}

impl Listed {
    fn start() -> Self {
        let mut world = World::ssh_only();
        let dir = world.gateway.dir().to_owned();
        let program = dir.join("lister");
        // What is half written is not read: the file is put in its place whole.
        fs::write(&program, "#!/bin/sh\n[ -f \"$1\" ] || { echo 'no such cloud' >&2; exit 7; }\nexec cat \"$1\"\n")
            .unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let listed = dir.join("listed.json");
        put(&listed, &[target(&world, "web-1"), other("web-7"), other("web-8"), other("web-9")]);
        world.config.without("name = \"web-1\"");
        world
            .config
            .block("[[inventory]]\nname = \"cloud\"\ncommand = [\"./lister\", \"listed.json\"]\nevery = \"1s\"\n");
        world.gateway.configure(&world.config);
        let said = world.gateway.cli(&["reload"]).ok().out();
        assert!(said.contains("target[web-7]: new"), "{said}");
        world.gateway.grant("alice", "web-1", "shell", "30m");
        Self { world, file: listed }
    }

    /// What the program prints from now on, and waits until that is in force.
    fn lists(&self, targets: &[Value]) {
        let before = self.world.gateway.ledger().count("config.reloaded");
        put(&self.file, targets);
        self.world.gateway.until_ledger("config.reloaded", before + 1, PATIENCE);
    }

    /// Waits until `status` says this of the inventory.
    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        wait_until(PATIENCE, what, || {
            let status = self.world.gateway.json(&["status"]);
            let inventory = status["inventories"].as_array()?.first()?.clone();
            holds(&inventory).then_some(inventory)
        })
    }

    fn inside(&self) -> Running {
        let shell = self.world.ssh_start("alice", "deploy@web-1", &["echo in; cat"]);
        shell.until_stdout("in", PATIENCE);
        shell
    }
}

fn put(file: &Path, targets: &[Value]) {
    let new = file.with_extension("new");
    fs::write(&new, json!({ "targets": targets }).to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

/// The world's target, as a program lists it.
fn target(world: &World, name: &str) -> Value {
    let address = format!("127.0.0.1:{}", world.sshd().port());
    json!({ "name": name, "kind": "ssh", "address": address, "host_key": world.sshd().host_key(), "labels": { "env": "prod" } })
}

/// A host that is nowhere.
fn other(name: &str) -> Value {
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILIG2T/B0l0gaqj3puu510tu9N1OkQ4znY3LYuEm5zCF";
    json!({ "name": name, "kind": "ssh", "address": "192.0.2.1:22", "host_key": key })
}

#[test]
fn a_target_that_is_no_longer_listed_ends_its_sessions_with_a_sentence_and_its_leases_are_torn_down() {
    let listed = Listed::start();
    let shell = listed.inside();
    listed.lists(&[other("web-7"), other("web-8"), other("web-9")]);
    shell.end(PATIENCE).exited(1).says("configuration");
    listed.world.gateway.until_no_lease(PATIENCE);
    let ledger = listed.world.gateway.ledger();
    assert_eq!(ledger.count("lease.closed"), 1, "by a receipt of the target that is no longer listed");
    let reloaded = ledger.last("config.reloaded").unwrap()["detail"].clone();
    assert_eq!(reloaded["by"], "inventory[cloud]");
    assert_eq!(reloaded["ends"].as_array().unwrap().len(), 1);
    listed.world.exec("alice", "true").exited(1);
    listed.lists(&[target(&listed.world, "web-1"), other("web-7"), other("web-8")]);
    assert_eq!(listed.world.exec("alice", "echo back").ok().out(), "back");
}

#[test]
fn a_target_does_not_come_back_as_another_server_while_a_lease_of_it_is_open() {
    let mut listed = Listed::start();
    let shell = listed.inside();
    listed.world.sshd_mut().stop(); // its lease cannot be closed
    listed.lists(&[other("web-7"), other("web-8"), other("web-9")]);
    drop(shell);
    assert!(!listed.world.gateway.list(&["lease", "list"]).is_empty());
    put(&listed.file, &[other("web-1"), other("web-7"), other("web-8"), other("web-9")]);
    let says = "target[web-1] cannot change while 1 lease(s) are open on web-1";
    listed.until(says, |inventory| inventory["fault"].as_str().is_some_and(|fault| fault.contains(says)));
    listed.lists(&[target(&listed.world, "web-1"), other("web-7"), other("web-8"), other("web-9")]);
    listed.world.sshd_mut().start();
    listed.world.gateway.until_no_lease(PATIENCE);
}

#[test]
fn a_program_that_fails_keeps_what_it_listed_last_and_status_says_so_over_a_restart_too() {
    let mut listed = Listed::start();
    let shell = listed.inside();
    fs::remove_file(&listed.file).unwrap();
    let seen = listed.until("status shows that it fails", |inventory| inventory["fault"].is_string());
    assert!(seen["fault"].as_str().unwrap().contains("no such cloud"), "{seen}");
    assert_eq!(seen["targets"], 4);
    let said = listed.world.gateway.cli(&["status"]).ok().out();
    assert!(said.contains("inventory      cloud: 4 target(s)") && said.contains("no such cloud"), "{said}");
    assert!(listed.world.gateway.log().contains("what it listed last stays in force"));
    assert_eq!(listed.world.exec("alice", "echo still").ok().out(), "still");
    drop(shell);
    listed.world.gateway.until_no_lease(PATIENCE);

    listed.world.restart_gateway();
    assert_eq!(listed.world.exec("alice", "echo again").ok().out(), "again");
    assert!(listed.world.gateway.cli(&["target", "trust", "web-1", "--part", "ca"]).ok().out().contains("ssh-ed25519"));
    put(&listed.file, &[target(&listed.world, "web-1"), other("web-7"), other("web-8"), other("web-9")]);
    listed.until("it is read again", |inventory| inventory["fault"].is_null());
}

#[test]
fn a_listing_with_a_fault_or_without_half_of_what_was_there_changes_nothing() {
    let listed = Listed::start();
    let shell = listed.inside();
    let mine = || target(&listed.world, "web-1");
    let mut twice = other("web-7");
    twice["host_key"] = json!("ssh-ed25519 AAAA");
    for (targets, says) in [
        (
            vec![mine(), twice, other("web-8"), other("web-9")],
            "inventory[cloud]: target[web-7].host_key: is not an OpenSSH public key",
        ),
        (
            vec![mine(), other("web-7"), other("web-7"), other("web-8")],
            "is the name of another target already (inventory[cloud])",
        ),
        (vec![], "4 of 4 targets are not listed any more"),
        (vec![mine()], "3 of 4 targets are not listed any more"),
    ] {
        put(&listed.file, &targets);
        listed.until(says, |inventory| inventory["fault"].as_str().is_some_and(|fault| fault.contains(says)));
    }
    fs::write(&listed.file, r#"{"targets": [], "users": [{"name": "eve"}]}"#).unwrap();
    listed.until("it lists users", |inventory| {
        inventory["fault"].as_str().is_some_and(|f| f.contains("unknown field `users`"))
    });
    assert_eq!(listed.world.exec("alice", "echo still").ok().out(), "still");
    assert_eq!(listed.world.gateway.ledger().count("config.reloaded"), 1, "only the first");

    put(&listed.file, &[other("web-7")]);
    let said = listed.world.gateway.cli(&["reload"]).ok().out();
    assert!(said.contains("target[web-1]: gone") && said.contains("1 live session(s) ended"), "{said}");
    shell.end(PATIENCE).exited(1).says("configuration");
}

#[test]
fn a_half_edited_file_does_not_come_into_force_by_an_inventory() {
    let mut listed = Listed::start();
    let before = listed.world.config.clone();
    listed.world.config.without("name = \"shell\"");
    listed.world.gateway.configure(&listed.world.config);
    listed.lists(&[target(&listed.world, "web-1"), other("web-7"), other("web-8"), other("web-10")]);
    assert_eq!(listed.world.exec("alice", "echo still").ok().out(), "still", "nobody has asked for a reload");
    listed.world.gateway.configure(&before);
    assert!(listed.world.gateway.cli(&["config", "diff"]).ok().out().contains("a reload would change nothing"));
}

#[test]
fn the_files_of_a_directory_are_an_inventory_and_included_files_are_seen_by_a_reload() {
    let mut world = World::ssh_only();
    let dir = world.gateway.dir().to_owned();
    for folder in ["found", "more.d"] {
        fs::create_dir(dir.join(folder)).unwrap();
    }
    let file = world.config.clone().without("name = \"web-1\"").clone();
    let web = world.config.text().replace(&file.text(), "");
    let web = format!(
        "[[target]]\nname = \"web-1\"{}",
        web.split_once("name = \"web-1\"").unwrap().1.split("\n\n").next().unwrap()
    );
    fs::write(dir.join("found/web.toml"), &web).unwrap();
    let shell = "[[entitlement]]\nname = \"shell\"\ngroups = [\"sre\"]\ntargets = [\"web-1\"]\nlogins = [\"deploy\"]\nmax_duration = \"1h\"\n";
    fs::write(dir.join("more.d/shell.toml"), shell).unwrap();
    world.config.without("name = \"web-1\"").without("name = \"shell\"");
    world.config.change("version = 1\n", "version = 1\ninclude = [\"more.d/*.toml\"]\n");
    world.config.block("[[inventory]]\nname = \"rack\"\ndirectory = \"found\"\nevery = \"1s\"\n");
    world.gateway.configure(&world.config);
    world.gateway.cli(&["check", "--inventory"]).ok();
    world.gateway.cli(&["reload"]).ok();
    world.gateway.grant("alice", "web-1", "shell", "30m");
    assert_eq!(world.exec("alice", "echo in").ok().out(), "in");

    fs::write(dir.join("more.d/shell.toml"), shell.replace("\"1h\"", "\"2h\"")).unwrap();
    let said = world.gateway.cli(&["config", "diff"]).ok().out();
    assert!(said.contains("entitlement[shell].max_duration: \"1h\" becomes \"2h\""), "{said}");
    fs::write(dir.join("more.d/shell.toml"), shell.replace("logins", "login")).unwrap();
    world.gateway.cli(&["reload"]).exited(1).says("more.d/shell.toml:5:1: entitlement[shell].login: unknown key");
    fs::write(dir.join("more.d/shell.toml"), shell).unwrap();
    world.gateway.cli(&["reload"]).ok();
    fs::write(dir.join("found/web.toml"), web.replace("host_key", "hostkey")).unwrap();
    wait_until(PATIENCE, "status names the file", || {
        let status = world.gateway.json(&["status"]);
        let fault = status["inventories"][0]["fault"].as_str()?.to_owned();
        fault.contains("found/web.toml:").then_some(())
    });
    assert_eq!(world.exec("alice", "echo still").ok().out(), "still");
}
