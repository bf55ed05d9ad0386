//! `tidegate target add` and `user add`: what is written is in force after a reload, and nothing is trusted unseen.

use std::{fs, process::Command};
use tidegate_tests::{Output, Running, World, world::PATIENCE};

fn text(world: &World) -> String {
    fs::read_to_string(world.gateway.dir().join("tidegate.toml")).unwrap()
}

/// The world's SSH target once more, under another name.
fn add(world: &World, more: &[&str]) -> Output {
    let address = format!("127.0.0.1:{}", world.sshd().port());
    let args = ["target", "add", "web-2", "ssh", &address, "--label", "env=prod"];
    world.gateway.cli(&[&args[..], more].concat())
}

/// The same at a terminal, where a person answers.
fn add_at_a_terminal(world: &World, answer: &str) -> Running {
    let address = format!("127.0.0.1:{}", world.sshd().port());
    let command = world.gateway.command(&["target", "add", "web-2", "ssh", &address]);
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<String> = words.map(|word| format!("{{{}}}", word.to_string_lossy())).collect();
    let script = format!(
        "set timeout 40\nspawn -noecho {}\nexpect_before timeout {{ puts stderr TIMEOUT; exit 9 }}\nexpect {{or the fingerprint: }}\nsend \"{answer}\\r\"\nexpect eof\nexit [lindex [wait] 3]\n",
        words.join(" ")
    );
    let mut expect = Command::new("expect");
    let known = command.get_envs().filter_map(|(name, value)| Some((name, value?)));
    expect.args(["-c", &script]).envs(known).env("TERM", "xterm");
    Running::start(expect)
}

/// As `ssh-keygen -lf` prints it.
fn fingerprint(world: &World) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(world.sshd().etc().join("host_key.pub")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn a_host_key_is_written_only_on_a_persons_yes_or_by_its_fingerprint() {
    let world = World::ssh_only();
    let before = text(&world);
    add(&world, &[]).exited(1).says("nobody is at a terminal to compare the host key");
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    add(&world, &["--fingerprint", other]).exited(1).says(&fingerprint(&world));
    for answer in ["no", "y", "", other] {
        let ended = add_at_a_terminal(&world, answer).finish(PATIENCE).exited(1);
        assert!(ended.out().contains("nothing was written"), "{}", ended.out());
    }
    assert_eq!(text(&world), before, "nothing was trusted, nothing was written");

    let said = add_at_a_terminal(&world, "yes").finish(PATIENCE).ok();
    assert!(said.out().contains(&fingerprint(&world)), "it is shown before it is asked for: {}", said.out());
    let entry = format!("host_key = \"{}\"", world.sshd().host_key());
    assert_eq!(text(&world).matches(&entry).count(), 2);
    add(&world, &["--fingerprint", &fingerprint(&world)]).exited(1).says("there is a target web-2 already");
}

#[test]
fn what_is_added_works_after_a_reload() {
    let world = World::ssh_only();
    let before = text(&world);
    let said = add(&world, &["--fingerprint", &fingerprint(&world)]).ok();
    assert!(said.out().contains("tidegate target trust web-2"), "{}", said.out());
    let key = fs::read_to_string(world.client_file("mallory").with_extension("pub")).unwrap();
    let add_dora = ["user", "add", "dora", "--ssh-key", "-", "--groups", "sre,dba"];
    world.gateway.cli_with(&add_dora, &key).ok();
    let after = text(&world);
    for line in before.lines() {
        assert!(after.contains(line), "{line}");
    }
    assert!(world.gateway.cli(&["reload"]).ok().out().contains("user[dora]: new"));
    assert!(world.control("mallory", &["whoami"]).ok().out().contains("dora"));
    world.gateway.grant("dora", "web-2", "shell", "30m");
    // The host trusts certificates for deploy@web-1 only: that it refuses them for web-2 shows that it proved itself.
    world.ssh("mallory", "deploy@web-2", &["true"]).exited(1).says("web-2");
    assert!(world.gateway.log().contains("did not accept a certificate of our SSH user CA for the login deploy"));
}

#[test]
fn what_check_would_refuse_is_not_written() {
    let world = World::start();
    let before = text(&world);
    let alice = world.client_file("alice").with_extension("pub");
    let said = world.gateway.cli(&["user", "add", "dora", "--ssh-key", alice.to_str().unwrap()]).exited(1);
    let said = said.says("is a login key already").says("nothing was written");
    assert!(said.err().contains("tidegate.toml:"), "{}", said.err());
    world.gateway.cli(&["user", "add", "alice"]).exited(1).says("there is a user alice already");
    let private = world.client_file("alice");
    world.gateway.cli(&["user", "add", "dora", "--ssh-key", private.to_str().unwrap()]).exited(1).says("private key");
    world.gateway.cli(&["target", "add", "db-2", "postgres", "db-2"]).exited(1).says("--tls-ca FILE is missing");
    let host = ["target", "add", "web-2", "ssh", "web-2", "--host-key", "ssh-ed25519 AAAA"];
    world.gateway.cli(&host).exited(1).says("is not an OpenSSH public key");
    assert_eq!(text(&world), before);

    let ca = world.pg().tls_ca();
    world.gateway.cli(&["target", "add", "db-2", "postgres", "db-2", "--tls-ca", ca.to_str().unwrap()]).ok();
    assert!(text(&world).contains("address = \"db-2:5432\""));
    let said = world.gateway.cli(&["check"]).ok().out();
    assert!(said.contains("target[db-2]: no entitlement reaches it"), "{said}");
}
